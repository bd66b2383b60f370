//! A price in several currencies.

use serde_json::{Value, json};

use super::super::{refusal, valid, with};
use super::{dec, monthly, refused, returned, returned_tiered, tiered};
use crate::types::{Kind, Price, StripeObject};

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
