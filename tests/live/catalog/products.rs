//! Products: changed by Stripe's field names, made together with a price, and their default price.

use std::thread;

use serde_json::{Value, json};

use super::{PRICE, database, text, truth};
use crate::recording::{await_that, number};
use crate::refusal::Refusal;

const UPDATE: &str = "SELECT billing.update_product($1, $2::jsonb)";

#[test]
fn a_product_changes_field_by_field() {
    let (_database, mut client) = database();
    text(
        &mut client,
        r#"SELECT billing.create_product('prod', 'Seats', 'Chairs', 'seat', '{"a":"1","b":"2"}', 'txcd_10000000', 'SEATS INC',
                                         'https://example.com/seats', false)"#,
        &[],
    );
    let mut expected = json!({
        "id": "prod", "name": "Seats", "description": "Chairs", "unit_label": "seat", "active": false,
        "metadata": {"a": "1", "b": "2"}, "tax_code": "txcd_10000000", "statement_descriptor": "SEATS INC",
        "url": "https://example.com/seats"
    });
    for (changes, changed) in [
        (json!({}), json!({})),
        (
            json!({"name": "Desks", "active": true}),
            json!({"name": "Desks", "active": true}),
        ),
        (json!({"active": null, "name": "Seats"}), Value::Null),
        (
            json!({"description": null, "unit_label": ""}),
            json!({"description": null, "unit_label": null}),
        ),
        // Metadata by key: one changed, one taken away, one new.
        (
            json!({"metadata": {"a": "9", "b": null, "c": "3", "d": ""}}),
            json!({"metadata": {"a": "9", "c": "3"}}),
        ),
        (json!({"metadata": {}}), json!({})),
        (json!({"metadata": null}), json!({"metadata": {}})),
        (
            json!({"tax_code": null, "statement_descriptor": "1 a", "url": null}),
            json!({"tax_code": null, "statement_descriptor": "1 a", "url": null}),
        ),
    ] {
        if changed.is_null() {
            Refusal::of(&mut client, UPDATE, &[&"prod", &changes])
                .says("22023", &["\"active\"", "null", "boolean"])
                .hints();
        } else {
            assert_eq!(text(&mut client, UPDATE, &[&"prod", &changes]), "prod");
            expected
                .as_object_mut()
                .unwrap()
                .extend(changed.as_object().unwrap().clone());
        }
        let row: Value = client
            .query_one("SELECT to_jsonb(p) - 'created' FROM billing.products p", &[])
            .unwrap()
            .get(0);
        assert_eq!(row, expected, "{changes}");
    }
}

#[test]
fn a_wrong_change_of_a_product_changes_nothing() {
    let (_database, mut client) = database();
    text(&mut client, "SELECT billing.create_product('prod', 'Seats')", &[]);
    let before = text(&mut client, "SELECT p::text FROM billing.products p", &[]);
    for (changes, code, words) in [
        (json!([]), "22023", vec!["JSON object", "[]"]),
        (json!("name"), "22023", vec!["JSON object"]),
        (json!(null), "22023", vec!["JSON object", "null"]),
        (
            json!({"name": "x", "colour": "red"}),
            "22023",
            vec!["\"colour\"", "\"red\""],
        ),
        (json!({"name": "x", "id": "other"}), "22023", vec!["\"id\""]),
        (json!({"name": 5}), "22023", vec!["\"name\"", "5", "string"]),
        (json!({"name": null}), "22023", vec!["\"name\"", "null"]),
        (json!({"active": "yes"}), "22023", vec!["\"active\"", "boolean"]),
        (json!({"metadata": []}), "22023", vec!["\"metadata\"", "object"]),
        (
            json!({"name": "x", "default_price": 5}),
            "22023",
            vec!["\"default_price\""],
        ),
        (json!({"name": ""}), "23514", vec!["products_name_length"]),
        (
            json!({"unit_label": "thirteen more"}),
            "23514",
            vec!["products_unit_label_length"],
        ),
        (
            json!({"tax_code": "t".repeat(256)}),
            "23514",
            vec!["products_tax_code_length"],
        ),
        (json!({"url": "u".repeat(5001)}), "23514", vec!["products_url_length"]),
        (
            json!({"name": "x", "default_price": "none"}),
            "23503",
            vec!["price \"none\"", "product \"prod\""],
        ),
    ] {
        Refusal::of(&mut client, UPDATE, &[&"prod", &changes]).says(code, &words);
        assert_eq!(
            text(&mut client, "SELECT p::text FROM billing.products p", &[]),
            before,
            "{changes}"
        );
    }
    // A bank's line: at most 22 characters, a letter, none that its format gives a meaning.
    for descriptor in ["A".repeat(23).as_str(), "123", "a<b", "a>b", "a\\b", "a'b", "a\"b"] {
        Refusal::of(
            &mut client,
            UPDATE,
            &[&"prod", &json!({"statement_descriptor": descriptor})],
        )
        .says("23514", &["products_statement_descriptor_fit"]);
    }
    text(
        &mut client,
        UPDATE,
        &[&"prod", &json!({"statement_descriptor": "A".repeat(22)})],
    );
    Refusal::of(&mut client, UPDATE, &[&"none", &json!({"name": "x"})])
        .says("42704", &["product \"none\""])
        .hints();
}

#[test]
fn the_default_price_is_an_active_price_of_the_product() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_product('prod', 'P'), billing.create_product('other', 'O');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1}', 'prod', id) FROM unnest(ARRAY['a', 'b', 'old']) id;
               SELECT billing.create_price('{"currency":"usd","unit_amount":1}', 'other', 'c'),
                      billing.create_price('{"currency":"usd","unit_amount":1}', NULL, 'alone');
               SELECT billing.archive_price('old');"#,
        )
        .unwrap();
    let mut choose = |price: Option<&str>, expected: Result<&str, &str>| {
        let changes = json!({"default_price": price});
        match expected {
            Ok(_) => drop(text(&mut client, UPDATE, &[&"prod", &changes])),
            Err(code) => drop(
                Refusal::of(&mut client, UPDATE, &[&"prod", &changes])
                    .says(code, &[price.unwrap()])
                    .hints(),
            ),
        }
        text(
            &mut client,
            "SELECT coalesce(string_agg(id, ' ' ORDER BY id), 'none') FROM billing.prices WHERE is_default",
            &[],
        )
    };
    assert_eq!(choose(Some("a"), Ok("a")), "a");
    assert_eq!(choose(Some("a"), Ok("a")), "a");
    assert_eq!(choose(Some("b"), Ok("b")), "b");
    for (price, code) in [("c", "23503"), ("alone", "23503"), ("none", "23503"), ("old", "55000")] {
        assert_eq!(choose(Some(price), Err(code)), "b");
    }
    assert_eq!(choose(None, Ok("none")), "none");
    assert_eq!(choose(Some("b"), Ok("b")), "b");
    Refusal::of(&mut client, "SELECT billing.archive_price('b')", &[])
        .says("55000", &["price \"b\"", "default", "product \"prod\""])
        .hints();
    Refusal::of(
        &mut client,
        "UPDATE billing.prices SET is_default = true WHERE id = 'a'",
        &[],
    )
    .says("23505", &["prices_default_key"]);
    Refusal::of(
        &mut client,
        "UPDATE billing.prices SET is_default = true WHERE id = 'alone'",
        &[],
    )
    .says("23514", &["prices_default_of_product"]);
    text(&mut client, UPDATE, &[&"prod", &json!({"default_price": ""})]);
    text(&mut client, "SELECT billing.archive_price('b')", &[]);
    assert!(truth(&mut client, "SELECT NOT bool_or(is_default) FROM billing.prices"));
}

fn described() -> Value {
    json!({"currency": "usd", "unit_amount": 5, "product_data": {"name": "Seats", "unit_label": "seat", "metadata": {"a": "b"},
           "statement_descriptor": "SEATS", "tax_code": "txcd_10000000"}})
}

#[test]
fn a_price_may_bring_its_product() {
    let (database, mut client) = database();
    let none = None::<&str>;
    for _ in 0..2 {
        assert_eq!(text(&mut client, PRICE, &[&described(), &none, &"p"]), "p");
    }
    assert!(truth(
        &mut client,
        "SELECT count(*) = 1 AND bool_and(d.name = 'Seats' AND d.unit_label = 'seat' AND d.metadata = '{\"a\":\"b\"}' AND d.active
                AND d.statement_descriptor = 'SEATS' AND d.tax_code = 'txcd_10000000' AND d.id ~ '^prod_[0-9a-f]{32}$'
                AND NOT p.price::jsonb ? 'product_data')
         FROM billing.products d LEFT JOIN billing.prices p ON p.product = d.id"
    ));
    let mut other = described();
    other["product_data"]["name"] = json!("Desks");
    Refusal::of(&mut client, PRICE, &[&other, &none, &"p"]).says("23505", &["price \"p\""]);
    // With an id of its own, by an INSERT, and again for a second price of that product.
    let mut admin = database.connect().unwrap();
    admin.batch_execute("SET ROLE billing_admin").unwrap();
    let mut named = described();
    named["product_data"]["id"] = json!("seats");
    admin
        .execute(
            "INSERT INTO billing.prices (id, price) VALUES ('q', $1::jsonb)",
            &[&named],
        )
        .unwrap();
    text(&mut client, PRICE, &[&named, &none, &"r"]);
    for _ in 0..2 {
        text(&mut client, PRICE, &[&named, &none, &"r"]);
    }
    assert!(truth(
        &mut client,
        "SELECT count(*) = 2 FROM billing.prices WHERE product = 'seats'"
    ));
    named["product_data"]["unit_label"] = json!("chair");
    Refusal::of(&mut client, PRICE, &[&named, &none, &none]).says("23505", &["product \"seats\""]);
    Refusal::of(&mut client, PRICE, &[&described(), &"seats", &none])
        .says("23514", &["product \"seats\"", "product_data"])
        .hints();
    // What the product may not be leaves no price either, and no product stays of a price that is refused.
    let mut wrong = described();
    wrong["product_data"]["statement_descriptor"] = json!("123");
    Refusal::of(&mut client, PRICE, &[&wrong, &none, &"w"]).says("23514", &["products_statement_descriptor_fit"]);
    let mut twice = described();
    twice["lookup_key"] = json!("k");
    text(&mut client, PRICE, &[&twice, &none, &"k"]);
    Refusal::of(&mut client, PRICE, &[&twice, &none, &"l"]).says("23505", &["prices_lookup_key_key"]);
    assert!(truth(
        &mut client,
        "SELECT (SELECT count(*) FROM billing.products) = 3 AND (SELECT count(*) FROM billing.prices) = 4"
    ));
}

#[test]
fn two_sessions_making_one_price_with_its_product_make_one_product() {
    let (database, mut first) = database();
    first.batch_execute("BEGIN").unwrap();
    text(&mut first, PRICE, &[&described(), &None::<&str>, &"p"]);
    thread::scope(|scope| {
        let second = scope.spawn(|| {
            let mut second = database.connect().unwrap();
            text(&mut second, PRICE, &[&described(), &None::<&str>, &"p"])
        });
        let mut watch = database.connect().unwrap();
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        await_that("the second waits for the first", || number(&mut watch, waiting) == 1);
        first.batch_execute("COMMIT").unwrap();
        assert_eq!(second.join().unwrap(), "p");
    });
    assert!(truth(&mut first, "SELECT count(*) = 1 FROM billing.products"));
}
