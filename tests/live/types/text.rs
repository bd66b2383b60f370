//! Text in, normalised text out, whatever the session.

use serde_json::Value;

use super::{OBJECTS, database, truth};

#[test]
fn text_goes_in_and_comes_out_normalised() {
    let (_database, mut client) = database();
    for (name, input, expected) in OBJECTS {
        let cast = format!("SELECT $1::text::billing.{name}::text");
        let once: String = client.query_one(&cast, &[input]).unwrap().get(0);
        assert_eq!(once, *expected);
        let again: String = client.query_one(&cast, &[&once]).unwrap().get(0);
        assert_eq!(again, *expected, "the output is no fixed point of the input");
    }
}

#[test]
fn no_setting_of_the_session_changes_the_text() {
    let (_database, mut client) = database();
    let settings = [
        "SET TimeZone = 'America/New_York'; SET DateStyle = 'German'",
        "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'iso_8601'",
        "SET standard_conforming_strings = off; SET bytea_output = 'escape'; SET extra_float_digits = -15",
        "SET quote_all_identifiers = on; SET search_path = ''; SET client_min_messages = error",
    ];
    for setting in settings {
        client.batch_execute(setting).unwrap();
        for (name, input, expected) in OBJECTS {
            let row = client
                .query_one(
                    &format!("SELECT $1::text::billing.{name}::text, $1::text::jsonb::billing.{name}::jsonb"),
                    &[input],
                )
                .unwrap();
            assert_eq!(row.get::<_, &str>(0), *expected, "{setting}");
            assert_eq!(
                row.get::<_, Value>(1),
                serde_json::from_str::<Value>(expected).unwrap(),
                "{setting}"
            );
        }
    }
}

#[test]
fn null_stays_null() {
    let (_database, mut client) = database();
    for name in ["meter", "price", "subscription"] {
        let sql = format!(
            "SELECT num_nonnulls(NULL::text::billing.{name}, NULL::jsonb::billing.{name}, (NULL::billing.{name})::jsonb,
                    (NULL::billing.{name})::text, NULL::billing.{name} = NULL, NULL::billing.{name} <> NULL,
                    billing.{name}_hash(NULL), billing.{name}_hash_extended(NULL, 1), billing.{name}_send(NULL)) = 0"
        );
        assert!(truth(&mut client, &sql), "{name}");
    }
}
