//! What operators look at, checked against counts of the tables themselves; and the queue's file, small again after a burst.

use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Database, Options, cluster_under_test};
use postgres::Client;

use crate::recording::{await_next_partition, await_that, catalog, narrow_database, number, record, text};

fn holds(client: &mut Client, condition: &str) {
    let status = text(client, "SELECT s::text FROM billing.ingestion_status s");
    let sql = format!("SELECT (coalesce(({condition}), false))::int::bigint FROM billing.ingestion_status");
    assert_eq!(number(client, &sql), 1, "{condition}: {status}");
}

#[test]
fn ingestion_status_counts_what_waits_and_what_was_folded() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    holds(
        &mut client,
        "pending_rows = 0 AND pending_events = 0 AND pending_for = '0'",
    );
    holds(
        &mut client,
        "last_roll_up IS NULL AND events_per_second = 0 AND NOT worker_alive",
    );
    holds(&mut client, "NOT failing AND last_error_job IS NULL");

    record(&mut client, "a").unwrap();
    client
        .batch_execute(
            "SELECT billing.record_meter_events(array_fill('sum'::text, '{5}'), array_fill('acme'::text, '{5}'), '{1,2,3,4,5}');
             SELECT billing.cancel_meter_event('sum', 'acme', 'a')",
        )
        .unwrap();
    let rows = number(&mut client, "SELECT count(*) FROM billing.usage_pending");
    holds(&mut client, &format!("pending_rows = {rows} AND pending_events = 6"));
    holds(&mut client, "pending_for IS NULL");

    let began = text(&mut client, "SELECT clock_timestamp()");
    assert_eq!(number(&mut client, "SELECT billing.roll_up()"), 6);
    let ended = text(&mut client, "SELECT clock_timestamp()");
    holds(
        &mut client,
        "pending_rows = 0 AND pending_events = 0 AND pending_for = '0'",
    );
    holds(
        &mut client,
        &format!(
            "last_roll_up_rows = {rows} AND last_roll_up_events = 6 AND last_roll_up BETWEEN '{began}' AND '{ended}'"
        ),
    );
    holds(
        &mut client,
        &format!("last_roll_up_duration BETWEEN '0' AND timestamptz '{ended}' - '{began}'"),
    );
    // Over the 60 to 120 seconds since the minute before this one began.
    holds(&mut client, "events_per_second = 0.1");

    // What is recorded now waits since the fold at most, whatever finds the queue as it is afterwards.
    record(&mut client, "b").unwrap();
    holds(
        &mut client,
        &format!("clock_timestamp() - pending_for BETWEEN '{began}' AND '{ended}'"),
    );
    let mut open = database.connect().unwrap();
    open.batch_execute("BEGIN").unwrap();
    record(&mut open, "c").unwrap();
    assert_eq!(number(&mut client, "SELECT billing.roll_up()"), 1);
    holds(&mut client, "pending_rows = 0 AND last_roll_up_rows = 1");
    open.batch_execute("COMMIT").unwrap();
    holds(&mut client, "pending_rows = 1 AND pending_events = 1");
    assert_eq!(number(&mut client, "SELECT billing.roll_up()"), 1);
    assert_eq!(
        number(
            &mut client,
            "SELECT sum(event_count)::bigint FROM billing.roll_up_minutes"
        ),
        8
    );
}

#[test]
fn an_idle_queue_is_looked_at_for_next_to_nothing() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute(
            "INSERT INTO billing.roll_up_minutes VALUES (now() - interval '25 hours', now() - interval '25 hours')",
        )
        .unwrap();
    let minutes = "SELECT count(DISTINCT date_trunc('minute', t)) FROM (VALUES (now()), (clock_timestamp())) AS v (t)";
    client
        .batch_execute("BEGIN; SELECT billing.roll_up() FROM generate_series(1, 20)")
        .unwrap();
    let spanned = number(&mut client, minutes);
    client.batch_execute("COMMIT").unwrap();
    // A row for a minute, and those older than a day are gone.
    let kept = number(&mut client, "SELECT count(*) FROM billing.roll_up_minutes");
    assert!((1..=spanned).contains(&kept), "{kept} of {spanned}");
    holds(&mut client, "last_roll_up IS NULL AND pending_for = '0'");
    record(&mut client, "a").unwrap();
    holds(&mut client, "pending_for < '2 minutes'");
}

#[test]
fn the_last_failure_stays_on_record() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    record(&mut client, "a").unwrap();
    let run = "SELECT coalesce(billing.run_job('roll_up'), -1)";
    client
        .batch_execute("ALTER TABLE billing.usage_buckets RENAME TO elsewhere")
        .unwrap();
    assert_eq!(number(&mut client, run), -1);
    client
        .batch_execute("ALTER TABLE billing.elsewhere RENAME TO usage_buckets")
        .unwrap();
    let error = "last_error_job = 'roll_up' AND last_error LIKE '42P01: %usage_buckets%' AND last_error_at <= clock_timestamp()";
    holds(
        &mut client,
        &format!("failing AND pending_rows = 1 AND last_roll_up IS NULL AND {error}"),
    );
    assert_eq!(number(&mut client, run), 1);
    holds(&mut client, &format!("NOT failing AND pending_rows = 0 AND {error}"));
}

#[test]
fn partition_status_knows_rows_sizes_and_state() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    for identifier in ["a", "b"] {
        record(&mut client, identifier).unwrap();
        await_next_partition(&mut client);
    }
    let wrong = |client: &mut Client, condition: &str| {
        let sql = format!(
            "SELECT string_agg(s::text, ' ') FROM billing.partition_status s WHERE NOT coalesce({condition}, false)"
        );
        assert_eq!(text(client, &sql), "NULL", "{condition}");
    };
    wrong(&mut client, "state IN ('open', 'closed') AND NOT event_count_exact");
    // No estimate is better than this one.
    client.batch_execute("ANALYZE billing.meter_events").unwrap();
    let counted = "event_count = (SELECT count(*) FROM billing.meter_events e
                                  WHERE e.received_at >= lower_bound AND e.received_at < upper_bound)";
    wrong(&mut client, counted);
    wrong(&mut client, "table_bytes >= 8192 AND index_bytes >= 8192");
    wrong(
        &mut client,
        "total_bytes = pg_total_relation_size(to_regclass('billing.' || quote_ident(name)))",
    );
    await_that("all are sealed", || {
        number(&mut client, "SELECT billing.maintain_partitions()::bigint");
        number(
            &mut client,
            "SELECT count(*) FROM billing.partition_status WHERE state = 'sealed'",
        ) >= 2
    });
    wrong(&mut client, "event_count_exact = (state = 'sealed')");
    wrong(&mut client, &format!("state <> 'sealed' OR {counted}"));
    assert!(
        number(
            &mut client,
            "SELECT count(*) FROM billing.partition_status WHERE state = 'ahead'"
        ) <= 1
    );
    let oldest = text(&mut client, "SELECT name FROM billing.partition_status LIMIT 1");
    client
        .batch_execute(&format!(
            "DROP TABLE billing.{oldest}; UPDATE billing.meter_event_partitions SET dropped_at = now() WHERE name = '{oldest}'"
        ))
        .unwrap();
    wrong(
        &mut client,
        &format!("(state = 'dropped' AND total_bytes IS NULL AND event_count_exact) = (name = '{oldest}')"),
    );
}

/// Vacuum gives the end of the file back while writers go on, and lets them by when it holds them up.
#[test]
fn the_queue_is_small_again_after_a_burst() {
    let options = Options::default()
        .set("billing.worker", "off")
        .set("autovacuum_naptime", "1s");
    let cluster = cluster_under_test(&options).unwrap();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = database.connect().unwrap();
    catalog(&mut client);
    let size = "SELECT sum(pg_relation_size(relid))::bigint FROM pg_partition_tree('billing.usage_pending')";
    client
        .batch_execute(
            "INSERT INTO billing.usage_pending (customer, event_name, hour, event_count, value_sum)
             SELECT 'acme', 'sum', date_trunc('hour', now()), 1, 1 FROM generate_series(1, 200000)",
        )
        .unwrap();
    let burst = number(&mut client, size);
    let over = AtomicBool::new(false);
    let recorded = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|who| {
                let (database, over) = (&database, &over);
                scope.spawn(move || {
                    let mut client = database.connect().unwrap();
                    // An error here is a writer that was held up.
                    client.batch_execute("SET lock_timeout = '500ms'").unwrap();
                    let mut recorded = 0;
                    while !over.load(Ordering::Relaxed) {
                        assert!(record(&mut client, &format!("{who}-{recorded}")).unwrap());
                        recorded += 1;
                    }
                    recorded
                })
            })
            .collect();
        let mut folded = 0;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while number(&mut client, size) > burst / 8 && std::time::Instant::now() < deadline {
            folded += number(&mut client, "SELECT billing.roll_up()");
        }
        over.store(true, Ordering::Relaxed);
        let recorded: i64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        folded += number(&mut client, "SELECT billing.roll_up()");
        assert_eq!(folded, 200_000 + recorded);
        recorded
    });
    let left = number(&mut client, size);
    assert!(left <= burst / 8, "{left} of {burst} bytes, beside {recorded} events");
}
