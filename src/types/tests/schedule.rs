use serde_json::{Value, json};

use super::super::{Kind, schedule};

fn read(given: &Value, update: bool) -> Value {
    match schedule(&given.to_string(), update) {
        Ok(text) => serde_json::from_str(&text).unwrap(),
        Err(error) => panic!("{error}: {given}"),
    }
}

#[test]
fn a_schedule_is_normalised() {
    let given = json!({
        "customer": { "id": "acme" }, "start_date": 1735689600, "end_behavior": "cancel",
        "default_settings": { "collection_method": "send_invoice", "invoice_settings": { "days_until_due": 7 } },
        "phases": [
            { "items": [{ "price": "a", "quantity": 2 }], "iterations": 2, "trial": true },
            { "items": [{ "price": "b" }], "duration": { "interval": "month" }, "billing_cycle_anchor": "phase_start" },
            { "items": [{ "price": "b" }], "end_date": 1767225600, "discounts": [{ "coupon": "half" }] },
        ],
    });
    assert_eq!(
        read(&given, false),
        json!({
            "customer": "acme", "start_date": "2025-01-01T00:00:00Z", "end_behavior": "cancel",
            "default_settings": { "collection_method": "send_invoice", "days_until_due": 7 },
            "phases": [
                { "items": [{ "price": "a", "quantity": 2 }], "iterations": 2, "trial": true },
                { "items": [{ "price": "b" }], "duration": { "interval": "month", "interval_count": 1 },
                  "billing_cycle_anchor": "phase_start" },
                { "items": [{ "price": "b" }], "end_date": "2026-01-01T00:00:00Z", "discounts": [{ "coupon": "half" }] },
            ],
        })
    );
    assert_eq!(
        read(&json!({ "from_subscription": "sub_1" }), false),
        json!({ "from_subscription": "sub_1" })
    );
    assert_eq!(
        read(&json!({ "end_behavior": "release" }), true),
        json!({ "end_behavior": "release" })
    );
}

#[test]
fn contradictions_are_refused() {
    let phases = |phase: Value| json!({ "customer": "acme", "phases": [phase] });
    let items = json!([{ "price": "a" }]);
    for (given, kind, words) in [
        (json!({ "customer": "acme" }), Kind::Invalid, "\"phases\": is required"),
        (
            json!({ "phases": [{ "items": items }] }),
            Kind::Invalid,
            "\"customer\": is required",
        ),
        (
            json!({ "from_subscription": "sub_1", "customer": "acme" }),
            Kind::Invalid,
            "\"customer\", value \"acme\": must not be given together with from_subscription",
        ),
        (
            json!({ "customer": "acme", "phases": [] }),
            Kind::Invalid,
            "\"phases\": must have 1 to 10 phases, not 0",
        ),
        (
            phases(json!({})),
            Kind::Invalid,
            "\"phases[0].items\": must have at least one item",
        ),
        (
            phases(json!({ "items": items, "iterations": 1, "end_date": 5 })),
            Kind::Invalid,
            "\"phases[0].iterations\", value 1: must not be given together with another end of the phase",
        ),
        (
            phases(json!({ "items": items, "trial": true, "trial_end": 5 })),
            Kind::Invalid,
            "\"phases[0].trial_end\", value 5: must not be given together with trial",
        ),
        (
            phases(json!({ "items": items, "duration": { "interval": "year", "interval_count": 4 } })),
            Kind::Invalid,
            "\"phases[0].duration.interval_count\", value 4: must be from 1 to 3",
        ),
        (
            phases(json!({ "items": items, "add_invoice_items": [{ "price": "b" }] })),
            Kind::NotSupported,
            "\"phases[0].add_invoice_items\", value [{\"price\":\"b\"}]: is not supported yet",
        ),
    ] {
        let error = schedule(&given.to_string(), false).unwrap_err();
        assert_eq!(
            (error.to_string(), error.kind),
            (format!("invalid subscription schedule: field {words}"), kind),
            "{given}"
        );
    }
}
