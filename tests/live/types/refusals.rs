//! What is no value: the error names the field, its value and the rule, under the right SQLSTATE.

use super::{database, truth};
use crate::refusal::Refusal;

/// type, input, SQLSTATE, and what the message must name: the field, the value, the rule.
const REFUSED: &[(&str, &str, &str, &[&str])] = &[
    ("price", "", "22P02", &["price", "JSON"]),
    ("price", "nonsense", "22P02", &["JSON"]),
    ("price", "[]", "22P02", &["[]", "must be a JSON object"]),
    ("meter", "\"text\"", "22P02", &["\"text\"", "must be a JSON object"]),
    ("subscription", "null", "22P02", &["null", "must be a JSON object"]),
    ("price", "{\"currency\":\"usd\",}", "22P02", &["JSON"]),
    ("price", "{\"currency\":\"\\ud800\"}", "22P02", &["JSON"]),
    ("price", "{\"nickname\":\"\\u0000\"}", "22023", &["\\u0000"]),
    (
        "price",
        "{\"currency\":\"usd\",\"currency\":\"eur\"}",
        "22023",
        &["currency", "twice"],
    ),
    ("price", "{\"unit_amount\":1}", "22023", &["\"currency\"", "required"]),
    (
        "price",
        r#"{"currency":"xyz","unit_amount":1}"#,
        "22023",
        &["\"currency\"", "\"xyz\"", "not a currency"],
    ),
    (
        "price",
        r#"{"currency":"usd"}"#,
        "22023",
        &["\"unit_amount\"", "required"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":-1}"#,
        "22023",
        &["\"unit_amount\"", "-1", "negative"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1.5}"#,
        "22023",
        &["\"unit_amount\"", "1.5", "integer"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":"1"}"#,
        "22023",
        &["\"unit_amount\"", "\"1\"", "integer"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":123456789012345678901234567890}"#,
        "22023",
        &[
            "\"unit_amount\"",
            "123456789012345678901234567890",
            "9223372036854775807",
        ],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"-0.1"}"#,
        "22023",
        &["unit_amount_decimal", "-0.1", "negative"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"0.1234567890123"}"#,
        "22023",
        &["unit_amount_decimal", "0.1234567890123", "12 decimal places"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"NaN"}"#,
        "22023",
        &["unit_amount_decimal", "NaN", "decimal"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"1e3"}"#,
        "22023",
        &["unit_amount_decimal", "1e3", "plain digits"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":1e400}"#,
        "22023",
        &["unit_amount_decimal", "plain digits"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"unit_amount_decimal":"1"}"#,
        "22023",
        &["unit_amount_decimal", "together with unit_amount"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"colour":"red"}"#,
        "22023",
        &["\"colour\"", "\"red\"", "not a field"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","colour":1}}"#,
        "22023",
        &["recurring.colour", "not a field"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"fortnight"}}"#,
        "22023",
        &["recurring.interval", "\"fortnight\"", "\"week\""],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"day","interval_count":1096}}"#,
        "22023",
        &["interval_count", "1096", "1095"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"week","interval_count":157}}"#,
        "22023",
        &["interval_count", "157", "156"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","interval_count":37}}"#,
        "22023",
        &["interval_count", "37", "36"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"year","interval_count":4}}"#,
        "22023",
        &["interval_count", "4", "3"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"year","interval_count":0}}"#,
        "22023",
        &["interval_count", "0", "1"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","usage_type":"metered"}}"#,
        "22023",
        &["recurring.meter", "required"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","meter":"m"}}"#,
        "22023",
        &["recurring.meter", "\"m\"", "metered"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":5,"unit_amount":1},{"up_to":5,"unit_amount":1},{"up_to":"inf","unit_amount":1}]}"#,
        "22023",
        &["tiers[1].up_to", "5", "greater than the previous"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":5,"unit_amount":1},{"up_to":6,"unit_amount":1}]}"#,
        "22023",
        &["tiers[1].up_to", "6", "inf"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":"inf","unit_amount":1},{"up_to":"inf","unit_amount":1}]}"#,
        "22023",
        &["tiers[0].up_to", "inf", "last tier"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":"inf","unit_amount":-1}]}"#,
        "22023",
        &["tiers[0].unit_amount", "-1", "negative"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[]}"#,
        "22023",
        &["\"tiers\"", "[]", "at least one"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","transform_quantity":{"divide_by":2,"round":"up"},"tiers":[{"up_to":"inf","unit_amount":1}]}"#,
        "22023",
        &["transform_quantity", "tiered"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"transform_quantity":{"divide_by":0,"round":"up"}}"#,
        "22023",
        &["transform_quantity.divide_by", "0", "1"],
    ),
    (
        "price",
        r#"{"currency":"usd","custom_unit_amount":{"enabled":true}}"#,
        "0A000",
        &["custom_unit_amount", "enabled", "not supported"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","aggregate_usage":"max"}}"#,
        "0A000",
        &["recurring.aggregate_usage", "\"max\"", "not supported"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"currency_options":{"eur":{"unit_amount":-1}}}"#,
        "22023",
        &["currency_options.eur.unit_amount", "-1"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"product_data":{"name":""}}"#,
        "22023",
        &["product_data.name", "required"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"minimum_amount":2,"maximum_amount":1,"recurring":{"interval":"day"}}"#,
        "22023",
        &["maximum_amount", "1", "minimum_amount (2)"],
    ),
    (
        "meter",
        r#"{"default_aggregation":{"formula":"sum"}}"#,
        "22023",
        &["\"event_name\"", "required"],
    ),
    (
        "meter",
        r#"{"event_name":"e"}"#,
        "22023",
        &["default_aggregation", "required"],
    ),
    (
        "meter",
        r#"{"event_name":"e","default_aggregation":{"formula":"average"}}"#,
        "22023",
        &["default_aggregation.formula", "\"average\"", "\"sum\""],
    ),
    (
        "meter",
        r#"{"event_name":5,"default_aggregation":{"formula":"sum"}}"#,
        "22023",
        &["\"event_name\"", "5", "string"],
    ),
    (
        "meter",
        r#"{"object":"price","event_name":"e","default_aggregation":{"formula":"sum"}}"#,
        "22023",
        &["\"object\"", "\"price\"", "billing.meter"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[]}"#,
        "22023",
        &["\"items\"", "at least one"],
    ),
    (
        "subscription",
        r#"{"items":[{"price":"p"}]}"#,
        "22023",
        &["\"customer\"", "required"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"},{"price":"p"}]}"#,
        "22023",
        &["items[1].price", "\"p\"", "another item"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p","quantity":-2}]}"#,
        "22023",
        &["items[0].quantity", "-2", "negative"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"}],"start_date":"yesterday"}"#,
        "22023",
        &["start_date", "\"yesterday\"", "ISO 8601"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"}],"start_date":"infinity"}"#,
        "22023",
        &["start_date", "\"infinity\"", "ISO 8601"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"}],"coupon":"half"}"#,
        "0A000",
        &["coupon", "\"half\"", "not supported"],
    ),
];

#[test]
fn errors_name_the_field_the_value_and_the_rule() {
    let (_database, mut client) = database();
    for (name, input, code, words) in REFUSED {
        let sql = format!("SELECT $1::text::billing.{name}");
        let as_text = Refusal::of(&mut client, &sql, &[input]).says(code, words);
        // A field is refused in the same words whichever way the object came, unless jsonb itself has refused it or
        // has taken one of two.
        if *code != "22P02" && !input.contains("\\u0000") && !words.contains(&"twice") {
            let sql = format!("SELECT $1::text::jsonb::billing.{name}");
            let as_jsonb = Refusal::of(&mut client, &sql, &[input]).says(code, &words[..1]);
            assert_eq!(as_jsonb.code, as_text.code);
        }
    }
}

#[test]
fn huge_and_deep_inputs_are_refused_and_the_session_lives() {
    let (_database, mut client) = database();
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for input in [
        deep(100),
        deep(100_000),
        format!(r#"{{"currency":"usd","unit_amount":1,"metadata":{}}}"#, deep(5_000)),
        format!(r#"{{"currency":"{}","unit_amount":1}}"#, "x".repeat(5_000_000)),
        format!(r#"{{"currency":"usd","unit_amount":{}}}"#, "9".repeat(1_000_000)),
        format!(r#"{{"currency":"usd","unit_amount":1,"{}":1}}"#, "k".repeat(1_000_000)),
    ] {
        let refusal = Refusal::of(&mut client, "SELECT $1::text::billing.price", &[&input]);
        assert!(["22P02", "22023"].contains(&refusal.code.as_str()), "{refusal:?}");
        assert!(
            refusal.message.len() < 1000,
            "{} bytes of message",
            refusal.message.len()
        );
    }
    assert!(truth(&mut client, "SELECT true"));
}
