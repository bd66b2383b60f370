//! Objects exactly as Stripe's API returns them.

use serde_json::Value;

use super::database;

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// As Stripe's API returns them: every field there, nulls, both forms of an amount.
fn returned() -> Vec<(&'static str, Value, Value)> {
    let tiered = object(
        r#"{
        "id": "price_1PzTiered", "object": "price", "active": true, "billing_scheme": "tiered", "created": 1726000000,
        "currency": "eur", "custom_unit_amount": null, "livemode": true, "lookup_key": "api-calls", "metadata": {"team": "core"},
        "nickname": "API calls", "product": "prod_Api",
        "recurring": {"interval": "month", "interval_count": 1, "meter": "mtr_test_1", "trial_period_days": null,
                      "usage_type": "metered"},
        "tax_behavior": "exclusive",
        "tiers": [
            {"flat_amount": 500, "flat_amount_decimal": "500", "unit_amount": 0, "unit_amount_decimal": "0", "up_to": 1000},
            {"flat_amount": null, "flat_amount_decimal": null, "unit_amount": null, "unit_amount_decimal": "0.125", "up_to": null}
        ],
        "tiers_mode": "graduated", "transform_quantity": null, "type": "recurring",
        "unit_amount": null, "unit_amount_decimal": null
    }"#,
    );
    let tiered_kept = object(
        r#"{
        "active": true, "billing_scheme": "tiered", "currency": "eur", "lookup_key": "api-calls", "nickname": "API calls",
        "product": "prod_Api",
        "recurring": {"interval": "month", "interval_count": 1, "meter": "mtr_test_1", "usage_type": "metered"},
        "tax_behavior": "exclusive", "tiers_mode": "graduated", "type": "recurring",
        "tiers": [{"flat_amount": 500, "unit_amount": 0, "up_to": 1000}, {"unit_amount_decimal": "0.125", "up_to": "inf"}]
    }"#,
    );
    let package = object(
        r#"{
        "id": "price_1PzPackage", "object": "price", "active": false, "billing_scheme": "per_unit", "created": 1726000001,
        "currency": "usd", "currency_options": {"usd": {"custom_unit_amount": null, "tax_behavior": "unspecified",
        "unit_amount": 400, "unit_amount_decimal": "400"}}, "custom_unit_amount": null, "livemode": false, "lookup_key": null,
        "metadata": {}, "nickname": null, "product": {"id": "prod_Pack", "object": "product", "name": "Packs"},
        "recurring": null, "tax_behavior": "unspecified", "tiers_mode": null,
        "transform_quantity": {"divide_by": 100, "round": "up"}, "type": "one_time",
        "unit_amount": 400, "unit_amount_decimal": "400"
    }"#,
    );
    let package_kept = object(
        r#"{
        "active": false, "billing_scheme": "per_unit", "currency": "usd", "product": "prod_Pack", "tax_behavior": "unspecified",
        "transform_quantity": {"divide_by": 100, "round": "up"}, "type": "one_time", "unit_amount": 400
    }"#,
    );
    let meter = object(
        r#"{
        "id": "mtr_test_1", "object": "billing.meter", "created": 1726000002, "livemode": false, "updated": 1726000003,
        "display_name": "API calls", "event_name": "api_calls", "event_time_window": null, "status": "active",
        "status_transitions": {"deactivated_at": null}, "default_aggregation": {"formula": "last"},
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "calls"}, "dimension_payload_keys": null
    }"#,
    );
    let meter_kept = object(
        r#"{
        "display_name": "API calls", "event_name": "api_calls", "default_aggregation": {"formula": "last"},
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "calls"}
    }"#,
    );
    let subscription = object(
        r#"{
        "id": "sub_1PzReturned", "object": "subscription", "application": null, "application_fee_percent": null,
        "automatic_tax": {"disabled_reason": null, "enabled": false, "liability": null},
        "billing_cycle_anchor": 1725148800, "billing_cycle_anchor_config": null, "billing_mode": {"type": "flexible"},
        "billing_thresholds": null, "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null,
        "cancellation_details": {"comment": null, "feedback": null, "reason": null},
        "collection_method": "charge_automatically", "created": 1725148800, "currency": "usd", "customer": "cus_Returned",
        "days_until_due": null, "default_payment_method": null, "default_source": null, "default_tax_rates": [],
        "description": null, "discounts": [], "ended_at": null, "invoice_settings": {"account_tax_ids": null,
        "issuer": {"type": "self"}},
        "items": {"object": "list", "has_more": false, "total_count": 1, "url": "/v1/subscription_items?subscription=sub_1PzReturned",
            "data": [{"id": "si_1", "object": "subscription_item", "billing_thresholds": null, "created": 1725148801,
                "current_period_end": 1727740800, "current_period_start": 1725148800, "discounts": [], "metadata": {},
                "plan": {"id": "price_seat", "object": "plan", "amount": 1500}, "price": {"id": "price_seat", "object": "price",
                "recurring": {"usage_type": "licensed"}}, "quantity": 3, "subscription": "sub_1PzReturned", "tax_rates": []}]},
        "latest_invoice": "in_1PzReturned", "livemode": false, "metadata": {"order": "77"}, "next_pending_invoice_item_invoice": null,
        "on_behalf_of": null, "pause_collection": null, "payment_settings": {"payment_method_options": null,
        "payment_method_types": null, "save_default_payment_method": "off"}, "pending_invoice_item_interval": null,
        "pending_setup_intent": null, "pending_update": null, "schedule": null, "start_date": 1725148800, "status": "active",
        "test_clock": null, "transfer_data": null, "trial_end": null, "trial_settings": {"end_behavior":
        {"missing_payment_method": "create_invoice"}}, "trial_start": null
    }"#,
    );
    let subscription_kept = object(
        r#"{
        "billing_cycle_anchor": "2024-09-01T00:00:00Z", "cancel_at_period_end": false,
        "collection_method": "charge_automatically", "currency": "usd", "customer": "cus_Returned",
        "items": [{"price": "price_seat", "quantity": 3}], "metadata": {"order": "77"},
        "proration_behavior": "create_prorations", "start_date": "2024-09-01T00:00:00Z"
    }"#,
    );
    vec![
        ("price", tiered, tiered_kept),
        ("price", package, package_kept),
        ("meter", meter, meter_kept),
        ("subscription", subscription, subscription_kept),
    ]
}

#[test]
fn objects_as_stripe_returns_them_cast_as_they_stand() {
    let (_database, mut client) = database();
    for (name, object, kept) in returned() {
        let sql = format!("SELECT $1::billing.{name}::jsonb, $2::text::billing.{name}::jsonb");
        let sql = sql.replacen("$1", "$1::jsonb", 1);
        let row = client.query_one(&sql, &[&object, &object.to_string()]).unwrap();
        assert_eq!(row.get::<_, Value>(0), kept);
        assert_eq!(row.get::<_, Value>(1), kept);
    }
}
