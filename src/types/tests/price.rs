use serde_json::{Value, json};

use std::collections::BTreeMap;

use super::super::{Charge, Kind, Price, Recurring, StripeObject, TaxBehavior, Usage};
use super::{refusal, valid, with};
use crate::calendar::Interval;
use crate::pricing::{Bounds, Dec, Model, Round, Tier, TiersMode, TransformQuantity};

fn dec(text: &str) -> Dec {
    text.parse().unwrap()
}

fn per_unit() -> Value {
    json!({ "currency": "usd", "unit_amount": 1000 })
}

fn monthly() -> Value {
    with(&per_unit(), json!({ "recurring": { "interval": "month" } }))
}

fn tiered() -> Value {
    json!({
        "currency": "usd",
        "billing_scheme": "tiered",
        "tiers_mode": "graduated",
        "tiers": [{ "up_to": 10, "unit_amount": 7 }, { "up_to": "inf", "unit_amount_decimal": "6.5" }],
    })
}

/// As the API returns it: every field there, amounts in both forms.
fn returned() -> Value {
    json!({
        "id": "price_1Qd",
        "object": "price",
        "active": true,
        "billing_scheme": "per_unit",
        "created": 1735689600,
        "currency": "usd",
        "custom_unit_amount": null,
        "livemode": false,
        "lookup_key": null,
        "metadata": { "plan": "pro" },
        "nickname": null,
        "product": "prod_RWb",
        "recurring": {
            "interval": "month", "interval_count": 1, "meter": null, "trial_period_days": null, "usage_type": "licensed"
        },
        "tax_behavior": "unspecified",
        "tiers_mode": null,
        "transform_quantity": null,
        "type": "recurring",
        "unit_amount": 1000,
        "unit_amount_decimal": "1000",
    })
}

fn returned_tiered() -> Value {
    let tier = |up_to: Value, flat: Value, unit: Value, unit_decimal: &str| {
        json!({
            "flat_amount": flat,
            "flat_amount_decimal": flat.as_i64().map(|flat| flat.to_string()),
            "unit_amount": unit,
            "unit_amount_decimal": unit_decimal,
            "up_to": up_to,
        })
    };
    with(
        &returned(),
        json!({
            "billing_scheme": "tiered",
            "recurring": {
                "interval": "month", "interval_count": 1, "meter": "mtr_61Q", "trial_period_days": null,
                "usage_type": "metered"
            },
            "tiers": [
                tier(json!(1000), json!(500), json!(0), "0"),
                tier(Value::Null, Value::Null, Value::Null, "0.25"),
            ],
            "tiers_mode": "volume",
            "unit_amount": null,
            "unit_amount_decimal": null,
        }),
    )
}

#[test]
fn a_returned_price_is_read_as_it_stands() {
    let price: Price = valid(&returned());
    assert_eq!(
        price,
        Price {
            active: true,
            bounds: Bounds::default(),
            currency: "usd".into(),
            currency_options: BTreeMap::new(),
            charge: Charge::Recurring(Recurring {
                interval: Interval::Month,
                interval_count: 1,
                usage: Usage::Licensed
            }),
            dimension_filters: BTreeMap::new(),
            lookup_key: None,
            model: Model::PerUnit {
                unit_amount: dec("1000"),
                transform: None
            },
            nickname: None,
            product: Some("prod_RWb".into()),
            product_data: None,
            tax_behavior: TaxBehavior::Unspecified,
            transfer_lookup_key: false,
        }
    );
    assert_eq!(
        price.to_json(),
        r#"{"active":true,"billing_scheme":"per_unit","currency":"usd","product":"prod_RWb","recurring":{"interval":"month","#
            .to_owned()
            + r#""interval_count":1,"usage_type":"licensed"},"tax_behavior":"unspecified","type":"recurring","unit_amount":1000}"#
    );
}

#[test]
fn a_returned_tiered_price_is_read_as_it_stands() {
    let price: Price = valid(&returned_tiered());
    let Charge::Recurring(recurring) = &price.charge else {
        panic!("{price:?}")
    };
    assert_eq!(
        recurring.usage,
        Usage::Metered {
            meter: "mtr_61Q".into()
        }
    );
    assert_eq!(
        price.model,
        Model::Tiered {
            mode: TiersMode::Volume,
            tiers: vec![
                Tier {
                    up_to: Some(dec("1000")),
                    unit_amount: Some(dec("0")),
                    flat_amount: Some(dec("500"))
                },
                Tier {
                    up_to: None,
                    unit_amount: Some(dec("0.25")),
                    flat_amount: None
                },
            ],
        }
    );
    assert!(
        price.to_json().contains(
            r#""tiers":[{"flat_amount":500,"unit_amount":0,"up_to":1000},{"unit_amount_decimal":"0.25","up_to":"inf"}]"#
        ),
        "{}",
        price.to_json()
    );
}

/// The published fixtures fill nullable objects with nulls rather than leaving them out.
#[test]
fn objects_of_nothing_but_nulls_say_nothing() {
    let nulls = json!({ "maximum": null, "minimum": null, "preset": null });
    let object = with(
        &returned(),
        json!({ "custom_unit_amount": nulls, "currency_options": { "usd": nulls } }),
    );
    assert_eq!(valid::<Price>(&object), valid(&returned()));
}

#[test]
fn the_expanded_product_stands_for_its_id() {
    let object = with(
        &returned(),
        json!({ "product": { "id": "prod_RWb", "object": "product", "name": "Pro" } }),
    );
    assert_eq!(valid::<Price>(&object), valid(&returned()));
}

#[test]
fn a_returned_decimal_price_has_no_unit_amount() {
    let mut object = with(&returned(), json!({ "unit_amount_decimal": "0.000000000005" }));
    object["unit_amount"] = Value::Null;
    let price: Price = valid(&object);
    assert_eq!(
        price.model,
        Model::PerUnit {
            unit_amount: dec("0.000000000005"),
            transform: None
        }
    );
    assert!(
        price.to_json().ends_with(r#""unit_amount_decimal":"0.000000000005"}"#),
        "{}",
        price.to_json()
    );
}

#[test]
fn equal_prices_have_equal_bytes() {
    let plain: Price = valid(&per_unit());
    for (name, amount) in [
        ("unit_amount_decimal", json!("1000")),
        ("unit_amount_decimal", json!("01000.00")),
        ("unit_amount_decimal", json!(1000)),
    ] {
        let mut object = json!({ "currency": "USD", "type": "one_time", "active": true });
        object[name] = amount;
        let price: Price = valid(&object);
        assert_eq!(price, plain);
        assert_eq!(price.to_bytes(), plain.to_bytes());
    }
}

#[test]
fn amounts_reach_to_the_greatest_bigint_and_twelve_places() {
    for amount in [
        "0",
        "9223372036854775807",
        "9223372036854775806.999999999999",
        "0.000000000001",
        "5.0000000000000000",
    ] {
        let object = json!({ "currency": "usd", "unit_amount_decimal": amount });
        assert_eq!(
            valid::<Price>(&object).model,
            Model::PerUnit {
                unit_amount: dec(amount),
                transform: None
            }
        );
    }
}

#[test]
fn packages_are_read() {
    let object = with(
        &monthly(),
        json!({ "transform_quantity": { "divide_by": 60, "round": "up" } }),
    );
    assert_eq!(
        valid::<Price>(&object).model,
        Model::PerUnit {
            unit_amount: dec("1000"),
            transform: Some(TransformQuantity {
                divide_by: 60,
                round: Round::Up
            })
        }
    );
}

#[test]
fn intervals_reach_to_three_years() {
    for (interval, count) in [("day", 1095), ("week", 156), ("month", 36), ("year", 3)] {
        let object = |count| {
            with(
                &per_unit(),
                json!({ "recurring": { "interval": interval, "interval_count": count } }),
            )
        };
        valid::<Price>(&object(count));
        let error = refusal::<Price>(&object(count + 1));
        assert_eq!(
            error.to_string(),
            format!(
                "invalid price: field \"recurring.interval_count\", value {}: must be from 1 to {count}",
                count + 1
            )
        );
        assert_eq!(
            error.hint.as_deref(),
            Some("No billing interval is longer than three years.")
        );
    }
}

#[test]
fn one_tier_that_reaches_to_infinity_is_enough() {
    valid::<Price>(&with(
        &tiered(),
        json!({ "tiers": [{ "up_to": "inf", "flat_amount": 100 }] }),
    ));
}

fn refused(base: &Value, cases: Vec<(Value, &str)>) {
    for (changes, message) in cases {
        let error = refusal::<Price>(&with(base, changes));
        assert_eq!(
            (error.to_string(), error.kind),
            (format!("invalid price: {message}"), Kind::Invalid)
        );
    }
}

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

fn metered() -> Value {
    let recurring = json!({ "interval": "month", "usage_type": "metered", "meter": "calls" });
    with(&per_unit(), json!({ "recurring": recurring }))
}

/// As Stripe returns them with `expand[]=currency_options`: the price's own currency too, amounts in both forms.
#[test]
fn currency_options_are_read_as_stripe_returns_them() {
    let option = |unit: Value, decimal: &str, tax: &str| json!({ "custom_unit_amount": null, "tax_behavior": tax, "unit_amount": unit, "unit_amount_decimal": decimal });
    let object = with(
        &returned(),
        json!({ "currency_options": {
            "usd": option(json!(1000), "1000", "unspecified"),
            "eur": option(json!(900), "900", "inclusive"),
            "jpy": option(Value::Null, "1500.5", "unspecified"),
        } }),
    );
    let price: Price = valid(&object);
    assert_eq!(
        serde_json::from_str::<Value>(&price.to_json()).unwrap()["currency_options"],
        json!({
            "eur": { "tax_behavior": "inclusive", "unit_amount": 900 },
            "jpy": { "tax_behavior": "unspecified", "unit_amount_decimal": "1500.5" },
        })
    );
    let own: Price = valid(&returned());
    assert_eq!(price.clone().in_currency("USD").unwrap(), own);
    let eur = price.clone().in_currency("eur").unwrap();
    let expected = json!({ "currency": "eur", "unit_amount": 900, "unit_amount_decimal": "900",
                           "tax_behavior": "inclusive" });
    assert_eq!(eur, valid(&with(&returned(), expected)));
    assert_eq!(
        eur.to_json(),
        valid::<Price>(&serde_json::from_str(&eur.to_json()).unwrap()).to_json()
    );
    let error = price.in_currency("gbp").unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid price: field \"currency\", value \"gbp\": the price has amounts in usd, eur, jpy only"
    );
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.hint.is_some());
    assert!(own.in_currency("").is_err());
}

/// Packages and the mode of tiers are the price's; tiers are each currency's own.
#[test]
fn options_have_the_price_s_model_and_their_own_amounts() {
    let packages = with(
        &monthly(),
        json!({ "transform_quantity": { "divide_by": 60, "round": "up" }, "currency_options": { "EUR": { "unit_amount": 9 } } }),
    );
    let eur = valid::<Price>(&packages).in_currency("eur").unwrap();
    assert_eq!(eur.amount(&dec("61")), dec("18"));
    let tiers = json!([{ "up_to": 5, "unit_amount": 60 }, { "up_to": "inf", "unit_amount": 50 }]);
    let price: Price = valid(&with(
        &tiered(),
        json!({ "currency_options": { "eur": { "tiers": tiers } } }),
    ));
    // Graduated: 10 × 7 + 2 × 6.5, and 5 × 60 + 7 × 50.
    assert_eq!(price.amount(&dec("12")), dec("83"));
    assert_eq!(price.in_currency("eur").unwrap().amount(&dec("12")), dec("650"));
}

/// What Stripe returns of tiers depends on what was expanded; all that stands there has to agree.
#[test]
fn the_option_of_the_own_currency_may_repeat_the_price_only() {
    let blank = json!({ "custom_unit_amount": null, "tax_behavior": "unspecified", "tiers": null, "unit_amount": null,
                        "unit_amount_decimal": null });
    let own = |option: Value| json!({ "currency_options": { "usd": option } });
    for option in [
        blank,
        json!({ "tiers": returned_tiered()["tiers"] }),
        json!({ "tax_behavior": "unspecified" }),
    ] {
        assert_eq!(
            valid::<Price>(&with(&returned_tiered(), own(option))),
            valid(&returned_tiered())
        );
    }
    let bounded = with(&monthly(), json!({ "minimum_amount": 5, "maximum_amount": 2000 }));
    let repeated = own(json!({ "minimum_amount": 5, "maximum_amount": 2000, "unit_amount_decimal": "1000.0" }));
    assert_eq!(valid::<Price>(&with(&bounded, repeated)), valid(&bounded));
    for (option, field) in [
        (json!({ "unit_amount": 999 }), "unit_amount"),
        (
            json!({ "unit_amount_decimal": "1000.000000000001" }),
            "unit_amount_decimal",
        ),
        (json!({ "tax_behavior": "inclusive" }), "tax_behavior"),
        (json!({ "minimum_amount": 6 }), "minimum_amount"),
        (json!({ "maximum_amount": 2001 }), "maximum_amount"),
    ] {
        let error = refusal::<Price>(&with(&bounded, own(option)));
        assert_eq!(
            error.to_string(),
            format!(
                "invalid price: field \"currency_options.usd.{field}\": must repeat what the price says in its own currency"
            )
        );
    }
}

#[test]
fn wrong_currency_options_are_refused() {
    let options = |options: Value| json!({ "currency_options": options });
    refused(
        &monthly(),
        vec![
            (
                options(json!([])),
                "field \"currency_options\", value []: must be a JSON object",
            ),
            (
                options(json!({ "usx": { "unit_amount": 1 } })),
                "field \"currency_options\", value \"usx\": is not a currency that Stripe knows",
            ),
            (
                options(json!({ "eur": 900 })),
                "field \"currency_options.eur\", value 900: must be a JSON object",
            ),
            (
                options(json!({ "eur": {} })),
                "field \"currency_options.eur.unit_amount\": is required, as unit_amount or unit_amount_decimal",
            ),
            (
                options(json!({ "eur": { "unit_amount": 1 }, "EUR": { "unit_amount": 2 } })),
                "field \"currency_options.eur\": is given twice, in different case",
            ),
            (
                options(json!({ "usd": { "unit_amount": 1000 }, "USD": { "unit_amount": 1000 } })),
                "field \"currency_options.usd\": is given twice, in different case",
            ),
            (
                options(json!({ "eur": { "unit_amount": -1 } })),
                "field \"currency_options.eur.unit_amount\", value -1: must not be negative",
            ),
            (
                options(json!({ "eur": { "unit_amount": 1, "unit_amount_decimal": "1" } })),
                "field \"currency_options.eur.unit_amount_decimal\", value \"1\": must not be given together with unit_amount",
            ),
            (
                options(json!({ "eur": { "unit_amount": 1, "recurring": {} } })),
                "field \"currency_options.eur.recurring\", value {}: is not a field of \"currency_options.eur\"",
            ),
            (
                options(json!({ "eur": { "tiers": [{ "up_to": "inf", "unit_amount": 1 }] } })),
                "field \"currency_options.eur.tiers\", value [{\"unit_amount\":1,\"up_to\":\"inf\"}]: must be absent: \
                 the price's billing_scheme is not \"tiered\"",
            ),
            (
                json!({ "minimum_amount": 5, "currency_options": { "eur": { "unit_amount": 1 } } }),
                "field \"currency_options.eur.minimum_amount\": is required: the price has one in its own currency",
            ),
            (
                json!({ "maximum_amount": 5, "currency_options": { "eur": { "unit_amount": 1 } } }),
                "field \"currency_options.eur.maximum_amount\": is required: the price has one in its own currency",
            ),
        ],
    );
    refused(
        &tiered(),
        vec![
            (
                options(json!({ "eur": { "unit_amount": 1 } })),
                "field \"currency_options.eur.unit_amount\", value 1: must be absent when billing_scheme is \"tiered\"",
            ),
            (
                options(json!({ "eur": { "tiers": [{ "up_to": 5, "unit_amount": 1 }] } })),
                "field \"currency_options.eur.tiers[0].up_to\", value 5: must be \"inf\": the last tier has to take every quantity",
            ),
        ],
    );
    let custom = json!({ "currency_options": { "eur": { "custom_unit_amount": { "minimum": 5 } } } });
    assert_eq!(refusal::<Price>(&with(&monthly(), custom)).kind, Kind::NotSupported);
}

#[test]
fn minimum_and_maximum_are_amounts_of_a_period() {
    let price: Price = valid(&with(
        &metered(),
        json!({ "minimum_amount": 500, "maximum_amount": 2500 }),
    ));
    for (quantity, amount) in [
        ("-1", "500"),
        ("0", "500"),
        ("0.5", "500"),
        ("1", "1000"),
        ("2.5", "2500"),
        ("3", "2500"),
    ] {
        assert_eq!(price.amount(&dec(quantity)), dec(amount), "{quantity}");
    }
    for same in [0, i64::MAX] {
        valid::<Price>(&with(
            &metered(),
            json!({ "minimum_amount": same, "maximum_amount": same }),
        ));
    }
    let options = json!({ "minimum_amount": 500, "currency_options": { "eur": { "unit_amount": 10, "minimum_amount": 450, "maximum_amount": 460 } } });
    let eur = valid::<Price>(&with(&metered(), options)).in_currency("eur").unwrap();
    assert_eq!(
        (eur.amount(&dec("0")), eur.amount(&dec("45.5")), eur.amount(&dec("99"))),
        (dec("450"), dec("455"), dec("460"))
    );
    let once = "must be absent unless the price is recurring: it is an amount per period";
    refused(
        &monthly(),
        vec![
            (
                json!({ "minimum_amount": -1 }),
                "field \"minimum_amount\", value -1: must not be negative",
            ),
            (
                json!({ "maximum_amount": 0.5 }),
                "field \"maximum_amount\", value 0.5: must be an integer",
            ),
            (
                json!({ "minimum_amount": 5, "maximum_amount": 4 }),
                "field \"maximum_amount\", value 4: must not be less than minimum_amount (5)",
            ),
            (
                json!({ "recurring": null, "minimum_amount": 0 }),
                &format!("field \"minimum_amount\", value 0: {once}"),
            ),
            (
                json!({ "recurring": null, "maximum_amount": 9 }),
                &format!("field \"maximum_amount\", value 9: {once}"),
            ),
            (
                json!({ "recurring": null, "currency_options": { "eur": { "unit_amount": 1, "maximum_amount": 9 } } }),
                &format!("field \"currency_options.eur.maximum_amount\", value 9: {once}"),
            ),
        ],
    );
}

#[test]
fn dimension_filters_are_normalised_to_sorted_lists() {
    let price: Price = valid(&with(
        &metered(),
        json!({ "dimension_filters": { "region": "eu", "model": ["b", "a", "b", ""] } }),
    ));
    assert!(
        price
            .to_json()
            .contains(r#""dimension_filters":{"model":["","a","b"],"region":["eu"]}"#),
        "{}",
        price.to_json()
    );
    assert_eq!(
        valid::<Price>(&with(&metered(), json!({ "dimension_filters": {} }))),
        valid(&metered())
    );
    let filters = |filters: Value| json!({ "dimension_filters": filters });
    refused(
        &metered(),
        vec![
            (
                filters(json!("eu")),
                "field \"dimension_filters\", value \"eu\": must be a JSON object",
            ),
            (
                filters(json!({ "": "eu" })),
                "field \"dimension_filters\", value \"\": must have keys of 1 to 100 characters",
            ),
            (
                filters(json!({ "region": [] })),
                "field \"dimension_filters.region\", value []: must have at least one value",
            ),
            (
                filters(json!({ "region": null })),
                "field \"dimension_filters.region\", value null: must be a string or an array of strings",
            ),
            (
                filters(json!({ "region": ["eu", 5] })),
                "field \"dimension_filters.region\", value 5: must be a string or an array of strings",
            ),
        ],
    );
    for base in [monthly(), per_unit()] {
        let error = refusal::<Price>(&with(&base, filters(json!({ "region": "eu" }))));
        assert_eq!(
            error.to_string(),
            "invalid price: field \"dimension_filters\", value {\"region\":\"eu\"}: \
             must be absent unless usage_type is \"metered\": it selects usage"
        );
    }
}

#[test]
fn what_is_asked_for_beside_the_price_is_carried() {
    let data = json!({ "name": "Seats", "unit_label": "seat", "metadata": { "a": "b" }, "tax_code": "txcd_10000000",
                       "statement_descriptor": "SEATS", "id": "prod_seats", "active": false });
    let price: Price = valid(&with(
        &monthly(),
        json!({ "product_data": data, "lookup_key": "k", "transfer_lookup_key": true }),
    ));
    assert!(price.transfer_lookup_key);
    assert_eq!(
        serde_json::from_str::<Value>(&price.to_json()).unwrap()["product_data"],
        data
    );
    assert_eq!(
        valid::<Price>(&with(&monthly(), json!({ "transfer_lookup_key": false }))),
        valid(&monthly())
    );
    let product = |data: Value| json!({ "product_data": data });
    refused(
        &monthly(),
        vec![
            (
                json!({ "transfer_lookup_key": true }),
                "field \"transfer_lookup_key\", value true: must be absent unless lookup_key is given",
            ),
            (product(json!({})), "field \"product_data.name\": is required"),
            (
                product(json!({ "name": "n", "unit_label": "thirteen more" })),
                "field \"product_data.unit_label\", value \"thirteen more\": must have at most 12 characters",
            ),
            (
                product(json!({ "name": "n", "colour": "red" })),
                "field \"product_data.colour\", value \"red\": is not a field of \"product_data\"",
            ),
            (
                json!({ "product_data": { "name": "n" }, "product": "prod" }),
                "field \"product\", value \"prod\": must not be given together with product_data",
            ),
        ],
    );
}
