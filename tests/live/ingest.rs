//! Recording and cancelling: what comes back, which rows stand, and that an event is recorded if and only if its transaction commits.

use chrono::{DateTime, Utc};
use postgres::error::SqlState;
use postgres::{Client, IsolationLevel};
use serde_json::{Value, json};

use crate::recording::{
    FORMULAS, assert_refused, assert_same, counts, database, meter, number, record, recorded_twice, text, usage,
};

#[test]
fn records_an_event_and_knows_it_again() {
    let database = database();
    let mut client = database.connect().unwrap();
    let before: DateTime<Utc> = client.query_one("SELECT clock_timestamp()", &[]).unwrap().get(0);
    assert!(record(&mut client, "first").unwrap());
    assert!(!record(&mut client, "first").unwrap());
    let row = client
        .query_one(
            "SELECT customer, event_name, identifier, value::text, \"timestamp\", received_at, dimensions, cancelled_at,
                    clock_timestamp()
             FROM billing.meter_events",
            &[],
        )
        .unwrap();
    let texts: [&str; 4] = [row.get(0), row.get(1), row.get(2), row.get(3)];
    assert_eq!(texts, ["acme", "sum", "first", "1"]);
    let (timestamp, received_at, after): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>) =
        (row.get(4), row.get(5), row.get(8));
    assert!(before <= timestamp && timestamp <= received_at && received_at <= after);
    assert_eq!(row.get::<_, Option<Value>>(6), None);
    assert_eq!(row.get::<_, Option<DateTime<Utc>>>(7), None);
    assert_eq!(usage(&mut client, "sum"), "1");
}

#[test]
fn one_request_may_feed_several_meters_and_customers() {
    let database = database();
    let mut client = database.connect().unwrap();
    client.execute("SELECT billing.create_customer('other')", &[]).unwrap();
    for (event_name, customer) in [("sum", "acme"), ("count", "acme"), ("sum", "other")] {
        let sql = "SELECT billing.record_meter_event($1, $2, 3, 'request-1')";
        let recorded: bool = client.query_one(sql, &[&event_name, &customer]).unwrap().get(0);
        assert!(recorded, "{event_name} {customer}");
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.meter_events"), 3);
}

#[test]
fn makes_identifiers_where_none_are_sent() {
    let database = database();
    let mut client = database.connect().unwrap();
    for _ in 0..3 {
        client
            .execute("SELECT billing.record_meter_event('sum', 'acme')", &[])
            .unwrap();
    }
    let sql =
        "SELECT * FROM billing.record_meter_events(array_fill('sum'::text, '{100}'), array_fill('acme'::text, '{100}'),
               array_fill(1::numeric, '{100}'))";
    assert_eq!(counts(&client.query_one(sql, &[]).unwrap()), (100, 0, 0));
    let distinct = "SELECT count(DISTINCT identifier) FROM billing.meter_events WHERE length(identifier) >= 32";
    assert_eq!(number(&mut client, distinct), 103);
    assert_eq!(usage(&mut client, "sum"), "103");
}

#[test]
fn records_arrays_in_their_order() {
    let database = database();
    let mut client = database.connect().unwrap();
    // Identifiers fall where the array rises: the order of arrival must not follow the order of the index.
    let sql = "SELECT c.* FROM (SELECT array_agg('last'::text) AS names, array_agg('acme'::text) AS customers,
                   array_agg(n::numeric ORDER BY n) AS quantities, array_agg(to_char(5000 - n, 'FM0000') ORDER BY n) AS ids,
                   array_agg('2026-01-01 00:00Z'::timestamptz) AS times FROM generate_series(1, 5000) n) a,
               billing.record_meter_events(names, customers, quantities, ids, times) c";
    client.batch_execute("SET billing.max_event_age = -1").unwrap();
    assert_eq!(counts(&client.query_one(sql, &[]).unwrap()), (5000, 0, 0));
    assert_eq!(counts(&client.query_one(sql, &[]).unwrap()), (0, 5000, 0));
    let disorder = "SELECT count(*) FROM (SELECT received_at <= lag(received_at) OVER (ORDER BY value) AS wrong
                    FROM billing.meter_events) o WHERE wrong";
    assert_eq!(number(&mut client, disorder), 0);
    // Of equal timestamps the latest received counts: the last of the array.
    assert_eq!(usage(&mut client, "last"), "5000");
}

#[test]
fn the_first_of_two_with_one_identifier_in_a_batch_stays() {
    let database = database();
    let mut client = database.connect().unwrap();
    let sql = "SELECT * FROM billing.record_meter_events('{sum,sum,sum}', '{acme,acme,acme}', '{7,8,9}', '{a,b,a}')";
    assert_eq!(counts(&client.query_one(sql, &[]).unwrap()), (2, 1, 0));
    let kept = "SELECT string_agg(identifier || '=' || value, ' ' ORDER BY identifier) FROM billing.meter_events";
    assert_eq!(text(&mut client, kept), "a=7 b=8");
    assert_eq!(usage(&mut client, "sum"), "15");
}

#[test]
fn takes_stripes_objects() {
    let database = database();
    let mut client = database.connect().unwrap();
    meter(
        &mut client,
        "own_keys",
        "sum",
        r#", "customer_mapping": {"type": "by_id", "event_payload_key": "org"}, "value_settings": {"event_payload_key": "tokens"}"#,
    );
    let recorded_now = |client: &mut Client, events: &Value| {
        counts(
            &client
                .query_one("SELECT * FROM billing.record_meter_events($1::jsonb)", &[events])
                .unwrap(),
        )
    };
    let at = Utc::now() - chrono::Duration::hours(5);
    let one = json!({
        "event_name": "sum", "identifier": "j1", "timestamp": at.timestamp(),
        "payload": {"stripe_customer_id": "acme", "value": "2.50", "region": "eu", "http": 200, "secure": true, "none": null},
    });
    assert_eq!(recorded_now(&mut client, &one), (1, 0, 0));
    assert_eq!(recorded_now(&mut client, &one), (0, 1, 0));
    let many = json!([
        one,
        {"event_name": "sum", "identifier": "j2", "timestamp": at.to_rfc3339(), "payload": {"customer": "acme", "value": 4}},
        {"event_name": "own_keys", "identifier": "j1", "payload": {"org": "acme", "tokens": "0.000000000001"},
         "object": "billing.meter_event", "livemode": false, "created": 1},
        {"event_name": "count", "payload": {"customer": "acme"}},
    ]);
    assert_eq!(recorded_now(&mut client, &many), (3, 1, 0));
    let row = client
        .query_one("SELECT value = 2.5, dimensions, \"timestamp\" FROM billing.meter_events WHERE identifier = 'j1' AND event_name = 'sum'", &[])
        .unwrap();
    assert!(row.get::<_, bool>(0));
    assert_eq!(
        row.get::<_, Value>(1),
        json!({"region": "eu", "http": "200", "secure": "true"})
    );
    assert_eq!(
        row.get::<_, DateTime<Utc>>(2).timestamp_micros(),
        at.timestamp() * 1_000_000
    );
    assert_eq!(usage(&mut client, "sum"), "6.5");
    assert_eq!(usage(&mut client, "own_keys"), "0.000000000001");
    assert_eq!(usage(&mut client, "count"), "1");
}

#[test]
fn typed_dimensions_become_texts() {
    let database = database();
    let mut client = database.connect().unwrap();
    meter(&mut client, "split", "sum", r#", "dimension_payload_keys": ["status"]"#);
    for (identifier, dimensions) in [
        ("n", json!({"status": 5, "more": false})),
        ("t", json!({"status": "5", "gone": null})),
    ] {
        let sql = "SELECT billing.record_meter_event('split', 'acme', 1, $1, NULL, $2)";
        client.execute(sql, &[&identifier, &dimensions]).unwrap();
    }
    let kept = "SELECT dimensions FROM billing.meter_events ORDER BY identifier";
    let kept: Vec<Value> = client.query(kept, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, [json!({"status": "5", "more": "false"}), json!({"status": "5"})]);
    let of_five =
        "SELECT aggregated_value::text FROM billing.meter_event_summaries('split', 'acme', '2000-01-01', '2100-01-01',
                   dimensions => '{\"status\": \"5\"}')";
    assert_eq!(text(&mut client, of_five), "2");
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(text(&mut client, of_five), "2");
}

#[test]
fn an_event_is_recorded_if_and_only_if_its_transaction_commits() {
    let database = database();
    let (mut client, mut other) = (database.connect().unwrap(), database.connect().unwrap());
    let mut transaction = client.transaction().unwrap();
    let recorded = |transaction: &mut postgres::Transaction, identifier: &str| -> bool {
        let sql = "SELECT billing.record_meter_event('sum', 'acme', 1, $1)";
        transaction.query_one(sql, &[&identifier]).unwrap().get(0)
    };
    assert!(recorded(&mut transaction, "kept"));
    let mut savepoint = transaction.savepoint("s").unwrap();
    assert!(recorded(&mut savepoint, "taken back"));
    assert!(!recorded(&mut savepoint, "kept"));
    savepoint.rollback().unwrap();
    let mut savepoint = transaction.savepoint("s").unwrap();
    assert!(
        recorded(&mut savepoint, "taken back"),
        "a rolled back identifier is free again"
    );
    assert!(recorded(&mut savepoint, "kept too"));
    savepoint.commit().unwrap();
    let mut savepoint = transaction.savepoint("s").unwrap();
    assert!(recorded(&mut savepoint, "rolled back"));
    savepoint.rollback().unwrap();
    // Its own uncommitted events are in a session's summaries, and in nobody else's.
    let own =
        "SELECT aggregated_value::text FROM billing.meter_event_summaries('sum', 'acme', '2000-01-01', '2100-01-01')";
    assert_eq!(transaction.query_one(own, &[]).unwrap().get::<_, String>(0), "3");
    assert_eq!(usage(&mut other, "sum"), "0");
    transaction.commit().unwrap();
    assert_eq!(usage(&mut other, "sum"), "3");

    let mut transaction = client.transaction().unwrap();
    assert!(recorded(&mut transaction, "never"));
    transaction.rollback().unwrap();
    // A failed statement takes its transaction's events with it.
    let mut transaction = client.transaction().unwrap();
    assert!(recorded(&mut transaction, "never"));
    transaction.batch_execute("SELECT 1 / 0").unwrap_err();
    drop(transaction);
    assert_eq!(usage(&mut other, "sum"), "3");
    other.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(usage(&mut other, "sum"), "3");
    assert!(record(&mut client, "never").unwrap());
    assert_eq!(
        text(
            &mut client,
            "SELECT string_agg(identifier, ',' ORDER BY identifier) FROM billing.meter_events"
        ),
        "kept,kept too,never,taken back"
    );
}

#[test]
fn an_exception_block_takes_back_what_it_recorded() {
    let database = database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute(
            "DO $$ BEGIN
                PERFORM billing.record_meter_event('sum', 'acme', 1, 'before');
                BEGIN
                    PERFORM billing.record_meter_event('sum', 'acme', 1, 'inside');
                    PERFORM billing.record_meter_event('sum', 'nobody', 1, 'refused');
                EXCEPTION WHEN foreign_key_violation THEN
                    PERFORM billing.record_meter_event('sum', 'acme', 1, 'handled');
                END;
            END $$",
        )
        .unwrap();
    assert_eq!(
        text(
            &mut client,
            "SELECT string_agg(identifier, ',' ORDER BY identifier) FROM billing.meter_events"
        ),
        "before,handled"
    );
    assert_eq!(usage(&mut client, "sum"), "2");
}

#[test]
fn a_stricter_isolation_level_changes_nothing() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let database = database();
        let (mut client, mut other) = (database.connect().unwrap(), database.connect().unwrap());
        let mut old = client.build_transaction().isolation_level(level).start().unwrap();
        // Takes the snapshot, before everything that follows.
        old.query_one("SELECT count(*) FROM billing.customers", &[]).unwrap();
        assert!(record(&mut other, "theirs").unwrap());
        other.execute("SELECT billing.create_customer('new')", &[]).unwrap();
        meter(&mut other, "new", "count", "");
        let sql = "SELECT billing.record_meter_event($1, $2, 1, $3)";
        let mut recorded = |event_name: &str, customer: &str, identifier: &str| -> bool {
            old.query_one(sql, &[&event_name, &customer, &identifier])
                .unwrap()
                .get(0)
        };
        assert!(
            !recorded("sum", "acme", "theirs"),
            "its snapshot does not show the event, but it was recorded"
        );
        assert!(
            recorded("new", "new", "mine"),
            "a meter and a customer made since are known"
        );
        assert!(recorded("sum", "acme", "mine"));
        // Others record meanwhile and are not in the way.
        assert!(record(&mut other, "meanwhile").unwrap());
        old.commit().unwrap();
        assert_eq!(usage(&mut client, "sum"), "3");
        assert_eq!(recorded_twice(&mut client), []);
    }
}

#[test]
fn serializable_sessions_record_side_by_side() {
    let database = database();
    let (mut one, mut other) = (database.connect().unwrap(), database.connect().unwrap());
    record(&mut one, "makes the partition").unwrap();
    let start = |client: &mut Client| {
        client
            .batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM billing.customers")
            .unwrap();
    };
    start(&mut one);
    start(&mut other);
    assert!(record(&mut one, "one").unwrap());
    assert!(record(&mut other, "other").unwrap());
    one.batch_execute("COMMIT").unwrap();
    other.batch_execute("COMMIT").unwrap();
    assert_eq!(usage(&mut one, "sum"), "3");
}

#[test]
fn writes_nothing_in_a_read_only_transaction() {
    let database = database();
    let mut client = database.connect().unwrap();
    for sql in [
        "SELECT billing.record_meter_event('sum', 'acme', 1, 'x')",
        "SELECT * FROM billing.record_meter_events('{sum}', '{acme}', '{1}')",
        "SELECT billing.cancel_meter_event('sum', 'acme', 'x')",
    ] {
        record(&mut client, "makes the partition").unwrap();
        client.batch_execute("BEGIN READ ONLY").unwrap();
        let error = client.query(sql, &[]).unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION),
            "{sql}: {error}"
        );
        client.batch_execute("ROLLBACK").unwrap();
    }
    assert_eq!(usage(&mut client, "sum"), "1");
}

/// Three events between midnight and ten of yesterday, and the average, sum … of those ten hours before and after one of them
/// is cancelled. By hand: sum 5+9+2; weighted_sum (5·10 + 9·5 + 2·2) / 10 and (5·10 + 2·2) / 10.
const CANCELLED: [(&str, &str, &str, &str); 7] = [
    ("sum", "b", "16", "7"),
    ("count", "b", "3", "2"),
    ("last", "c", "2", "9"),
    ("max", "b", "9", "5"),
    ("min", "c", "2", "5"),
    ("unique_count", "a", "2", "1"),
    ("weighted_sum", "b", "9.9", "5.4"),
];

fn record_three(client: &mut Client, event_name: &str, customer: &str) {
    for (identifier, value, hour, device) in [("a", 5, 0, "x"), ("b", 9, 5, "y"), ("c", 2, 8, "y")] {
        let sql = format!(
            "SELECT billing.record_meter_event($1, $2, {value}, $3,
                 date_trunc('day', now(), 'UTC') - interval '1 day' + interval '{hour} hours', '{{\"value\": \"{device}\"}}')"
        );
        assert!(
            client
                .query_one(&sql, &[&event_name, &customer, &identifier])
                .unwrap()
                .get::<_, bool>(0)
        );
    }
}

fn ten_hours(client: &mut Client, event_name: &str, customer: &str) -> String {
    let sql = "SELECT trim_scale(aggregated_value)::text FROM billing.meter_event_summaries($1, $2,
                   date_trunc('day', now(), 'UTC') - interval '1 day', date_trunc('day', now(), 'UTC') - interval '14 hours')";
    client.query_one(sql, &[&event_name, &customer]).unwrap().get(0)
}

fn cancel(client: &mut Client, event_name: &str, customer: &str, identifier: &str) -> bool {
    let sql = "SELECT billing.cancel_meter_event($1, $2, $3)";
    client
        .query_one(sql, &[&event_name, &customer, &identifier])
        .unwrap()
        .get(0)
}

#[test]
fn cancelling_takes_usage_back_out() {
    assert_same("tested", CANCELLED.map(|(formula, ..)| formula), FORMULAS);
    let database = database();
    let mut client = database.connect().unwrap();
    for customer in ["pending", "folded", "twice"] {
        client
            .execute("SELECT billing.create_customer($1)", &[&customer])
            .unwrap();
    }
    for (formula, cancelled, before, after) in CANCELLED {
        // Recorded and cancelled in one transaction: only the queue has seen them.
        client.batch_execute("BEGIN").unwrap();
        record_three(&mut client, formula, "pending");
        assert_eq!(ten_hours(&mut client, formula, "pending"), before, "{formula}");
        assert!(cancel(&mut client, formula, "pending", cancelled));
        assert_eq!(
            ten_hours(&mut client, formula, "pending"),
            after,
            "{formula}, all pending"
        );
        client.batch_execute("COMMIT; SELECT billing.roll_up()").unwrap();
        assert_eq!(
            ten_hours(&mut client, formula, "pending"),
            after,
            "{formula}, folded together"
        );

        // Cancelled after the buckets took it in; a rolled back cancellation changes nothing.
        record_three(&mut client, formula, "folded");
        client.batch_execute("SELECT billing.roll_up(); BEGIN").unwrap();
        assert!(cancel(&mut client, formula, "folded", cancelled));
        client.batch_execute("ROLLBACK; SELECT billing.roll_up()").unwrap();
        assert_eq!(
            ten_hours(&mut client, formula, "folded"),
            before,
            "{formula}, rolled back"
        );
        assert!(cancel(&mut client, formula, "folded", cancelled));
        assert_eq!(ten_hours(&mut client, formula, "folded"), after, "{formula}, cancelled");
        client.execute("SELECT billing.roll_up()", &[]).unwrap();
        assert_eq!(ten_hours(&mut client, formula, "folded"), after, "{formula}, refolded");

        assert!(!cancel(&mut client, formula, "folded", cancelled), "cancelled before");
        assert!(!cancel(&mut client, formula, "folded", "unheard of"));
        assert!(!cancel(&mut client, formula, "twice", cancelled), "another customer's");
        let again = "SELECT billing.record_meter_event($1, 'folded', 1, $2, NULL, '{\"value\": \"z\"}')";
        let again: bool = client.query_one(again, &[&formula, &cancelled]).unwrap().get(0);
        assert!(!again, "{formula}: a cancelled event's identifier stays used");
        for customer in ["pending", "folded"] {
            let wrong = client
                .query(
                    "SELECT * FROM billing.verify($1, $2, NULL, NULL)",
                    &[&formula, &customer],
                )
                .unwrap();
            assert!(wrong.is_empty(), "{formula} {customer}: {wrong:?}");
        }
    }
    assert!(!cancel(&mut client, "no such meter", "folded", "a"));
    let sql = "SELECT billing.cancel_meter_event($1, $2, $3)";
    for nulls in [
        [None, Some("acme"), Some("a")],
        [Some("sum"), None, Some("a")],
        [Some("sum"), Some("acme"), None],
    ] {
        let error = client.query_one(sql, &[&nulls[0], &nulls[1], &nulls[2]]).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::NULL_VALUE_NOT_ALLOWED));
    }
}

#[test]
fn of_two_sessions_that_cancel_one_event_one_does() {
    let database = database();
    let (mut one, mut other) = (database.connect().unwrap(), database.connect().unwrap());
    record(&mut one, "a").unwrap();
    one.batch_execute("BEGIN").unwrap();
    assert!(cancel(&mut one, "sum", "acme", "a"));
    let pid = crate::recording::backend(&mut other);
    let waiting = std::thread::spawn(move || cancel(&mut other, "sum", "acme", "a"));
    let holder = crate::recording::backend(&mut one);
    crate::recording::await_blocked(&mut database.connect().unwrap(), pid, holder);
    one.batch_execute("COMMIT").unwrap();
    assert!(!waiting.join().unwrap());
    assert_eq!(usage(&mut one, "sum"), "0");
}

#[test]
fn a_meter_that_is_inactive_takes_no_events_but_lets_them_be_cancelled() {
    let database = database();
    let mut client = database.connect().unwrap();
    record(&mut client, "a").unwrap();
    client.execute("SELECT billing.deactivate_meter('sum')", &[]).unwrap();
    let sql = "SELECT billing.record_meter_event('sum', 'acme', 1, 'b')";
    assert_refused(
        &mut client,
        sql,
        &[],
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        &["\"sum\"", "(archived_meter)"],
    );
    assert!(cancel(&mut client, "sum", "acme", "a"));
    client.execute("SELECT billing.reactivate_meter('sum')", &[]).unwrap();
    assert!(record(&mut client, "b").unwrap());
    assert_eq!(usage(&mut client, "sum"), "1");
}

#[test]
fn no_event_is_longer_than_a_bucket_can_hold() {
    let database = database();
    let mut client = database.connect().unwrap();
    // Characters of four bytes that do not compress: 255 and 100 of them are the longest customer and event name.
    let random = |n: u32| -> String {
        (0..n)
            .filter_map(|i| char::from_u32(0x20000 + i.wrapping_mul(2_654_435_761) % 0xA000))
            .collect()
    };
    let (customer, name) = (random(255), random(100));
    client
        .execute("SELECT billing.create_customer($1)", &[&customer])
        .unwrap();
    let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
    let more = format!(
        ", \"dimension_payload_keys\": {}",
        serde_json::to_string(&keys).unwrap()
    );
    meter(&mut client, &name, "unique_count", &more);
    let record =
        "SELECT recorded FROM billing.record_meter_events(ARRAY[$1], ARRAY[$2], '{1}', NULL, NULL, ARRAY[$3::jsonb])";
    for (characters, recorded) in [(1, 1), (100, 0), (124, 0)] {
        let mut dimensions: serde_json::Map<String, Value> = keys.iter().map(|key| (key.clone(), json!(""))).collect();
        dimensions.insert("value".into(), json!(random(characters)));
        let row = client
            .query_one(record, &[&name, &customer, &Value::Object(dimensions)])
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), recorded, "{characters}");
        client.execute("SELECT billing.roll_up()", &[]).unwrap();
    }
}

/// A time that PostgreSQL cannot hold would make the events unreadable.
#[test]
fn no_event_is_older_than_the_year_one() {
    let database = database();
    let mut client = database.connect().unwrap();
    client.batch_execute("SET billing.max_event_age = -1").unwrap();
    // Unix seconds: 7537 BC, which no timestamptz holds; the last second before the year 1, and its first.
    for (timestamp, recorded) in [(-300_000_000_000_i64, 0), (-62_135_596_801, 0), (-62_135_596_800, 1)] {
        let event = json!({"event_name": "sum", "payload": {"customer": "acme", "value": 1}, "timestamp": timestamp});
        let sql = "SELECT recorded FROM billing.record_meter_events($1::jsonb)";
        let row = client.query_one(sql, &[&event]).unwrap();
        assert_eq!(row.get::<_, i64>(0), recorded, "{timestamp}");
    }
    assert_eq!(
        text(
            &mut client,
            "SELECT \"timestamp\" AT TIME ZONE 'UTC' FROM billing.meter_events"
        ),
        "0001-01-01 00:00:00"
    );
}
