//! jsonb where a value is wanted, and back.

use serde_json::json;

use super::{database, truth};
use crate::refusal::Refusal;

#[test]
fn a_jsonb_serves_where_a_value_is_wanted() {
    let (_database, mut client) = database();
    let meter = json!({"event_name": "calls", "default_aggregation": {"formula": "count"}});
    let price = json!({"currency": "usd", "unit_amount_decimal": "2.5"});
    client
        .query_one("SELECT billing.create_meter($1::jsonb)", &[&meter])
        .unwrap();
    client
        .query_one("SELECT billing.create_price($1::jsonb, id => 'p')", &[&price])
        .unwrap();
    client
        .execute(
            "INSERT INTO billing.prices (id, price) VALUES ('q', $1::jsonb)",
            &[&price],
        )
        .unwrap();
    let row = client
        .query_one(
            "SELECT billing.price_amount($1::jsonb, 3)::text, count(*) FROM billing.prices WHERE price = $1::jsonb",
            &[&price],
        )
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), ("7.5", 2_i64));
}

#[test]
fn a_value_becomes_jsonb_by_assignment_and_not_behind_ones_back() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"CREATE TABLE kept (j jsonb);
               INSERT INTO kept SELECT '{"currency":"usd","unit_amount":1}'::billing.price;"#,
        )
        .unwrap();
    assert!(truth(&mut client, "SELECT j ->> 'unit_amount' = '1' FROM kept"));
    Refusal::of(
        &mut client,
        r#"SELECT jsonb_typeof('{"currency":"usd","unit_amount":1}'::billing.price)"#,
        &[],
    )
    .says("42883", &["jsonb_typeof(billing.price)"]);
}
