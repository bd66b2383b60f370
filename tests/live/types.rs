//! The value types as the server has them: text, binary, casts, equality, hashing, storage, errors. Their rules are tested
//! without a server; here is what a server adds.

use std::error::Error;
use std::io::{Read, Write};

use harness::Database;
use postgres::Client;
use postgres::types::{FromSql, IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// A value in its binary form on the wire, whatever its type.
#[derive(Debug, PartialEq)]
struct Wire(Vec<u8>);

impl ToSql for Wire {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Wire {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn wire(version: u8, text: &[u8]) -> Wire {
    Wire([&[version], text].concat())
}

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

fn text(client: &mut Client, sql: &str) -> String {
    client.query_one(sql, &[]).unwrap().get(0)
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

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// As Stripe's API returns them: every field there, nulls, both forms of an amount.
fn returned() -> Vec<(&'static str, Value, Value)> {
    let tiered = object(
        r#"{
        "id": "price_1PzTiered", "object": "price", "active": true, "billing_scheme": "tiered", "created": 1726000000,
        "currency": "eur", "custom_unit_amount": null, "livemode": true, "lookup_key": "api-calls", "metadata": {"team": "core"},
        "nickname": "API calls", "product": "prod_Api",
        "recurring": {"interval": "month", "interval_count": 1, "meter": "mtr_test_1", "trial_period_days": null,
                      "usage_type": "metered"},
        "tax_behavior": "exclusive",
        "tiers": [
            {"flat_amount": 500, "flat_amount_decimal": "500", "unit_amount": 0, "unit_amount_decimal": "0", "up_to": 1000},
            {"flat_amount": null, "flat_amount_decimal": null, "unit_amount": null, "unit_amount_decimal": "0.125", "up_to": null}
        ],
        "tiers_mode": "graduated", "transform_quantity": null, "type": "recurring",
        "unit_amount": null, "unit_amount_decimal": null
    }"#,
    );
    let tiered_kept = object(
        r#"{
        "active": true, "billing_scheme": "tiered", "currency": "eur", "lookup_key": "api-calls", "nickname": "API calls",
        "product": "prod_Api",
        "recurring": {"interval": "month", "interval_count": 1, "meter": "mtr_test_1", "usage_type": "metered"},
        "tax_behavior": "exclusive", "tiers_mode": "graduated", "type": "recurring",
        "tiers": [{"flat_amount": 500, "unit_amount": 0, "up_to": 1000}, {"unit_amount_decimal": "0.125", "up_to": "inf"}]
    }"#,
    );
    let package = object(
        r#"{
        "id": "price_1PzPackage", "object": "price", "active": false, "billing_scheme": "per_unit", "created": 1726000001,
        "currency": "usd", "currency_options": {"usd": {"custom_unit_amount": null, "tax_behavior": "unspecified",
        "unit_amount": 400, "unit_amount_decimal": "400"}}, "custom_unit_amount": null, "livemode": false, "lookup_key": null,
        "metadata": {}, "nickname": null, "product": {"id": "prod_Pack", "object": "product", "name": "Packs"},
        "recurring": null, "tax_behavior": "unspecified", "tiers_mode": null,
        "transform_quantity": {"divide_by": 100, "round": "up"}, "type": "one_time",
        "unit_amount": 400, "unit_amount_decimal": "400"
    }"#,
    );
    let package_kept = object(
        r#"{
        "active": false, "billing_scheme": "per_unit", "currency": "usd", "product": "prod_Pack", "tax_behavior": "unspecified",
        "transform_quantity": {"divide_by": 100, "round": "up"}, "type": "one_time", "unit_amount": 400
    }"#,
    );
    let meter = object(
        r#"{
        "id": "mtr_test_1", "object": "billing.meter", "created": 1726000002, "livemode": false, "updated": 1726000003,
        "display_name": "API calls", "event_name": "api_calls", "event_time_window": null, "status": "active",
        "status_transitions": {"deactivated_at": null}, "default_aggregation": {"formula": "last"},
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "calls"}, "dimension_payload_keys": null
    }"#,
    );
    let meter_kept = object(
        r#"{
        "display_name": "API calls", "event_name": "api_calls", "default_aggregation": {"formula": "last"},
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "calls"}
    }"#,
    );
    let subscription = object(
        r#"{
        "id": "sub_1PzReturned", "object": "subscription", "application": null, "application_fee_percent": null,
        "automatic_tax": {"disabled_reason": null, "enabled": false, "liability": null},
        "billing_cycle_anchor": 1725148800, "billing_cycle_anchor_config": null, "billing_mode": {"type": "flexible"},
        "billing_thresholds": null, "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null,
        "cancellation_details": {"comment": null, "feedback": null, "reason": null},
        "collection_method": "charge_automatically", "created": 1725148800, "currency": "usd", "customer": "cus_Returned",
        "days_until_due": null, "default_payment_method": null, "default_source": null, "default_tax_rates": [],
        "description": null, "discounts": [], "ended_at": null, "invoice_settings": {"account_tax_ids": null,
        "issuer": {"type": "self"}},
        "items": {"object": "list", "has_more": false, "total_count": 1, "url": "/v1/subscription_items?subscription=sub_1PzReturned",
            "data": [{"id": "si_1", "object": "subscription_item", "billing_thresholds": null, "created": 1725148801,
                "current_period_end": 1727740800, "current_period_start": 1725148800, "discounts": [], "metadata": {},
                "plan": {"id": "price_seat", "object": "plan", "amount": 1500}, "price": {"id": "price_seat", "object": "price",
                "recurring": {"usage_type": "licensed"}}, "quantity": 3, "subscription": "sub_1PzReturned", "tax_rates": []}]},
        "latest_invoice": "in_1PzReturned", "livemode": false, "metadata": {"order": "77"}, "next_pending_invoice_item_invoice": null,
        "on_behalf_of": null, "pause_collection": null, "payment_settings": {"payment_method_options": null,
        "payment_method_types": null, "save_default_payment_method": "off"}, "pending_invoice_item_interval": null,
        "pending_setup_intent": null, "pending_update": null, "schedule": null, "start_date": 1725148800, "status": "active",
        "test_clock": null, "transfer_data": null, "trial_end": null, "trial_settings": {"end_behavior":
        {"missing_payment_method": "create_invoice"}}, "trial_start": null
    }"#,
    );
    let subscription_kept = object(
        r#"{
        "billing_cycle_anchor": "2024-09-01T00:00:00Z", "cancel_at_period_end": false,
        "collection_method": "charge_automatically", "currency": "usd", "customer": "cus_Returned",
        "items": [{"price": "price_seat", "quantity": 3}], "metadata": {"order": "77"},
        "proration_behavior": "create_prorations", "start_date": "2024-09-01T00:00:00Z"
    }"#,
    );
    vec![
        ("price", tiered, tiered_kept),
        ("price", package, package_kept),
        ("meter", meter, meter_kept),
        ("subscription", subscription, subscription_kept),
    ]
}

#[test]
fn objects_as_stripe_returns_them_cast_as_they_stand() {
    let (_database, mut client) = database();
    for (name, object, kept) in returned() {
        let sql = format!("SELECT $1::billing.{name}::jsonb, $2::text::billing.{name}::jsonb");
        let sql = sql.replacen("$1", "$1::jsonb", 1);
        let row = client.query_one(&sql, &[&object, &object.to_string()]).unwrap();
        assert_eq!(row.get::<_, Value>(0), kept);
        assert_eq!(row.get::<_, Value>(1), kept);
    }
}

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

#[test]
fn binary_copy_brings_every_value_back() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            "CREATE TABLE made (m billing.meter, p billing.price, s billing.subscription, ps billing.price[])",
        )
        .unwrap();
    let insert =
        "INSERT INTO made VALUES ($1::text::billing.meter, $2::text::billing.price, $3::text::billing.subscription,
                  ARRAY[$2::text::billing.price, NULL, $4::text::billing.price])";
    let [meter, price, tiered, subscription] = OBJECTS else {
        panic!("four objects")
    };
    client
        .execute(insert, &[&meter.1, &price.1, &subscription.1, &tiered.1])
        .unwrap();
    client
        .execute(insert, &[&None::<String>, &tiered.1, &subscription.1, &None::<String>])
        .unwrap();
    client.batch_execute("CREATE TABLE copied (LIKE made)").unwrap();
    for format in ["binary", "text", "csv"] {
        let mut copy = Vec::new();
        let out = format!("COPY made TO STDOUT (FORMAT {format})");
        client.copy_out(&out).unwrap().read_to_end(&mut copy).unwrap();
        client.batch_execute("TRUNCATE copied").unwrap();
        let mut writer = client
            .copy_in(&format!("COPY copied FROM STDIN (FORMAT {format})"))
            .unwrap();
        writer.write_all(&copy).unwrap();
        assert_eq!(writer.finish().unwrap(), 2);
        let same = "SELECT count(*) = 2 FROM made a JOIN copied b
                    ON (a.m, a.p, a.s, a.ps) IS NOT DISTINCT FROM (b.m, b.p, b.s, b.ps)";
        assert!(truth(&mut client, same), "{format}");
    }
}

#[test]
fn binary_parameters_and_results_are_a_version_byte_and_the_text() {
    let (_database, mut client) = database();
    for (name, input, expected) in OBJECTS {
        let sent = wire(1, input.as_bytes());
        let back: Wire = client
            .query_one(&format!("SELECT $1::billing.{name}"), &[&sent])
            .unwrap()
            .get(0);
        assert_eq!(back, wire(1, expected.as_bytes()));
    }
}

#[test]
fn broken_binary_values_are_clean_errors() {
    let (_database, mut client) = database();
    let cases: &[(Wire, &str, &str)] = &[
        (Wire(Vec::new()), "22P03", "empty"),
        (wire(0, b"{}"), "22P03", "version 0"),
        (wire(2, b"{}"), "22P03", "version 2"),
        (wire(1, b"\xff\xfe"), "22P03", "UTF-8"),
        (wire(1, b""), "22P02", "JSON"),
        (wire(1, b"{"), "22P02", "JSON"),
        (wire(1, b"{}\0"), "22P02", "JSON"),
        (wire(1, b"{} {}"), "22P02", "JSON"),
        (wire(1, b"[1]"), "22P02", "object"),
        (wire(1, b"{\"a\\u0000\":1}"), "22023", "u0000"),
        (wire(1, b"{\"no_such_field\":1}"), "22023", "no_such_field"),
    ];
    for name in ["meter", "price", "subscription"] {
        let sql = format!("SELECT $1::billing.{name}::text");
        for (sent, code, word) in cases {
            Refusal::of(&mut client, &sql, &[sent]).says(code, &[word]);
        }
    }
    // Noise from a fixed generator (Knuth's MMIX), after a good version byte every other time.
    let mut state = 42_u64;
    let mut byte = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for round in 0..300_usize {
        let mut noise: Vec<u8> = (0..round % 40).map(|_| byte()).collect();
        if round % 2 == 0 {
            noise.insert(0, 1);
        }
        let refusal = Refusal::of(&mut client, "SELECT $1::billing.price", &[&Wire(noise)]);
        assert!(["22P02", "22P03"].contains(&refusal.code.as_str()), "{refusal:?}");
    }
}

#[test]
fn stored_bytes_cannot_be_forged() {
    let (_database, mut client) = database();
    for forge in [
        "SELECT '\\x0102'::bytea::billing.price",
        "CREATE CAST (bytea AS billing.price) WITHOUT FUNCTION",
    ] {
        // The second is the superuser's to do; then a broken value is an error, never a crash.
        if client.batch_execute(forge).is_ok() {
            let read = "SELECT ('\\x0102'::bytea::billing.price)::text";
            Refusal::of(&mut client, read, &[]).says("XX001", &["invalid stored price"]);
            let amount = "SELECT billing.price_amount(decode(repeat('ff', $1), 'hex')::billing.price, 1)";
            for length in [0, 1, 2, 100, 10_000] {
                Refusal::of(&mut client, amount, &[&length]).says("XX001", &["invalid stored price"]);
            }
        } else {
            Refusal::of(&mut client, forge, &[]).says("42846", &["cannot cast"]);
        }
    }
}

#[test]
fn equal_is_equal_in_every_field_that_has_a_meaning() {
    let (_database, mut client) = database();
    let base = json!({
        "currency": "usd", "unit_amount": 100, "nickname": "n", "product": "prod",
        "recurring": {"interval": "month", "interval_count": 1}
    });
    let same = [
        r#"{"unit_amount_decimal":"100.000","product":{"id":"prod"},"nickname":"n","currency":"USD","active":true,
            "recurring":{"usage_type":"licensed","interval":"month"},"type":"recurring","billing_scheme":"per_unit"}"#,
        r#"{"object":"price","id":"price_x","livemode":true,"metadata":{"a":"b"},"unit_amount":100,"unit_amount_decimal":"100",
            "nickname":"n","product":"prod","currency":"usd","recurring":{"interval":"month"}}"#,
    ];
    let compare = "SELECT $1::jsonb::billing.price = $2::text::billing.price, $1::jsonb::billing.price <> $2::text::billing.price,
                          billing.price_hash($1::jsonb) = billing.price_hash($2::text::billing.price),
                          billing.price_hash_extended($1::jsonb, 7) = billing.price_hash_extended($2::text::billing.price, 7)";
    for other in same {
        let row = client.query_one(compare, &[&base, &other]).unwrap();
        let answers: Vec<bool> = (0..4).map(|column| row.get(column)).collect();
        assert_eq!(answers, [true, false, true, true], "{other}");
    }
    let changes = [
        json!({"currency": "eur"}),
        json!({"unit_amount": 101}),
        json!({"nickname": "m"}),
        json!({"nickname": null}),
        json!({"product": "other"}),
        json!({"active": false}),
        json!({"lookup_key": "k"}),
        json!({"tax_behavior": "inclusive"}),
        json!({"recurring": null}),
        json!({"recurring": {"interval": "year"}}),
        json!({"recurring": {"interval": "month", "interval_count": 2}}),
        json!({"recurring": {"interval": "month", "usage_type": "metered", "meter": "m"}}),
        json!({"transform_quantity": {"divide_by": 1, "round": "up"}}),
        json!({"unit_amount": null, "unit_amount_decimal": "100.000000000001"}),
    ];
    for change in changes {
        let mut other = base.clone();
        let (Value::Object(fields), Value::Object(changed)) = (&mut other, &change) else {
            panic!("objects")
        };
        fields.extend(changed.clone());
        let row = client.query_one(compare, &[&base, &other.to_string()]).unwrap();
        assert_eq!((row.get(0), row.get(1)), (false, true), "{change}");
    }
}

#[test]
fn sets_joins_indexes_and_partitions_go_by_hash() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"CREATE TABLE listed (n integer, p billing.price);
               -- 300 prices, each written in two ways, and two rows without one
               INSERT INTO listed SELECT n, format('{"currency":"usd","unit_amount":%s}', n)::billing.price
               FROM generate_series(1, 300) n;
               INSERT INTO listed SELECT n, format('{"unit_amount_decimal":"%s.0","currency":"USD"}', n)::billing.price
               FROM generate_series(1, 300) n;
               INSERT INTO listed VALUES (0, NULL), (0, NULL);
               CREATE INDEX listed_p ON listed USING hash (p);
               CREATE TABLE parted (p billing.price) PARTITION BY HASH (p);
               CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 0);
               CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 1);
               CREATE TABLE parted_2 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 2);
               INSERT INTO parted SELECT p FROM listed;
               ANALYZE listed;"#,
        )
        .unwrap();
    let mut count = |sql: &str| -> i64 { client.query_one(sql, &[]).unwrap().get(0) };
    assert_eq!(count("SELECT count(*) FROM (SELECT DISTINCT p FROM listed) d"), 301);
    assert_eq!(
        count("SELECT count(*) FROM (SELECT min(n) FROM listed GROUP BY p HAVING count(*) = 2) g"),
        301
    );
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM listed UNION SELECT p FROM listed) u"),
        301
    );
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM listed INTERSECT SELECT p FROM listed WHERE n = 7) i"),
        1
    );
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM listed EXCEPT SELECT p FROM listed WHERE n < 300) e"),
        1
    );
    assert_eq!(count("SELECT count(*) FROM listed a JOIN listed b ON a.p = b.p"), 1200);
    assert_eq!(
        count("SELECT count(*) FROM listed a WHERE p NOT IN (SELECT p FROM listed WHERE p IS NOT NULL)"),
        0
    );
    assert_eq!(
        count("SELECT count(*) FROM listed a WHERE p = ANY (SELECT p FROM listed WHERE n IN (1, 2))"),
        4
    );
    assert_eq!(count("SELECT count(*) FROM listed WHERE p IS DISTINCT FROM NULL"), 600);
    assert_eq!(count("SELECT count(*) FROM listed WHERE (p = NULL) IS NULL"), 602);
    assert_eq!(count("SELECT count(*) FROM parted"), 602);
    assert_eq!(count("SELECT count(DISTINCT tableoid) FROM parted"), 3);
    // Equal values lie in one partition.
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM parted GROUP BY p HAVING min(tableoid) <> max(tableoid)) x"),
        0
    );

    let mut plan = |sql: &str| -> String {
        let rows = client.query(&format!("EXPLAIN (COSTS OFF) {sql}"), &[]).unwrap();
        rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
    };
    let join = plan("SELECT * FROM listed a JOIN listed b ON a.p = b.p");
    assert!(join.contains("Hash Join") || join.contains("Index Scan"), "{join}");
    let grouped = plan("SELECT p FROM listed GROUP BY p");
    assert!(grouped.contains("HashAggregate"), "{grouped}");
    let found = plan(r#"SELECT * FROM listed WHERE p = '{"currency":"usd","unit_amount":5}'"#);
    assert!(found.contains("listed_p"), "{found}");
    let pruned = plan(r#"SELECT * FROM parted WHERE p = '{"currency":"usd","unit_amount":5}'"#);
    assert_eq!(pruned.matches("Seq Scan").count(), 1, "{pruned}");
    client
        .batch_execute("SET enable_indexscan = off; SET enable_nestloop = off; SET enable_bitmapscan = off")
        .unwrap();
    let join = text(
        &mut client,
        "SELECT count(*)::text FROM listed a JOIN listed b ON a.p = b.p",
    );
    assert_eq!(join, "1200");

    Refusal::of(&mut client, "SELECT p FROM listed ORDER BY p", &[]).says("42883", &["ordering operator"]);
}

#[test]
fn equality_is_found_whatever_the_search_path() {
    let (_database, mut client) = database();
    let [meter, price, _, subscription] = OBJECTS else {
        panic!("four objects")
    };
    for path in ["''", "pg_catalog", "billing", "public", "pg_temp, billing"] {
        client.batch_execute(&format!("SET search_path = {path}")).unwrap();
        for (name, input, _) in [meter, price, subscription] {
            let sql = format!(
                "SELECT x = x AND NOT x <> x AND x IN (x) AND count(*) = 1 FROM (SELECT $1::text::billing.{name} x) v GROUP BY x"
            );
            assert!(
                client.query_one(&sql, &[input]).unwrap().get::<_, bool>(0),
                "{path} {name}"
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

#[test]
fn hundreds_of_tiers_are_stored_out_of_line_and_come_back() {
    let (_database, mut client) = database();
    // 900 tiers whose amounts hardly compress
    let make =
        "SELECT jsonb_build_object('currency', 'usd', 'billing_scheme', 'tiered', 'tiers_mode', 'graduated', 'tiers',
                    jsonb_agg(jsonb_build_object('up_to', CASE WHEN n < 900 THEN to_jsonb(n * 10) ELSE '\"inf\"' END,
                        'unit_amount_decimal', (n * 7919 % 1000)::text || '.' || left(md5(n::text), 0)
                            || lpad((n::bigint * 982451653 % 1000000007)::text, 10, '0'))
                    ORDER BY n))::billing.price FROM generate_series(1, 900) n";
    for storage in ["EXTENDED", "EXTERNAL", "MAIN", "PLAIN"] {
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS big; CREATE TABLE big (p billing.price, n integer);
                 ALTER TABLE big ALTER p SET STORAGE {storage}"
            ))
            .unwrap();
        let inserted = client.execute(&format!("INSERT INTO big SELECT ({make}), 1"), &[]);
        if storage == "PLAIN" {
            // A page is too small for it; PostgreSQL says so.
            assert!(inserted.is_err());
            continue;
        }
        inserted.unwrap();
        client
            .batch_execute("CREATE INDEX ON big USING hash (p); SET enable_seqscan = off")
            .unwrap();
        assert!(
            truth(
                &mut client,
                &format!("SELECT p = ({make}) AND p::text = ({make})::text FROM big")
            ),
            "{storage}"
        );
        assert!(
            truth(&mut client, &format!("SELECT count(*) = 1 FROM big WHERE p = ({make})")),
            "{storage}"
        );
        assert!(
            truth(
                &mut client,
                "SELECT jsonb_array_length(p::jsonb -> 'tiers') = 900 FROM big"
            ),
            "{storage}"
        );
        // All tiers up to 8990, at their own price each, then one unit of the last.
        let expected =
            "SELECT billing.price_amount(p, 8991) = (SELECT sum(q.units * (t ->> 'unit_amount_decimal')::numeric)
                FROM jsonb_array_elements(p::jsonb -> 'tiers') WITH ORDINALITY e (t, n),
                     LATERAL (SELECT CASE WHEN n < 900 THEN 10 ELSE 1 END AS units) q
                WHERE t ? 'unit_amount_decimal')
            + coalesce((SELECT sum(10 * (t ->> 'unit_amount')::numeric)
                FROM jsonb_array_elements(p::jsonb -> 'tiers') t WHERE t ? 'unit_amount'), 0) FROM big";
        assert!(truth(&mut client, expected), "{storage}");
    }
    let stored: i64 = client
        .query_one(
            "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'big'",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(stored, 0, "PLAIN has no TOAST");
}

#[test]
fn arrays_and_composites_of_values_work() {
    let (_database, mut client) = database();
    let price = |amount: i32| json!({"currency": "usd", "unit_amount": amount});
    let row = client
        .query_one(
            "SELECT a[2]::jsonb ->> 'unit_amount', a = b, a::text::billing.price[] = a, array_position(a, $2::jsonb::billing.price),
                    $1::jsonb::billing.price = ANY (a), cardinality(array_remove(a, $1::jsonb::billing.price)),
                    (SELECT count(*) FROM (SELECT DISTINCT x FROM unnest(a || b) x) d), ROW(a, 1) = ROW(b, 1)
             FROM (SELECT ARRAY[$1::jsonb, $2::jsonb]::billing.price[] a,
                          ARRAY[$1::jsonb::billing.price, $2::jsonb::billing.price] b) v",
            &[&price(1), &price(2)],
        )
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "2");
    assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2) && row.get::<_, bool>(4) && row.get::<_, bool>(7));
    assert_eq!((row.get(3), row.get(5), row.get(6)), (2, 1, 2_i64));
}

/// type, input, SQLSTATE, and what the message must name: the field, the value, the rule.
const REFUSED: &[(&str, &str, &str, &[&str])] = &[
    ("price", "", "22P02", &["price", "JSON"]),
    ("price", "nonsense", "22P02", &["JSON"]),
    ("price", "[]", "22P02", &["[]", "must be a JSON object"]),
    ("meter", "\"text\"", "22P02", &["\"text\"", "must be a JSON object"]),
    ("subscription", "null", "22P02", &["null", "must be a JSON object"]),
    ("price", "{\"currency\":\"usd\",}", "22P02", &["JSON"]),
    ("price", "{\"currency\":\"\\ud800\"}", "22P02", &["JSON"]),
    ("price", "{\"nickname\":\"\\u0000\"}", "22023", &["\\u0000"]),
    (
        "price",
        "{\"currency\":\"usd\",\"currency\":\"eur\"}",
        "22023",
        &["currency", "twice"],
    ),
    ("price", "{\"unit_amount\":1}", "22023", &["\"currency\"", "required"]),
    (
        "price",
        r#"{"currency":"xyz","unit_amount":1}"#,
        "22023",
        &["\"currency\"", "\"xyz\"", "not a currency"],
    ),
    (
        "price",
        r#"{"currency":"usd"}"#,
        "22023",
        &["\"unit_amount\"", "required"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":-1}"#,
        "22023",
        &["\"unit_amount\"", "-1", "negative"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1.5}"#,
        "22023",
        &["\"unit_amount\"", "1.5", "integer"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":"1"}"#,
        "22023",
        &["\"unit_amount\"", "\"1\"", "integer"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":123456789012345678901234567890}"#,
        "22023",
        &[
            "\"unit_amount\"",
            "123456789012345678901234567890",
            "9223372036854775807",
        ],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"-0.1"}"#,
        "22023",
        &["unit_amount_decimal", "-0.1", "negative"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"0.1234567890123"}"#,
        "22023",
        &["unit_amount_decimal", "0.1234567890123", "12 decimal places"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"NaN"}"#,
        "22023",
        &["unit_amount_decimal", "NaN", "decimal"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":"1e3"}"#,
        "22023",
        &["unit_amount_decimal", "1e3", "plain digits"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount_decimal":1e400}"#,
        "22023",
        &["unit_amount_decimal", "plain digits"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"unit_amount_decimal":"1"}"#,
        "22023",
        &["unit_amount_decimal", "together with unit_amount"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"colour":"red"}"#,
        "22023",
        &["\"colour\"", "\"red\"", "not a field"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","colour":1}}"#,
        "22023",
        &["recurring.colour", "not a field"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"fortnight"}}"#,
        "22023",
        &["recurring.interval", "\"fortnight\"", "\"week\""],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"day","interval_count":1096}}"#,
        "22023",
        &["interval_count", "1096", "1095"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"week","interval_count":157}}"#,
        "22023",
        &["interval_count", "157", "156"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","interval_count":37}}"#,
        "22023",
        &["interval_count", "37", "36"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"year","interval_count":4}}"#,
        "22023",
        &["interval_count", "4", "3"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"year","interval_count":0}}"#,
        "22023",
        &["interval_count", "0", "1"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","usage_type":"metered"}}"#,
        "22023",
        &["recurring.meter", "required"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"recurring":{"interval":"month","meter":"m"}}"#,
        "22023",
        &["recurring.meter", "\"m\"", "metered"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":5,"unit_amount":1},{"up_to":5,"unit_amount":1},{"up_to":"inf","unit_amount":1}]}"#,
        "22023",
        &["tiers[1].up_to", "5", "greater than the previous"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":5,"unit_amount":1},{"up_to":6,"unit_amount":1}]}"#,
        "22023",
        &["tiers[1].up_to", "6", "inf"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":"inf","unit_amount":1},{"up_to":"inf","unit_amount":1}]}"#,
        "22023",
        &["tiers[0].up_to", "inf", "last tier"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[{"up_to":"inf","unit_amount":-1}]}"#,
        "22023",
        &["tiers[0].unit_amount", "-1", "negative"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","tiers":[]}"#,
        "22023",
        &["\"tiers\"", "[]", "at least one"],
    ),
    (
        "price",
        r#"{"currency":"usd","billing_scheme":"tiered","tiers_mode":"volume","transform_quantity":{"divide_by":2,"round":"up"},"tiers":[{"up_to":"inf","unit_amount":1}]}"#,
        "22023",
        &["transform_quantity", "tiered"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"transform_quantity":{"divide_by":0,"round":"up"}}"#,
        "22023",
        &["transform_quantity.divide_by", "0", "1"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"currency_options":{"eur":{"unit_amount":1}}}"#,
        "0A000",
        &["currency_options", "eur", "not supported"],
    ),
    (
        "price",
        r#"{"currency":"usd","unit_amount":1,"product_data":{"name":"x"}}"#,
        "0A000",
        &["product_data", "not supported"],
    ),
    (
        "meter",
        r#"{"default_aggregation":{"formula":"sum"}}"#,
        "22023",
        &["\"event_name\"", "required"],
    ),
    (
        "meter",
        r#"{"event_name":"e"}"#,
        "22023",
        &["default_aggregation", "required"],
    ),
    (
        "meter",
        r#"{"event_name":"e","default_aggregation":{"formula":"average"}}"#,
        "22023",
        &["default_aggregation.formula", "\"average\"", "\"sum\""],
    ),
    (
        "meter",
        r#"{"event_name":5,"default_aggregation":{"formula":"sum"}}"#,
        "22023",
        &["\"event_name\"", "5", "string"],
    ),
    (
        "meter",
        r#"{"object":"price","event_name":"e","default_aggregation":{"formula":"sum"}}"#,
        "22023",
        &["\"object\"", "\"price\"", "billing.meter"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[]}"#,
        "22023",
        &["\"items\"", "at least one"],
    ),
    (
        "subscription",
        r#"{"items":[{"price":"p"}]}"#,
        "22023",
        &["\"customer\"", "required"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"},{"price":"p"}]}"#,
        "22023",
        &["items[1].price", "\"p\"", "another item"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p","quantity":-2}]}"#,
        "22023",
        &["items[0].quantity", "-2", "negative"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"}],"start_date":"yesterday"}"#,
        "22023",
        &["start_date", "\"yesterday\"", "ISO 8601"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"}],"start_date":"infinity"}"#,
        "22023",
        &["start_date", "\"infinity\"", "ISO 8601"],
    ),
    (
        "subscription",
        r#"{"customer":"c","items":[{"price":"p"}],"coupon":"half"}"#,
        "0A000",
        &["coupon", "\"half\"", "not supported"],
    ),
];

#[test]
fn errors_name_the_field_the_value_and_the_rule() {
    let (_database, mut client) = database();
    for (name, input, code, words) in REFUSED {
        let sql = format!("SELECT $1::text::billing.{name}");
        let as_text = Refusal::of(&mut client, &sql, &[input]).says(code, words);
        // A field is refused in the same words whichever way the object came, unless jsonb itself has refused it or
        // has taken one of two.
        if *code != "22P02" && !input.contains("\\u0000") && !words.contains(&"twice") {
            let sql = format!("SELECT $1::text::jsonb::billing.{name}");
            let as_jsonb = Refusal::of(&mut client, &sql, &[input]).says(code, &words[..1]);
            assert_eq!(as_jsonb.code, as_text.code);
        }
    }
}

#[test]
fn huge_and_deep_inputs_are_refused_and_the_session_lives() {
    let (_database, mut client) = database();
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for input in [
        deep(100),
        deep(100_000),
        format!(r#"{{"currency":"usd","unit_amount":1,"metadata":{}}}"#, deep(5_000)),
        format!(r#"{{"currency":"{}","unit_amount":1}}"#, "x".repeat(5_000_000)),
        format!(r#"{{"currency":"usd","unit_amount":{}}}"#, "9".repeat(1_000_000)),
        format!(r#"{{"currency":"usd","unit_amount":1,"{}":1}}"#, "k".repeat(1_000_000)),
    ] {
        let refusal = Refusal::of(&mut client, "SELECT $1::text::billing.price", &[&input]);
        assert!(["22P02", "22023"].contains(&refusal.code.as_str()), "{refusal:?}");
        assert!(
            refusal.message.len() < 1000,
            "{} bytes of message",
            refusal.message.len()
        );
    }
    assert!(truth(&mut client, "SELECT true"));
}
