use serde_json::{Value, json};

use super::super::{Kind, changes};

fn read(given: &Value) -> Value {
    match changes(&given.to_string()) {
        Ok(text) => serde_json::from_str(&text).unwrap(),
        Err(error) => panic!("{error}: {given}"),
    }
}

#[test]
fn changes_are_normalised() {
    let given = json!({
        "items": [
            { "id": "si_1", "price": { "id": "pro" }, "quantity": 3, "metadata": { "a": "b", "c": "" }, "clear_usage": true },
            { "id": "si_2", "deleted": true },
            { "price": "calls", "billing_thresholds": { "usage_gte": 5 }, "tax_rates": [{ "id": "txr_1" }] },
        ],
        "proration_date": 1735689600, "trial_end": "now", "billing_cycle_anchor": "unchanged", "cancel_at": 1738281600,
        "metadata": { "old": null, "new": "x" }, "payment_settings": { "save": true },
    });
    assert_eq!(
        read(&given),
        json!({
            "items": [
                { "id": "si_1", "price": "pro", "quantity": 3, "metadata": { "a": "b", "c": null } },
                { "id": "si_2", "deleted": true },
                { "price": "calls", "billing_thresholds": { "usage_gte": 5 }, "tax_rates": ["txr_1"] },
            ],
            "proration_date": "2025-01-01T00:00:00Z", "trial_end": "now", "billing_cycle_anchor": "unchanged",
            "cancel_at": "2025-01-31T00:00:00Z", "metadata": { "old": null, "new": "x" },
        })
    );
    assert_eq!(read(&json!({})), json!({}));
}

/// Stripe clears a field by null or by an empty text; a list also by an empty one.
#[test]
fn what_is_cleared_is_null() {
    for field in [
        "billing_thresholds",
        "cancel_at",
        "days_until_due",
        "default_payment_method",
        "default_tax_rates",
        "description",
        "discounts",
        "metadata",
        "pause_collection",
    ] {
        for nothing in [json!(null), json!("")] {
            let given = json!({ field: nothing });
            assert_eq!(read(&given), json!({ field: null }), "{given}");
        }
    }
    assert_eq!(
        read(&json!({ "discounts": [], "default_tax_rates": [] })),
        json!({ "discounts": null, "default_tax_rates": null })
    );
}

#[test]
fn contradictions_are_refused() {
    for (given, kind, message) in [
        (
            json!([]),
            Kind::Malformed,
            "invalid changes, value []: must be a JSON object",
        ),
        (
            json!({ "seats": 5 }),
            Kind::Invalid,
            "invalid changes: field \"seats\", value 5: is not a field of the changes",
        ),
        (
            json!({ "items": [{ "quantity": 5 }] }),
            Kind::Invalid,
            "invalid changes: field \"items[0].price\": is required of an item without \"id\"",
        ),
        (
            json!({ "items": [{ "deleted": true }] }),
            Kind::Invalid,
            "invalid changes: field \"items[0].id\": is required to delete an item",
        ),
        (
            json!({ "items": [{ "id": "si_1", "deleted": true, "quantity": 2 }] }),
            Kind::Invalid,
            "invalid changes: field \"items[0].quantity\", value 2: must not be given of an item that is deleted",
        ),
        (
            json!({ "items": [{ "id": "si_1" }, { "id": "si_1" }] }),
            Kind::Invalid,
            "invalid changes: field \"items[1].id\", value \"si_1\": is already the id of another item",
        ),
        (
            json!({ "items": [{ "id": "si_1", "quantity": -1 }] }),
            Kind::Invalid,
            "invalid changes: field \"items[0].quantity\", value -1: must not be negative",
        ),
        (
            json!({ "proration_date": 5, "proration_behavior": "none" }),
            Kind::Invalid,
            "invalid changes: field \"proration_date\", value 5: must not be given together with proration_behavior \"none\"",
        ),
        (
            json!({ "cancel_at": 5, "cancel_at_period_end": true }),
            Kind::Invalid,
            "invalid changes: field \"cancel_at_period_end\", value true: must not be given together with cancel_at",
        ),
        (
            json!({ "add_invoice_items": [{ "price": "a" }] }),
            Kind::NotSupported,
            "invalid changes: field \"add_invoice_items\", value [{\"price\":\"a\"}]: is not supported yet",
        ),
        (
            json!({ "items": [{ "price_data": { "currency": "usd" } }] }),
            Kind::NotSupported,
            "invalid changes: field \"items[0].price_data\", value {\"currency\":\"usd\"}: is not supported yet",
        ),
        (
            json!({ "payment_behavior": "pending_if_incomplete" }),
            Kind::NotSupported,
            "invalid changes: field \"payment_behavior\", value \"pending_if_incomplete\": is not supported yet",
        ),
    ] {
        let error = changes(&given.to_string()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind), (message, kind), "{given}");
    }
    // Retired by Stripe: the hint says what has taken its place.
    for (field, instead) in [
        ("coupon", "\"discounts\""),
        ("promotion_code", "\"discounts\""),
        ("trial_from_plan", "\"trial_end\""),
    ] {
        let error = changes(&format!(r#"{{"{field}": "x"}}"#)).unwrap_err();
        assert_eq!(error.kind, Kind::NotSupported, "{field}");
        assert!(error.hint.is_some_and(|hint| hint.contains(instead)), "{field}");
    }
}
