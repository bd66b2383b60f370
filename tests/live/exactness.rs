//! The short form of `cargo exactness`: everything at once, and every event counts once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::exactness::{Kills, Outcome, Plan, control, create_catalog, run};
use harness::{Database, install_under_test};

use crate::recording::{await_blocked, backend};

/// PG_BILLING_TEST_SEED repeats a run, as far as threads can.
fn seed() -> u64 {
    let chosen = std::env::var("PG_BILLING_TEST_SEED").ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = chosen.map_or(now.as_millis() as u64, |seed| seed.parse().unwrap());
    println!("PG_BILLING_TEST_SEED={seed}");
    seed
}

fn short() -> Plan {
    Plan {
        seed: seed(),
        events: 8_000,
        checks: 80,
        kills: Kills::default(),
        partition_width: "1s",
        largest_batch: 400,
        recorders: 6,
        slow: 2,
        rollers: 2,
        worker: true,
        preload: false,
        standby: false,
        progress: None,
        least: Duration::from_secs(3),
    }
}

fn assert_exact(plan: &Plan) -> Outcome {
    let outcome = run(&install_under_test().unwrap(), plan).unwrap();
    let findings: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "seed {}:\n{}", plan.seed, findings.join("\n"));
    println!("{outcome:?}");
    assert!(
        outcome.telling * 3 > outcome.checks,
        "too few checks had anything to count: {outcome:?}"
    );
    outcome
}

#[test]
fn in_narrow_partitions_and_on_a_standby() {
    let plan = Plan {
        standby: true,
        ..short()
    };
    let outcome = assert_exact(&plan);
    assert!(outcome.partitions > 1, "{outcome:?}");
}

#[test]
fn in_one_wide_partition() {
    assert_exact(&Plan {
        partition_width: "1d",
        ..short()
    });
}

#[test]
fn whoever_is_killed() {
    let kills = Kills {
        count: 4,
        events_between: 300,
    };
    let outcome = assert_exact(&Plan {
        kills,
        events: 5_000,
        checks: 20,
        ..short()
    });
    assert!(outcome.kills >= 4, "{outcome:?}");
}

#[test]
fn what_must_never_happen_would_be_found() {
    let unnoticed = control(&install_under_test().unwrap(), seed()).unwrap();
    let unnoticed: Vec<String> = unnoticed.iter().map(ToString::to_string).collect();
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
}

/// What makes the readers' comparison exact: the functions of one statement read one snapshot, however long it takes.
#[test]
fn a_check_reads_one_snapshot() {
    let database = Database::shared().unwrap();
    let connect = || database.connect().unwrap();
    let (mut reader, mut writer, mut holder, mut watcher) = (connect(), connect(), connect(), connect());
    create_catalog(&mut writer).unwrap();
    let record = "SELECT billing.record_meter_event('count_0', 'acme', 1, $1, now() - interval '90 min')";
    writer.execute(record, &[&"first"]).unwrap();
    let ask = "(SELECT s.aggregated_value::bigint FROM billing.meter_event_summaries('count_0', 'acme', now() - interval '3 h', now()) s)";
    let count = "(SELECT r.events FROM exactness.recount('count_0', 'acme', 'count', ARRAY[now() - interval '3 h', now()], NULL) r)";
    let sql =
        format!("SELECT {ask}, {count}, pg_advisory_xact_lock_shared(1), {ask}, {count}, (SELECT exactness.latest())");
    // One that takes a snapshot of its own shows that there was something to miss.
    writer
        .batch_execute(
            "CREATE FUNCTION exactness.latest() RETURNS bigint LANGUAGE plpgsql VOLATILE AS
             'BEGIN RETURN (SELECT count(*) FROM billing.meter_events); END'",
        )
        .unwrap();
    holder.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1)").unwrap();
    let (waiting, holding) = (backend(&mut reader), backend(&mut holder));
    let row = std::thread::scope(|scope| {
        let asking = scope.spawn(|| reader.query_one(&sql, &[]).unwrap());
        await_blocked(&mut watcher, waiting, holding);
        writer.execute(record, &[&"second"]).unwrap();
        writer.execute("SELECT billing.roll_up()", &[]).unwrap();
        holder.batch_execute("COMMIT").unwrap();
        asking.join().unwrap()
    });
    let answers = [0, 1, 3, 4, 5].map(|column| row.get::<_, i64>(column));
    assert_eq!(answers, [1, 1, 1, 1, 2]);
}
