//! What the tests of recording share: a small catalog, waiting for conditions, and the check that nothing is recorded twice.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use harness::exactness::FORMULAS;
use harness::{Cluster, Database, Options, cluster_under_test};
use postgres::error::{DbError, SqlState};
use postgres::types::ToSql;
use postgres::{Client, Row};

/// The customer `acme` and a meter for each aggregation, of its name: `sum`, `count`, `last`, `max`, `min`, `unique_count`, `weighted_sum`.
pub fn catalog(client: &mut Client) {
    client.execute("SELECT billing.create_customer('acme')", &[]).unwrap();
    for formula in FORMULAS {
        meter(client, formula, formula, "");
    }
}

/// A meter with further fields of its definition, such as `, "dimension_payload_keys": ["region"]`.
pub fn meter(client: &mut Client, event_name: &str, formula: &str, more: &str) {
    let definition = format!(
        r#"{{"display_name": "{event_name}", "event_name": "{event_name}", "default_aggregation": {{"formula": "{formula}"}}{more}}}"#
    );
    client
        .execute("SELECT billing.create_meter($1::text::billing.meter)", &[&definition])
        .unwrap();
}

pub fn database() -> Database<'static> {
    with_catalog(Database::shared().unwrap())
}

/// A database on a cluster without workers, where partitions are a second wide and nobody makes them ahead of time.
pub fn narrow_database() -> Database<'static> {
    static NARROW: OnceLock<Cluster> = OnceLock::new();
    let cluster = NARROW.get_or_init(|| {
        let options = Options::default()
            .set("billing.worker", "off")
            .set("billing.partition_width", "1s")
            .set("max_prepared_transactions", "10");
        cluster_under_test(&options).unwrap()
    });
    with_catalog(Database::with_extension(cluster).unwrap())
}

fn with_catalog<'c>(database: Database<'c>) -> Database<'c> {
    catalog(&mut database.connect().unwrap());
    database
}

/// Records one event of meter `sum` for `acme`.
pub fn record(client: &mut Client, identifier: &str) -> Result<bool, postgres::Error> {
    let row = client.query_one(
        "SELECT billing.record_meter_event('sum', 'acme', 1, $1)",
        &[&identifier],
    )?;
    Ok(row.get(0))
}

/// (recorded, duplicate, rejected)
pub fn counts(row: &Row) -> (i64, i64, i64) {
    (row.get("recorded"), row.get("duplicate"), row.get("rejected"))
}

pub fn number(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}

/// The first column of the only row, as text.
pub fn text(client: &mut Client, sql: &str) -> String {
    match client
        .simple_query(sql)
        .unwrap()
        .iter()
        .find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        }) {
        Some(text) => text,
        None => panic!("no row: {sql}"),
    }
}

/// What a statement must be refused with. The connection is usable afterwards.
pub fn refusal(client: &mut Client, sql: &str, arguments: &[&(dyn ToSql + Sync)]) -> DbError {
    let error = match client.query(sql, arguments) {
        Ok(rows) => panic!("not refused but {rows:?}: {sql}"),
        Err(error) => error,
    };
    let refusal = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}")).clone();
    client.batch_execute("SELECT 1").unwrap();
    refusal
}

/// A refusal with this SQLSTATE whose message holds each of `words`, and with a hint.
pub fn assert_refused(
    client: &mut Client,
    sql: &str,
    arguments: &[&(dyn ToSql + Sync)],
    code: &SqlState,
    words: &[&str],
) {
    let refusal = refusal(client, sql, arguments);
    assert_eq!(refusal.code(), code, "{sql}: {refusal}");
    for word in words {
        assert!(
            refusal.message().contains(word),
            "{sql}: {} without {word}",
            refusal.message()
        );
    }
    assert!(
        refusal.hint().is_some_and(|hint| !hint.is_empty()),
        "no hint: {refusal}"
    );
}

/// Polls until `holds`, and fails loudly if it does not within a minute.
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn backend(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
}

/// Waits until `waiting` stands behind a lock that `holder` has; 0 is a prepared transaction.
pub fn await_blocked(watcher: &mut Client, waiting: i32, holder: i32) {
    await_that("the session waits for the other", || {
        watcher
            .query_one("SELECT $2 = ANY (pg_blocking_pids($1))", &[&waiting, &holder])
            .unwrap()
            .get(0)
    });
}

/// Waits until the partition that receives events now is over.
pub fn await_next_partition(client: &mut Client) {
    let over: chrono::DateTime<chrono::Utc> = client
        .query_one("SELECT max(upper_bound) FROM billing.meter_event_partitions", &[])
        .unwrap()
        .get(0);
    await_that("the partition's time is over", || {
        client
            .query_one("SELECT clock_timestamp() >= $1", &[&over])
            .unwrap()
            .get(0)
    });
}

/// The identities that stand in more than one row, with their number of rows.
pub fn recorded_twice(client: &mut Client) -> Vec<(String, i64)> {
    client
        .query(
            "SELECT concat_ws('/', customer, event_name, identifier), count(*) FROM billing.meter_events
             GROUP BY customer, event_name, identifier HAVING count(*) > 1 ORDER BY 1",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

/// What `acme` has used in all time, as the summary of one row says.
pub fn usage(client: &mut Client, event_name: &str) -> String {
    let sql =
        "SELECT aggregated_value::text FROM billing.meter_event_summaries($1, 'acme', '2000-01-01', '2100-01-01')";
    let value: Option<String> = client.query_one(sql, &[&event_name]).unwrap().get(0);
    value.unwrap_or_else(|| "NULL".to_owned())
}

/// Nothing crashed, panicked or was restarted since the cluster was made.
pub fn assert_never_crashed(cluster: &Cluster) {
    let log = cluster.log();
    let signs = [
        "PANIC",
        "was terminated by signal",
        "terminating any other active server processes",
        "panicked at",
    ];
    for line in log.lines() {
        assert!(!signs.iter().any(|sign| line.contains(sign)), "{line}");
    }
}

pub fn assert_same<T: PartialEq + Debug>(what: &str, left: T, right: T) {
    assert!(left == right, "{what}: {left:?} is not {right:?}");
}
