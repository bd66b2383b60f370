//! The harness itself: clusters are private, run unprivileged, and live through what the other tests do to them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Cluster, Database, Options, Stop, cluster_under_test, shared_cluster};
use postgres::NoTls;
use postgres::error::SqlState;

fn start(options: &Options) -> Cluster {
    cluster_under_test(options).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn runs_the_version_under_test_with_the_settings_given() {
    let cluster = start(
        &Options::default()
            .set("work_mem", "3MB")
            .set("search_path", "it's, public"),
    );
    let mut client = cluster.connect("postgres").unwrap();
    let show = |client: &mut postgres::Client, name: &str| -> String {
        client.query_one("SELECT current_setting($1)", &[&name]).unwrap().get(0)
    };
    let number: i32 = show(&mut client, "server_version_num").parse().unwrap();
    assert_eq!(number.unsigned_abs() / 10_000, cluster.install().major);
    assert_eq!(show(&mut client, "work_mem"), "3MB");
    assert_eq!(show(&mut client, "search_path"), "it's, public");
    assert_eq!(show(&mut client, "listen_addresses"), "127.0.0.1");
    assert_eq!(show(&mut client, "server_encoding"), "UTF8");
}

#[test]
fn is_closed_to_others() {
    let cluster = shared_cluster().unwrap();
    for path in [cluster.socket_dir().to_owned(), cluster.data()] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is open to others: {mode:o}", path.display());
    }
    let mut through_tcp = postgres::Config::new();
    through_tcp
        .host("127.0.0.1")
        .port(cluster.port())
        .user("postgres")
        .dbname("postgres")
        .password("a guess");
    let refusal = through_tcp
        .connect(NoTls)
        .err()
        .expect("a guessed password must not open the cluster");
    assert_eq!(refusal.code(), Some(&SqlState::INVALID_PASSWORD));
    through_tcp.password(cluster.password()).connect(NoTls).unwrap();
}

#[test]
fn never_runs_as_root() {
    let cluster = shared_cluster().unwrap();
    let pid = cluster.pid().unwrap();
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_ne!(owner, 0);
    assert_eq!(owner, fs::metadata(cluster.data()).unwrap().uid());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
    let caller = fs::metadata("/proc/self").unwrap().uid();
    assert!(
        caller != 0 || groups.trim().is_empty(),
        "root's groups are left: {groups}"
    );
}

#[test]
fn two_clusters_do_not_meet() {
    let (one, other) = (start(&Options::default()), start(&Options::default()));
    assert_ne!(one.port(), other.port());
    one.connect("postgres")
        .unwrap()
        .batch_execute("CREATE DATABASE only_here")
        .unwrap();
    assert!(one.connect("only_here").is_ok());
    assert!(other.connect("only_here").is_err());
}

#[test]
fn keeps_its_data_through_every_way_of_stopping() {
    let cluster = start(&Options::default().durable());
    cluster
        .connect("postgres")
        .unwrap()
        .batch_execute("CREATE TABLE kept (n integer)")
        .unwrap();
    let ways: [(&str, &dyn Fn() -> harness::Result<()>); 4] = [
        ("smart", &|| cluster.stop(Stop::Smart)),
        ("fast", &|| cluster.stop(Stop::Fast)),
        ("immediate", &|| cluster.stop(Stop::Immediate)),
        ("kill", &|| cluster.kill()),
    ];
    for (count, (way, stop)) in (1_i64..).zip(ways) {
        cluster
            .connect("postgres")
            .unwrap()
            .batch_execute("INSERT INTO kept VALUES (1)")
            .unwrap();
        stop().unwrap();
        assert_eq!(cluster.pid(), None);
        assert!(cluster.connect("postgres").is_err(), "it answers after '{way}'");
        cluster.launch().unwrap();
        let rows: i64 = cluster
            .connect("postgres")
            .unwrap()
            .query_one("SELECT count(*) FROM kept", &[])
            .unwrap()
            .get(0);
        assert_eq!(rows, count, "after '{way}'");
    }
}

#[test]
fn recovers_from_a_killed_backend() {
    let cluster = start(&Options::default());
    let mut client = cluster.connect("postgres").unwrap();
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let postmaster = cluster.pid();
    cluster.crash(backend).unwrap();
    assert!(client.batch_execute("SELECT 1").is_err());
    assert!(cluster.connect("postgres").unwrap().batch_execute("SELECT 1").is_ok());
    assert_eq!(cluster.pid(), postmaster);
    assert!(cluster.log().contains("was terminated by signal 9"));
}

#[test]
fn takes_changed_settings_at_the_restart() {
    let cluster = start(&Options::default());
    cluster.set("max_prepared_transactions", "7").unwrap();
    cluster.restart().unwrap();
    let value: String = cluster
        .connect("postgres")
        .unwrap()
        .query_one("SHOW max_prepared_transactions", &[])
        .unwrap()
        .get(0);
    assert_eq!(value, "7");
}

#[test]
fn says_why_it_does_not_start() {
    let error =
        cluster_under_test(&Options::default().preload("no_such_library")).expect_err("there is no such library");
    assert!(error.to_string().contains("no_such_library"), "{error}");
}

#[test]
fn leaves_nothing_behind() {
    let cluster = start(&Options::default());
    let (folder, pid) = (cluster.socket_dir().to_owned(), cluster.pid().unwrap());
    drop(cluster);
    assert!(!folder.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Runs this binary's longest harness test in a process of its own and kills that in the middle.
#[test]
#[allow(clippy::zombie_processes)] // each is waited for, by try_wait or at the end
fn leaves_nothing_behind_when_the_process_is_killed() {
    let place = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir_in("/tmp")
        .unwrap();
    let run = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cluster::keeps_its_data_through_every_way_of_stopping"])
            .env("TMPDIR", place.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let tests = std::cell::RefCell::new(run());
    let folders = || {
        fs::read_dir(place.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let pid = || {
        let read = |folder: &std::path::PathBuf| fs::read_to_string(folder.join("data/postmaster.pid")).ok();
        folders().iter().find_map(read)?.lines().next()?.parse::<u32>().ok()
    };
    let seen = std::cell::Cell::new(None);
    await_that("the server starts", || {
        // It may have come and gone between two looks, or have found no peace on a busy machine: then once more.
        if tests.borrow_mut().try_wait().unwrap().is_some() {
            tests.replace(run());
        }
        seen.set(pid());
        seen.get().is_some()
    });
    let server = Path::new("/proc").join(seen.get().unwrap().to_string());
    tests.borrow_mut().kill().unwrap();
    tests.borrow_mut().wait().unwrap();
    await_that("its folder is removed", || folders().is_empty());
    assert!(!server.exists());
}

fn await_that(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_standby_follows_and_refuses_writes() {
    let primary = start(&Options::default());
    let standby = Cluster::standby_of(&primary, &Options::default()).unwrap();
    primary
        .connect("postgres")
        .unwrap()
        .batch_execute("CREATE TABLE followed AS SELECT 41 + 1 AS n")
        .unwrap();
    standby.catch_up_with(&primary).unwrap();
    let mut client = standby.connect("postgres").unwrap();
    let n: i32 = client.query_one("SELECT n FROM followed", &[]).unwrap().get(0);
    assert_eq!(n, 42);
    let refusal = client.batch_execute("DELETE FROM followed").unwrap_err();
    assert_eq!(refusal.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
}

#[test]
fn dumps_and_restores() {
    let cluster = shared_cluster().unwrap();
    let (from, to) = (Database::empty(cluster).unwrap(), Database::empty(cluster).unwrap());
    from.psql("CREATE TABLE things AS SELECT n FROM generate_series(1, 1000) n")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    cluster.pg_dump(from.name(), &["--format=custom"], &file).unwrap();
    cluster.pg_restore(to.name(), &[], &file).unwrap();
    assert_eq!(to.psql("SELECT sum(n) FROM things").unwrap(), "500500");
    let error = to.psql("SELECT 1; SELECT no_such_column; SELECT 2").unwrap_err();
    assert!(error.to_string().contains("no_such_column"), "{error}");
}

#[test]
fn databases_end_with_their_scope() {
    let cluster = shared_cluster().unwrap();
    let database = Database::empty(cluster).unwrap();
    let name = database.name().to_owned();
    let _still_connected = database.connect().unwrap();
    drop(database);
    assert!(cluster.connect(&name).is_err());
}
