//! Ids and names: how long, and how much alike.

use serde_json::json;

use super::{CUSTOMER, METER, PRICE, PRODUCT, database, meter, metered, text};
use crate::refusal::Refusal;

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
