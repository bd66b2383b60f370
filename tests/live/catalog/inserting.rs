//! Making things by an ORM's INSERT, under the same constraints.

use serde_json::json;

use super::{PRICE, database, meter, metered, text};
use crate::refusal::Refusal;

/// A statement of a function and of an ORM, and the SQLSTATE and words that both must be refused with.
const REFUSED_BOTH_WAYS: &[(&str, &str, &str, &[&str])] = &[
    (
        "create_price",
        r#"{"currency":"xyz","unit_amount":1}"#,
        "22023",
        &["currency", "xyz"],
    ),
    (
        "create_price",
        r#"{"currency":"usd","unit_amount":-1}"#,
        "22023",
        &["unit_amount", "-1"],
    ),
    (
        "create_price",
        r#"{"currency":"usd","unit_amount":1,"colour":1}"#,
        "22023",
        &["colour"],
    ),
    (
        "create_price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"year","interval_count":4}}"#,
        "22023",
        &["interval_count", "4"],
    ),
    (
        "create_price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":9,"unit_amount":1},{"up_to":3,"unit_amount":1},{"up_to":"inf","unit_amount":1}]}"#,
        "22023",
        &["tiers[1].up_to", "3"],
    ),
    (
        "create_price",
        r#"{"currency":"usd","unit_amount":1,"product":"prod_none"}"#,
        "23503",
        &["product"],
    ),
    (
        "create_price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","usage_type":"metered","meter":"none"}}"#,
        "23503",
        &["meter \"none\""],
    ),
    (
        "create_price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","usage_type":"metered","meter":"closed"}}"#,
        "55000",
        &["meter \"closed\"", "(archived_meter)"],
    ),
    (
        "create_price",
        r#"{"currency":"usd","unit_amount":1,"lookup_key":"taken"}"#,
        "23505",
        &["prices_lookup_key_key"],
    ),
    (
        "create_meter",
        r#"{"event_name":"e","default_aggregation":{"formula":"average"}}"#,
        "22023",
        &["formula", "average"],
    ),
    (
        "create_meter",
        r#"{"event_name":"e","default_aggregation":{"formula":"sum"},"event_time_window":"hour"}"#,
        "0A000",
        &["event_time_window", "hour"],
    ),
    (
        "create_meter",
        r#"{"event_name":"","default_aggregation":{"formula":"sum"}}"#,
        "22023",
        &["event_name"],
    ),
];

#[test]
fn inserts_meet_what_the_functions_meet() {
    let (database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_meter('{"event_name":"closed","default_aggregation":{"formula":"sum"}}');
               SELECT billing.deactivate_meter('closed');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,"lookup_key":"taken"}');"#,
        )
        .unwrap();
    // As its owner, and as the role that applications are granted.
    let mut admin = database.connect().unwrap();
    admin.batch_execute("SET ROLE billing_admin").unwrap();
    for client in [&mut client, &mut admin] {
        for (function, definition, code, words) in REFUSED_BOTH_WAYS {
            let column = function.trim_start_matches("create_");
            let call = format!("SELECT billing.{function}($1::text::billing.{column})");
            let insert = format!("INSERT INTO billing.{column}s ({column}) VALUES ($1::text::billing.{column})");
            let update = format!("UPDATE billing.{column}s SET {column} = $1::text::billing.{column}");
            Refusal::of(client, &call, &[definition]).says(code, words);
            Refusal::of(client, &insert, &[definition]).says(code, words);
            if words == &["prices_lookup_key_key"] {
                continue; // It is the price that has the key.
            }
            // The value itself is refused again; a good one may not take another's place.
            let refusal = Refusal::of(client, &update, &[definition]);
            assert!([*code, "23001"].contains(&refusal.code.as_str()), "{refusal:?}");
        }
    }
}

#[test]
fn what_is_not_there_is_an_error_with_a_hint() {
    let (_database, mut client) = database();
    let price = json!({"currency": "usd", "unit_amount": 1});
    let of_product = json!({"currency": "usd", "unit_amount": 1, "product": "none"});
    let none = None::<&str>;
    Refusal::of(&mut client, PRICE, &[&price, &"none", &none])
        .says("23503", &["product \"none\""])
        .hints();
    Refusal::of(&mut client, PRICE, &[&of_product, &none, &none])
        .says("23503", &["product \"none\""])
        .hints();
    Refusal::of(&mut client, PRICE, &[&metered("none"), &none, &none])
        .says("23503", &["meter \"none\""])
        .hints();
    for (function, what) in [
        ("archive_price", "price"),
        ("activate_price", "price"),
        ("archive_product", "product"),
        ("activate_product", "product"),
        ("deactivate_meter", "meter"),
        ("reactivate_meter", "meter"),
        ("activate_alert", "alert"),
        ("deactivate_alert", "alert"),
        ("archive_alert", "alert"),
    ] {
        Refusal::of(&mut client, &format!("SELECT billing.{function}('none')"), &[])
            .says("42704", &[&format!("{what} \"none\"")])
            .hints();
    }
    client
        .batch_execute("SELECT billing.create_product('one', 'One'), billing.create_product('two', 'Two')")
        .unwrap();
    let of_one = json!({"currency": "usd", "unit_amount": 1, "product": "one"});
    Refusal::of(&mut client, PRICE, &[&of_one, &"two", &none])
        .says("23514", &["\"two\"", "\"one\""])
        .hints();
    let id = text(&mut client, PRICE, &[&of_one, &"one", &none]);
    assert_eq!(
        text(&mut client, "SELECT product FROM billing.prices WHERE id = $1", &[&id]),
        "one"
    );
}

#[test]
fn an_orm_writes_rows_and_the_columns_follow_the_definition() {
    let (database, mut owner) = database();
    let mut client = database.connect().unwrap();
    client.batch_execute("SET ROLE billing_admin").unwrap();
    for formula in ["sum", "count", "last", "max", "min", "unique_count", "weighted_sum"] {
        let meter = json!({
            "event_name": formula, "default_aggregation": {"formula": formula}, "dimension_payload_keys": ["z", "a"],
            "customer_mapping": {"type": "by_id", "event_payload_key": "who"}, "value_settings": {"event_payload_key": "n"}
        });
        // An ORM sends every column; those that the definition decides must not contradict it.
        let row = client
            .query_one(
                "INSERT INTO billing.meters (meter, event_name, aggregation, customer_key, value_key, dimension_keys)
                 VALUES ($1::jsonb, $2, 'sum', 'wrong', 'wrong', '{wrong}')
                 RETURNING aggregation, customer_key, value_key, dimension_keys, status",
                &[&meter, &formula],
            )
            .unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), (formula, "who", "n"));
        assert_eq!((row.get::<_, Vec<&str>>(3), row.get(4)), (vec!["z", "a"], "active"));
    }
    Refusal::of(
        &mut client,
        "INSERT INTO billing.meters (meter, event_name) VALUES ($1::jsonb, 'other')",
        &[&meter("mine")],
    )
    .says("23514", &["\"other\"", "\"mine\""])
    .hints();
    let meter_id = text(
        &mut client,
        "SELECT id FROM billing.meters WHERE event_name = 'sum'",
        &[],
    );
    for named in ["sum", &meter_id] {
        let row = client
            .query_one(
                "INSERT INTO billing.prices (price, currency, type, usage_type, meter, \"interval\", interval_count, active)
                 VALUES ($1::jsonb, 'eur', 'one_time', 'licensed', 'max', 'year', 7, true)
                 RETURNING currency, type, usage_type, meter, \"interval\", interval_count",
                &[&metered(named)],
            )
            .unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), ("usd", "recurring", "metered"));
        assert_eq!((row.get(3), row.get(4), row.get(5)), ("sum", "month", 1));
    }
    let row = client
        .query_one(
            r#"INSERT INTO billing.prices (price) VALUES ('{"currency":"jpy","unit_amount":1,"active":false,"lookup_key":"k"}')
               RETURNING type, usage_type, meter, "interval", interval_count, active, lookup_key, archived_at IS NOT NULL"#,
            &[],
        )
        .unwrap();
    assert_eq!(
        (row.get(0), row.get(1), row.get(2)),
        ("one_time", None::<&str>, None::<&str>)
    );
    assert_eq!((row.get(3), row.get(4), row.get(5)), (None::<&str>, None::<i32>, false));
    assert_eq!((row.get(6), row.get(7)), ("k", true));
    // NULL where a value must be.
    for (sql, column) in [
        ("INSERT INTO billing.meters (meter) VALUES (NULL)", "meter"),
        ("INSERT INTO billing.prices (price) VALUES (NULL)", "price"),
        ("INSERT INTO billing.products (name) VALUES (NULL)", "name"),
        ("INSERT INTO billing.customers (id) VALUES (NULL)", "id"),
        (
            "INSERT INTO billing.customers (id, metadata) VALUES ('c', NULL)",
            "metadata",
        ),
    ] {
        Refusal::of(&mut client, sql, &[]).says("23502", &[&format!("\"{column}\"")]);
    }
    // A statement that makes a product and its price at once.
    client
        .batch_execute(
            r#"WITH made AS (INSERT INTO billing.products (id, name) VALUES ('new', 'New') RETURNING id)
               INSERT INTO billing.prices (price, product) SELECT '{"currency":"usd","unit_amount":1}'::billing.price, id FROM made"#,
        )
        .unwrap();
    for (table, check) in [
        ("meters", "UPDATE billing.meters SET status = 'asleep'"),
        ("customers", "UPDATE billing.customers SET metadata = '[]'"),
        ("products", "UPDATE billing.products SET name = ''"),
    ] {
        owner
            .batch_execute("INSERT INTO billing.customers (id) VALUES ('c') ON CONFLICT DO NOTHING")
            .unwrap();
        Refusal::of(&mut client, check, &[]).says("23514", &[table]);
    }
}
