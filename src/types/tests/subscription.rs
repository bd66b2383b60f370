use serde_json::{Value, json};

use super::super::{CollectionMethod, Kind, ProrationBehavior, StripeObject, Subscription};
use super::{refusal, valid, with};

fn created() -> Value {
    json!({ "customer": "acme", "items": [{ "price": "price_seats", "quantity": 2 }, { "price": "price_calls" }] })
}

/// As the API returns it: every field there, prices expanded, items in a list.
fn returned() -> Value {
    serde_json::from_str(include_str!("returned_subscription.json")).unwrap()
}

#[test]
fn a_returned_subscription_is_read_as_it_stands() {
    let subscription: Subscription = valid(&returned());
    assert_eq!(subscription.refuse_unsupported(), Ok(()));
    assert_eq!(
        serde_json::from_str::<Value>(&subscription.to_json()).unwrap(),
        json!({
            "billing_cycle_anchor": "2025-01-31T00:00:00Z",
            "cancel_at_period_end": false,
            "collection_method": "send_invoice",
            "currency": "eur",
            "customer": "acme",
            "days_until_due": 30,
            "items": [
                { "metadata": { "team": "blue" }, "price": "price_seats", "quantity": 3 },
                { "price": "price_calls" },
            ],
            "metadata": { "crm": "17" },
            "proration_behavior": "create_prorations",
            "start_date": "2025-01-01T00:00:00Z",
            "trial_end": "2025-01-31T00:00:00Z",
        })
    );
}

#[test]
fn a_request_has_defaults() {
    let subscription: Subscription = valid(&created());
    assert_eq!(subscription.collection_method, CollectionMethod::ChargeAutomatically);
    assert_eq!(subscription.proration_behavior, ProrationBehavior::CreateProrations);
    let quantities: Vec<_> = subscription.items.iter().map(|item| item.quantity).collect();
    assert_eq!(quantities, [Some(2), None]);
    assert_eq!(
        subscription.to_json(),
        r#"{"cancel_at_period_end":false,"collection_method":"charge_automatically","customer":"acme","items":"#
            .to_owned()
            + r#"[{"price":"price_seats","quantity":2},{"price":"price_calls"}],"proration_behavior":"create_prorations"}"#
    );
}

#[test]
fn what_stripe_says_with_nothing_in_it_is_accepted_in_requests() {
    let nothing = json!({
        "add_invoice_items": [], "automatic_tax": { "enabled": false }, "billing_thresholds": "", "default_tax_rates": "",
        "discounts": [], "trial_from_plan": false, "pause_collection": "", "off_session": true,
        "trial_settings": { "end_behavior": { "missing_payment_method": "create_invoice" } }, "expand": ["latest_invoice"],
        "trial_end": "now",
    });
    assert_eq!(valid::<Subscription>(&with(&created(), nothing)), valid(&created()));
}

#[test]
fn times_come_as_unix_seconds_or_iso_and_go_as_iso() {
    for (given, printed) in [
        (json!(1738281600), "2025-01-31T00:00:00Z"),
        (json!("1738281600"), "2025-01-31T00:00:00Z"),
        (json!("2025-01-31T00:00:00Z"), "2025-01-31T00:00:00Z"),
        (json!("2025-01-31T01:30:00+01:30"), "2025-01-31T00:00:00Z"),
        (json!("2025-01-30 19:00:00.5-05:00"), "2025-01-31T00:00:00.500Z"),
        (json!("2025-01-31T00:00:00.000001Z"), "2025-01-31T00:00:00.000001Z"),
        (json!(0), "1970-01-01T00:00:00Z"),
        (json!(-1), "1969-12-31T23:59:59Z"),
        (json!(253402300799i64), "9999-12-31T23:59:59Z"),
        (json!("0001-01-01T00:00:00Z"), "0001-01-01T00:00:00Z"),
    ] {
        let subscription: Subscription = valid(&with(&created(), json!({ "billing_cycle_anchor": given })));
        let text: Value = serde_json::from_str(&subscription.to_json()).unwrap();
        assert_eq!(text["billing_cycle_anchor"], printed);
    }
}

#[test]
fn wrong_times_are_refused() {
    const FORM: &str = "must be unix seconds, or ISO 8601 with a time zone, such as 2024-01-31T00:00:00Z";
    const RANGE: &str = "must be in the years 1 to 9999";
    for (given, rule) in [
        (json!(1.5), FORM),
        (json!(true), FORM),
        (json!("2025-01-31"), FORM),
        (json!("2025-01-31T00:00:00"), FORM),
        (json!("2025-02-30T00:00:00Z"), FORM),
        (json!("now"), FORM),
        (json!("-"), FORM),
        (json!(253402300800i64), RANGE),
        (json!(i64::MAX), RANGE),
        (json!(u64::MAX), RANGE),
        (json!("99999999999999999999999"), RANGE),
        (json!(-62135596801i64), RANGE),
        (json!("2016-12-31T23:59:60Z"), "must not be a leap second"),
        (
            json!("2025-01-31T00:00:00.0000001Z"),
            "must not be finer than a microsecond",
        ),
    ] {
        let error = refusal::<Subscription>(&with(&created(), json!({ "start_date": given })));
        assert_eq!(
            error.to_string(),
            format!("invalid subscription: field \"start_date\", value {given}: {rule}")
        );
    }
}

#[test]
fn a_returned_anchor_configuration_that_repeats_the_anchor_says_nothing() {
    let config = |day| json!({ "billing_cycle_anchor_config": { "day_of_month": day, "hour": null, "minute": 0 } });
    assert_eq!(
        valid::<Subscription>(&with(&returned(), config(31))),
        valid(&returned())
    );
    // The anchor's day was cut to the length of its month, so that only the configuration tells the day meant.
    let cut: Subscription = valid(&with(
        &with(&returned(), config(31)),
        json!({ "billing_cycle_anchor": 1740700800 }),
    ));
    assert_eq!(cut.refuse_unsupported(), Ok(()));
    assert_eq!(
        cut.billing_cycle_anchor_config.map(|config| config.day_of_month),
        Some(31)
    );
    let error = refusal::<Subscription>(&with(
        &with(&created(), config(31)),
        json!({ "billing_cycle_anchor": 1740700800 }),
    ));
    assert_eq!(
        error.to_string(),
        "invalid subscription: field \"billing_cycle_anchor_config\", value {\"day_of_month\":31,\"hour\":null,\"minute\":0}: must \
         not be given together with billing_cycle_anchor"
    );
}

#[test]
fn a_returned_cancellation_at_the_end_of_the_period_says_when_that_is() {
    let object = with(
        &returned(),
        json!({ "cancel_at": 1740700800, "cancel_at_period_end": true }),
    );
    let subscription: Subscription = valid(&object);
    assert_eq!(
        (subscription.cancel_at, subscription.cancel_at_period_end),
        (None, true)
    );
}

#[test]
fn what_is_not_built_yet_is_refused_in_requests_and_kept_of_returned_objects() {
    for (field, value) in [
        ("add_invoice_items", json!([{ "price": "price_setup" }])),
        ("automatic_tax", json!({ "enabled": true })),
        ("billing_schedules", json!([{ "key": "a" }])),
        ("managed_payments", json!({ "enabled": true })),
        (
            "pending_invoice_item_interval",
            json!({ "interval": "week", "interval_count": 1 }),
        ),
        ("pending_update", json!({ "expires_at": 1735689600 })),
        ("schedule", json!("sub_sched_1")),
    ] {
        let mut changes = json!({});
        changes[field] = value.clone();
        let message = format!("invalid subscription: field \"{field}\", value {value}: is not supported yet");

        let error = refusal::<Subscription>(&with(&created(), changes.clone()));
        assert_eq!((error.to_string(), error.kind), (message.clone(), Kind::NotSupported));
        assert!(error.hint.is_some());

        let kept: Subscription = valid(&with(&returned(), changes));
        assert_eq!(kept.refuse_unsupported().unwrap_err().to_string(), message);
        let text: Value = serde_json::from_str(&kept.to_json()).unwrap();
        assert_eq!((&text["object"], &text[field]), (&json!("subscription"), &value));
    }
    // From the id of a discount nobody can tell its coupon; an expanded one says it.
    let error = valid::<Subscription>(&with(&returned(), json!({ "discounts": ["di_1"] })))
        .refuse_unsupported()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid subscription: field \"discounts\", value [\"di_1\"]: is not supported yet"
    );
    let expanded =
        json!({ "discounts": [{ "id": "di_1", "object": "discount", "source": { "coupon": { "id": "half" } } }] });
    assert_eq!(valid::<Subscription>(&with(&returned(), expanded)).discounts, ["half"]);
    for (field, value) in [
        ("cancel_at", json!("max_billed_until")),
        ("payment_behavior", json!("error_if_incomplete")),
        ("payment_behavior", json!("pending_if_incomplete")),
        ("discounts", json!([{ "promotion_code": "promo_1" }])),
    ] {
        let mut changes = json!({});
        changes[field] = value;
        let error = refusal::<Subscription>(&with(&created(), changes));
        assert_eq!(error.kind, Kind::NotSupported, "{error}");
        assert!(error.field.starts_with(field), "{error}");
    }
}

#[test]
fn what_changes_an_amount_or_a_date_is_kept() {
    let request = with(
        &created(),
        json!({
            "backdate_start_date": 1735689600, "billing_cycle_anchor": "2025-02-01T00:00:00Z",
            "billing_thresholds": { "amount_gte": 5000 }, "cancel_at": "max_period_end", "default_payment_method": "pm_1",
            "default_tax_rates": ["txr_1", { "id": "txr_2" }], "discounts": [{ "coupon": "half" }],
            "pause_collection": { "behavior": "void", "resumes_at": 1738281600 }, "payment_behavior": "default_incomplete",
            "items": [
                { "price": "price_seats", "quantity": 2, "tax_rates": ["txr_3"], "discounts": [{ "coupon": "item" }] },
                { "price": "price_calls", "billing_thresholds": { "usage_gte": 100 } },
            ],
            "trial_settings": { "end_behavior": { "missing_payment_method": "pause" } },
        }),
    );
    let subscription: Subscription = valid(&request);
    assert_eq!(
        serde_json::from_str::<Value>(&subscription.to_json()).unwrap(),
        with(
            &request,
            json!({
                "backdate_start_date": "2025-01-01T00:00:00Z",
                "billing_thresholds": { "amount_gte": 5000, "reset_billing_cycle_anchor": false },
                "cancel_at_period_end": false, "collection_method": "charge_automatically",
                "default_tax_rates": ["txr_1", "txr_2"],
                "pause_collection": { "behavior": "void", "resumes_at": "2025-01-31T00:00:00Z" },
                "proration_behavior": "create_prorations",
            })
        )
    );
    let config = json!({ "billing_cycle_anchor_config": { "day_of_month": 31, "hour": 6, "month": 2 } });
    let subscription: Subscription = valid(&with(&created(), config.clone()));
    let text: Value = serde_json::from_str(&subscription.to_json()).unwrap();
    assert_eq!(
        text["billing_cycle_anchor_config"],
        config["billing_cycle_anchor_config"]
    );
}

#[test]
fn trials_and_dates_fit_each_other() {
    let start = json!({ "start_date": 1735689600, "trial_end": 1735689600 + 730 * 86400 });
    valid::<Subscription>(&with(&created(), start));
    valid::<Subscription>(&with(&created(), json!({ "trial_period_days": 730 })));
    valid::<Subscription>(&with(
        &created(),
        json!({ "collection_method": "send_invoice", "days_until_due": 0 }),
    ));
}

#[test]
fn what_stripe_refuses_is_refused() {
    let items = |values: Value| json!({ "items": values });
    let many: Vec<Value> = (0..21)
        .map(|index| json!({ "price": format!("price_{index}") }))
        .collect();
    let cases = vec![
        (json!({ "customer": null }), "field \"customer\": is required"),
        (
            json!({ "customer": 7 }),
            "field \"customer\", value 7: must be a string",
        ),
        (json!({ "items": null }), "field \"items\": must have at least one item"),
        (items(json!([])), "field \"items\": must have at least one item"),
        (
            items(json!("price_a")),
            "field \"items\", value \"price_a\": must be an array",
        ),
        (
            items(json!(many)),
            "field \"items\": must have at most 20 items, not 21",
        ),
        (
            items(json!(["price_a"])),
            "field \"items[0]\", value \"price_a\": must be a JSON object",
        ),
        (
            items(json!([{ "quantity": 1 }])),
            "field \"items[0].price\": is required",
        ),
        (
            items(json!([{ "price": { "currency": "usd" } }])),
            "field \"items[0].price\", value {\"currency\":\"usd\"}: must be an id, or an object with an id",
        ),
        (
            items(json!([{ "price": "a" }, { "price": "b" }, { "price": "a" }])),
            "field \"items[2].price\", value \"a\": is already the price of another item",
        ),
        (
            items(json!([{ "price": "a", "quantity": -1 }])),
            "field \"items[0].quantity\", value -1: must not be negative",
        ),
        (
            items(json!([{ "price": "a", "quantity": 1.5 }])),
            "field \"items[0].quantity\", value 1.5: must be an integer",
        ),
        (
            items(json!([{ "price": { "id": "a", "recurring": { "usage_type": "metered" } }, "quantity": 1 }])),
            "field \"items[0].quantity\", value 1: must be absent: the price is metered",
        ),
        (
            items(json!([{ "prize": "a" }])),
            "field \"items[0].prize\", value \"a\": is not a field of \"items[0]\"",
        ),
        (
            items(json!({ "object": "list", "data": [{ "price": "a" }], "has_more": true })),
            "field \"items.has_more\", value true: must be false: the list is only a part of the items",
        ),
        (
            json!({ "currency": "xyz" }),
            "field \"currency\", value \"xyz\": is not a currency that Stripe knows",
        ),
        (
            json!({ "collection_method": "cash" }),
            "field \"collection_method\", value \"cash\": must be one of \"charge_automatically\", \"send_invoice\"",
        ),
        (
            json!({ "collection_method": "send_invoice" }),
            "field \"days_until_due\": is required when collection_method is \"send_invoice\"",
        ),
        (
            json!({ "days_until_due": 30 }),
            "field \"days_until_due\", value 30: must be absent unless collection_method is \"send_invoice\"",
        ),
        (
            json!({ "cancel_at": 1735689600, "cancel_at_period_end": true }),
            "field \"cancel_at\", value 1735689600: must not be given together with cancel_at_period_end",
        ),
        (
            json!({ "trial_end": 1735689600, "trial_period_days": 3 }),
            "field \"trial_end\", value 1735689600: must not be given together with trial_period_days",
        ),
        (
            json!({ "trial_end": 1735689599, "start_date": 1735689600 }),
            "field \"trial_end\", value 1735689599: must not be before start_date",
        ),
        (
            json!({ "trial_end": 1735689601 + 730 * 86400, "start_date": 1735689600 }),
            "field \"trial_end\", value 1798761601: must be at most 730 days after start_date",
        ),
        (
            json!({ "trial_period_days": 731 }),
            "field \"trial_period_days\", value 731: must be from 1 to 730",
        ),
        (
            json!({ "proration_behavior": "sometimes" }),
            "field \"proration_behavior\", value \"sometimes\": must be one of \"create_prorations\", \"none\", \
             \"always_invoice\"",
        ),
        (
            json!({ "metadata": [] }),
            "field \"metadata\", value []: must be an object of strings",
        ),
        (
            json!({ "metadata": { "a": 5 } }),
            "field \"metadata.a\", value 5: must be a string",
        ),
        (
            json!({ "backdate_start_date": 1735689600, "trial_period_days": 3 }),
            "field \"backdate_start_date\", value 1735689600: must not be given together with trial_period_days",
        ),
        (
            json!({ "billing_cycle_anchor_config": { "month": 2 } }),
            "field \"billing_cycle_anchor_config.day_of_month\": is required",
        ),
        (
            json!({ "billing_cycle_anchor_config": { "day_of_month": 32 } }),
            "field \"billing_cycle_anchor_config.day_of_month\", value 32: must be from 1 to 31",
        ),
        (
            json!({ "billing_thresholds": { "reset_billing_cycle_anchor": true } }),
            "field \"billing_thresholds.amount_gte\": is required",
        ),
        (
            json!({ "billing_thresholds": { "amount_gte": 0 } }),
            "field \"billing_thresholds.amount_gte\", value 0: must be from 1 to 9223372036854775807",
        ),
        (
            json!({ "pause_collection": { "behavior": "stop" } }),
            "field \"pause_collection.behavior\", value \"stop\": must be one of \"keep_as_draft\", \"mark_uncollectible\", \
             \"void\"",
        ),
        (
            json!({ "default_tax_rates": ["txr_1", "txr_1"] }),
            "field \"default_tax_rates[1]\", value \"txr_1\": is given twice",
        ),
        (
            json!({ "discounts": [{ "percent": 5 }] }),
            "field \"discounts[0]\", value {\"percent\":5}: must be an object with \"coupon\"",
        ),
        (
            json!({ "payment_behavior": "default_incomplete", "collection_method": "send_invoice", "days_until_due": 3 }),
            "field \"payment_behavior\", value \"default_incomplete\": must not be given when collection_method is \
             \"send_invoice\"",
        ),
        (
            json!({ "seats": 5 }),
            "field \"seats\", value 5: is not a field of the subscription",
        ),
        (
            json!({ "object": "subscription_item" }),
            "field \"object\", value \"subscription_item\": must be \"subscription\"",
        ),
    ];
    for (changes, message) in cases {
        let error = refusal::<Subscription>(&with(&created(), changes));
        assert_eq!(
            (error.to_string(), error.kind),
            (format!("invalid subscription: {message}"), Kind::Invalid)
        );
    }
}

#[test]
fn metadata_has_stripes_limits() {
    let keys = |count: usize| {
        let fields: serde_json::Map<String, Value> = (0..count).map(|key| (format!("k{key}"), json!("v"))).collect();
        with(&created(), json!({ "metadata": fields }))
    };
    valid::<Subscription>(&keys(50));
    assert_eq!(refusal::<Subscription>(&keys(51)).rule, "must have at most 50 keys");
    let long = |key: usize, value: usize| {
        let mut metadata = json!({});
        metadata["k".repeat(key)] = json!("v".repeat(value));
        with(&created(), json!({ "metadata": metadata }))
    };
    valid::<Subscription>(&long(40, 500));
    assert_eq!(
        refusal::<Subscription>(&long(41, 1)).rule,
        "must have keys of at most 40 characters"
    );
    assert_eq!(
        refusal::<Subscription>(&long(1, 501)).rule,
        "must have at most 500 characters"
    );
}
