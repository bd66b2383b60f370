//! The value types as the server has them: text, binary, casts, equality, hashing, storage, errors. Their rules are tested
//! without a server; here is what a server adds.

use harness::Database;
use postgres::Client;

mod binary;
mod casts;
mod equality;
mod refusals;
mod returned;
mod storage;
mod text;

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

fn truth(client: &mut Client, sql: &str) -> bool {
    client.query_one(sql, &[]).unwrap().get(0)
}

/// Every type with an object as a request has it and the text that the type must make of it: fields in alphabetical
/// order, defaults said, whole amounts as numbers, times in UTC.
const OBJECTS: &[(&str, &str, &str)] = &[
    (
        "meter",
        r#" { "event_name" : "requests", "default_aggregation" : { "formula" : "sum" } } "#,
        r#"{"default_aggregation":{"formula":"sum"},"event_name":"requests","value_settings":{"event_payload_key":"value"}}"#,
    ),
    (
        "price",
        r#"{"unit_amount_decimal": "0.500", "currency": "USD", "recurring": {"interval": "month"}}"#,
        concat!(
            r#"{"active":true,"billing_scheme":"per_unit","currency":"usd","recurring":{"interval":"month","interval_count":1,"#,
            r#""usage_type":"licensed"},"tax_behavior":"unspecified","type":"recurring","unit_amount_decimal":"0.5"}"#
        ),
    ),
    (
        "price",
        r#"{"currency": "jpy", "billing_scheme": "tiered", "tiers_mode": "volume",
            "tiers": [{"up_to": 5, "unit_amount": 7, "flat_amount": 1}, {"up_to": "inf", "unit_amount_decimal": "6.5"}]}"#,
        concat!(
            r#"{"active":true,"billing_scheme":"tiered","currency":"jpy","tax_behavior":"unspecified","#,
            r#""tiers":[{"flat_amount":1,"unit_amount":7,"up_to":5},{"unit_amount_decimal":"6.5","up_to":"inf"}],"#,
            r#""tiers_mode":"volume","type":"one_time"}"#
        ),
    ),
    (
        "subscription",
        r#"{"customer": "c1", "start_date": 1704067200, "billing_cycle_anchor": "2024-01-31T01:00:00.5+01:00",
            "items": [{"price": "p1", "quantity": 2}], "metadata": {"b": "é\n\\\"", "a": "😀"}}"#,
        concat!(
            r#"{"billing_cycle_anchor":"2024-01-31T00:00:00.500Z","cancel_at_period_end":false,"#,
            r#""collection_method":"charge_automatically","customer":"c1","items":[{"price":"p1","quantity":2}],"#,
            r#""metadata":{"a":"😀","b":"é\n\\\""},"proration_behavior":"create_prorations","#,
            r#""start_date":"2024-01-01T00:00:00Z"}"#
        ),
    ),
];
