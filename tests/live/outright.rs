//! Far from the bounds of a partition a single event goes in outright, and comes out again only if it was a retry. The partitions of the
//! other tests of identity are too narrow for that.

use std::collections::BTreeMap;
use std::sync::{Barrier, OnceLock};
use std::thread::spawn;

use harness::{Cluster, Database, Dice, Options, cluster_under_test};
use postgres::Client;

use crate::recording::{
    assert_never_crashed, await_blocked, await_that, backend, catalog, number, record, recorded_twice, text, usage,
};

/// A database on a cluster without workers or pages logged whole, well within its day.
pub fn quiet_database() -> Database<'static> {
    static QUIET: OnceLock<Cluster> = OnceLock::new();
    within_the_day(Database::with_extension(QUIET.get_or_init(quiet_cluster)).unwrap())
}

fn quiet_cluster() -> Cluster {
    let options = Options::default()
        .set("billing.worker", "off")
        .set("full_page_writes", "off")
        .set("autovacuum", "off")
        .set("wal_level", "replica")
        .set("max_prepared_transactions", "10");
    cluster_under_test(&options).unwrap()
}

/// Far from midnight, with a partition.
pub fn within_the_day<'c>(database: Database<'c>) -> Database<'c> {
    let mut client = database.connect().unwrap();
    catalog(&mut client);
    let far = "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::time BETWEEN '00:00:15' AND '23:59:30'";
    await_that("midnight is past", || client.query_one(far, &[]).unwrap().get(0));
    record(&mut client, "makes the partition").unwrap();
    database
}

/// Rows that were taken back count as deleted.
fn taken_back(client: &mut Client) -> i64 {
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    let sql = "SELECT sum(n_tup_del)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'meter\\_events\\_p%'";
    number(client, sql)
}

#[test]
fn a_retry_that_was_taken_back_holds_up_nobody() {
    let database = quiet_database();
    let connect = || database.connect().unwrap();
    let (mut first, mut retry, mut third) = (connect(), connect(), connect());
    assert!(record(&mut first, "a").unwrap());
    retry.batch_execute("BEGIN").unwrap();
    assert!(!record(&mut retry, "a").unwrap());
    retry.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();

    third.batch_execute("SET lock_timeout = '10s'; BEGIN").unwrap();
    assert!(record(&mut third, "z").unwrap());
    assert!(
        !record(&mut third, "a").unwrap(),
        "waits for a transaction that has no row of it"
    );
    // Had it waited, these two would now wait for each other.
    let (pid, holder) = (backend(&mut retry), backend(&mut third));
    let retry = spawn(move || {
        let recorded = record(&mut retry, "z").unwrap();
        retry.batch_execute("COMMIT").unwrap();
        (recorded, taken_back(&mut retry))
    });
    await_blocked(&mut first, pid, holder);
    third.batch_execute("COMMIT").unwrap();
    let (recorded, taken_back) = retry.join().unwrap();
    assert!(!recorded);
    assert!(taken_back > 0, "it never was in the way");
    assert_eq!(recorded_twice(&mut first), []);
    assert_eq!(usage(&mut first, "sum"), "3");
}

#[test]
fn a_retry_waits_for_the_first_try() {
    let database = quiet_database();
    let mut watcher = database.connect().unwrap();
    let mut expected = 1;
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for end in [
            "COMMIT",
            "ROLLBACK",
            "RELEASE s; COMMIT",
            "RELEASE s; ROLLBACK",
            "ROLLBACK TO s; COMMIT",
            "PREPARED",
        ] {
            let mut first = database.connect().unwrap();
            let identifier = format!("{level} {end}");
            first
                .batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SAVEPOINT s"))
                .unwrap();
            assert!(record(&mut first, &identifier).unwrap());
            let holder = backend(&mut first);
            let gid = format!("{}_{}", database.name(), level.replace(' ', "_"));
            if end == "PREPARED" {
                first.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")).unwrap();
            }
            let mut retry = database.connect().unwrap();
            retry
                .batch_execute(&format!(
                    "BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM billing.customers"
                ))
                .unwrap();
            let pid = backend(&mut retry);
            let again = identifier.clone();
            let retry = spawn(move || {
                let recorded = record(&mut retry, &again).unwrap();
                retry.batch_execute("COMMIT").unwrap();
                recorded
            });
            let (holder, end) = match end {
                "PREPARED" => (0, format!("ROLLBACK PREPARED '{gid}'")),
                end => (holder, end.to_owned()),
            };
            await_blocked(&mut watcher, pid, holder);
            first.batch_execute(&end).unwrap();
            let stays = end.ends_with("COMMIT") && !end.starts_with("ROLLBACK");
            assert_eq!(retry.join().unwrap(), !stays, "{identifier}");
            expected += 1;
        }
    }
    assert_eq!(recorded_twice(&mut watcher), []);
    assert_eq!(usage(&mut watcher, "sum"), expected.to_string());
}

const SESSIONS: usize = 8;
const ROUNDS: usize = 250;

/// How a session tries an identifier, and whether its transaction commits.
#[derive(Clone, Copy)]
enum Try {
    Single,
    InTransaction {
        commits: bool,
    },
    InSavepoint {
        commits: bool,
    },
    /// With another one after it, which all sessions send in this order.
    InPair {
        commits: bool,
    },
    InBatch,
}

impl Try {
    fn choose(dice: &mut Dice) -> Try {
        let commits = !dice.one_in(3);
        match dice.below(8) {
            0..3 => Try::Single,
            3 => Try::InTransaction { commits },
            4 => Try::InSavepoint { commits },
            5 | 6 => Try::InPair { commits },
            _ => Try::InBatch,
        }
    }

    /// What was recorded, and what was a duplicate, if it was committed; each error is a fault.
    fn make(self, client: &mut Client, round: usize, answers: &mut Vec<(String, bool)>) {
        let (one, two) = (format!("r{round}"), format!("r{round} too"));
        let mut told = Vec::new();
        let mut go = |client: &mut Client, identifier: &String| {
            told.push((identifier.clone(), record(client, identifier).unwrap()));
        };
        let commits = match self {
            Try::Single => {
                go(client, &one);
                true
            }
            Try::InBatch => {
                let sql = "SELECT recorded = 1 FROM billing.record_meter_events('{sum}', '{acme}', '{1}', ARRAY[$1])";
                told.push((one.clone(), client.query_one(sql, &[&one]).unwrap().get(0)));
                true
            }
            Try::InTransaction { commits } | Try::InPair { commits } | Try::InSavepoint { commits } => {
                client.batch_execute("BEGIN").unwrap();
                if let Try::InSavepoint { .. } = self {
                    client.batch_execute("SAVEPOINT s").unwrap();
                }
                go(client, &one);
                if let Try::InPair { .. } = self {
                    go(client, &two);
                }
                let end = match (self, commits) {
                    (Try::InSavepoint { .. }, false) => "ROLLBACK TO s; COMMIT",
                    (_, true) => "COMMIT",
                    (_, false) => "ROLLBACK",
                };
                client.batch_execute(end).unwrap();
                commits
            }
        };
        if commits {
            answers.extend(told);
        }
    }
}

/// Whoever meets a row that is not committed waits first for the lock that its inserter may have, and only then for its transaction.
#[test]
fn whether_a_row_stays_is_waited_for_before_its_transaction() {
    let database = quiet_database();
    let connect = || database.connect().unwrap();
    let (mut first, mut retry, mut another, mut holder, mut watcher) =
        (connect(), connect(), connect(), connect(), connect());
    first.batch_execute("BEGIN").unwrap();
    assert!(record(&mut first, "a").unwrap());
    // A session that has met a retry searches before it inserts.
    assert!(record(&mut retry, "b").unwrap());
    assert!(!record(&mut retry, "b").unwrap());
    assert!(record(&mut another, "c").unwrap());
    holder
        .batch_execute("BEGIN; ALTER TYPE billing.undecided_event ADD ATTRIBUTE n int")
        .unwrap();
    let pids = [&mut retry, &mut another, &mut holder, &mut first].map(backend);
    let [retrying, inserting, holding, recording] = pids;
    let retry = spawn(move || record(&mut retry, "a").unwrap());
    let another = spawn(move || record(&mut another, "d").unwrap());
    for (waiting, mode) in [(retrying, "ShareLock"), (inserting, "RowExclusiveLock")] {
        await_blocked(&mut watcher, waiting, holding);
        let sql = format!(
            "SELECT mode FROM pg_locks WHERE pid = {waiting} AND NOT granted AND relation = 'billing.undecided_event'::regclass::oid"
        );
        assert_eq!(text(&mut watcher, &sql), mode);
    }
    holder.batch_execute("ROLLBACK").unwrap();
    assert!(another.join().unwrap());
    await_blocked(&mut watcher, retrying, recording);
    first.batch_execute("COMMIT").unwrap();
    assert!(!retry.join().unwrap());
    assert_eq!(recorded_twice(&mut watcher), []);
    assert_eq!(usage(&mut watcher, "sum"), "5");
}

/// Every session sends the same identifier at the same instant, after one of its own that makes it expect no retry.
#[test]
fn races_record_once_and_end_in_no_error() {
    let database = quiet_database();
    let barrier = Barrier::new(SESSIONS);
    let answers: Vec<(String, bool)> = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|seed| {
                let (barrier, database) = (&barrier, &database);
                scope.spawn(move || {
                    let mut client = database.connect().unwrap();
                    let mut dice = Dice::new(seed as u64);
                    let mut answers = Vec::new();
                    for round in 0..ROUNDS {
                        let own = format!("s{seed} {round}");
                        answers.push((own.clone(), record(&mut client, &own).unwrap()));
                        barrier.wait();
                        Try::choose(&mut dice).make(&mut client, round, &mut answers);
                    }
                    answers
                })
            })
            .collect();
        sessions
            .into_iter()
            .flat_map(|session| session.join().unwrap())
            .collect()
    });

    let mut client = database.connect().unwrap();
    let mut recorded: BTreeMap<&str, usize> = BTreeMap::new();
    for (identifier, was) in &answers {
        *recorded.entry(identifier).or_default() += usize::from(*was);
    }
    let wrong: Vec<_> = recorded.iter().filter(|(_, times)| **times != 1).collect();
    assert!(
        wrong.is_empty(),
        "committed answers of \"recorded\" to an identifier: {wrong:?}"
    );
    assert_eq!(recorded_twice(&mut client), []);
    // And the one that made the partition.
    let rows = number(&mut client, "SELECT count(*) FROM billing.meter_events");
    assert_eq!(rows, recorded.len() as i64 + 1);
    assert_eq!(usage(&mut client, "sum"), rows.to_string());
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(usage(&mut client, "sum"), rows.to_string());
    let wrong = client
        .query("SELECT * FROM billing.verify('sum', 'acme', NULL, NULL)", &[])
        .unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(
        recorded.len() > ROUNDS * SESSIONS,
        "too few rounds had a session that committed"
    );
    assert!(taken_back(&mut client) > ROUNDS as i64 / 2, "the sessions hardly met");
    let held = "SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid()
        AND (locktype IN ('spectoken', 'transactionid') OR relation = 'billing.undecided_event'::regclass)";
    assert_eq!(number(&mut client, held), 0);
    assert_never_crashed(database.cluster());
}

#[test]
fn a_single_event_is_logged_in_little_more_than_a_plain_row() {
    // Its log is that of nobody else.
    let cluster = quiet_cluster();
    let database = within_the_day(Database::with_extension(&cluster).unwrap());
    let mut client = database.connect().unwrap();
    client
        .batch_execute(
            r#"CREATE TABLE plain (LIKE billing.meter_events);
               CREATE UNIQUE INDEX ON plain (customer, event_name, identifier);
               CREATE TABLE sent AS SELECT n, gen_random_uuid()::text AS id FROM generate_series(1, 500) n;
               CREATE PROCEDURE insert_all() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..500 LOOP
                   INSERT INTO plain (customer, event_name, identifier, value, "timestamp", received_at)
                   SELECT 'acme', 'sum', s.id, 1, now(), clock_timestamp() FROM sent s WHERE s.n = i;
                   COMMIT;
               END LOOP; END $$;
               CREATE PROCEDURE record_all() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..500 LOOP
                   PERFORM billing.record_meter_event('sum', 'acme', 1, s.id, now()) FROM sent s WHERE s.n = i;
                   COMMIT;
               END LOOP; END $$;"#,
        )
        .unwrap();
    let mut logged = |call: &str| {
        let start = text(&mut client, "SELECT pg_current_wal_insert_lsn()");
        client.batch_execute(call).unwrap();
        number(
            &mut client,
            &format!("SELECT (pg_current_wal_insert_lsn() - '{start}')::bigint"),
        )
    };
    // Once beforehand, and then with the same identifiers on both sides: pages are split as often.
    logged("CALL insert_all()");
    logged("CALL record_all()");
    logged("UPDATE sent SET id = gen_random_uuid()::text");
    let (plain, recorded) = (logged("CALL insert_all()"), logged("CALL record_all()"));
    let ratio = recorded as f64 / plain as f64;
    println!("{plain} bytes of plain rows, {recorded} of events: {ratio:.3}");
    assert!(ratio <= 1.3, "{ratio}");
    assert_eq!(usage(&mut client, "sum"), "1001");
}

/// Logical decoding hands out rows as they are inserted, and would not hand out that one was taken back.
#[test]
fn readers_of_the_log_see_each_event_once() {
    let options = Options::default()
        .set("billing.worker", "off")
        .set("wal_level", "logical");
    let cluster = cluster_under_test(&options).unwrap();
    let database = within_the_day(Database::with_extension(&cluster).unwrap());
    let mut client = database.connect().unwrap();
    client
        .batch_execute("CREATE PUBLICATION events FOR TABLE billing.meter_events")
        .unwrap();
    client
        .batch_execute("SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
        .unwrap();
    for n in 0..20 {
        let identifier = format!("e{n}");
        assert!(record(&mut client, &identifier).unwrap());
        // A session that expects no retry.
        let mut retry = database.connect().unwrap();
        retry.batch_execute("BEGIN").unwrap();
        assert!(!record(&mut retry, &identifier).unwrap());
        assert!(record(&mut retry, &format!("{identifier} more")).unwrap());
        retry
            .batch_execute("COMMIT; SELECT pg_stat_force_next_flush()")
            .unwrap();
    }
    assert!(taken_back(&mut client) > 0, "no retry was in the way");
    let read = "SELECT data FROM pg_logical_slot_get_binary_changes('reader', NULL, NULL,
                    'proto_version', '1', 'publication_names', 'events')";
    let mut seen: Vec<String> = client
        .query(read, &[])
        .unwrap()
        .iter()
        .filter_map(|row| inserted_identifier(row.get(0)))
        .collect();
    assert_eq!(seen.len(), 40);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 40, "{seen:?}");
}

/// The third column of a row that a message of pgoutput inserts (PostgreSQL's documentation, "Logical Replication Message Formats").
fn inserted_identifier(message: &[u8]) -> Option<String> {
    const TABLE_AND_COUNT: usize = 4 + 1 + 2;
    let mut columns = message.strip_prefix(b"I")?.get(TABLE_AND_COUNT..)?;
    let mut text = None;
    for _ in 0..3 {
        let (length, rest) = columns.strip_prefix(b"t")?.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        (text, columns) = (Some(value), rest);
    }
    String::from_utf8(text?.to_vec()).ok()
}

/// Rows of the queue are stored without what goes without saying, until the table has been rewritten and forgets what that is.
#[test]
fn the_queue_reads_the_same_after_it_was_rewritten() {
    let database = quiet_database();
    let mut client = database.connect().unwrap();
    let parts: Vec<String> = client
        .query(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'billing.usage_pending'::regclass",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let forgetful = "SELECT count(*) FROM pg_attribute a JOIN pg_inherits i ON i.inhrelid = a.attrelid
        WHERE i.inhparent = 'billing.usage_pending'::regclass
          AND a.attname IN ('dimensions', 'event_count', 'rebuild') AND NOT a.atthasmissing";
    assert_eq!(number(&mut client, forgetful), 0, "added with a value");
    let rows = "SELECT string_agg(p::text, E'\n' ORDER BY p::text) FROM billing.usage_pending p";
    let in_between = "SELECT count(*) FROM billing.usage_pending p
        WHERE p.dimensions = '{}' AND p.event_count = 1 AND p.value_max IS NULL AND NOT p.rebuild AND p.value_sum = 1";
    assert!(record(&mut client, "before").unwrap());
    assert_eq!(number(&mut client, in_between), 2);
    let before = text(&mut client, rows);
    for part in &parts {
        client.batch_execute(&format!("VACUUM FULL {part}")).unwrap();
    }
    assert_eq!(number(&mut client, forgetful), 3 * parts.len() as i64);
    assert_eq!(text(&mut client, rows), before);
    assert!(record(&mut client, "after").unwrap());
    assert!(record(&mut database.connect().unwrap(), "after that").unwrap());
    assert_eq!(number(&mut client, in_between), 4);
    assert_eq!(usage(&mut client, "sum"), "4");
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(usage(&mut client, "sum"), "4");
}
