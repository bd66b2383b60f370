//! An identifier is recorded once, whatever partition, session and isolation level the retry falls in. Partitions are a second wide here.

use std::sync::Barrier;
use std::thread::{JoinHandle, spawn};

use harness::{Database, Options, cluster_under_test};
use postgres::Client;

use crate::recording::{
    await_blocked, await_next_partition, await_that, backend, catalog, meter, narrow_database, number, record,
    recorded_twice, text, usage,
};

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// The check of everything below must itself be able to fail.
#[test]
fn the_check_for_doubles_finds_one() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    assert!(record(&mut client, "a").unwrap());
    assert!(record(&mut client, "b").unwrap());
    assert_eq!(recorded_twice(&mut client), []);
    await_next_partition(&mut client);
    assert!(record(&mut client, "c").unwrap());
    let by_hand = "INSERT INTO billing.meter_events (customer, event_name, identifier, value, \"timestamp\", received_at)
                   SELECT e.customer, e.event_name, 'a', e.value, e.\"timestamp\", e.received_at FROM billing.meter_events e
                   WHERE e.identifier = 'c'";
    assert_eq!(client.execute(by_hand, &[]).unwrap(), 1);
    assert_eq!(recorded_twice(&mut client), [("acme/sum/a".to_owned(), 2)]);
    let wrong = client
        .query("SELECT * FROM billing.verify('sum', 'acme', NULL, NULL)", &[])
        .unwrap();
    assert!(!wrong.is_empty(), "an event that was never queued goes unnoticed");
}

#[test]
fn a_retry_in_a_later_partition_is_known() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    assert!(record(&mut client, "a").unwrap());
    for _ in 0..3 {
        await_next_partition(&mut client);
        assert!(!record(&mut client, "a").unwrap());
        let batch = "SELECT recorded, duplicate FROM billing.record_meter_events('{sum,sum}', '{acme,acme}', '{1,1}',
                         ARRAY['a', gen_random_uuid()::text])";
        let row = client.query_one(batch, &[]).unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
    }
    assert_eq!(
        number(&mut client, "SELECT count(DISTINCT tableoid) FROM billing.meter_events"),
        4
    );
    assert!(
        client
            .query_one("SELECT billing.cancel_meter_event('sum', 'acme', 'a')", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    assert!(
        !record(&mut client, "a").unwrap(),
        "a cancelled event's identifier stays used"
    );
    assert_eq!(usage(&mut client, "sum"), "3");
}

/// One that still has to end before the others can know.
struct First<'d> {
    client: Client,
    level: &'static str,
    identifier: String,
    end: &'d str,
}

/// Records `identifier` in a session of its own, and waits until it stands behind `holder`.
fn retry_behind(
    database: &Database,
    watcher: &mut Client,
    level: &str,
    identifier: &str,
    holder: i32,
) -> JoinHandle<bool> {
    let mut client = database.connect().unwrap();
    // An old snapshot, so that only what recording itself looks up can show the other's event.
    client
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM billing.customers"
        ))
        .unwrap();
    let (pid, identifier) = (backend(&mut client), identifier.to_owned());
    let retry = spawn(move || {
        let recorded = record(&mut client, &identifier).unwrap();
        client.batch_execute("COMMIT").unwrap();
        recorded
    });
    await_blocked(watcher, pid, holder);
    retry
}

#[test]
fn a_retry_beyond_the_boundary_waits_for_the_first_try() {
    let database = narrow_database();
    let mut watcher = database.connect().unwrap();
    record(&mut watcher, "makes the partition").unwrap();
    let mut firsts = Vec::new();
    for level in LEVELS {
        for end in ["COMMIT", "ROLLBACK", "RELEASE s; COMMIT", "RELEASE s; ROLLBACK"] {
            let mut client = database.connect().unwrap();
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
            if end.starts_with("RELEASE") {
                client.batch_execute("SAVEPOINT s").unwrap();
            }
            let identifier = format!("{level} {end}");
            // Ahead of time: one that an open transaction makes would keep the next one waiting.
            maintain(&mut watcher);
            assert!(record(&mut client, &identifier).unwrap());
            firsts.push(First {
                client,
                level,
                identifier,
                end,
            });
        }
    }
    await_next_partition(&mut watcher);
    record(&mut watcher, "makes the next partition").unwrap();
    for first in &mut firsts {
        let holder = backend(&mut first.client);
        let retry = retry_behind(&database, &mut watcher, first.level, &first.identifier, holder);
        first.client.batch_execute(first.end).unwrap();
        let committed = first.end.ends_with("COMMIT");
        assert_eq!(retry.join().unwrap(), !committed, "{}", first.identifier);
    }
    assert_eq!(recorded_twice(&mut watcher), []);
    // Each identity once, wherever its first try ended, and the two that made partitions.
    assert_eq!(usage(&mut watcher, "sum"), (firsts.len() + 2).to_string());
}

#[test]
fn a_retry_waits_for_nothing_that_is_over() {
    let database = narrow_database();
    let (mut first, mut retry) = (database.connect().unwrap(), database.connect().unwrap());
    record(&mut first, "makes the partition").unwrap();
    first.batch_execute("BEGIN; SAVEPOINT s").unwrap();
    assert!(record(&mut first, "a").unwrap());
    first.batch_execute("ROLLBACK TO SAVEPOINT s").unwrap();
    assert!(record(&mut first, "b").unwrap());
    await_next_partition(&mut retry);
    // Would hang, were the open transaction waited for.
    retry.batch_execute("SET lock_timeout = '10s'").unwrap();
    assert!(record(&mut retry, "a").unwrap());
    assert!(
        !record(&mut first, "a").unwrap(),
        "the first session meets it in the newer partition"
    );
    first.batch_execute("COMMIT").unwrap();
    assert!(!record(&mut retry, "b").unwrap());
    assert_eq!(recorded_twice(&mut retry), []);
}

#[test]
fn a_retry_that_may_not_wait_fails_and_records_nothing() {
    let database = narrow_database();
    let (mut first, mut retry) = (database.connect().unwrap(), database.connect().unwrap());
    record(&mut first, "makes the partition").unwrap();
    first.batch_execute("BEGIN").unwrap();
    assert!(record(&mut first, "a").unwrap());
    await_next_partition(&mut retry);
    retry.batch_execute("SET lock_timeout = '50ms'").unwrap();
    let error = record(&mut retry, "a").unwrap_err();
    assert_eq!(
        error.code(),
        Some(&postgres::error::SqlState::LOCK_NOT_AVAILABLE),
        "{error}"
    );
    first.batch_execute("ROLLBACK").unwrap();
    assert!(record(&mut retry, "a").unwrap());
    assert_eq!(usage(&mut retry, "sum"), "2");
}

#[test]
fn a_prepared_transaction_is_waited_for() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    for (identifier, end) in [("a", "COMMIT"), ("b", "ROLLBACK")] {
        client.batch_execute("BEGIN").unwrap();
        assert!(record(&mut client, identifier).unwrap());
        let gid = format!("{}_{identifier}", database.name());
        client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")).unwrap();
        await_that("a second passes", || {
            let over = "SELECT clock_timestamp() >= max(upper_bound) FROM billing.meter_event_partitions";
            // The partition may have been made by the prepared transaction, which only its end shows.
            client
                .query_one(over, &[])
                .unwrap()
                .get::<_, Option<bool>>(0)
                .unwrap_or(true)
        });
        let mut watcher = database.connect().unwrap();
        let retry = retry_behind(&database, &mut watcher, "READ COMMITTED", identifier, 0);
        client.batch_execute(&format!("{end} PREPARED '{gid}'")).unwrap();
        assert_eq!(retry.join().unwrap(), end == "ROLLBACK");
    }
    assert_eq!(recorded_twice(&mut client), []);
    assert_eq!(usage(&mut client, "sum"), "2");
}

fn maintain(client: &mut Client) {
    client.execute("SELECT billing.maintain_partitions()", &[]).unwrap();
}

fn record_at(client: &mut Client, identifier: &str, timestamp: &str) -> bool {
    let sql = format!("SELECT billing.record_meter_event('sum', 'acme', 1, $1, {timestamp})");
    client.query_one(&sql, &[&identifier]).unwrap().get(0)
}

#[test]
fn a_retry_with_its_timestamp_is_known_as_long_as_events_are_kept() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    client.batch_execute("SET billing.identifier_window = '1s'").unwrap();
    let at = format!("'{}'", text(&mut client, "SELECT now() - interval '2 days'"));
    assert!(record_at(&mut client, "stamped", &at));
    assert!(record_at(&mut client, "stamped too", &at));
    assert!(record(&mut client, "unstamped").unwrap());
    let sealed = "SELECT count(*) FROM billing.meter_event_partitions WHERE sealed_at IS NOT NULL";
    let beyond_the_window =
        "SELECT clock_timestamp() > max(upper_bound) + interval '1 second' FROM billing.meter_event_partitions p
        WHERE EXISTS (SELECT FROM billing.meter_events e WHERE e.tableoid = to_regclass('billing.' || p.name))";
    await_that("the window passes", || {
        client.query_one(beyond_the_window, &[]).unwrap().get(0)
    });

    // Not sealed yet: found all the same.
    assert_eq!(number(&mut client, sealed), 0);
    assert!(!record_at(&mut client, "stamped", &at));
    await_that("the partitions of the first tries are sealed", || {
        maintain(&mut client);
        number(&mut client, sealed) > 0
    });
    assert!(!record_at(&mut client, "stamped", &at));
    let batch = format!(
        "SELECT duplicate FROM billing.record_meter_events('{{sum}}', '{{acme}}', '{{1}}', '{{stamped too}}', ARRAY[{at}::timestamptz])"
    );
    assert_eq!(number(&mut client, &batch), 1);
    let json = format!(
        r#"SELECT duplicate FROM billing.record_meter_events(jsonb_build_object('event_name', 'sum',
        'identifier', 'stamped', 'payload', '{{"customer": "acme", "value": 1}}'::jsonb, 'timestamp', {at}::timestamptz))"#
    );
    assert_eq!(number(&mut client, &json), 1);

    // Without it the window has passed: the identifier is free again, as the contract says.
    assert!(record(&mut client, "unstamped").unwrap());
    assert!(!record(&mut client, "unstamped").unwrap());
    assert_eq!(recorded_twice(&mut client), [("acme/sum/unstamped".to_owned(), 2)]);
    assert_eq!(usage(&mut client, "sum"), "4");
    // Cancelling takes the later one; cancelling again, as a retry does, nothing.
    for cancelled in [true, false] {
        let sql = "SELECT billing.cancel_meter_event('sum', 'acme', 'unstamped')";
        assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0), cancelled);
    }
    let left = "SELECT count(*) FROM billing.meter_events WHERE identifier = 'unstamped' AND cancelled_at IS NULL
                AND received_at = (SELECT min(received_at) FROM billing.meter_events WHERE identifier = 'unstamped')";
    assert_eq!(number(&mut client, left), 1);
}

/// Waits until every partition that has received events has its filter.
fn filter_all(client: &mut Client) {
    let now = text(client, "SELECT clock_timestamp()");
    let unfiltered = &format!(
        "SELECT count(*) FROM billing.meter_event_partitions p WHERE p.lower_bound <= '{now}'
         AND NOT EXISTS (SELECT FROM billing.meter_event_filters f WHERE f.partition = p.name)"
    );
    await_that("partitions are sealed and have filters", || {
        maintain(client);
        number(client, unfiltered) == 0
    });
}

/// Events `r-1`, `r-2`, … in one call: (recorded, duplicate).
fn record_range(client: &mut Client, range: std::ops::RangeInclusive<i32>) -> (i64, i64) {
    let sql = "SELECT r.recorded, r.duplicate FROM (SELECT array_agg('r-' || n) AS ids FROM generate_series($1::int, $2::int) n) i,
        billing.record_meter_events(array_fill('sum'::text, ARRAY[cardinality(i.ids)]), array_fill('acme'::text, ARRAY[cardinality(i.ids)]),
                                    array_fill(1::numeric, ARRAY[cardinality(i.ids)]), i.ids) r";
    let row = client.query_one(sql, &[range.start(), range.end()]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn a_retry_is_known_whether_or_not_there_is_a_filter() {
    let database = narrow_database();
    let (mut client, mut other) = (database.connect().unwrap(), database.connect().unwrap());
    assert_eq!(record_range(&mut client, 1..=2000), (2000, 0));
    filter_all(&mut client);
    // A whole filter, one that lacks a part, and none; each session searches often enough to read it.
    for change in [
        "",
        "UPDATE billing.meter_event_filters SET parts = parts + 1",
        "DELETE FROM billing.meter_event_filters",
    ] {
        client.batch_execute(change).unwrap();
        for session in [&mut client, &mut other] {
            for _ in 0..10 {
                assert!(!record(session, "r-1000").unwrap(), "{change}");
            }
            assert_eq!(record_range(session, 1..=2000), (0, 2000), "{change}");
        }
        filter_all(&mut client);
    }
    assert_eq!(record_range(&mut other, 1001..=3000), (1000, 1000));
    for _ in 0..10 {
        assert!(!record(&mut client, "r-3000").unwrap());
    }
    assert_eq!(recorded_twice(&mut client), []);
}

/// Otherwise tests of retries would pass without any filter.
#[test]
fn a_filter_that_lies_is_believed() {
    let database = crate::recording::database();
    let (mut client, mut other) = (database.connect().unwrap(), database.connect().unwrap());
    client
        .batch_execute(
            r#"SELECT billing.make_partition(d - interval '48 hours', d - interval '24 hours') FROM date_trunc('day', now(), 'UTC') d;
               INSERT INTO billing.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
               SELECT 'acme', 'sum', 'r-' || n, 1, at, at
               FROM (SELECT n, date_trunc('day', now(), 'UTC') - interval '30 hours' AS at FROM generate_series(1, 2000) n) e"#,
        )
        .unwrap();
    await_that("the past day is sealed and has its filter", || {
        maintain(&mut client);
        number(&mut client, "SELECT count(*) FROM billing.meter_event_filters") > 0
    });
    for session in [&mut client, &mut other] {
        session.batch_execute("SET billing.identifier_window = '7d'").unwrap();
        for _ in 0..10 {
            assert!(!record(session, "r-1").unwrap());
        }
        assert_eq!(record_range(session, 1..=1000), (0, 1000));
    }
    assert_eq!(record_range(&mut client, 1951..=2050), (50, 50));
    assert_eq!(record_range(&mut other, 1951..=2050), (0, 100));
    client
        .batch_execute("UPDATE billing.meter_event_filters SET bits = decode(repeat('00', length(bits)), 'hex')")
        .unwrap();
    // The first search of a session may go to the index.
    await_that("one event at a time believes it", || {
        record(&mut client, "r-1").unwrap()
    });
    await_that("many at once believe it", || {
        record_range(&mut other, 2..=101) == (100, 0)
    });
    assert_eq!(recorded_twice(&mut client).len(), 101);
}

/// A row too wide for a page's quarter has its texts compressed, the identity's too.
#[test]
fn retries_of_wide_events_are_known_by_the_filter() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute("SELECT billing.create_customer(repeat('c', 250))")
        .unwrap();
    let sql = "SELECT billing.record_meter_event('sum', repeat('c', 250), 1, repeat('i', 250), now(),
                   jsonb_build_object('note', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 59) n)))";
    let wide = |client: &mut Client| client.query_one(sql, &[]).unwrap().get::<_, bool>(0);
    assert!(wide(&mut client));
    let compressed =
        "SELECT count(*) FROM billing.meter_events WHERE pg_column_size(customer) < octet_length(customer)";
    assert_eq!(number(&mut client, compressed), 1);
    filter_all(&mut client);
    for _ in 0..10 {
        assert!(!wide(&mut client));
    }
    assert_eq!(recorded_twice(&mut client), []);
}

/// In the midst of a restore the list of partitions is there before their events are.
#[test]
fn no_filter_is_made_of_part_of_a_partition() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    assert_eq!(record_range(&mut client, 1..=100), (100, 0));
    filter_all(&mut client);
    client.batch_execute("DELETE FROM billing.meter_event_filters").unwrap();
    client
        .batch_execute("BEGIN; DELETE FROM billing.meter_events WHERE identifier = 'r-7'")
        .unwrap();
    let filter = "SELECT count(*) FROM billing.meter_event_partitions p
                  WHERE p.event_count > 0 AND billing.filter_partition(p.name)";
    assert_eq!(number(&mut client, filter), 0);
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM billing.meter_event_filters"),
        0
    );
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(number(&mut client, filter), 1);
    for _ in 0..10 {
        assert!(!record(&mut client, "r-7").unwrap());
    }
}

#[test]
fn a_partition_that_takes_anothers_name_does_not_take_its_filter() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    assert!(record(&mut client, "former").unwrap());
    filter_all(&mut client);
    client
        .batch_execute(
            r#"DO $$
               DECLARE
                   p billing.meter_event_partitions;
               BEGIN
                   DELETE FROM billing.meter_event_partitions q WHERE q.event_count = 1 RETURNING q.* INTO p;
                   EXECUTE format('DROP TABLE billing.%I', p.name);
                   PERFORM billing.make_partition(p.lower_bound, p.upper_bound);
                   INSERT INTO billing.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
                   VALUES ('acme', 'sum', 'latter', 1, p.lower_bound, p.lower_bound);
               END $$"#,
        )
        .unwrap();
    filter_all(&mut client);
    let sealed = "SELECT count(*) FROM billing.meter_event_partitions WHERE event_count = 1";
    await_that("it is sealed too", || {
        maintain(&mut client);
        number(&mut client, sealed) == 1
    });
    for _ in 0..10 {
        assert!(!record(&mut client, "latter").unwrap());
    }
    assert!(record(&mut client, "former").unwrap());
}

/// Which filters are kept shows when all of them lie.
#[test]
fn the_latest_filters_that_find_room_are_kept() {
    let database = crate::recording::database();
    let mut client = database.connect().unwrap();
    // Three filters of 1536 bytes.
    client
        .batch_execute(
            r#"SELECT billing.make_partition(d - n * interval '24 hours', d - (n - 1) * interval '24 hours')
               FROM date_trunc('day', now(), 'UTC') d, generate_series(2, 4) n;
               INSERT INTO billing.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
               SELECT 'acme', 'sum', 'r-' || n, 1, at, at
               FROM (SELECT n, date_trunc('day', now(), 'UTC') - interval '78 hours'
                            + n / 1000 * interval '24 hours' AS at FROM generate_series(0, 2999) n) e"#,
        )
        .unwrap();
    await_that("the past days are sealed and have their filters", || {
        maintain(&mut client);
        number(&mut client, "SELECT count(*) FROM billing.meter_event_filters") == 3
    });
    client
        .batch_execute("UPDATE billing.meter_event_filters SET bits = decode(repeat('00', length(bits)), 'hex')")
        .unwrap();
    for (case, (memory, believed)) in (0..).zip([("0", 0), ("1kB", 0), ("2kB", 1), ("4kB", 2), ("1MB", 3)]) {
        let mut session = database.connect().unwrap();
        session
            .batch_execute(&format!(
                "SET billing.filter_memory = '{memory}'; SET billing.identifier_window = '7d'"
            ))
            .unwrap();
        // Enough searches for every filter to be asked for.
        let new = 10_000 + 100 * case;
        assert_eq!(record_range(&mut session, new..=new + 99), (100, 0));
        for n in 0..3 {
            let retry = format!("r-{}", 1000 * n + case + 1);
            assert_eq!(
                record(&mut session, &retry).unwrap(),
                n >= 3 - believed,
                "{memory}: {retry}"
            );
        }
    }
}

#[test]
fn a_partition_with_an_open_writer_is_not_sealed() {
    let database = narrow_database();
    let (mut writer, mut client) = (database.connect().unwrap(), database.connect().unwrap());
    // Into a partition that is there: one that the open transaction made itself would keep others from making the next.
    loop {
        maintain(&mut client);
        writer.batch_execute("BEGIN").unwrap();
        assert!(record_at(&mut writer, "a", "now() - interval '3 days'"));
        let own = "SELECT count(*) FROM billing.meter_event_partitions p WHERE p.xmin = pg_current_xact_id()::xid";
        if number(&mut writer, own) == 0 {
            break;
        }
        writer.batch_execute("ROLLBACK").unwrap();
    }
    let unsealed = "SELECT p.sealed_at IS NULL FROM billing.meter_event_partitions p ORDER BY p.lower_bound LIMIT 1";
    for _ in 0..3 {
        await_next_partition(&mut client);
        maintain(&mut client);
    }
    // The partition where the open transaction wrote may be the first or, past a boundary, the second; one of them waits.
    let open =
        "SELECT count(*) FROM billing.meter_event_partitions p WHERE p.sealed_at IS NULL AND p.upper_bound < now()";
    assert!(number(&mut client, open) >= 1);
    writer.batch_execute("COMMIT").unwrap();
    await_that("all but the latest are sealed", || {
        maintain(&mut client);
        client
            .query_one(unsealed, &[])
            .map(|row| !row.get::<_, bool>(0))
            .unwrap()
    });
    let least = "SELECT min(min_timestamp) < now() - interval '2 days' FROM billing.meter_event_partitions";
    assert!(client.query_one(least, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn sealing_refuses_a_snapshot_that_could_be_old() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    record(&mut client, "a").unwrap();
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    let sql = "SELECT billing.seal_partition(name) FROM billing.meter_event_partitions";
    let error = client.query(sql, &[]).unwrap_err();
    assert_eq!(
        error.code(),
        Some(&postgres::error::SqlState::ACTIVE_SQL_TRANSACTION),
        "{error}"
    );
}

#[test]
fn the_first_events_of_all_make_their_partition_together() {
    const SESSIONS: usize = 12;
    let database = narrow_database();
    let barrier = Barrier::new(SESSIONS);
    let recorded: usize = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|n| {
                let (database, barrier) = (&database, &barrier);
                scope.spawn(move || {
                    let mut client = database.connect().unwrap();
                    // Not SERIALIZABLE, which may rightly ask for a retry when the list of partitions changes under it.
                    let level = LEVELS[n % 2];
                    client
                        .batch_execute(&format!(
                            "SET default_transaction_isolation = '{}'",
                            level.to_lowercase()
                        ))
                        .unwrap();
                    barrier.wait();
                    let own = record(&mut client, &format!("own {n}")).unwrap();
                    assert!(own);
                    usize::from(record(&mut client, "everybody's").unwrap())
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    assert_eq!(recorded, 1);
    let mut client = database.connect().unwrap();
    assert_eq!(recorded_twice(&mut client), []);
    assert_eq!(usage(&mut client, "sum"), (SESSIONS + 1).to_string());
    let overlapping = "SELECT count(*) FROM billing.meter_event_partitions a JOIN billing.meter_event_partitions b
        ON a.name < b.name AND a.lower_bound < b.upper_bound AND b.lower_bound < a.upper_bound";
    assert_eq!(number(&mut client, overlapping), 0);
    let strays = "SELECT count(*) FROM billing.meter_events e JOIN billing.meter_event_partitions p
        ON e.tableoid = to_regclass('billing.' || p.name) WHERE e.received_at < p.lower_bound OR e.received_at >= p.upper_bound";
    assert_eq!(number(&mut client, strays), 0);
}

#[test]
fn a_partition_made_in_an_open_transaction_is_waited_for() {
    for (end, recorded) in [("COMMIT", false), ("ROLLBACK", true)] {
        let database = narrow_database();
        let (mut maker, mut watcher) = (database.connect().unwrap(), database.connect().unwrap());
        maker.batch_execute("BEGIN").unwrap();
        assert!(record(&mut maker, "a").unwrap());
        let holder = backend(&mut maker);
        let retry = retry_behind(&database, &mut watcher, "REPEATABLE READ", "a", holder);
        maker.batch_execute(end).unwrap();
        assert_eq!(retry.join().unwrap(), recorded, "after {end}");
        assert_eq!(usage(&mut watcher, "sum"), "1");
    }
}

#[test]
fn a_batch_that_meets_a_boundary_is_recorded_whole() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    meter(&mut client, "long", "count", "");
    let sql = "SELECT c.recorded, c.duplicate FROM (SELECT array_agg('long'::text) AS names, array_agg('acme'::text) AS customers,
                   array_agg(1::numeric) AS quantities, array_agg(md5($1::text || ' ' || n)) AS ids FROM generate_series(1, 20000) n) a,
               billing.record_meter_events(names, customers, quantities, ids) c";
    let partitions = "SELECT count(DISTINCT e.tableoid) FROM billing.meter_events e, generate_series(1, 20000) n
                      WHERE e.identifier = md5($1::text || ' ' || n)";
    // However fast the machine, one of many batches meets a boundary between partitions of a second.
    let met = (1..=100).find(|batch| {
        let name = batch.to_string();
        let first = client.query_one(sql, &[&name]).unwrap();
        assert_eq!((first.get::<_, i64>(0), first.get::<_, i64>(1)), (20_000, 0));
        let again = client.query_one(sql, &[&name]).unwrap();
        assert_eq!((again.get::<_, i64>(0), again.get::<_, i64>(1)), (0, 20_000));
        client.query_one(partitions, &[&name]).unwrap().get::<_, i64>(0) > 1
    });
    let batches = met.expect("a batch that meets a boundary");
    assert_eq!(usage(&mut client, "long"), (batches * 20_000).to_string());
    assert_eq!(recorded_twice(&mut client), []);
}

#[test]
fn without_a_limit_retention_drops_nothing() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    client.batch_execute("SET billing.identifier_window = 0").unwrap();
    assert!(record_at(&mut client, "old", "now() - interval '1 day'"));
    let sealed = "SELECT count(*) FROM billing.meter_event_partitions WHERE event_count = 1";
    await_that("the partition is sealed", || {
        maintain(&mut client);
        number(&mut client, sealed) == 1
    });
    maintain(&mut client);
    assert_eq!(number(&mut client, "SELECT billing.drop_old_partitions()::bigint"), 0);
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.meter_events"), 1);
}

#[test]
fn retention_keeps_what_is_not_invoiced_yet() {
    let options = Options::default()
        .set("billing.worker", "off")
        .set("billing.partition_width", "1s")
        .set("billing.identifier_window", "0")
        .set("billing.retention", "1s");
    let cluster = cluster_under_test(&options).unwrap();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = database.connect().unwrap();
    catalog(&mut client);
    let price = r#"{"currency": "usd", "unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered", "meter": "sum"}}"#;
    client
        .execute(
            "SELECT billing.create_price($1::text::billing.price, id => 'p')",
            &[&price],
        )
        .unwrap();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "p"}]}', 'sub', now() - interval '3 days');
               -- One that expires before it is paid needs nothing.
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 7, "recurring": {"interval": "month"}}', id => 'seat');
               SELECT billing.create_subscription(
                   '{"customer": "acme", "items": [{"price": "seat"}], "payment_behavior": "default_incomplete"}',
                   'never', now() - interval '3 days')"#,
        )
        .unwrap();
    assert!(record_at(
        &mut client,
        "old",
        "date_trunc('hour', now()) - interval '1 day'"
    ));
    assert_eq!(number(&mut client, "SELECT billing.roll_up()"), 1);
    let over = "SELECT count(*) FROM billing.meter_event_partitions WHERE event_count = 1 AND upper_bound < now() - interval '1 second'";
    await_that("the partition is sealed and older than the limit", || {
        maintain(&mut client);
        number(&mut client, over) == 1
    });
    maintain(&mut client);
    let events = "SELECT count(*) FROM billing.meter_events";
    assert_eq!(number(&mut client, events), 1, "the running period needs it");
    client
        .batch_execute("SELECT billing.cancel_subscription('sub')")
        .unwrap();
    maintain(&mut client);
    assert_eq!(number(&mut client, events), 1, "the last period is not invoiced yet");
    client.batch_execute("SELECT billing.generate_invoices()").unwrap();
    maintain(&mut client);
    assert_eq!(number(&mut client, events), 1, "a draft needs it");
    client
        .batch_execute("SELECT billing.generate_invoices(now() + interval '2 hours')")
        .unwrap();
    await_that("it is dropped", || {
        maintain(&mut client);
        number(&mut client, events) == 0
    });
    let left =
        "SELECT count(*) FROM billing.meter_event_filters f WHERE to_regclass('billing.' || f.partition) IS NULL";
    assert_eq!(number(&mut client, left), 0);
    assert_eq!(usage(&mut client, "sum"), "1", "its buckets stay");
    assert_eq!(
        number(
            &mut client,
            "SELECT sum(amount_due)::bigint FROM billing.invoices WHERE number IS NOT NULL AND status <> 'void'"
        ),
        1
    );
    assert!(record(&mut client, "new").unwrap());
}
