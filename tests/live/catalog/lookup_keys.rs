//! Lookup keys that pass from one price to the next.

use std::thread;

use postgres::Client;
use serde_json::{Value, json};

use super::{PRICE, database, text, truth};
use crate::recording::{await_that, number};
use crate::refusal::Refusal;

fn with_key(amount: i64, transfer: bool) -> Value {
    json!({"currency": "usd", "unit_amount": amount, "lookup_key": "k", "transfer_lookup_key": transfer})
}

/// Who has the key, among all prices.
fn holders(client: &mut Client) -> String {
    text(
        client,
        "SELECT coalesce(string_agg(id, ' ' ORDER BY id), '') FROM billing.prices WHERE lookup_key = 'k'",
        &[],
    )
}

fn agree(client: &mut Client) -> bool {
    truth(
        client,
        "SELECT bool_and(lookup_key IS NOT DISTINCT FROM price::jsonb ->> 'lookup_key' AND NOT price::jsonb ? 'transfer_lookup_key')
         FROM billing.prices",
    )
}

#[test]
fn a_price_takes_the_key_from_the_one_that_has_it() {
    let (database, mut client) = database();
    let none = None::<&str>;
    text(&mut client, PRICE, &[&with_key(1, false), &none, &"a"]);
    Refusal::of(&mut client, PRICE, &[&with_key(2, false), &none, &"b"]).says("23505", &["prices_lookup_key_key"]);
    text(&mut client, PRICE, &[&with_key(2, true), &none, &"b"]);
    assert_eq!(holders(&mut client), "b");
    // A retry of the first, or of any that lost the key since, takes nothing.
    text(&mut client, PRICE, &[&with_key(1, true), &none, &"a"]);
    text(&mut client, PRICE, &[&with_key(2, true), &none, &"b"]);
    assert_eq!(holders(&mut client), "b");
    // Nor does a price that is refused.
    Refusal::of(&mut client, PRICE, &[&with_key(9, true), &none, &"a"]).says("23505", &["price \"a\""]);
    assert_eq!(holders(&mut client), "b");
    // By INSERT and by UPDATE, as the role that applications are granted.
    let mut admin = database.connect().unwrap();
    admin.batch_execute("SET ROLE billing_admin").unwrap();
    let insert = "INSERT INTO billing.prices (id, price) VALUES ('c', $1::jsonb)";
    admin.execute(insert, &[&with_key(3, true)]).unwrap();
    assert_eq!(holders(&mut client), "c");
    admin
        .execute(&format!("{insert} ON CONFLICT DO NOTHING"), &[&with_key(3, true)])
        .unwrap();
    admin
        .execute("UPDATE billing.prices SET price = price::jsonb || '{\"lookup_key\":\"k\",\"transfer_lookup_key\":true}' WHERE id = 'a'", &[])
        .unwrap();
    assert_eq!(holders(&mut client), "a");
    admin
        .execute(&format!("{insert} ON CONFLICT DO NOTHING"), &[&with_key(3, true)])
        .unwrap();
    assert_eq!(holders(&mut client), "a");
    // By function; again is no error.
    for _ in 0..2 {
        assert_eq!(
            text(&mut admin, "SELECT billing.transfer_lookup_key('b', 'k')", &[]),
            "b"
        );
        assert_eq!(holders(&mut client), "b");
    }
    // One that is archived keeps its key, and is not found by it.
    text(&mut client, "SELECT billing.archive_price('b')", &[]);
    text(&mut client, "SELECT billing.transfer_lookup_key('c', 'k')", &[]);
    assert_eq!(holders(&mut client), "b c");
    assert!(agree(&mut client));
    Refusal::of(&mut client, "SELECT billing.transfer_lookup_key('none', 'k')", &[])
        .says("42704", &["price \"none\""])
        .hints();
    assert_eq!(holders(&mut client), "b c");
    for (key, code, word) in [
        (String::new(), "23514", "prices_lookup_key_length"),
        ("k".repeat(201), "22023", "lookup_key"),
    ] {
        Refusal::of(&mut client, "SELECT billing.transfer_lookup_key('c', $1)", &[&key]).says(code, &[word]);
    }
}

/// The later one waits for the earlier and then takes the key from it, whether another price had it before or none did.
#[test]
fn of_sessions_that_transfer_one_key_the_last_has_it() {
    let (database, mut first) = database();
    let mut watch = database.connect().unwrap();
    for (held_before, transfers) in [(false, 4), (true, 4)] {
        watch
            .batch_execute("UPDATE billing.prices SET lookup_key = NULL")
            .unwrap();
        if held_before {
            text(&mut watch, PRICE, &[&with_key(1, false), &None::<&str>, &"old"]);
        }
        first.batch_execute("BEGIN").unwrap();
        let id = text(&mut first, PRICE, &[&with_key(100, true), &None::<&str>, &None::<&str>]);
        let made = thread::scope(|scope| {
            let others: Vec<_> = (0..transfers)
                .map(|amount| {
                    let database = &database;
                    scope.spawn(move || {
                        let mut client = database.connect().unwrap();
                        text(
                            &mut client,
                            PRICE,
                            &[&with_key(amount, true), &None::<&str>, &None::<&str>],
                        )
                    })
                })
                .collect();
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'
                           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            await_that("the others wait for the first", || {
                number(&mut watch, waiting) == transfers
            });
            // Readers see neither none nor two before, and neither after.
            assert_eq!(holders(&mut watch), if held_before { "old" } else { "" });
            first.batch_execute("COMMIT").unwrap();
            others
                .into_iter()
                .map(|other| other.join().unwrap())
                .collect::<Vec<_>>()
        });
        let holder = holders(&mut watch);
        assert!(
            made.contains(&holder) && holder != id,
            "{holder} of {made:?}, first {id}"
        );
        assert!(agree(&mut watch));
    }
}
