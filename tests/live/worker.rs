//! The background worker: there without configuration, back after whatever ends it, gone when it is not wanted.

use harness::{Cluster, Database, Options, cluster_under_test};
use postgres::Client;

use crate::recording::{assert_never_crashed, await_that, catalog, database, number, record, usage};

/// The worker of the connected database.
fn worker(client: &mut Client) -> Option<i32> {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_billing worker' AND datname = current_database()";
    let workers = client.query(sql, &[]).unwrap();
    assert!(workers.len() <= 2, "a second one may only be on its way out");
    workers.first().map(|row| row.get(0))
}

fn await_worker(client: &mut Client) -> i32 {
    let mut found = None;
    await_that("a worker lives", || {
        found = worker(client);
        found.is_some()
    });
    found.unwrap_or_default()
}

fn await_rolled_up(client: &mut Client) {
    await_that("everything is rolled up", || {
        number(client, "SELECT count(*) FROM billing.usage_pending") == 0
    });
}

fn with_catalog(cluster: &Cluster) -> (Database<'_>, Client) {
    let database = Database::with_extension(cluster).unwrap();
    let mut client = database.connect().unwrap();
    catalog(&mut client);
    (database, client)
}

#[test]
fn starts_on_demand_after_create_extension() {
    let database = database();
    let mut client = database.connect().unwrap();
    record(&mut client, "a").unwrap();
    await_rolled_up(&mut client);
    assert_eq!(
        number(
            &mut client,
            "SELECT sum(event_count)::bigint FROM billing.usage_buckets WHERE width = 'hour'"
        ),
        1
    );
    await_that("tomorrow's partition is made ahead of time", || {
        number(
            &mut client,
            "SELECT count(*) FROM billing.meter_event_partitions WHERE lower_bound > now()",
        ) == 1
    });
    await_that("what it did is on record", || {
        number(
            &mut client,
            "SELECT count(*) FROM billing.worker_jobs WHERE last_run IS NOT NULL AND NOT failing",
        ) == 2
    });
    await_that("operators see it", || {
        number(
            &mut client,
            "SELECT count(*) FROM billing.ingestion_status WHERE worker_alive AND last_roll_up_events = 1 AND NOT failing",
        ) == 1
    });
}

#[test]
fn is_one_for_a_database_however_many_record() {
    let database = database();
    std::thread::scope(|scope| {
        for session in 0..10 {
            let database = &database;
            scope.spawn(move || {
                let mut client = database.connect().unwrap();
                for event in 0..10 {
                    record(&mut client, &format!("{session} {event}")).unwrap();
                }
            });
        }
    });
    let mut client = database.connect().unwrap();
    await_rolled_up(&mut client);
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_billing worker' AND datname = current_database()";
    await_that("only one stays", || number(&mut client, workers) == 1);
    assert_eq!(usage(&mut client, "sum"), "100");
}

#[test]
fn comes_back_when_it_is_terminated() {
    let database = database();
    let mut client = database.connect().unwrap();
    record(&mut client, "a").unwrap();
    let first = await_worker(&mut client);
    client.execute("SELECT pg_terminate_backend($1)", &[&first]).unwrap();
    await_that("it is gone", || worker(&mut client) != Some(first));
    // A session that has just looked looks again after some seconds; a new one at once.
    record(&mut database.connect().unwrap(), "b").unwrap();
    assert_ne!(await_worker(&mut client), first);
    await_rolled_up(&mut client);
    assert_eq!(usage(&mut client, "sum"), "2");
}

#[test]
fn comes_back_by_itself_when_it_is_killed() {
    let cluster = cluster_under_test(&Options::default().set("billing.roll_up_interval", "1h")).unwrap();
    let (database, mut client) = with_catalog(&cluster);
    record(&mut client, "a").unwrap();
    let first = await_worker(&mut client);
    await_that("its first round is over", || {
        number(&mut client, "SELECT count(*) FROM billing.worker_jobs") == 2
    });
    record(&mut client, "b").unwrap();
    assert!(number(&mut client, "SELECT count(*) FROM billing.usage_pending") > 0);
    cluster.crash(first).unwrap();
    let mut client = database.connect().unwrap();
    assert_ne!(await_worker(&mut client), first);
    await_rolled_up(&mut client);
    assert_eq!(usage(&mut client, "sum"), "2");
}

#[test]
fn starts_with_the_server_where_it_is_preloaded() {
    let options = Options::default()
        .preload("pg_billing")
        .set("billing.worker", "off")
        // Fewer than there are databases: those without the extension must not keep the slots.
        .set("max_worker_processes", "5");
    let cluster = cluster_under_test(&options).unwrap();
    let _without: Vec<Database> = (0..6).map(|_| Database::empty(&cluster).unwrap()).collect();
    let (database, mut client) = with_catalog(&cluster);
    let (other, mut other_client) = with_catalog(&cluster);
    for client in [&mut client, &mut other_client] {
        record(client, "a").unwrap();
        assert_eq!(worker(client), None);
    }
    cluster.set("billing.worker", "on").unwrap();
    cluster.restart().unwrap();
    for database in [&database, &other] {
        let mut client = database.connect().unwrap();
        await_rolled_up(&mut client);
        assert_eq!(usage(&mut client, "sum"), "1");
    }
    let mut client = database.connect().unwrap();
    let launchers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_billing launcher'";
    await_that("the launcher has ended", || number(&mut client, launchers) == 0);
    assert_never_crashed(&cluster);
}

#[test]
fn is_switched_off_and_on_while_the_server_runs() {
    let cluster = cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap();
    let (database, mut client) = with_catalog(&cluster);
    record(&mut client, "a").unwrap();
    client.execute("SELECT billing.start_worker()", &[]).unwrap();
    // A worker that was started would be seen by then: this one is, in another database.
    let switch = |client: &mut Client, to: &str| {
        cluster.set("billing.worker", to).unwrap();
        client.execute("SELECT pg_reload_conf()", &[]).unwrap();
        await_that("the setting is taken over", || {
            client
                .query_one("SELECT current_setting('billing.worker') = $1", &[&to])
                .unwrap()
                .get(0)
        });
    };
    assert_eq!(worker(&mut client), None);
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.usage_pending"), 1);
    switch(&mut client, "on");
    record(&mut database.connect().unwrap(), "b").unwrap();
    await_worker(&mut client);
    await_rolled_up(&mut client);
    switch(&mut client, "off");
    await_that("it ends", || worker(&mut client).is_none());
    record(&mut database.connect().unwrap(), "c").unwrap();
    assert_eq!(worker(&mut client), None);
    assert_eq!(number(&mut client, "SELECT billing.roll_up()"), 1);
    assert_eq!(usage(&mut client, "sum"), "3");
}

#[test]
fn one_job_that_fails_is_visible_and_does_not_stop_the_other() {
    let options = Options::default()
        .set("billing.partition_width", "1s")
        .set("billing.roll_up_interval", "50ms");
    let cluster = cluster_under_test(&options).unwrap();
    let (_database, mut client) = with_catalog(&cluster);
    record(&mut client, "a").unwrap();
    await_rolled_up(&mut client);
    client
        .batch_execute("ALTER TABLE billing.usage_buckets RENAME TO elsewhere")
        .unwrap();
    record(&mut client, "b").unwrap();
    let failing = "SELECT count(*) FROM billing.worker_jobs WHERE job = 'roll_up' AND failing AND last_error LIKE '42P01: %usage_buckets%'";
    await_that("the failure is on record", || number(&mut client, failing) == 1);
    let sealed = "SELECT count(*) FROM billing.meter_event_partitions WHERE sealed_at > (SELECT min(last_failure) FROM billing.worker_jobs)";
    await_that("partitions are still sealed", || number(&mut client, sealed) > 0);
    assert!(record(&mut client, "c").unwrap(), "and events recorded");
    let other = "SELECT count(*) FROM billing.worker_jobs WHERE job = 'maintain_partitions' AND NOT failing AND last_failure IS NULL";
    assert_eq!(number(&mut client, other), 1);
    client
        .batch_execute("ALTER TABLE billing.elsewhere RENAME TO usage_buckets")
        .unwrap();
    await_that("it recovers", || {
        number(
            &mut client,
            "SELECT count(*) FROM billing.worker_jobs WHERE job = 'roll_up' AND NOT failing AND last_failure IS NOT NULL",
        ) == 1
    });
    await_rolled_up(&mut client);
    assert_eq!(usage(&mut client, "sum"), "3");
}

#[test]
fn ends_with_its_extension_and_with_its_database() {
    let cluster = cluster_under_test(&Options::default()).unwrap();
    let (database, mut client) = with_catalog(&cluster);
    record(&mut client, "a").unwrap();
    await_worker(&mut client);
    client.batch_execute("DROP EXTENSION pg_billing CASCADE").unwrap();
    await_that("it ends", || worker(&mut client).is_none());
    client.batch_execute("CREATE EXTENSION pg_billing").unwrap();
    catalog(&mut client);
    record(&mut database.connect().unwrap(), "a").unwrap();
    let last = await_worker(&mut client);
    drop((client, database));
    let mut client = cluster.connect("postgres").unwrap();
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {last}");
    await_that("it ends", || number(&mut client, &there) == 0);
    assert_never_crashed(&cluster);
}

/// A template is copied and dropped only while nobody is connected to it.
#[test]
fn keeps_out_of_templates() {
    let cluster = cluster_under_test(&Options::default()).unwrap();
    let mut admin = cluster.connect("postgres").unwrap();
    admin
        .batch_execute("CREATE DATABASE model TEMPLATE template0 IS_TEMPLATE true")
        .unwrap();
    let mut client = cluster.connect("model").unwrap();
    client.batch_execute("CREATE EXTENSION pg_billing").unwrap();
    catalog(&mut client);
    drop(client);
    await_that("nobody is connected", || {
        number(
            &mut admin,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'model'",
        ) == 0
    });
    admin.batch_execute("CREATE DATABASE copy TEMPLATE model").unwrap();
    let mut client = cluster.connect("copy").unwrap();
    assert!(record(&mut client, "a").unwrap());
    await_rolled_up(&mut client);
}

/// Autovacuum goes by what processes report; a worker that is silent would leave the queue to swell.
#[test]
fn what_the_worker_writes_is_reported() {
    let database = database();
    let mut client = database.connect().unwrap();
    record(&mut client, "a").unwrap();
    await_rolled_up(&mut client);
    await_that("autovacuum can know of the folded row", || {
        let sql = "SELECT coalesce(sum(pg_stat_get_tuples_deleted(relid)), 0)::bigint
                   FROM pg_partition_tree('billing.usage_pending')";
        number(&mut client, sql) > 0
    });
}
