//! Many sessions send the same identifiers over many partition boundaries, commit, roll back and retry: each is recorded once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use harness::{Cluster, Database, Dice, Options, cluster_under_test};
use postgres::Client;
use postgres::error::SqlState;

use crate::recording::{assert_never_crashed, catalog, narrow_database, number, recorded_twice, usage};

const SESSIONS: u64 = 8;
/// Twelve boundaries of partitions that are a second wide.
const RUN: Duration = Duration::from_millis(12_500);
/// A new identifier this often; the latest `POOL` are sent again and again, so each for two seconds.
const FRESH: Duration = Duration::from_millis(10);
const POOL: usize = 200;

/// What the server acknowledged to one session.
#[derive(Default)]
struct Log {
    recorded: Vec<String>,
    duplicate: Vec<String>,
    /// Counts of whole batches do not say which.
    batched: HashSet<String>,
    recorded_in_batches: i64,
    deadlocks: usize,
    boundaries: HashSet<u64>,
}

struct Session {
    client: Client,
    dice: Dice,
    log: Log,
    started: Instant,
}

impl Session {
    fn identifier(&mut self) -> String {
        let newest = (self.started.elapsed().as_millis() / FRESH.as_millis()) as usize;
        format!("k{}", newest.saturating_sub(self.dice.below(POOL)))
    }

    fn record(&mut self, identifier: &str) -> Result<bool, postgres::Error> {
        crate::recording::record(&mut self.client, identifier)
    }

    fn acknowledge(&mut self, answers: Vec<(String, bool)>) {
        for (identifier, recorded) in answers {
            let list = if recorded {
                &mut self.log.recorded
            } else {
                &mut self.log.duplicate
            };
            list.push(identifier);
        }
    }

    /// Nothing to wait for crosswise: any error is a fault.
    fn single(&mut self) {
        let identifier = self.identifier();
        let recorded = self.record(&identifier).unwrap();
        self.acknowledge(vec![(identifier, recorded)]);
    }

    fn rolled_back(&mut self) {
        self.client.batch_execute("BEGIN").unwrap();
        let identifier = self.identifier();
        self.record(&identifier).unwrap();
        self.client.batch_execute("ROLLBACK").unwrap();
    }

    fn savepoint(&mut self) {
        let (first, second) = (self.identifier(), self.identifier());
        self.client.batch_execute("BEGIN; SAVEPOINT s").unwrap();
        self.record(&first).unwrap();
        self.client.batch_execute("ROLLBACK TO s").unwrap();
        let recorded = self.record(&second).unwrap();
        self.client.batch_execute("COMMIT").unwrap();
        self.acknowledge(vec![(second, recorded)]);
    }

    /// Several in one transaction, in any order: two sessions may wait for each other, of which PostgreSQL ends one.
    fn several(&mut self) {
        self.client.batch_execute("BEGIN").unwrap();
        let mut answers = Vec::new();
        for _ in 0..3 {
            let identifier = self.identifier();
            match self.record(&identifier) {
                Ok(recorded) => answers.push((identifier, recorded)),
                Err(error) => {
                    assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{error}");
                    self.log.deadlocks += 1;
                    return self.client.batch_execute("ROLLBACK").unwrap();
                }
            }
        }
        self.client.batch_execute("COMMIT").unwrap();
        self.acknowledge(answers);
    }

    fn batch(&mut self) {
        let identifiers: Vec<String> = (0..5).map(|_| self.identifier()).collect();
        let sql = "SELECT recorded, duplicate, rejected FROM billing.record_meter_events(
                       array_fill('sum'::text, '{5}'), array_fill('acme'::text, '{5}'), array_fill(1::numeric, '{5}'), $1)";
        match self.client.query_one(sql, &[&identifiers]) {
            Ok(row) => {
                let counts = crate::recording::counts(&row);
                assert_eq!((counts.0 + counts.1, counts.2), (5, 0));
                self.log.recorded_in_batches += counts.0;
                self.log.batched.extend(identifiers);
            }
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{error}");
                self.log.deadlocks += 1;
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Mix {
    /// Each statement a transaction, one event each: must never meet an error.
    Singles,
    All,
}

fn hammer(database: &Database, mix: Mix) -> Vec<Log> {
    let barrier = Barrier::new(SESSIONS as usize);
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|seed| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut client = database.connect().unwrap();
                    let level = ["read committed", "repeatable read"][seed as usize % 2];
                    client
                        .batch_execute(&format!("SET default_transaction_isolation = '{level}'"))
                        .unwrap();
                    barrier.wait();
                    let started = Instant::now();
                    let mut session = Session {
                        client,
                        dice: Dice::new(seed),
                        log: Log::default(),
                        started,
                    };
                    while started.elapsed() < RUN {
                        match (mix, session.dice.below(10)) {
                            (Mix::Singles, _) | (_, 0..4) => session.single(),
                            (_, 4) => session.rolled_back(),
                            (_, 5) => session.savepoint(),
                            (_, 6..8) => session.several(),
                            _ => session.batch(),
                        }
                        session.log.boundaries.insert(started.elapsed().as_secs());
                    }
                    session.log
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    })
}

/// Exactly one row for each identity that anybody was told of, as many as were counted, and as much usage.
fn check(database: &Database, logs: &[Log]) {
    let mut client = database.connect().unwrap();
    assert_eq!(recorded_twice(&mut client), []);
    let rows: HashSet<String> = client
        .query("SELECT identifier FROM billing.meter_events", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let mut times_recorded: BTreeMap<&str, usize> = BTreeMap::new();
    for identifier in logs.iter().flat_map(|log| &log.recorded) {
        *times_recorded.entry(identifier).or_default() += 1;
    }
    let doubly: Vec<_> = times_recorded.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubly.is_empty(), "recorded to two sessions: {doubly:?}");
    let told = logs
        .iter()
        .flat_map(|log| log.recorded.iter().chain(&log.duplicate).chain(&log.batched));
    let lost: HashSet<&String> = told.filter(|identifier| !rows.contains(*identifier)).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    let counted = times_recorded.len() as i64 + logs.iter().map(|log| log.recorded_in_batches).sum::<i64>();
    assert_eq!(counted, rows.len() as i64, "rows that nobody was told of");

    assert_eq!(usage(&mut client, "sum"), rows.len().to_string());
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.usage_pending"), 0);
    assert_eq!(usage(&mut client, "sum"), rows.len().to_string());
    let wrong = client
        .query("SELECT * FROM billing.verify('sum', 'acme', NULL, NULL)", &[])
        .unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");

    let attempts: usize = logs.iter().map(|log| log.recorded.len() + log.duplicate.len()).sum();
    let deadlocks: usize = logs.iter().map(|log| log.deadlocks).sum();
    println!(
        "{} identities, {attempts} single answers, {deadlocks} deadlocks",
        rows.len()
    );
    assert!(rows.len() > 500 && attempts > 1000, "too little happened to tell");
    assert!(number(&mut client, "SELECT count(DISTINCT tableoid) FROM billing.meter_events") > 10);
    assert_never_crashed(database.cluster());
}

#[test]
fn single_events_meet_no_error_and_are_recorded_once() {
    let database = narrow_database();
    let logs = hammer(&database, Mix::Singles);
    check(&database, &logs);
}

#[test]
fn transactions_savepoints_and_batches_record_once() {
    let database = narrow_database();
    let logs = hammer(&database, Mix::All);
    check(&database, &logs);
}

/// The worker makes and seals partitions and rolls up meanwhile.
#[test]
fn a_worker_beside_changes_nothing() {
    let options = Options::default()
        .set("billing.partition_width", "1s")
        .set("billing.roll_up_interval", "20ms");
    let cluster: Cluster = cluster_under_test(&options).unwrap();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = database.connect().unwrap();
    catalog(&mut client);
    let logs = hammer(&database, Mix::All);
    check(&database, &logs);
    let sealed = "SELECT count(*) FROM billing.meter_event_partitions WHERE sealed_at IS NOT NULL";
    assert!(number(&mut client, sealed) > 5);
    let failing = client
        .query(
            "SELECT job, last_error FROM billing.worker_jobs WHERE last_failure IS NOT NULL",
            &[],
        )
        .unwrap();
    assert!(failing.is_empty(), "{failing:?}");
}
