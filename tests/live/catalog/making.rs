//! Making things by function: once, again, at the same time.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CUSTOMER, METER, PRICE, PRODUCT, database, meter, text, truth};
use crate::refusal::Refusal;

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
