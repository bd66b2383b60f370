//! Folding: each event once, whoever calls, whenever, and whatever else is going on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use harness::Database;
use postgres::Client;
use postgres::error::SqlState;

use crate::recording::{
    FORMULAS, assert_never_crashed, await_blocked, backend, narrow_database, number, record, text, usage,
};

const RECORDERS: i64 = 4;
const ROUNDS: i64 = 40;

fn roll_up(client: &mut Client) -> i64 {
    number(client, "SELECT billing.roll_up()")
}

fn pending(client: &mut Client) -> i64 {
    number(client, "SELECT count(*) FROM billing.usage_pending")
}

fn assert_verified(client: &mut Client) {
    for formula in FORMULAS {
        let wrong = client
            .query(
                "SELECT v::text FROM billing.verify($1, 'acme', NULL, NULL) v",
                &[&formula],
            )
            .unwrap();
        let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// Every event is of the last hours, so that all fold into the same few buckets.
fn record_all(client: &mut Client, who: i64, round: i64) -> i64 {
    client
        .query_one(
            "SELECT count(*) FILTER (WHERE billing.record_meter_event(m, 'acme', n, $1 || m || n, now() - n * interval '41 min',
                                                                       jsonb_build_object('value', n % 2)))
             FROM unnest($2::text[]) m, generate_series(1, 3) n",
            &[&format!("{who}-{round}-"), &FORMULAS.as_slice()],
        )
        .map(|row| row.get(0))
        .unwrap()
}

/// Returns how many events were recorded for good.
fn work(database: &Database, who: i64) -> i64 {
    let mut client = database.connect().unwrap();
    let mut recorded = 0;
    for round in 0..ROUNDS {
        client.batch_execute("BEGIN").unwrap();
        let all = record_all(&mut client, who, round);
        if round % 3 == 1 {
            let cancel = "SELECT billing.cancel_meter_event(m, 'acme', $1 || m || 3) FROM unnest($2::text[]) m";
            let earlier = format!("{who}-{}-", round - 1);
            client.execute(cancel, &[&earlier, &FORMULAS.as_slice()]).unwrap();
        }
        let keep = round % 5 != 3;
        client.batch_execute(if keep { "COMMIT" } else { "ROLLBACK" }).unwrap();
        recorded += if keep { all } else { 0 };
    }
    recorded
}

fn keep_rolling(database: &Database, level: &str, over: &AtomicBool, folded: &AtomicI64) -> usize {
    let mut client = database.connect().unwrap();
    client
        .batch_execute(&format!("SET default_transaction_isolation = '{level}'"))
        .unwrap();
    let mut refused = 0;
    while !over.load(Ordering::Relaxed) {
        match client.query_one("SELECT billing.roll_up()", &[]) {
            Ok(row) => {
                folded.fetch_add(row.get(0), Ordering::Relaxed);
            }
            Err(error) => {
                assert_ne!(level, "read committed", "{error}");
                assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error}");
                refused += 1;
            }
        }
    }
    refused
}

#[test]
fn sessions_that_fold_at_once_fold_each_event_once() {
    let database = narrow_database();
    let (over, folded) = (AtomicBool::new(false), AtomicI64::new(0));
    let recorded: i64 = std::thread::scope(|scope| {
        let levels = ["read committed", "read committed", "repeatable read", "serializable"];
        let rollers: Vec<_> = levels
            .iter()
            .map(|level| scope.spawn(|| keep_rolling(&database, level, &over, &folded)))
            .collect();
        let recorders: Vec<_> = (0..RECORDERS)
            .map(|who| {
                let database = &database;
                scope.spawn(move || work(database, who))
            })
            .collect();
        let recorded: Vec<_> = recorders.into_iter().map(|recorder| recorder.join()).collect();
        // Before any of them is unwrapped: the rollers would go on for ever.
        over.store(true, Ordering::Relaxed);
        let refused: usize = rollers.into_iter().map(|roller| roller.join().unwrap()).sum();
        println!("{refused} roll-ups refused as 40001");
        recorded.into_iter().map(|recorded| recorded.unwrap()).sum()
    });
    let mut client = database.connect().unwrap();
    let before: BTreeMap<&str, String> = FORMULAS.iter().map(|f| (*f, usage(&mut client, f))).collect();
    let rest = roll_up(&mut client);
    assert_eq!(pending(&mut client), 0);
    assert_eq!(roll_up(&mut client), 0);
    assert_eq!(folded.load(Ordering::Relaxed) + rest, recorded);
    let kept = number(
        &mut client,
        "SELECT count(*) FROM billing.meter_events WHERE event_name = 'sum' AND cancelled_at IS NULL",
    );
    assert_eq!(before["count"], kept.to_string());
    for formula in FORMULAS.into_iter().filter(|formula| *formula != "weighted_sum") {
        assert_eq!(usage(&mut client, formula), before[formula], "{formula}");
    }
    assert_verified(&mut client);
    assert_never_crashed(database.cluster());
}

#[test]
fn a_long_open_writer_holds_up_nobody() {
    let database = narrow_database();
    let mut writer = database.connect().unwrap();
    let mut client = database.connect().unwrap();
    // Not the writer's to make: whoever needs a partition waits for the one who makes it.
    client
        .batch_execute("SELECT billing.make_partition(date_trunc('second', now()), now() + interval '1 h'); SET statement_timeout = '10s'")
        .unwrap();
    record(&mut client, "first").unwrap();
    record(&mut client, "second").unwrap();
    writer.batch_execute("BEGIN").unwrap();
    record(&mut writer, "open").unwrap();
    let cancel = "SELECT billing.cancel_meter_event('sum', 'acme', 'first')";
    writer.execute(cancel, &[]).unwrap();
    for number in 0..3 {
        record(&mut client, &format!("beside {number}")).unwrap();
        assert_eq!(roll_up(&mut client), if number == 0 { 3 } else { 1 });
        assert_eq!(pending(&mut client), 0);
        assert_eq!(usage(&mut client, "sum"), (3 + number).to_string());
        assert_eq!(usage(&mut writer, "sum"), (3 + number).to_string());
    }
    writer.batch_execute("COMMIT").unwrap();
    assert_eq!(roll_up(&mut client), 1);
    assert_eq!(usage(&mut client, "sum"), "5");
    assert_verified(&mut client);
}

#[test]
fn a_fold_that_is_rolled_back_loses_nothing() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    record(&mut client, "a").unwrap();
    for undo in ["BEGIN; SAVEPOINT s", "BEGIN"] {
        client.batch_execute(undo).unwrap();
        assert_eq!(roll_up(&mut client), 1);
        assert_eq!(usage(&mut client, "sum"), "1");
        client
            .batch_execute(if undo == "BEGIN" {
                "ROLLBACK"
            } else {
                "ROLLBACK TO s; COMMIT"
            })
            .unwrap();
        assert_eq!(pending(&mut client), 1);
        assert_eq!(usage(&mut client, "sum"), "1");
    }
    // Folding twice in one transaction, with more recorded between.
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(roll_up(&mut client), 1);
    record(&mut client, "b").unwrap();
    assert_eq!(usage(&mut client, "sum"), "2");
    assert_eq!(roll_up(&mut client), 1);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(usage(&mut client, "sum"), "2");
    assert_verified(&mut client);
}

/// A snapshot older than another session's fold: what it would write must not undo that fold.
#[test]
fn an_old_snapshot_errs_or_is_exact() {
    let at = |id: &str, value: i32| {
        format!(
            "SELECT billing.record_meter_event('max', 'acme', {value}, '{id}', date_trunc('hour', now()) - interval '30 min')"
        )
    };
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = narrow_database();
        let mut old = database.connect().unwrap();
        let mut client = database.connect().unwrap();
        let begin = format!("BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM billing.meters");

        // Alone, or beside events that it does not see: folds what it sees.
        client.batch_execute(&at("a", 1)).unwrap();
        old.batch_execute(&begin).unwrap();
        client.batch_execute(&at("b", 5)).unwrap();
        assert_eq!(roll_up(&mut old), 1);
        assert_eq!(usage(&mut old, "max"), "1");
        old.batch_execute("COMMIT").unwrap();
        assert_eq!(roll_up(&mut client), 1);
        assert_eq!(usage(&mut client, "max"), "5");

        // Beside a fold that took what it sees, added to what it sees, or that it would recompute without an event.
        for (before, after) in [
            (vec![at("c", 6)], vec![]),
            (vec![], vec![at("d", 2)]),
            (
                vec![],
                vec!["SELECT billing.cancel_meter_event('max', 'acme', 'b')".to_owned()],
            ),
        ] {
            before.iter().for_each(|sql| client.batch_execute(sql).unwrap());
            old.batch_execute(&begin).unwrap();
            client.batch_execute(&at("later", 9)).unwrap();
            roll_up(&mut client);
            after.iter().for_each(|sql| old.batch_execute(sql).unwrap());
            let error = old.query_one("SELECT billing.roll_up()", &[]).unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error}");
            old.batch_execute("ROLLBACK").unwrap();
            assert_eq!(usage(&mut client, "max"), "9");
            assert_verified(&mut client);
            client
                .batch_execute("SELECT billing.cancel_meter_event('max', 'acme', 'later'); SELECT billing.roll_up()")
                .unwrap();
            client
                .batch_execute("DELETE FROM billing.meter_events WHERE identifier = 'later'")
                .unwrap();
        }
        assert_verified(&mut client);
    }
}

/// Recomputing reads events that were committed after the fold began: their place in the queue goes with it.
#[test]
fn events_that_come_between_fold_and_recomputing_count_once() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    let mut roller = database.connect().unwrap();
    let mut holder = database.connect().unwrap();
    let maximum = |client: &mut Client, identifier: &str| {
        let sql = "SELECT billing.record_meter_event('max', 'acme', 1, $1, date_trunc('day', now()) - interval '12 h')";
        client.execute(sql, &[&identifier]).unwrap();
    };
    record(&mut client, "folded").unwrap();
    maximum(&mut client, "cancelled");
    assert_eq!(roll_up(&mut client), 2);
    record(&mut client, "pending").unwrap();
    client
        .batch_execute("SELECT billing.cancel_meter_event('max', 'acme', 'cancelled')")
        .unwrap();
    holder
        .batch_execute("BEGIN; SELECT FROM billing.usage_buckets WHERE event_name = 'sum' FOR UPDATE")
        .unwrap();
    let (waiting, held_by) = (backend(&mut roller), backend(&mut holder));
    std::thread::scope(|scope| {
        let folding = scope.spawn(|| roll_up(&mut roller));
        await_blocked(&mut client, waiting, held_by);
        maximum(&mut client, "between");
        holder.batch_execute("COMMIT").unwrap();
        assert_eq!(folding.join().unwrap(), 2);
    });
    assert_eq!(pending(&mut client), 0);
    assert_eq!(roll_up(&mut client), 0);
    let counted =
        "SELECT sum(event_count)::bigint FROM billing.usage_buckets WHERE event_name = 'max' AND width = 'day'";
    assert_eq!(number(&mut client, counted), 1);
    assert_verified(&mut client);
}

/// What cannot be subtracted is recomputed from the events; what becomes empty is gone.
#[test]
fn cancelling_recomputes_what_cannot_be_subtracted() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    let at = "date_trunc('day', now()) - interval '1 day'";
    for formula in FORMULAS {
        for (id, value, hour) in [("low", 2, 1), ("high", 7, 2), ("mid", 5, 3)] {
            client
                .execute(
                    &format!(
                        "SELECT billing.record_meter_event($1, 'acme', {value}, '{id}', {at} + interval '{hour} h', '{{\"value\": \"{id}\"}}')"
                    ),
                    &[&formula],
                )
                .unwrap();
        }
    }
    assert_eq!(roll_up(&mut client), 21);
    let cancel = |client: &mut Client, id: &str| {
        for formula in FORMULAS {
            let sql = "SELECT billing.cancel_meter_event($1, 'acme', $2)";
            assert!(client.query_one(sql, &[&formula, &id]).unwrap().get::<_, bool>(0));
        }
    };
    let states = |client: &mut Client| {
        ["sum", "count", "last", "max", "min", "unique_count"].map(|formula| usage(client, formula))
    };
    for (id, left) in [
        ("high", ["7", "2", "5", "5", "2", "2"]),
        ("mid", ["2", "1", "2", "2", "2", "1"]),
        ("low", ["0", "0", "NULL", "NULL", "NULL", "0"]),
    ] {
        cancel(&mut client, id);
        assert_eq!(states(&mut client), left, "pending");
        assert_eq!(roll_up(&mut client), 0, "cancelling is not counted");
        assert_eq!(states(&mut client), left, "folded");
        assert_verified(&mut client);
    }
    let left = "SELECT string_agg(DISTINCT event_name, ' ' ORDER BY event_name) FROM billing.usage_buckets
                WHERE event_name NOT IN ('sum', 'count', 'weighted_sum')";
    assert_eq!(text(&mut client, left), "NULL");
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM billing.usage_distinct_values"),
        0
    );
}

/// Recording finds the part of the queue by itself, so PostgreSQL is asked whether each row is where it would have put it.
#[test]
fn every_customer_has_a_part_of_the_queue_and_every_part_is_folded() {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute(
            "SELECT count(billing.create_customer(id)) FROM (
                 SELECT 'cus_' || n FROM generate_series(1, 300) n
                 UNION ALL VALUES ('é'), ('日本'), (repeat('x', 255)), ('\"')) c (id);
             SELECT billing.record_meter_event('sum', id) FROM billing.customers;
             SELECT billing.record_meter_events(array_agg('count'::text), array_agg(id), array_agg(1::numeric)) FROM billing.customers;
             SELECT billing.record_meter_event('max', id, 1, 'cancelled') FROM billing.customers;
             SELECT billing.cancel_meter_event('max', id, 'cancelled') FROM billing.customers",
        )
        .unwrap();
    let parts = client
        .query(
            "SELECT t.relid::regclass::text, pg_get_partition_constraintdef(t.relid) FROM pg_partition_tree('billing.usage_pending') t
             WHERE t.isleaf",
            &[],
        )
        .unwrap();
    assert!(parts.len() > 1);
    let mut rows = 0;
    for part in &parts {
        let (name, belongs): (&str, &str) = (part.get(0), part.get(1));
        let sql = format!("SELECT count(*) FROM {name} WHERE NOT {belongs}");
        assert_eq!(number(&mut client, &sql), 0, "{name}");
        let here = number(&mut client, &format!("SELECT count(*) FROM {name}"));
        assert!(here > 0, "{name}");
        rows += here;
    }
    assert_eq!(rows, 4 * number(&mut client, "SELECT count(*) FROM billing.customers"));
    let customers = number(&mut client, "SELECT count(*) FROM billing.customers");
    assert_eq!(roll_up(&mut client), 3 * customers);
    assert_eq!(pending(&mut client), 0);
    let sums = "SELECT count(*) FROM billing.customers c
                WHERE billing.usage_quantity('sum', c.id, NULL, NULL) = 1 AND billing.usage_quantity('count', c.id, NULL, NULL) = 1
                  AND billing.usage_quantity('max', c.id, NULL, NULL) IS NULL";
    assert_eq!(number(&mut client, sums), customers);
}
