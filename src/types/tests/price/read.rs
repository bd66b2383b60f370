//! What a price says, in each form in which it may be given.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{refusal, valid, with};
use super::{dec, monthly, per_unit, refused, returned, returned_tiered, tiered};
use crate::calendar::Interval;
use crate::pricing::{Bounds, Model, Round, Tier, TiersMode, TransformQuantity};
use crate::types::{Charge, Price, Recurring, StripeObject, TaxBehavior, Usage};

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
