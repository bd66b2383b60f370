//! Coupons, tax rates and credit grants: as Stripe returns them, as they are asked for, and refused.

use serde_json::{Value, json};

use super::super::{Invalid, Kind, coupon, credit_grant, credit_grant_changes, tax_rate};
use super::with;

type Read = fn(&str) -> Result<Value, Invalid>;

/// The normalised object; normalised again it stays as it is.
fn normalised(read: Read, object: &Value) -> Value {
    let value = read(&object.to_string()).unwrap_or_else(|error| panic!("{error}: {object}"));
    assert_eq!(read(&value.to_string()).as_ref(), Ok(&value), "{object}");
    value
}

fn returned_coupon() -> Value {
    json!({
        "id": "Z4OV52SU", "object": "coupon", "amount_off": null, "created": 1678037688, "currency": null, "duration": "repeating",
        "duration_in_months": 3, "livemode": false, "max_redemptions": null, "metadata": {}, "name": "25.5% off",
        "percent_off": 25.5, "redeem_by": null, "times_redeemed": 0, "valid": true,
    })
}

fn returned_grant() -> Value {
    json!({
        "id": "credgr_test_61R9", "object": "billing.credit_grant",
        "amount": {"monetary": {"currency": "usd", "value": 1000}, "type": "monetary"},
        "applicability_config": {"scope": {"price_type": "metered"}}, "category": "paid", "created": 1726620803,
        "customer": "cus_QrvQguzkIK8zTj", "customer_account": null, "effective_at": 1729297860, "expires_at": null,
        "livemode": false, "metadata": {}, "name": "Purchased Credits", "priority": 50, "test_clock": null,
        "updated": 1726620803, "voided_at": null,
    })
}

#[test]
fn what_stripe_returned_is_read_as_it_stands() {
    assert_eq!(
        normalised(coupon, &returned_coupon()),
        json!({"id": "Z4OV52SU", "duration": "repeating", "duration_in_months": 3, "name": "25.5% off", "percent_off": "25.5"})
    );
    let rate = json!({
        "id": "txr_1MnyuqLkdIwHu7ixLdSiPwXg", "object": "tax_rate", "active": true, "country": null, "created": 1679412456,
        "description": "VAT Germany", "display_name": "VAT", "effective_percentage": null, "flat_amount": null,
        "inclusive": false, "jurisdiction": "DE", "jurisdiction_level": null, "livemode": false, "metadata": {},
        "percentage": 16.0, "rate_type": "percentage", "state": null, "tax_type": null,
    });
    assert_eq!(
        normalised(tax_rate, &rate),
        json!({"id": "txr_1MnyuqLkdIwHu7ixLdSiPwXg", "active": true, "description": "VAT Germany", "display_name": "VAT",
               "inclusive": false, "jurisdiction": "DE", "percentage": "16"})
    );
    assert_eq!(
        normalised(credit_grant, &returned_grant()),
        json!({"id": "credgr_test_61R9", "amount": {"monetary": {"currency": "usd", "value": 1000}, "type": "monetary"},
               "applicability_config": {"scope": {"price_type": "metered"}}, "category": "paid", "customer": "cus_QrvQguzkIK8zTj",
               "effective_at": "2024-10-19T00:31:00Z", "name": "Purchased Credits", "priority": 50})
    );
}

#[test]
fn defaults_are_said() {
    assert_eq!(
        normalised(
            coupon,
            &json!({"amount_off": 500, "currency": "USD", "metadata": {"a": "b"},
            "currency_options": {"usd": {"amount_off": 500}, "EUR": {"amount_off": 400}}})
        ),
        json!({"amount_off": 500, "currency": "usd", "currency_options": {"eur": {"amount_off": 400}}, "duration": "once",
               "metadata": {"a": "b"}})
    );
    let asked = with(
        &returned_grant(),
        json!({"category": null, "priority": null, "object": null, "id": null, "name": null,
        "effective_at": null, "customer": {"id": "cus_1", "object": "customer"}}),
    );
    let grant = normalised(credit_grant, &asked);
    assert_eq!(
        (&grant["category"], &grant["priority"], &grant["customer"]),
        (&json!("paid"), &json!(50), &json!("cus_1"))
    );
}

#[test]
fn what_may_change_of_a_grant_tells_never_from_unsaid() {
    let changes = |object: Value| normalised(credit_grant_changes, &object);
    assert_eq!(changes(json!({})), json!({}));
    assert_eq!(changes(json!({"expires_at": null})), json!({"expires_at": null}));
    assert_eq!(
        changes(json!({"expires_at": 0, "metadata": {"a": ""}})),
        json!({"expires_at": "1970-01-01T00:00:00Z", "metadata": {"a": ""}})
    );
    assert_eq!(
        credit_grant_changes(r#"{"priority": 1}"#).unwrap_err().field,
        "priority"
    );
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let units = json!({"type": "monetary", "custom_pricing_unit": {"id": "cpu_1", "value": "5"}});
    let items = json!({"scope": {"billable_items": [{"id": "bi_1"}]}});
    let script = json!({"script": {"configuration": {}, "id": "scr_1"}, "percent_off": 5});
    let cases: [(Read, Value, &str); 3] = [
        (coupon, script, "script"),
        (
            credit_grant,
            with(&returned_grant(), json!({"amount": units})),
            "amount.custom_pricing_unit",
        ),
        (
            credit_grant,
            with(&returned_grant(), json!({"applicability_config": items})),
            "applicability_config.scope.billable_items",
        ),
    ];
    for (read, object, field) in cases {
        let refusal = read(&object.to_string()).unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.field.as_str()),
            (Kind::NotSupported, field),
            "{refusal}"
        );
    }
}

#[test]
fn the_kind_of_an_object_is_its_own() {
    for read in [coupon as Read, tax_rate, credit_grant] {
        let refusal = read(r#"{"object": "price"}"#).unwrap_err();
        assert_eq!((refusal.kind, refusal.field.as_str()), (Kind::Invalid, "object"));
        assert_eq!(read("[]").unwrap_err().kind, Kind::Malformed);
        let twice = read(r#"{"metadata": {}, "metadata": {}}"#).unwrap_err();
        assert!(twice.rule.contains("given twice"), "{twice}");
    }
}
