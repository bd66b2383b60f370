//! Batches that go in one pass: what happens when a part of one is there already, is being recorded, or fails.

use std::fs;
use std::time::Duration;

use postgres::Client;
use postgres::error::SqlState;

use crate::recording::{await_blocked, backend, counts, database, number, recorded_twice, text, usage};

/// Events `prefix-from` to `prefix-to` of meter `sum` for `acme`: (recorded, duplicate, rejected).
fn record_range(client: &mut Client, prefix: &str, from: i32, to: i32) -> (i64, i64, i64) {
    counts(&client.query_one(RANGE, &[&prefix, &from, &to]).unwrap())
}

const RANGE: &str = "SELECT r.* FROM (SELECT array_agg($1::text || '-' || n ORDER BY n) AS ids, count(*)::int AS n
                                      FROM generate_series($2::int, $3::int) n) i,
    billing.record_meter_events(array_fill('sum'::text, ARRAY[i.n]), array_fill('acme'::text, ARRAY[i.n]),
                                array_fill(1::numeric, ARRAY[i.n]), i.ids) r";

fn events(client: &mut Client) -> i64 {
    number(client, "SELECT count(*) FROM billing.meter_events")
}

#[test]
fn the_part_that_is_there_already_is_not_recorded_again() {
    let database = database();
    let mut client = database.connect().unwrap();
    assert_eq!(record_range(&mut client, "a", 1, 1000), (1000, 0, 0));
    assert_eq!(record_range(&mut client, "a", 1, 1000), (0, 1000, 0));
    assert_eq!(record_range(&mut client, "a", 501, 1500), (500, 500, 0));
    assert_eq!(record_range(&mut client, "b", 1, 1000), (1000, 0, 0));
    // One retry among them, and others of this very transaction.
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(record_range(&mut client, "b", 1000, 1999), (999, 1, 0));
    assert_eq!(record_range(&mut client, "b", 1500, 2499), (500, 500, 0));
    client.batch_execute("SAVEPOINT s").unwrap();
    assert_eq!(record_range(&mut client, "b", 2500, 2999), (500, 0, 0));
    client.batch_execute("ROLLBACK TO s").unwrap();
    assert_eq!(record_range(&mut client, "b", 2500, 2999), (500, 0, 0));
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(events(&mut client), 1500 + 2999);
    assert_eq!(usage(&mut client, "sum"), (1500 + 2999).to_string());
    assert_eq!(recorded_twice(&mut client), []);
}

/// What a waiting session records depends on how the other ends.
#[test]
fn a_batch_waits_for_one_that_records_the_same() {
    let database = database();
    let mut watcher = database.connect().unwrap();
    for (end, (recorded, duplicate)) in [("COMMIT", (500, 500)), ("ROLLBACK", (1000, 0))] {
        let mut first = database.connect().unwrap();
        first.batch_execute("BEGIN").unwrap();
        assert_eq!(record_range(&mut first, end, 1, 500), (500, 0, 0));
        let holder = backend(&mut first);
        std::thread::scope(|scope| {
            let mut second = database.connect().unwrap();
            let waiting = backend(&mut second);
            let second = scope.spawn(move || record_range(&mut second, end, 1, 1000));
            await_blocked(&mut watcher, waiting, holder);
            first.batch_execute(end).unwrap();
            assert_eq!(second.join().unwrap(), (recorded, duplicate, 0), "{end}");
        });
    }
    assert_eq!(events(&mut watcher), 2000);
    assert_eq!(recorded_twice(&mut watcher), []);
}

/// Two batches in opposite order, many times at once: sorted, they wait for each other at most one way.
#[test]
fn batches_in_any_order_never_deadlock() {
    let database = database();
    const ROUNDS: i32 = 30;
    let recorded: i64 = std::thread::scope(|scope| {
        let sessions: Vec<_> = ["ASC", "DESC", "ASC"]
            .map(|order| {
                let mut client = database.connect().unwrap();
                let sql = RANGE.replace("ORDER BY n)", &format!("ORDER BY n {order})"));
                scope.spawn(move || {
                    (0..ROUNDS)
                        .map(|round| {
                            let row = client.query_one(&sql, &[&format!("r{round}"), &1, &300]).unwrap();
                            counts(&row).0
                        })
                        .sum::<i64>()
                })
            })
            .into_iter()
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    let mut client = database.connect().unwrap();
    assert_eq!(recorded, i64::from(ROUNDS) * 300);
    assert_eq!(events(&mut client), recorded);
    assert_eq!(usage(&mut client, "sum"), recorded.to_string());
}

/// An error in the middle of the pass takes back the batch and nothing else, and the session goes on.
#[test]
fn a_batch_that_fails_leaves_nothing_and_harms_nothing() {
    let database = database();
    let mut client = database.connect().unwrap();
    assert_eq!(record_range(&mut client, "before", 1, 100), (100, 0, 0));
    let partition = text(
        &mut client,
        "SELECT name FROM billing.meter_event_partitions WHERE clock_timestamp() >= lower_bound AND clock_timestamp() < upper_bound",
    );
    client
        .batch_execute(&format!(
            "ALTER TABLE billing.{partition} ADD CONSTRAINT poison CHECK (identifier <> 'p-5000')"
        ))
        .unwrap();
    client
        .batch_execute("BEGIN; SELECT billing.record_meter_event('sum', 'acme', 1, 'own')")
        .unwrap();
    client.batch_execute("SAVEPOINT s").unwrap();
    let failed = client.query_one(RANGE, &[&"p", &1, &6000]).unwrap_err();
    assert_eq!(failed.code(), Some(&SqlState::CHECK_VIOLATION));
    client.batch_execute("ROLLBACK TO s").unwrap();
    assert_eq!(record_range(&mut client, "p", 1, 4000), (4000, 0, 0));
    let caught = "DO $$ BEGIN
            PERFORM billing.record_meter_events(array_fill('sum'::text, '{2000}'), array_fill('acme'::text, '{2000}'),
                array_fill(1::numeric, '{2000}'), ARRAY(SELECT 'p-' || n FROM generate_series(4001, 6000) n));
            RAISE 'not refused';
        EXCEPTION WHEN check_violation THEN
            PERFORM billing.record_meter_event('sum', 'acme', 1, 'after');
        END $$";
    client.batch_execute(caught).unwrap();
    client.batch_execute("COMMIT").unwrap();
    client
        .batch_execute(&format!("ALTER TABLE billing.{partition} DROP CONSTRAINT poison"))
        .unwrap();
    assert_eq!(record_range(&mut client, "p", 1, 6000), (2000, 4000, 0));
    assert_eq!(events(&mut client), 100 + 2 + 6000);
    assert_eq!(usage(&mut client, "sum"), (100 + 2 + 6000).to_string());
    // Without a transaction around it the session is no less fit afterwards.
    client
        .batch_execute(&format!(
            "ALTER TABLE billing.{partition} ADD CONSTRAINT poison CHECK (identifier <> 'q-5000')"
        ))
        .unwrap();
    for _ in 0..3 {
        client.query_one(RANGE, &[&"q", &1, &6000]).unwrap_err();
    }
    assert_eq!(record_range(&mut client, "q", 1, 4999), (4999, 0, 0));
}

/// A session that is cancelled in the middle of a batch has recorded nothing of it.
#[test]
fn a_cancelled_batch_can_be_sent_again() {
    let database = database();
    let mut client = database.connect().unwrap();
    for timeout in ["5ms", "20ms", "60ms", "150ms"] {
        client
            .batch_execute(&format!("SET statement_timeout = '{timeout}'"))
            .unwrap();
        let sent = client.query_one(RANGE, &[&timeout, &1, &50_000]);
        client.batch_execute("SET statement_timeout = 0").unwrap();
        let recorded = match sent {
            Ok(row) => counts(&row).0,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error}");
                0
            }
        };
        assert_eq!(
            record_range(&mut client, timeout, 1, 50_000),
            (50_000 - recorded, recorded, 0)
        );
    }
    assert_eq!(events(&mut client), 200_000);
    assert_eq!(usage(&mut client, "sum"), "200000");
}

/// Every scale and length of a value that is accepted is kept as it was sent, and adds up exactly.
#[test]
fn values_of_every_shape_add_up() {
    let database = database();
    let mut client = database.connect().unwrap();
    // PostgreSQL's own numeric is the independent calculation.
    let shapes = "CREATE TEMP TABLE shapes AS
        SELECT (sign * digits)::numeric / power(10::numeric, scale) AS value, row_number() OVER () AS n
        FROM (VALUES (1), (-1)) s (sign),
             (VALUES (0::numeric), (1), (9), (10), (99), (9999), (10000), (10001), (99999999), (100000000), (123456789012345678),
                     (9223372036854775807), (9223372036854775808), (9999999999999999999999999999), (1000000000000000000000000000)) d (digits),
             generate_series(0, 28) scale
        WHERE length(digits::text) <= 28;
        UPDATE shapes SET value = trim_scale(value);
        DELETE FROM shapes WHERE length(replace(ltrim(abs(value)::text, '0.'), '.', '')) > 28 OR scale(value) > 28";
    client.batch_execute(shapes).unwrap();
    let shapes = number(&mut client, "SELECT count(*) FROM shapes");
    assert!(shapes > 700, "{shapes}");
    let sql = "SELECT r.recorded FROM (SELECT array_agg(value) AS quantities, array_agg('v' || n) AS ids, count(*)::int AS n FROM shapes) s,
        (VALUES ('sum'), ('max'), ('min')) m (meter),
        billing.record_meter_events(array_fill(m.meter, ARRAY[s.n]), array_fill('acme'::text, ARRAY[s.n]), quantities, ids) r";
    for row in client.query(sql, &[]).unwrap() {
        assert_eq!(row.get::<_, i64>(0), shapes);
    }
    let singly = "SELECT bool_and(billing.record_meter_event('sum', 'acme', value, 's' || n)) FROM shapes";
    assert_eq!(text(&mut client, singly), "t");
    // As JSON numbers and as texts.
    for value in ["to_jsonb(value)", "to_jsonb(value::text)"] {
        let sql = format!(
            "SELECT r.recorded FROM (SELECT jsonb_agg(jsonb_build_object('event_name', 'sum', 'payload',
                 jsonb_build_object('customer', 'acme', 'value', {value}))) AS events FROM shapes) s, billing.record_meter_events(events) r"
        );
        assert_eq!(number(&mut client, &sql), shapes);
    }
    let kept = "SELECT count(*) FROM billing.meter_events e JOIN shapes s ON e.identifier IN ('v' || s.n, 's' || s.n) AND e.value = s.value";
    assert_eq!(number(&mut client, kept), 4 * shapes);
    for rolled_up in [false, true] {
        if rolled_up {
            client.batch_execute("SELECT billing.roll_up()").unwrap();
        }
        for (meter, expected) in [("sum", "4 * sum(value)"), ("max", "max(value)"), ("min", "min(value)")] {
            let expected = text(&mut client, &format!("SELECT trim_scale({expected}) FROM shapes"));
            assert_eq!(usage(&mut client, meter), expected, "{meter}, rolled up: {rolled_up}");
        }
    }
}

/// A call's memory goes with its events: a million of them fit, and need about ten times the memory of a hundred thousand.
#[test]
fn a_million_events_in_one_call() {
    let database = database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute("SELECT billing.create_customer('c' || n) FROM generate_series(0, 999) n")
        .unwrap();
    let sql = "SELECT r.* FROM (SELECT array_agg('c' || n % 1000) AS customers FROM generate_series(1, $1::int) n) c,
        billing.record_meter_events(array_fill('sum'::text, ARRAY[$1]), customers, array_fill(1::numeric, ARRAY[$1])) r";
    let pid = backend(&mut client);
    let status = format!("/proc/{pid}/status");
    let anonymous_kb = || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        field.map_or(0, |kb| kb.trim().trim_end_matches(" kB").parse::<u64>().unwrap())
    };
    let peaks = [100_000, 1_000_000].map(|count| {
        std::thread::scope(|scope| {
            let client = &mut client;
            let call = scope.spawn(move || counts(&client.query_one(sql, &[&count]).unwrap()));
            let mut peak = 0;
            while !call.is_finished() {
                peak = anonymous_kb().max(peak);
                std::thread::sleep(Duration::from_millis(2));
            }
            assert_eq!(call.join().unwrap(), (i64::from(count), 0, 0));
            peak
        })
    });
    println!("{peaks:?} kB at most");
    assert!(peaks[0] > 0 && peaks[1] < 15 * peaks[0], "{peaks:?}");
    let total = "SELECT sum(s.aggregated_value)::bigint FROM billing.customers c,
        billing.meter_event_summaries('sum', c.id, now() - interval '1 day', now() + interval '1 day') s";
    assert_eq!(number(&mut client, total), 1_100_000);
}

/// Arrays know nothing of the meter's keys; what is kept of them does.
#[test]
fn what_was_refused_of_arrays_can_be_sent_again_as_json() {
    let database = database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute(
            r#"SELECT billing.create_meter('{"event_name": "keyed", "default_aggregation": {"formula": "sum"},
                   "customer_mapping": {"type": "by_id", "event_payload_key": "account"},
                   "value_settings": {"event_payload_key": "bytes"}, "dimension_payload_keys": ["region"]}');
               SELECT billing.create_meter('{"event_name": "people", "default_aggregation": {"formula": "unique_count"},
                   "value_settings": {"event_payload_key": "user"}}')"#,
        )
        .unwrap();
    let send = r#"SELECT * FROM billing.record_meter_events(
        ARRAY['keyed', 'people', 'sum'], ARRAY['later', 'later', 'acme'], ARRAY[1.50, 1, 7], ARRAY['k', 'p', 'good'],
        ARRAY['2026-01-02 03:04:05.678901+00', '2026-01-02 03:04:06+00', NULL]::timestamptz[],
        ARRAY['{"region": "eu", "plan": 5}', '{"user": "ann"}', NULL]::jsonb[])"#;
    client.batch_execute("SET billing.max_event_age = -1").unwrap();
    assert_eq!(counts(&client.query_one(send, &[]).unwrap()), (1, 0, 2));
    client.execute("SELECT billing.create_customer('later')", &[]).unwrap();
    // As README.md has it.
    let again = "WITH mended AS (DELETE FROM billing.meter_event_rejections WHERE error_code = 'meter_event_customer_not_found' RETURNING event)
                 SELECT r.* FROM (SELECT jsonb_agg(event) AS events FROM mended HAVING count(*) > 0) m, billing.record_meter_events(m.events) r";
    assert_eq!(counts(&client.query_one(again, &[]).unwrap()), (2, 0, 0));
    assert!(client.query(again, &[]).unwrap().is_empty());
    assert_eq!(
        text(
            &mut client,
            "SELECT string_agg(concat_ws(' ', event_name, identifier, value, timestamp AT TIME ZONE 'UTC', dimensions), ', ' ORDER BY 1)
             FROM (SELECT * FROM billing.meter_events WHERE customer = 'later' ORDER BY event_name) e"
        ),
        r#"keyed k 1.5 2026-01-02 03:04:05.678901 {"plan": "5", "region": "eu"}, people p 1 2026-01-02 03:04:06 {"user": "ann"}"#
    );
    assert_eq!(counts(&client.query_one(send, &[]).unwrap()), (0, 3, 0));
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM billing.meter_event_rejections"),
        0
    );
}

/// What no JSON event could say is not taken for something else when it is sent again.
#[test]
fn what_was_refused_of_arrays_is_refused_again_until_it_is_mended() {
    let database = database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute(
            r#"SELECT billing.create_meter('{"event_name": "people", "default_aggregation": {"formula": "unique_count"},
                   "value_settings": {"event_payload_key": "user"}}');
               SELECT billing.create_meter('{"event_name": "counted", "default_aggregation": {"formula": "count"}}')"#,
        )
        .unwrap();
    let send = r#"SELECT * FROM billing.record_meter_events(
        ARRAY['sum', 'sum', 'sum', 'people', 'people', 'counted', 'sum', 'sum'], array_fill('acme'::text, ARRAY[8]),
        ARRAY[1, 1, 1, 'NaN', NULL, NULL, 1, NULL]::numeric[], NULL,
        ARRAY[NULL, NULL, NULL, NULL, NULL, NULL, '290000-01-01', NULL]::timestamptz[],
        ARRAY['"abc"', '5', '["a"]', '{"user": "ann"}', '{"user": "ann"}', NULL, NULL, '{"value": "5"}']::jsonb[])"#;
    assert_eq!(counts(&client.query_one(send, &[]).unwrap()), (0, 0, 8));
    let again = "SELECT r.* FROM (SELECT jsonb_agg(event ORDER BY id) AS events FROM billing.meter_event_rejections) m,
                 billing.record_meter_events(m.events) r";
    assert_eq!(counts(&client.query_one(again, &[]).unwrap()), (0, 0, 8));
    assert_eq!(
        text(
            &mut client,
            "SELECT event ->> 'timestamp' FROM billing.meter_event_rejections WHERE event ->> 'timestamp' IS NOT NULL LIMIT 1"
        ),
        "290000-01-01 00:00:00+00"
    );
}
