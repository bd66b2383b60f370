//! Customers, products, meters and prices: made by functions and by plain INSERTs, kept, archived, never falsified.

use std::thread;
use std::time::Duration;

use harness::Database;
use postgres::Client;
use postgres::types::ToSql;
use serde_json::{Value, json};

use crate::refusal::Refusal;

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

fn text(client: &mut Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> String {
    match client.query_one(sql, parameters) {
        Ok(row) => row.get(0),
        Err(error) => panic!("{error:?}: {sql} {parameters:?}"),
    }
}

fn truth(client: &mut Client, sql: &str) -> bool {
    client.query_one(sql, &[]).unwrap().get(0)
}

fn meter(event_name: &str) -> Value {
    json!({"event_name": event_name, "default_aggregation": {"formula": "sum"}})
}

fn metered(meter: &str) -> Value {
    json!({"currency": "usd", "unit_amount": 2, "recurring": {"interval": "month", "usage_type": "metered", "meter": meter}})
}

const CUSTOMER: &str = "SELECT billing.create_customer($1, $2, $3, $4::jsonb)";
const PRODUCT: &str = "SELECT billing.create_product($1, $2, $3, $4, $5::jsonb)";
const METER: &str = "SELECT billing.create_meter($1::jsonb)";
const PRICE: &str = "SELECT billing.create_price($1::jsonb, $2, $3)";

#[test]
fn making_the_same_again_is_no_error_and_other_data_is_one() {
    let (_database, mut client) = database();
    let none = None::<&str>;
    let metadata = json!({"a": 1, "b": [2]});
    for _ in 0..2 {
        assert_eq!(text(&mut client, CUSTOMER, &[&"c", &"Ann", &none, &metadata]), "c");
        assert_eq!(
            text(&mut client, PRODUCT, &[&"prod", &"Seats", &none, &"seat", &metadata]),
            "prod"
        );
    }
    for (name, email, metadata) in [
        ("Bob", None, &metadata),
        ("Ann", Some("ann@example.com"), &metadata),
        ("Ann", None, &json!({})),
    ] {
        Refusal::of(&mut client, CUSTOMER, &[&"c", &name, &email, metadata])
            .says("23505", &["customer \"c\""])
            .hints();
    }
    Refusal::of(&mut client, PRODUCT, &[&"prod", &"Chairs", &none, &"seat", &metadata])
        .says("23505", &["product \"prod\""])
        .hints();

    let id = text(&mut client, METER, &[&meter("calls")]);
    let same = json!({
        "object": "billing.meter", "id": "mtr_other", "event_name": "calls", "default_aggregation": {"formula": "sum"},
        "value_settings": {"event_payload_key": "value"}, "event_time_window": null
    });
    assert_eq!(text(&mut client, METER, &[&same]), id);
    for change in [
        json!({"default_aggregation": {"formula": "max"}}),
        json!({"value_settings": {"event_payload_key": "n"}}),
        json!({"customer_mapping": {"type": "by_id", "event_payload_key": "who"}}),
        json!({"dimension_payload_keys": ["region"]}),
        json!({"display_name": "Calls"}),
    ] {
        let mut other = meter("calls");
        let (Value::Object(fields), Value::Object(changed)) = (&mut other, change) else {
            panic!("objects")
        };
        fields.extend(changed);
        Refusal::of(&mut client, METER, &[&other])
            .says("42710", &["meter \"calls\""])
            .hints();
    }
    let price = json!({"currency": "usd", "unit_amount": 5});
    for _ in 0..2 {
        assert_eq!(text(&mut client, PRICE, &[&price, &"prod", &"p"]), "p");
    }
    let dearer = json!({"currency": "usd", "unit_amount": 6});
    Refusal::of(&mut client, PRICE, &[&dearer, &"prod", &"p"])
        .says("23505", &["price \"p\""])
        .hints();
    Refusal::of(&mut client, PRICE, &[&price, &none, &"p"])
        .says("23505", &["price \"p\""])
        .hints();
    assert_ne!(
        text(&mut client, PRICE, &[&price, &none, &none]),
        text(&mut client, PRICE, &[&price, &none, &none])
    );
    assert!(truth(
        &mut client,
        "SELECT (SELECT count(*) FROM billing.customers) = 1 AND (SELECT count(*) FROM billing.products) = 1
            AND (SELECT count(*) FROM billing.meters) = 1 AND (SELECT count(*) FROM billing.prices) = 3"
    ));
}

#[test]
fn two_sessions_making_the_same_agree() {
    let (database, mut first) = database();
    first.batch_execute("BEGIN").unwrap();
    let ids = [
        text(&mut first, METER, &[&meter("calls")]),
        text(&mut first, "SELECT billing.create_customer('c')", &[]),
        text(
            &mut first,
            PRICE,
            &[&json!({"currency": "usd", "unit_amount": 5}), &None::<&str>, &"p"],
        ),
    ];
    let made = thread::scope(|scope| {
        let second = scope.spawn(|| {
            let mut second = database.connect().unwrap();
            [
                text(&mut second, METER, &[&meter("calls")]),
                text(&mut second, "SELECT billing.create_customer('c')", &[]),
                text(
                    &mut second,
                    PRICE,
                    &[&json!({"currency": "usd", "unit_amount": 5}), &None::<&str>, &"p"],
                ),
            ]
        });
        let mut watch = database.connect().unwrap();
        while !truth(
            &mut watch,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')",
        ) {
            thread::sleep(Duration::from_millis(5));
        }
        first.batch_execute("COMMIT").unwrap();
        second.join().unwrap()
    });
    assert_eq!(made, ids);
}

#[test]
fn made_ids_have_stripes_prefixes_and_sort_by_creation() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"INSERT INTO billing.products (name) SELECT 'product ' || n FROM generate_series(1, 300) n;
               SELECT billing.create_price('{"currency":"usd","unit_amount":1}') FROM generate_series(1, 300);
               INSERT INTO billing.meters (meter) SELECT format('{"event_name":"e%s","default_aggregation":{"formula":"count"}}', n)
                   ::billing.meter FROM generate_series(1, 300) n;"#,
        )
        .unwrap();
    for (table, prefix) in [("products", "prod"), ("prices", "price"), ("meters", "mtr")] {
        let ordered = format!(
            "SELECT count(*) = 300 AND bool_and(id ~ '^{prefix}_[0-9a-f]{{32}}$' AND id > before IS NOT FALSE)
             FROM (SELECT id, lag(id) OVER (ORDER BY ctid) AS before FROM billing.{table}) made"
        );
        assert!(truth(&mut client, &ordered), "{table}");
    }
}

#[test]
fn names_have_lengths_and_metadata_is_an_object() {
    let (_database, mut client) = database();
    let none = None::<&str>;
    let empty = json!({});
    let long = |count: usize| "é".repeat(count);
    assert_eq!(
        text(&mut client, CUSTOMER, &[&long(255), &none, &none, &empty]),
        long(255)
    );
    assert_eq!(
        text(
            &mut client,
            PRODUCT,
            &[&long(255), &long(250), &long(10_000), &long(12), &empty]
        ),
        long(255)
    );
    for id in [String::new(), long(256)] {
        Refusal::of(&mut client, CUSTOMER, &[&id, &none, &none, &empty]).says("23514", &["customers_id_length"]);
        Refusal::of(&mut client, PRODUCT, &[&id, &"n", &none, &none, &empty]).says("23514", &["products_id_length"]);
        Refusal::of(
            &mut client,
            PRICE,
            &[&json!({"currency": "usd", "unit_amount": 5}), &none, &id],
        )
        .says("23514", &["prices_id_length"]);
    }
    for (name, label, constraint) in [
        (String::new(), None, "products_name_length"),
        (long(251), None, "products_name_length"),
        (long(1), Some(String::new()), "products_unit_label_length"),
        (long(1), Some(long(13)), "products_unit_label_length"),
    ] {
        Refusal::of(&mut client, PRODUCT, &[&"p", &name, &none, &label, &empty]).says("23514", &[constraint]);
    }
    for metadata in [json!([]), json!("text"), json!(1), json!(null)] {
        Refusal::of(&mut client, CUSTOMER, &[&"c", &none, &none, &metadata])
            .says("23514", &["customers_metadata_object"]);
        Refusal::of(&mut client, PRODUCT, &[&"p", &"n", &none, &none, &metadata])
            .says("23514", &["products_metadata_object"]);
    }
}

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

#[test]
fn definitions_never_change() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_product('prod', 'P'), billing.create_product('other', 'O');
               SELECT billing.create_customer('c');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,"nickname":"n"}', 'prod', 'p');"#,
        )
        .unwrap();
    for change in [
        r#"price = '{"currency":"usd","unit_amount":2,"nickname":"n"}'"#,
        r#"price = '{"currency":"eur","unit_amount":1,"nickname":"n"}'"#,
        r#"price = '{"currency":"usd","unit_amount":1,"nickname":"m"}'"#,
        r#"price = '{"currency":"usd","unit_amount":1,"nickname":"n","recurring":{"interval":"month"}}'"#,
        "product = 'other'",
        "product = NULL",
        "id = 'q'",
        "created = created - interval '1 day'",
        "currency = 'eur'",
        "type = 'recurring'",
        "usage_type = 'licensed'",
        "meter = 'calls'",
        "\"interval\" = 'day'",
        "interval_count = 2",
    ] {
        Refusal::of(&mut client, &format!("UPDATE billing.prices SET {change}"), &[])
            .says("23001", &["price \"p\""])
            .hints();
    }
    for change in [
        r#"meter = '{"event_name":"calls","default_aggregation":{"formula":"max"}}'"#,
        r#"meter = '{"event_name":"other","default_aggregation":{"formula":"sum"}}'"#,
        "id = 'mtr_other'",
    ] {
        Refusal::of(&mut client, &format!("UPDATE billing.meters SET {change}"), &[])
            .says("23001", &["meter \"calls\""])
            .hints();
    }
    Refusal::of(&mut client, "UPDATE billing.customers SET id = 'd'", &[])
        .says("23001", &["customer \"c\""])
        .hints();
    // What may change.
    client
        .batch_execute(
            r#"UPDATE billing.meters SET meter = '{"event_name":"calls","display_name":"Calls","default_aggregation":{"formula":"sum"}}';
               UPDATE billing.meters SET aggregation = 'max', value_key = 'x', dimension_keys = '{x}', customer_key = 'x';
               UPDATE billing.customers SET id = 'c', name = 'Ann', email = 'a@b', metadata = '{"a":1}';
               UPDATE billing.products SET name = 'Q', description = 'd', unit_label = 'u', metadata = '{"a":1}' WHERE id = 'prod';
               UPDATE billing.prices SET lookup_key = 'k', active = false;"#,
        )
        .unwrap();
    assert!(truth(
        &mut client,
        "SELECT aggregation = 'sum' AND value_key = 'value' AND dimension_keys = '{}' AND customer_key IS NULL
            AND meter::jsonb ->> 'display_name' = 'Calls' FROM billing.meters"
    ));
    assert!(truth(
        &mut client,
        "SELECT NOT active AND archived_at IS NOT NULL AND price::jsonb @> '{\"active\":false,\"lookup_key\":\"k\"}' FROM billing.prices"
    ));
    // These two stand in the definition too; whichever is written, the other follows.
    for (write, active, key) in [
        (
            "UPDATE billing.prices SET price = price::jsonb || '{\"active\":true,\"lookup_key\":\"l\"}'",
            true,
            Some("l"),
        ),
        (
            "UPDATE billing.prices SET active = false, price = price::jsonb - 'lookup_key'",
            false,
            None,
        ),
        (
            "UPDATE billing.prices SET active = true, lookup_key = 'm'",
            true,
            Some("m"),
        ),
        (
            "INSERT INTO billing.prices (price, active, lookup_key) VALUES ('{\"currency\":\"usd\",\"unit_amount\":1}', false, 'o')",
            false,
            Some("o"),
        ),
        (
            "INSERT INTO billing.prices (price, lookup_key) VALUES ('{\"currency\":\"usd\",\"unit_amount\":1,\"lookup_key\":\"x\"}', 'p')",
            true,
            Some("p"),
        ),
    ] {
        let both = format!(
            "{write} RETURNING active, lookup_key, price::jsonb -> 'active' = to_jsonb(active), price::jsonb ->> 'lookup_key'"
        );
        let row = client.query_one(&both, &[]).unwrap();
        assert_eq!(
            (row.get(0), row.get(1), row.get(2), row.get(3)),
            (active, key, true, key),
            "{write}"
        );
    }
    // Neither counts when the same price is made again.
    let again = text(
        &mut client,
        r#"SELECT billing.create_price('{"currency":"usd","unit_amount":1,"nickname":"n"}', 'prod', 'p')"#,
        &[],
    );
    assert_eq!(again, "p");
}

#[test]
fn archiving_takes_off_offer_and_activating_takes_it_back() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,"lookup_key":"k","recurring":{"interval":"month"}}', 'prod', 'old');"#,
        )
        .unwrap();
    let subscribe = r#"SELECT billing.create_subscription(format('{"customer":"%s","items":[{"price":"%s"}]}', $1::text, $2::text)::billing.subscription)"#;
    let kept = text(&mut client, subscribe, &[&"c", &"old"]);
    let second = r#"SELECT billing.create_price('{"currency":"usd","unit_amount":2,"lookup_key":"k","recurring":{"interval":"month"}}', id => 'new')"#;
    Refusal::of(&mut client, second, &[]).says("23505", &["prices_lookup_key_key"]);
    for _ in 0..2 {
        assert_eq!(
            text(&mut client, "SELECT billing.archive_price('old', '2024-05-01Z')", &[]),
            "old"
        );
        assert!(truth(
            &mut client,
            "SELECT NOT active AND archived_at = '2024-05-01Z' AND price::jsonb -> 'active' = 'false' FROM billing.prices WHERE id = 'old'"
        ));
    }
    // The first archiving stays when it is archived again.
    text(&mut client, "SELECT billing.archive_price('old', '2025-05-01Z')", &[]);
    assert!(truth(
        &mut client,
        "SELECT archived_at = '2024-05-01Z' FROM billing.prices WHERE id = 'old'"
    ));
    assert_eq!(text(&mut client, second, &[]), "new");
    Refusal::of(&mut client, "SELECT billing.activate_price('old')", &[]).says("23505", &["prices_lookup_key_key"]);
    Refusal::of(&mut client, subscribe, &[&"c", &"old"])
        .says("55000", &["price \"old\"", "archived"])
        .hints();
    Refusal::of(&mut client, subscribe, &[&"c", &"none"])
        .says("23503", &["price \"none\""])
        .hints();
    Refusal::of(&mut client, subscribe, &[&"nobody", &"new"])
        .says("23503", &["customer \"nobody\""])
        .hints();
    // Those that have it keep it.
    assert!(truth(
        &mut client,
        &format!("SELECT status = 'active' FROM billing.subscriptions WHERE id = '{kept}'")
    ));
    text(&mut client, "SELECT billing.archive_price('new')", &[]);
    for _ in 0..2 {
        assert_eq!(text(&mut client, "SELECT billing.activate_price('old')", &[]), "old");
        assert!(truth(
            &mut client,
            "SELECT active AND archived_at IS NULL FROM billing.prices WHERE id = 'old'"
        ));
    }
    text(&mut client, subscribe, &[&"c", &"old"]);

    for _ in 0..2 {
        assert_eq!(text(&mut client, "SELECT billing.archive_product('prod')", &[]), "prod");
        assert!(truth(&mut client, "SELECT NOT active FROM billing.products"));
    }
    assert_eq!(
        text(&mut client, "SELECT billing.activate_product('prod')", &[]),
        "prod"
    );
    assert!(truth(&mut client, "SELECT active FROM billing.products"));

    let id = text(&mut client, "SELECT id FROM billing.meters", &[]);
    for by in ["calls", &id, "calls"] {
        assert_eq!(text(&mut client, "SELECT billing.deactivate_meter($1)", &[&by]), id);
        assert!(truth(
            &mut client,
            "SELECT status = 'inactive' AND deactivated_at = max(deactivated_at) OVER () FROM billing.meters"
        ));
    }
    Refusal::of(&mut client, PRICE, &[&metered("calls"), &None::<&str>, &None::<&str>])
        .says("55000", &["meter \"calls\"", "(archived_meter)"])
        .hints();
    Refusal::of(&mut client, "SELECT billing.record_meter_event('calls', 'c', 1)", &[])
        .says("55000", &["(archived_meter)"]);
    for by in [&id, "calls"] {
        assert_eq!(text(&mut client, "SELECT billing.reactivate_meter($1)", &[&by]), id);
    }
    assert!(truth(
        &mut client,
        "SELECT status = 'active' AND deactivated_at IS NULL FROM billing.meters"
    ));
    text(&mut client, PRICE, &[&metered("calls"), &None::<&str>, &None::<&str>]);
}

#[test]
fn what_is_used_cannot_be_deleted() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_meter('{"event_name":"watched","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,
                   "recurring":{"interval":"month","usage_type":"metered","meter":"calls"}}', 'prod', 'p');
               SELECT billing.create_subscription('{"customer":"c","items":[{"price":"p"}]}');
               SELECT billing.create_alert('watched', 5, 'c');"#,
        )
        .unwrap();
    for table in ["customers", "products", "prices"] {
        Refusal::of(&mut client, &format!("DELETE FROM billing.{table}"), &[]).says("23503", &[table]);
        Refusal::of(&mut client, &format!("TRUNCATE billing.{table}"), &[]).says("0A000", &["foreign key"]);
    }
    for meter in ["calls", "watched"] {
        Refusal::of(
            &mut client,
            "DELETE FROM billing.meters WHERE event_name = $1",
            &[&meter],
        )
        .says("23503", &["meters"]);
    }
    // The roles may not delete even what is unused.
    client
        .batch_execute("SELECT billing.create_customer('unused'); SET ROLE billing_admin")
        .unwrap();
    for table in ["customers", "products", "prices", "meters"] {
        Refusal::of(
            &mut client,
            &format!("DELETE FROM billing.{table} WHERE id = 'unused'"),
            &[],
        )
        .says("42501", &[table]);
    }
    client
        .batch_execute("RESET ROLE; DELETE FROM billing.customers WHERE id = 'unused'")
        .unwrap();
}

#[test]
fn names_that_look_alike_are_kept_apart() {
    let (_database, mut client) = database();
    // Words of SQL, names of columns and of variables, case, spaces, two ways to write é, and what text search ignores.
    let names = [
        "id",
        "price",
        "meter",
        "name",
        "NULL",
        "null",
        "default",
        "current_user",
        "*",
        "%",
        "_",
        "1",
        "01",
        "1.0",
        "t",
        "true",
        "E",
        "e",
        " e",
        "e ",
        "e\t",
        "é",
        "e\u{301}",
        "ﬁ",
        "fi",
        "ß",
        "ss",
        "i",
        "İ",
        "ı",
        "e\u{200b}",
        "😀",
        "{}",
        "[]",
        "\"",
        "\\",
        "'",
        "''",
    ];
    let none = None::<&str>;
    let mut meters = Vec::new();
    for name in names {
        assert_eq!(text(&mut client, CUSTOMER, &[&name, &name, &none, &json!({})]), name);
        assert_eq!(
            text(&mut client, PRODUCT, &[&name, &name, &none, &none, &json!({})]),
            name
        );
        meters.push(text(&mut client, METER, &[&meter(name)]));
        let price = metered(name);
        assert_eq!(text(&mut client, PRICE, &[&price, &name, &name]), name);
    }
    for (name, id) in names.into_iter().zip(&meters) {
        let row = client
            .query_one(
                "SELECT m.id, c.name, p.product, p.meter FROM billing.prices p JOIN billing.meters m ON m.event_name = p.meter
                 JOIN billing.customers c ON c.id = p.id WHERE p.id = $1",
                &[&name],
            )
            .unwrap();
        assert_eq!(
            (row.get(0), row.get(1), row.get(2), row.get(3)),
            (id.as_str(), name, name, name)
        );
        assert_eq!(text(&mut client, "SELECT billing.archive_price($1)", &[&name]), name);
        assert_eq!(text(&mut client, "SELECT billing.archive_product($1)", &[&name]), name);
        assert_eq!(&text(&mut client, "SELECT billing.deactivate_meter($1)", &[&name]), id);
        assert_eq!(&text(&mut client, METER, &[&meter(name)]), id);
    }
    // A meter that is called by another's id: the name comes first.
    let one = text(&mut client, METER, &[&meter("one")]);
    let other = text(&mut client, METER, &[&meter(&one)]);
    let price = text(&mut client, PRICE, &[&metered(&one), &none, &none]);
    assert_eq!(
        text(&mut client, "SELECT meter FROM billing.prices WHERE id = $1", &[&price]),
        one
    );
    assert_eq!(text(&mut client, "SELECT billing.deactivate_meter($1)", &[&one]), other);
    assert_eq!(
        text(&mut client, "SELECT status FROM billing.meters WHERE id = $1", &[&one]),
        "active"
    );
    let price = text(&mut client, PRICE, &[&metered("one"), &none, &none]);
    assert_eq!(
        text(&mut client, "SELECT meter FROM billing.prices WHERE id = $1", &[&price]),
        "one"
    );
}

/// Each call with every argument given, and for each argument whether it may be NULL.
const NULLS: &[(&str, &[(&str, bool)])] = &[
    (
        "create_customer",
        &[("'x'", false), ("'n'", true), ("'e'", true), ("'{}'::jsonb", false)],
    ),
    (
        "create_product",
        &[
            ("'x'", false),
            ("'n'", false),
            ("'d'", true),
            ("'u'", true),
            ("'{}'::jsonb", false),
        ],
    ),
    (
        "create_meter",
        &[(
            r#"'{"event_name":"x","default_aggregation":{"formula":"sum"}}'::billing.meter"#,
            false,
        )],
    ),
    (
        "create_price",
        &[
            (r#"'{"currency":"usd","unit_amount":1}'::billing.price"#, false),
            ("'prod'", true),
            ("'new'", true),
        ],
    ),
    ("archive_price", &[("'p'", false), ("now()", false)]),
    ("activate_price", &[("'p'", false)]),
    ("archive_product", &[("'prod'", false)]),
    ("activate_product", &[("'prod'", false)]),
    ("deactivate_meter", &[("'calls'", false), ("now()", false)]),
    ("reactivate_meter", &[("'calls'", false)]),
    (
        "create_alert",
        &[
            ("'calls'", false),
            ("5", false),
            ("'c'", true),
            ("'one_time'", false),
            ("'t'", true),
        ],
    ),
    ("activate_alert", &[("'a'", false)]),
    ("deactivate_alert", &[("'a'", false)]),
    ("archive_alert", &[("'a'", false)]),
    (
        "create_subscription",
        &[
            (
                r#"'{"customer":"c","items":[{"price":"p"}]}'::billing.subscription"#,
                false,
            ),
            ("'s'", true),
            ("now()", false),
        ],
    ),
    (
        "update_subscription",
        &[("'sub'", false), ("'{}'::jsonb", false), ("now()", false)],
    ),
    (
        "cancel_subscription",
        &[("'sub'", false), ("true", false), ("now()", false)],
    ),
    ("finalize_invoice", &[("'in'", false), ("now()", false)]),
    ("void_invoice", &[("'in'", false), ("now()", false)]),
    ("mark_invoice_paid", &[("'in'", false), ("now()", false)]),
    ("mark_invoice_uncollectible", &[("'in'", false), ("now()", false)]),
    ("generate_invoices", &[("now()", false)]),
];

#[test]
fn null_is_refused_by_name_or_means_nothing_given() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,"recurring":{"interval":"month"}}', id => 'p');
               SELECT billing.create_subscription('{"customer":"c","items":[{"price":"p"}]}', 'sub');"#,
        )
        .unwrap();
    for (function, arguments) in NULLS {
        for (place, (_, may_be_null)) in arguments.iter().enumerate() {
            let given: Vec<&str> = (0..arguments.len())
                .map(|at| if at == place { "NULL" } else { arguments[at].0 })
                .collect();
            let call = format!("SELECT billing.{function}({})::text", given.join(", "));
            let names: Vec<String> = client
                .query_one("SELECT proargnames FROM pg_proc WHERE proname = $1", &[function])
                .unwrap()
                .get(0);
            client.batch_execute("BEGIN").unwrap();
            if *may_be_null {
                client
                    .query(&call, &[])
                    .unwrap_or_else(|error| panic!("{call}: {error:?}"));
            } else {
                let refusal = Refusal::of(&mut client, &call, &[]).says("22004", &[&format!("\"{}\"", names[place])]);
                assert!(refusal.message.to_lowercase().contains("null"), "{refusal:?}");
            }
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

/// Texts that end a literal, an identifier, a dollar quote, a format or a pattern, were they ever pasted into a statement.
const INJECTIONS: &[&str] = &[
    "'; DROP TABLE canary; --",
    "''; DROP TABLE canary; --",
    "\\'; DROP TABLE canary; --",
    "x' OR '1'='1",
    "\"; DROP TABLE canary; --",
    "$$; DROP TABLE canary; $$",
    "$1; %s %I %L %1$s %%; DROP TABLE canary",
    "'); DROP TABLE canary; SELECT ('",
    "(SELECT 1/0)",
    "x\nDROP TABLE canary;",
    "${jndi:x} {{7*7}} \u{2019}; DROP TABLE canary; --",
    "pg_catalog.pg_class",
];

#[test]
fn no_text_argument_of_any_function_is_ever_run() {
    let (_database, mut client) = database();
    client
        .batch_execute("CREATE TABLE canary (n integer); INSERT INTO canary VALUES (1)")
        .unwrap();
    let functions = client
        .query(
            "SELECT p.oid::regproc::text, array_agg(t.typ::regtype::text ORDER BY t.place), p.prokind::text
             FROM pg_proc p, unnest(p.proargtypes::oid[]) WITH ORDINALITY t (typ, place)
             WHERE p.pronamespace = 'billing'::regnamespace AND p.prorettype <> 'trigger'::regtype AND p.prokind = 'f'
             GROUP BY p.oid HAVING NOT bool_or(t.typ::regtype::text IN ('cstring', 'internal')) ORDER BY 1",
            &[],
        )
        .unwrap();
    assert!(functions.len() > 50);
    let mut calls = 0;
    for injection in INJECTIONS {
        let quoted = format!("E'{}'", injection.replace('\\', "\\\\").replace('\'', "\\'"));
        let object = |value: Value| {
            format!(
                "E'{}'::jsonb",
                value.to_string().replace('\\', "\\\\").replace('\'', "\\'")
            )
        };
        for function in &functions {
            let (name, types): (&str, Vec<&str>) = (function.get(0), function.get(1));
            let arguments: Vec<String> = types
                .iter()
                .map(|name| match *name {
                    "text" => quoted.clone(),
                    "anyelement" => "1".to_owned(),
                    "text[]" => format!("ARRAY[{quoted}]"),
                    "jsonb" => object(
                        json!({"event_name": injection, "identifier": injection, *injection: injection,
                                             "payload": {"customer": injection, "value": injection}}),
                    ),
                    "jsonb[]" => format!("ARRAY[{}]", object(json!({*injection: injection}))),
                    "billing.price" => {
                        object(json!({"currency": "usd", "unit_amount": 1, "nickname": injection,
                                                     "product": injection, "lookup_key": injection}))
                            + "::billing.price"
                    }
                    "billing.meter" => {
                        object(json!({"event_name": injection, "display_name": injection,
                        "default_aggregation": {"formula": "sum"}, "dimension_payload_keys": [injection]}))
                            + "::billing.meter"
                    }
                    "billing.subscription" => {
                        object(json!({"customer": injection, "items": [{"price": injection}],
                        "description": injection, "metadata": {*injection: injection}}))
                            + "::billing.subscription"
                    }
                    other => format!("NULL::{other}"),
                })
                .collect();
            if !types
                .iter()
                .any(|name| name.starts_with("text") || name.starts_with("jsonb") || name.starts_with("billing."))
            {
                continue;
            }
            let call = format!("SELECT {name}({})", arguments.join(", "));
            calls += 1;
            client.batch_execute("BEGIN").unwrap();
            if let Err(error) = client.query(&call, &[]) {
                let Some(error) = error.as_db_error() else {
                    panic!("{call}: {error:?}")
                };
                // A text that had become part of a statement would be a syntax error or a name that is not there.
                let code = error.code().code();
                let signs = ["42601", "42P01", "42703", "42883", "22012", "XX000"];
                assert!(!signs.contains(&code), "{call}: {error:?}");
            }
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
    assert!(calls > 500, "only {calls}");
    assert!(truth(&mut client, "SELECT count(*) = 1 FROM canary"));
}

#[test]
fn hostile_texts_are_kept_letter_by_letter() {
    let (_database, mut client) = database();
    let none = None::<&str>;
    client.batch_execute("CREATE TABLE canary (n integer)").unwrap();
    for hostile in INJECTIONS {
        assert_eq!(
            text(
                &mut client,
                CUSTOMER,
                &[hostile, hostile, hostile, &json!({*hostile: hostile})]
            ),
            *hostile
        );
        text(&mut client, PRODUCT, &[hostile, hostile, hostile, &none, &json!({})]);
        let id = text(
            &mut client,
            METER,
            &[
                &json!({"event_name": hostile, "display_name": hostile, "default_aggregation": {"formula": "sum"},
                      "dimension_payload_keys": [hostile], "value_settings": {"event_payload_key": hostile}}),
            ],
        );
        let mut price = metered(hostile);
        price["lookup_key"] = json!(hostile);
        price["nickname"] = json!(hostile);
        text(&mut client, PRICE, &[&price, hostile, hostile]);
        let alert = text(
            &mut client,
            "SELECT billing.create_alert($1, 5, $1, 'one_time', $1)",
            &[hostile],
        );
        let subscription = json!({"customer": hostile, "items": [{"price": hostile}], "description": hostile});
        text(
            &mut client,
            "SELECT billing.create_subscription($1::jsonb, $2, now())",
            &[&subscription, hostile],
        );
        text(
            &mut client,
            "SELECT billing.record_meter_event($1, $1, 3, $1, NULL, jsonb_build_object($1::text, $1::text))::text",
            &[hostile],
        );
        text(&mut client, "SELECT billing.roll_up()::text", &[]);
        let row = client
            .query_one(
                "SELECT c.name = $1 AND c.email = $1 AND c.metadata ->> $1 = $1 AND d.description = $1 AND m.value_key = $1
                        AND m.dimension_keys = ARRAY[$1] AND p.lookup_key = $1 AND p.meter = $1 AND p.product = $1
                        AND a.title = $1 AND a.customer = $1 AND s.description = $1 AND s.customer = $1 AND m.id = $2
                        AND (SELECT aggregated_value = 3 FROM billing.meter_event_summaries($1, $1, now() - interval '1 day', now() + interval '1 day',
                             dimensions => jsonb_build_object($1::text, $1::text)))
                 FROM billing.customers c JOIN billing.products d USING (id) JOIN billing.prices p USING (id)
                 JOIN billing.meters m ON m.event_name = p.meter JOIN billing.subscriptions s ON s.id = c.id
                 JOIN billing.alerts a ON a.id = $3 WHERE c.id = $1",
                &[hostile, &id, &alert],
            )
            .unwrap();
        assert!(row.get::<_, bool>(0), "{hostile}");
    }
    assert!(truth(&mut client, "SELECT count(*) = 0 FROM canary"));
}
