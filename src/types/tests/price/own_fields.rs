//! What Stripe's prices do not have: amounts that bound a period's, and filters of usage.

use serde_json::{Value, json};

use super::super::{refusal, valid, with};
use super::{dec, metered, monthly, per_unit, refused};
use crate::types::{Price, StripeObject};

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
