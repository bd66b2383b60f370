//! What is no price, and what of Stripe's is not built.

use serde_json::{Value, json};

use super::super::{refusal, valid, with};
use super::{monthly, per_unit, refused, returned, tiered};
use crate::types::{Kind, Price, StripeObject};

#[test]
fn wrong_fields_are_refused() {
    refused(
        &monthly(),
        vec![
            (json!({ "currency": null }), "field \"currency\": is required"),
            (
                json!({ "currency": "usx" }),
                "field \"currency\", value \"usx\": is not a currency that Stripe knows",
            ),
            (
                json!({ "currency": 840 }),
                "field \"currency\", value 840: must be a string",
            ),
            (
                json!({ "active": "yes" }),
                "field \"active\", value \"yes\": must be true or false",
            ),
            (
                json!({ "colour": "red" }),
                "field \"colour\", value \"red\": is not a field of the price",
            ),
            (
                json!({ "object": "plan" }),
                "field \"object\", value \"plan\": must be \"price\"",
            ),
            (json!({ "product": 5 }), "field \"product\", value 5: must be a string"),
            (
                json!({ "product": {} }),
                "field \"product\", value {}: must be an id, or an object with an id",
            ),
            (
                json!({ "tax_behavior": "none" }),
                "field \"tax_behavior\", value \"none\": must be one of \"unspecified\", \"inclusive\", \"exclusive\"",
            ),
            (
                json!({ "billing_scheme": "flat" }),
                "field \"billing_scheme\", value \"flat\": must be one of \"per_unit\", \"tiered\"",
            ),
            (
                json!({ "type": "one_time" }),
                "field \"type\", value \"one_time\": must be \"recurring\" when recurring is given",
            ),
            (
                json!({ "type": "recurring", "recurring": null }),
                "field \"recurring\": is required when type is \"recurring\"",
            ),
            (json!({ "recurring": {} }), "field \"recurring.interval\": is required"),
            (
                json!({ "recurring": { "interval": "quarter" } }),
                "field \"recurring.interval\", value \"quarter\": must be one of \"day\", \"week\", \"month\", \"year\"",
            ),
            (
                json!({ "recurring": { "interval": "month", "interval_count": 0 } }),
                "field \"recurring.interval_count\", value 0: must be from 1 to 36",
            ),
            (
                json!({ "recurring": { "interval": "month", "usage_type": "metered" } }),
                "field \"recurring.meter\": is required when usage_type is \"metered\"",
            ),
            (
                json!({ "recurring": { "interval": "month", "meter": "calls" } }),
                "field \"recurring.meter\", value \"calls\": must be absent unless usage_type is \"metered\"",
            ),
            (
                json!({ "recurring": { "interval": "month", "period": 1 } }),
                "field \"recurring.period\", value 1: is not a field of \"recurring\"",
            ),
        ],
    );
    let error = refusal::<Price>(&with(&monthly(), json!({ "lookup_key": "k".repeat(201) })));
    assert_eq!(
        (error.field.as_str(), error.rule.as_str()),
        ("lookup_key", "must have at most 200 characters")
    );
    valid::<Price>(&with(&monthly(), json!({ "lookup_key": "k".repeat(200) })));
}

#[test]
fn wrong_amounts_are_refused() {
    refused(
        &per_unit(),
        vec![
            (
                json!({ "unit_amount": null }),
                "field \"unit_amount\": is required, as unit_amount or unit_amount_decimal",
            ),
            (
                json!({ "unit_amount": -1 }),
                "field \"unit_amount\", value -1: must not be negative",
            ),
            (
                json!({ "unit_amount": 0.5 }),
                "field \"unit_amount\", value 0.5: must be an integer",
            ),
            (
                json!({ "unit_amount": "1000" }),
                "field \"unit_amount\", value \"1000\": must be an integer",
            ),
            (
                json!({ "unit_amount": 9223372036854775808u64 }),
                "field \"unit_amount\", value 9223372036854775808: must be from 0 to 9223372036854775807",
            ),
            (
                json!({ "unit_amount_decimal": "1000" }),
                "field \"unit_amount_decimal\", value \"1000\": must not be given together with unit_amount",
            ),
            (
                json!({ "transform_quantity": { "divide_by": 0, "round": "up" } }),
                "field \"transform_quantity.divide_by\", value 0: must be from 1 to 9223372036854775807",
            ),
            (
                json!({ "transform_quantity": { "round": "up" } }),
                "field \"transform_quantity.divide_by\": is required",
            ),
            (
                json!({ "transform_quantity": { "divide_by": 5 } }),
                "field \"transform_quantity.round\": is required",
            ),
            (
                json!({ "transform_quantity": { "divide_by": 5, "round": "nearest" } }),
                "field \"transform_quantity.round\", value \"nearest\": must be one of \"up\", \"down\"",
            ),
            (
                json!({ "tiers": [{ "up_to": "inf", "unit_amount": 1 }] }),
                "field \"billing_scheme\": must be \"tiered\" when tiers are given",
            ),
            (
                json!({ "tiers_mode": "volume" }),
                "field \"tiers_mode\", value \"volume\": must be absent unless billing_scheme is \"tiered\"",
            ),
        ],
    );
    for (amount, rule) in [
        ("-0.5", "must not be negative"),
        ("0.0000000000001", "must have at most 12 decimal places"),
        ("9223372036854775808", "must be at most 9223372036854775807"),
        ("9223372036854775807.1", "must be at most 9223372036854775807"),
        ("99999999999999999999999999999", "must be at most 9223372036854775807"),
        ("1e3", "must be a decimal number in plain digits, such as 0.05"),
        ("", "must be a decimal number in plain digits, such as 0.05"),
        (".5", "must be a decimal number in plain digits, such as 0.05"),
        ("5.", "must be a decimal number in plain digits, such as 0.05"),
        ("+5", "must be a decimal number in plain digits, such as 0.05"),
        ("1_000", "must be a decimal number in plain digits, such as 0.05"),
        ("NaN", "must be a decimal number in plain digits, such as 0.05"),
        (" 5", "must be a decimal number in plain digits, such as 0.05"),
        ("1.2.3", "must be a decimal number in plain digits, such as 0.05"),
    ] {
        let error = refusal::<Price>(&json!({ "currency": "usd", "unit_amount_decimal": amount }));
        assert_eq!(
            error.to_string(),
            format!("invalid price: field \"unit_amount_decimal\", value \"{amount}\": {rule}")
        );
    }
    let text = r#"{"currency":"usd","unit_amount_decimal":1e999999999}"#;
    assert_eq!(
        Price::parse(text).unwrap_err().rule,
        "must be a decimal number in plain digits, such as 0.05"
    );
    let error = refusal::<Price>(&with(&returned(), json!({ "unit_amount_decimal": "1000.5" })));
    assert_eq!(
        error.to_string(),
        "invalid price: field \"unit_amount_decimal\", value \"1000.5\": must be equal to unit_amount (1000)"
    );
}

#[test]
fn wrong_tiers_are_refused() {
    let tiers = |values: Value| json!({ "tiers": values });
    let last = json!({ "up_to": "inf", "unit_amount": 1 });
    refused(
        &tiered(),
        vec![
            (
                json!({ "tiers": null }),
                "field \"tiers\": is required when billing_scheme is \"tiered\"",
            ),
            (
                json!({ "tiers_mode": null }),
                "field \"tiers_mode\": is required when billing_scheme is \"tiered\"",
            ),
            (
                json!({ "tiers": [] }),
                "field \"tiers\", value []: must have at least one tier",
            ),
            (json!({ "tiers": {} }), "field \"tiers\", value {}: must be an array"),
            (
                json!({ "tiers": [7] }),
                "field \"tiers[0]\", value 7: must be a JSON object",
            ),
            (
                json!({ "unit_amount": 5 }),
                "field \"unit_amount\", value 5: must be absent when billing_scheme is \"tiered\"",
            ),
            (
                json!({ "unit_amount_decimal": "5" }),
                "field \"unit_amount_decimal\", value \"5\": must be absent when billing_scheme is \"tiered\"",
            ),
            (
                json!({ "transform_quantity": { "divide_by": 5, "round": "up" } }),
                "field \"transform_quantity\", value {\"divide_by\":5,\"round\":\"up\"}: \
                 must be absent when billing_scheme is \"tiered\"",
            ),
            (
                tiers(json!([{ "up_to": 10, "unit_amount": 7 }, { "up_to": 5, "unit_amount": 6 }, last])),
                "field \"tiers[1].up_to\", value 5: must be greater than the previous tier's up_to (10)",
            ),
            (
                tiers(json!([{ "up_to": 10, "unit_amount": 7 }, { "up_to": 10, "unit_amount": 6 }, last])),
                "field \"tiers[1].up_to\", value 10: must be greater than the previous tier's up_to (10)",
            ),
            (
                tiers(json!([{ "up_to": 0, "unit_amount": 7 }, last])),
                "field \"tiers[0].up_to\", value 0: must be greater than 0",
            ),
            (
                tiers(json!([{ "up_to": 2.5, "unit_amount": 7 }, last])),
                "field \"tiers[0].up_to\", value 2.5: must be an integer",
            ),
            (
                tiers(json!([last, last])),
                "field \"tiers[0].up_to\", value \"inf\": must be a number: only the last tier reaches to infinity",
            ),
            (
                tiers(json!([{ "up_to": null, "unit_amount": 7 }, last])),
                "field \"tiers[0].up_to\", value null: must be a number: only the last tier reaches to infinity",
            ),
            (
                tiers(json!([{ "up_to": 10, "unit_amount": 7 }])),
                "field \"tiers[0].up_to\", value 10: must be \"inf\": the last tier has to take every quantity",
            ),
            (
                tiers(json!([{ "unit_amount": 7 }])),
                "field \"tiers[0].up_to\": is required",
            ),
            (
                tiers(json!([{ "up_to": "inf" }])),
                "field \"tiers[0].unit_amount\": is required, unless the tier has a flat_amount",
            ),
            (
                tiers(json!([{ "up_to": "inf", "flat_amount": -5 }])),
                "field \"tiers[0].flat_amount\", value -5: must not be negative",
            ),
            (
                tiers(json!([{ "up_to": "inf", "flat_amount": 5, "flat_amount_decimal": "5" }])),
                "field \"tiers[0].flat_amount_decimal\", value \"5\": must not be given together with flat_amount",
            ),
            (
                tiers(json!([{ "up_to": "inf", "amount": 5 }])),
                "field \"tiers[0].amount\", value 5: is not a field of \"tiers[0]\"",
            ),
        ],
    );
}

#[test]
fn what_is_not_supported_says_so() {
    for (base, changes, message) in [
        (
            returned(),
            json!({ "custom_unit_amount": { "maximum": null, "minimum": 500, "preset": null } }),
            "field \"custom_unit_amount\", value {\"maximum\":null,\"minimum\":500,\"preset\":null}: is not supported",
        ),
        (
            monthly(),
            json!({ "recurring": { "interval": "month", "aggregate_usage": "max" } }),
            "field \"recurring.aggregate_usage\", value \"max\": is not supported",
        ),
    ] {
        let error = refusal::<Price>(&with(&base, changes));
        assert_eq!(
            (error.to_string(), error.kind),
            (format!("invalid price: {message}"), Kind::NotSupported)
        );
        assert!(error.hint.is_some());
    }
}
