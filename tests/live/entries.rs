//! The rows of a single event are entered without an executor: into whatever indexes the partition has, and whatever becomes of them.

use harness::{Database, Options, cluster_under_test};
use postgres::Client;
use postgres::error::SqlState;

use crate::outright::{quiet_database, within_the_day};
use crate::recording::{await_blocked, backend, number, record, recorded_twice, text, usage};

/// The partition that receives events now.
pub fn partition(client: &mut Client) -> String {
    text(
        client,
        "SELECT p.name FROM billing.meter_event_partitions p
         WHERE p.lower_bound <= clock_timestamp() AND clock_timestamp() < p.upper_bound",
    )
}

/// How many events of the partition meet the condition, as this index finds them.
pub fn found_by(client: &mut Client, partition: &str, index: &str, condition: &str) -> i64 {
    client
        .batch_execute("BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_indexonlyscan = off")
        .unwrap();
    let sql = format!("SELECT count(*) FROM billing.{partition} WHERE {condition}");
    let plan: Vec<String> = client
        .query(&format!("EXPLAIN {sql}"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(
        plan.iter().any(|line| line.contains(&format!(" {index} "))),
        "{plan:#?}"
    );
    let found = number(client, &sql);
    client.batch_execute("COMMIT").unwrap();
    found
}

/// Sessions that have both recorded, and know the shape of the partition.
pub fn two_sessions(database: &Database) -> (Client, Client) {
    let mut sessions = (database.connect().unwrap(), database.connect().unwrap());
    assert!(record(&mut sessions.0, "here").unwrap());
    assert!(record(&mut sessions.1, "there").unwrap());
    sessions
}

#[test]
fn an_index_made_meanwhile_has_what_is_recorded_next() {
    let database = quiet_database();
    let (mut here, mut there) = two_sessions(&database);
    let partition = partition(&mut here);
    let value = |client: &mut Client, value: i32, identifier: &str| -> Result<bool, postgres::Error> {
        let sql = "SELECT billing.record_meter_event('sum', 'acme', $1::int, $2)";
        Ok(client.query_one(sql, &[&value, &identifier])?.get(0))
    };
    for (round, index) in (1..).zip([
        "(value)",
        "(value) WHERE value > 0",
        "((value + 0))",
        "(value, customer)",
    ]) {
        there
            .batch_execute(&format!("CREATE INDEX by_value ON billing.{partition} {index}"))
            .unwrap();
        for nth in 0..3 {
            assert!(value(&mut here, 10 + round, &format!("{index} {nth}")).unwrap());
            assert!(value(&mut there, 10 + round, &format!("{index} there {nth}")).unwrap());
        }
        let condition = match round {
            3 => format!("value + 0 = {}", 10 + round),
            _ => format!("value = {}", 10 + round),
        };
        assert_eq!(found_by(&mut here, &partition, "by_value", &condition), 6, "{index}");
        there.batch_execute("DROP INDEX billing.by_value").unwrap();
        assert!(value(&mut here, 1, &format!("{index} gone")).unwrap());
    }
}

/// What is unique beside the identity is an error, and then nothing of the event is there.
#[test]
fn an_index_that_is_unique_refuses_and_nothing_is_left() {
    let database = quiet_database();
    let (mut here, mut there) = two_sessions(&database);
    let partition = partition(&mut here);
    let send = |client: &mut Client, event_name: &str, identifier: Option<&str>| -> Result<bool, postgres::Error> {
        let sql = "SELECT billing.record_meter_event($1, 'acme', 5, $2)";
        Ok(client.query_one(sql, &[&event_name, &identifier])?.get(0))
    };
    assert!(send(&mut here, "sum", Some("once")).unwrap());
    for index in [
        "(customer, identifier)",
        "(lower(identifier))",
        "(identifier) WHERE value = 5",
    ] {
        there
            .batch_execute(&format!("CREATE UNIQUE INDEX once ON billing.{partition} {index}"))
            .unwrap();
        for _ in 0..2 {
            let refused = send(&mut here, "count", Some("once")).unwrap_err();
            assert_eq!(refused.code(), Some(&SqlState::UNIQUE_VIOLATION), "{index}");
        }
        assert!(!send(&mut here, "sum", Some("once")).unwrap(), "{index}");
        assert!(send(&mut here, "sum", None).unwrap());
        there.batch_execute("DROP INDEX billing.once").unwrap();
    }
    assert_eq!(usage(&mut here, "count"), "0");
    assert!(send(&mut here, "count", Some("once")).unwrap());
    assert_eq!(usage(&mut here, "count"), "1");
    // here, there, the one that made the partition, once, and three without an identifier.
    assert_eq!(usage(&mut here, "sum"), (3 + 5 + 3 * 5).to_string());
}

/// Columns that come and go, also between two events of one transaction's neighbours, are where they are.
#[test]
fn columns_that_come_and_go_are_minded() {
    let database = quiet_database();
    let (mut here, mut there) = two_sessions(&database);
    for (nth, change) in (0..).zip([
        "ALTER TABLE billing.meter_events ADD COLUMN note text",
        "ALTER TABLE billing.meter_events ADD COLUMN origin text NOT NULL DEFAULT 'api'",
        "ALTER TABLE billing.meter_events ALTER COLUMN origin DROP NOT NULL",
        "ALTER TABLE billing.meter_events DROP COLUMN note",
        "ALTER TABLE billing.meter_events DROP COLUMN origin",
        "ALTER TABLE billing.usage_pending ADD COLUMN note text DEFAULT 'none'",
        "ALTER TABLE billing.usage_pending DROP COLUMN note",
    ]) {
        there.batch_execute(change).unwrap();
        let told = record(&mut here, &format!("n-{nth}"));
        if change.contains("NOT NULL DEFAULT") {
            let refused = told.unwrap_err();
            assert_eq!(refused.code(), Some(&SqlState::NOT_NULL_VIOLATION), "{change}");
            assert!(refused.as_db_error().is_some_and(|error| error.hint().is_some()));
        } else {
            assert!(told.unwrap(), "{change}");
        }
    }
    let sql = "SELECT string_agg(e.identifier, ' ' ORDER BY e.received_at) FROM billing.meter_events e
               WHERE e.customer = 'acme' AND e.event_name = 'sum' AND e.value = 1 AND e.dimensions IS NULL AND e.cancelled_at IS NULL";
    assert_eq!(
        text(&mut here, sql),
        "makes the partition here there n-0 n-2 n-3 n-4 n-5 n-6"
    );
    assert_eq!(usage(&mut here, "sum"), "9");
    there.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(usage(&mut here, "sum"), "9");
}

/// Of what is recorded before, between and after the steps of building an index beside recording, it misses nothing, and a retry is a retry.
#[test]
fn an_index_built_beside_recording_misses_nothing() {
    let database = quiet_database();
    let (mut here, mut watcher) = two_sessions(&database);
    let partition = partition(&mut here);
    let builds = [
        format!("REINDEX TABLE CONCURRENTLY billing.{partition}"),
        format!("CREATE INDEX CONCURRENTLY by_value ON billing.{partition} (value)"),
    ];
    let mut expected = 3;
    for (nth, build) in builds.iter().enumerate() {
        let again = |client: &mut Client, when: &str| {
            let identifier = format!("{nth} {when}");
            assert!(record(client, &identifier).unwrap(), "{build}: {when}");
            assert!(!record(client, &identifier).unwrap(), "{build}: again {when}");
            1
        };
        let (mut before, mut between, mut builder) = (
            database.connect().unwrap(),
            database.connect().unwrap(),
            database.connect().unwrap(),
        );
        let pids = [&mut before, &mut between, &mut builder].map(backend);
        let [writing_before, writing_between, building] = pids;
        before.batch_execute("BEGIN").unwrap();
        expected += again(&mut before, "before");
        let sql = build.clone();
        let built = std::thread::spawn(move || builder.batch_execute(&sql));
        // The index is there and empty, and nobody enters anything.
        await_blocked(&mut watcher, building, writing_before);
        between.batch_execute("BEGIN").unwrap();
        expected += again(&mut between, "between");
        expected += again(&mut here, "empty");
        before.batch_execute("COMMIT").unwrap();
        // It is built, and all enter what they record.
        await_blocked(&mut watcher, building, writing_between);
        expected += again(&mut here, "built");
        between.batch_execute("COMMIT").unwrap();
        built.join().unwrap().unwrap();
        expected += again(&mut here, "after");
    }
    let identity = format!("{partition}_identity");
    assert_eq!(found_by(&mut here, &partition, "by_value", "value = 1"), expected);
    let identified = "customer = 'acme' AND event_name = 'sum'";
    assert_eq!(found_by(&mut here, &partition, &identity, identified), expected);
    assert_eq!(recorded_twice(&mut here), []);
    assert_eq!(usage(&mut here, "sum"), expected.to_string());
}

/// Of a batch: how many events were recorded, and how many were retries. By a session of its own: one that has met a retry looks before it
/// records.
fn record_batch(database: &Database, identifiers: &[String]) -> (i64, i64) {
    let sql = "SELECT r.recorded, r.duplicate
               FROM (SELECT $1::text[] AS identifiers, ARRAY[cardinality($1::text[])] AS count) given,
                    billing.record_meter_events(array_fill('sum'::text, count), array_fill('acme'::text, count),
                                                array_fill(1::numeric, count), identifiers) r";
    let row = database.connect().unwrap().query_one(sql, &[&identifiers]).unwrap();
    (row.get(0), row.get(1))
}

/// While the index of identities is rebuilt there are two, and after that was broken off two remain.
#[test]
fn a_retry_is_one_while_the_index_of_identities_is_rebuilt() {
    assert_retries_are_told_with_two_indexes(&quiet_database());
}

/// There single events go another way too.
#[test]
fn a_retry_is_one_while_the_index_of_identities_is_rebuilt_and_the_log_is_logical() {
    let options = Options::default()
        .set("billing.worker", "off")
        .set("wal_level", "logical");
    let cluster = cluster_under_test(&options).unwrap();
    assert_retries_are_told_with_two_indexes(&within_the_day(Database::with_extension(&cluster).unwrap()));
}

fn assert_retries_are_told_with_two_indexes(database: &Database) {
    let mut here = database.connect().unwrap();
    let partition = partition(&mut here);
    let mut watcher = database.connect().unwrap();
    let (mut before, mut between) = (database.connect().unwrap(), database.connect().unwrap());
    let mut builder = database.connect().unwrap();
    let [writing_before, writing_between, building] = [&mut before, &mut between, &mut builder].map(backend);
    let mut expected = 1;
    let mut send = |when: &str| {
        // As many as go together, and some that have gone before.
        let batch: Vec<String> = (0..100).map(|n| format!("{when} {n}")).collect();
        assert_eq!(record_batch(database, &batch), (100, 0), "{when}");
        let again: Vec<String> = (50..150).map(|n| format!("{when} {n}")).collect();
        assert_eq!(record_batch(database, &again), (50, 50), "{when}");
        for n in [0, 149] {
            let mut fresh = database.connect().unwrap();
            assert!(!record(&mut fresh, &format!("{when} {n}")).unwrap(), "{when}");
        }
        expected += 150;
    };
    send("before");
    before.batch_execute("BEGIN").unwrap();
    assert!(record(&mut before, "one before").unwrap());
    let sql = format!("REINDEX INDEX CONCURRENTLY billing.{partition}_identity");
    let built = std::thread::spawn(move || builder.batch_execute(&sql));
    await_blocked(&mut watcher, building, writing_before);
    send("empty");
    between.batch_execute("BEGIN").unwrap();
    assert!(record(&mut between, "one between").unwrap());
    before.batch_execute("COMMIT").unwrap();
    await_blocked(&mut watcher, building, writing_between);
    send("built");
    watcher.execute("SELECT pg_cancel_backend($1)", &[&building]).unwrap();
    let broken = built.join().unwrap().unwrap_err();
    assert_eq!(broken.code(), Some(&SqlState::QUERY_CANCELED));
    let left = format!(
        "SELECT count(*) FROM pg_index WHERE indrelid = 'billing.{partition}'::regclass AND indisunique AND indisready AND NOT indisvalid"
    );
    assert_eq!(number(&mut here, &left), 1);
    send("broken off");
    between.batch_execute("COMMIT").unwrap();
    send("after");
    assert_eq!(recorded_twice(&mut here), []);
    assert_eq!(usage(&mut here, "sum"), (expected + 2).to_string());
}

/// What is left of a build that was broken off is in nobody's way.
#[test]
fn an_index_whose_build_was_broken_off_is_in_nobodys_way() {
    let database = quiet_database();
    let (mut here, mut watcher) = two_sessions(&database);
    let partition = partition(&mut here);
    for method in ["brin", "btree"] {
        let (mut before, mut builder) = (database.connect().unwrap(), database.connect().unwrap());
        let (writing, building) = (backend(&mut before), backend(&mut builder));
        before.batch_execute("BEGIN").unwrap();
        assert!(record(&mut before, &format!("{method} before")).unwrap());
        let sql =
            format!("CREATE INDEX CONCURRENTLY broken_{method} ON billing.{partition} USING {method} (\"timestamp\")");
        let built = std::thread::spawn(move || builder.batch_execute(&sql));
        await_blocked(&mut watcher, building, writing);
        watcher.execute("SELECT pg_cancel_backend($1)", &[&building]).unwrap();
        let broken = built.join().unwrap().unwrap_err();
        assert_eq!(broken.code(), Some(&SqlState::QUERY_CANCELED));
        assert!(record(&mut here, &format!("{method} after")).unwrap());
        assert!(!record(&mut here, &format!("{method} after")).unwrap());
        before.batch_execute("COMMIT").unwrap();
    }
    assert_eq!(usage(&mut here, "sum"), "7");
}

/// Parts of a wide row go into a table beside, whose locks nobody is to wait for who may have to decide.
#[test]
fn wide_events_are_recorded_once_too() {
    let database = quiet_database();
    let (mut here, mut there) = two_sessions(&database);
    let wide = "SELECT billing.record_meter_event('sum', 'acme', 1, $1, now(),
                    jsonb_build_object('note', (SELECT string_agg(md5($1 || n), '') FROM generate_series(1, 200) n)))";
    let send =
        |client: &mut Client, identifier: &str| -> bool { client.query_one(wide, &[&identifier]).unwrap().get(0) };
    for identifier in ["a", "b"] {
        assert!(send(&mut here, identifier));
        assert!(!send(&mut there, identifier));
        assert!(!send(&mut here, identifier));
        assert!(record(&mut here, &format!("{identifier} narrow")).unwrap());
    }
    assert_eq!(usage(&mut here, "sum"), "7");
    let length = "SELECT min(length(dimensions ->> 'note')) || ' ' || count(*) FROM billing.meter_events WHERE dimensions IS NOT NULL";
    assert_eq!(text(&mut here, length), "6400 2");
}
