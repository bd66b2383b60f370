//! Texts that would be SQL, were they ever pasted into a statement.

use serde_json::{Value, json};

use super::{CUSTOMER, METER, PRICE, PRODUCT, database, metered, text, truth};

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
