//! `CALL billing.run_billing`: whatever breaks it off, nothing is lost or doubled and the next call goes on; and it says how far it is.

use harness::{Cluster, Database, Options, Stop, cluster_under_test};
use postgres::Client;
use postgres::error::SqlState;

use super::books::{Told, assert_same_books, books};
use super::model;
use super::play::{connect, happen, open, shown, told, unordered};
use super::story::History;
use super::{assert_adds_up, quiet_cluster};
use crate::recording::{assert_refused, await_blocked, await_that, backend, number, refusal, text};

const SEED: u64 = 7;

/// All of a history has happened, and nothing is billed but what subscriptions cost at once.
fn ready<'c>(cluster: &'c Cluster, history: &History) -> Database<'c> {
    let database = open(cluster, history);
    let mut client = connect(&database);
    for run in 0..history.runs.len() {
        happen(&mut client, history, run);
    }
    database
}

fn history() -> History {
    let mut history = History::new(SEED, 20);
    for event in &mut history.events {
        event.arrives = 0;
        event.cancelled = event.cancelled.map(|_| 0);
    }
    history
}

fn expected(history: &History) -> Vec<Told> {
    unordered(told(&model::invoices(history)))
}

fn call(history: &History, batch_size: usize) -> String {
    let as_of = history.runs[history.runs.len() - 1];
    format!("CALL billing.run_billing('{}', {batch_size})", shown(as_of))
}

/// Whoever writes that waits behind the advisory lock 42: in the middle of the drafts, or of their finalization.
fn stop_at(client: &mut Client, moment: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM pg_catalog.pg_advisory_xact_lock(42);
                 RETURN NEW;
             END $$;
             CREATE TRIGGER stop BEFORE {moment} EXECUTE FUNCTION public.stop()"
        ))
        .unwrap();
}

const DRAFTING: &str = "INSERT ON billing.invoices FOR EACH ROW
    WHEN (NEW.billing_reason = 'subscription_cycle' AND NEW.created > '2024-02-20')";
const FINALIZING: &str = "UPDATE ON billing.invoices FOR EACH ROW
    WHEN (NEW.number IS NOT NULL AND OLD.number IS NULL AND NEW.subscription > 's009')";

fn state(client: &mut Client) -> String {
    text(
        client,
        "SELECT state FROM billing.billing_progress ORDER BY started_at DESC LIMIT 1",
    )
}

/// What ends a run in the middle, whose backend is given.
type End<'a> = &'a dyn Fn(&mut Client, i32);

/// Breaks a run off at a moment and lets another one go on; both see the progress view tell the truth.
fn break_off(cluster: &Cluster, moment: &str, end: End) {
    let history = history();
    let database = ready(cluster, &history);
    let mut watcher = connect(&database);
    let mut holder = connect(&database);
    let mut runner = connect(&database);
    stop_at(&mut watcher, moment);
    holder.batch_execute("SELECT pg_advisory_lock(42)").unwrap();
    let (held, running) = (backend(&mut holder), backend(&mut runner));
    let sql = call(&history, 3);
    // Not in a scope: an assertion that fails here must not wait for a run that waits for the lock.
    let run = std::thread::spawn(move || {
        let ended = runner.batch_execute(&sql);
        (runner, ended)
    });
    await_blocked(&mut watcher, running, held);
    assert_eq!(state(&mut watcher), "running");
    let progress = "SELECT concat_ws(' ', done > 0 AND done <= total, made > 0, finished_at IS NULL, per_second > 0,
                            estimated_end > started_at) FROM billing.billing_progress";
    assert_eq!(text(&mut watcher, progress), "t t t t t");
    end(&mut watcher, running);
    let (runner, ended) = run.join().unwrap();
    assert!(ended.is_err());
    let mut client = connect(&database);
    // A client hears of the error before the server has given up the locks.
    await_that("the run is broken off", || state(&mut client) == "broken off");
    // What was committed stays, and is no half of anything.
    assert!(
        number(
            &mut client,
            "SELECT count(*) FROM billing.invoices WHERE billing_reason = 'subscription_cycle'"
        ) > 3
    );
    assert_adds_up(&mut client);
    client.batch_execute("DROP TRIGGER stop ON billing.invoices").unwrap();
    client.batch_execute(&call(&history, 4)).unwrap();
    assert_eq!(state(&mut client), "finished");
    assert_adds_up(&mut client);
    assert_same_books("gone on with", &unordered(books(&mut client)), &expected(&history));
    drop(runner);
}

#[test]
fn a_cancelled_run_is_gone_on_with() {
    for moment in [DRAFTING, FINALIZING] {
        break_off(quiet_cluster(), moment, &|watcher, running| {
            let sql = format!("SELECT pg_cancel_backend({running})");
            assert_eq!(text(watcher, &sql), "t");
        });
    }
}

#[test]
fn a_crash_in_the_middle_of_a_run_loses_and_doubles_nothing() {
    let cluster = cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap();
    break_off(&cluster, DRAFTING, &|_, running| cluster.crash(running).unwrap());
    break_off(&cluster, FINALIZING, &|_, running| cluster.crash(running).unwrap());
    break_off(&cluster, FINALIZING, &|_, _| {
        cluster.stop(Stop::Immediate).unwrap();
        cluster.launch().unwrap();
    });
}

/// A run waits for nobody's subscription: it bills the others, and the next one bills what was left.
#[test]
fn a_run_passes_over_what_others_hold() {
    let history = history();
    let database = ready(quiet_cluster(), &history);
    let (mut client, mut holder) = (connect(&database), connect(&database));
    holder
        .batch_execute(
            "BEGIN; SELECT FROM billing.subscriptions WHERE id IN ('s002', 's005', 's011') FOR NO KEY UPDATE",
        )
        .unwrap();
    client.batch_execute("SET lock_timeout = '10s'").unwrap();
    client.batch_execute(&call(&history, 2)).unwrap();
    assert_eq!(state(&mut client), "finished");
    let held = |books: Vec<Told>| -> Vec<Told> {
        let mut books = unordered(books);
        books.retain(|invoice| !["s002", "s005", "s011"].contains(&invoice.subscription.as_str()));
        books
    };
    assert_same_books("the others", &held(books(&mut client)), &held(expected(&history)));
    let due = "SELECT count(*) FROM billing.subscriptions WHERE next_invoice_at < '2024-04-01'";
    assert!(number(&mut client, due) > 0);
    holder.batch_execute("COMMIT").unwrap();
    client.batch_execute(&call(&history, 2)).unwrap();
    assert_same_books("all", &unordered(books(&mut client)), &expected(&history));
    assert_adds_up(&mut client);
}

/// What cannot be finalized stays a draft, and the run comes to its end all the same: of a subscription or of none.
#[test]
fn what_cannot_be_finalized_does_not_keep_a_run_busy() {
    let history = history();
    let database = ready(quiet_cluster(), &history);
    let mut client = connect(&database);
    client
        .batch_execute(
            "INSERT INTO billing.invoices (id, customer, currency, period_start, period_end, created, billing_reason)
             VALUES ('in_by_hand', 'c0', 'usd', '2024-01-05', '2024-01-05', '2024-01-05', 'manual');
             INSERT INTO billing.invoice_lines (invoice, kind, description, quantity, amount, period_start, period_end)
             SELECT 'in_by_hand', 'item', 'All there is', 1, 9223372036854775807, '2024-01-05', '2024-01-05' FROM generate_series(1, 2);
             SELECT billing.rate_drafts(ARRAY['in_by_hand']);
             SET statement_timeout = '60s'",
        )
        .unwrap();
    client.batch_execute(&call(&history, 5)).unwrap();
    assert_eq!(state(&mut client), "finished");
    let left = "SELECT concat_ws(' ', status, finalization_error) FROM billing.invoices WHERE id = 'in_by_hand'";
    assert_eq!(text(&mut client, left), "draft the total is beyond the range of bigint");
    client
        .batch_execute(
            "DELETE FROM billing.invoice_lines WHERE invoice = 'in_by_hand'; DELETE FROM billing.invoices WHERE id = 'in_by_hand'",
        )
        .unwrap();
    assert_same_books("the others", &unordered(books(&mut client)), &expected(&history));
}

#[test]
fn a_run_is_refused_in_a_transaction_and_with_bad_arguments() {
    let history = history();
    let database = ready(quiet_cluster(), &history);
    let mut client = connect(&database);
    let before = books(&mut client);
    client.batch_execute("BEGIN").unwrap();
    let error = client.batch_execute(&call(&history, 3)).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_TRANSACTION_TERMINATION));
    client.batch_execute("ROLLBACK").unwrap();
    for (arguments, code, word) in [
        ("'2024-03-01', 0", SqlState::INVALID_PARAMETER_VALUE, "batch_size 0"),
        ("'2024-03-01', -1", SqlState::INVALID_PARAMETER_VALUE, "batch_size -1"),
        ("'2024-03-01', NULL", SqlState::NULL_VALUE_NOT_ALLOWED, "\"batch_size\""),
        ("NULL, 3", SqlState::NULL_VALUE_NOT_ALLOWED, "\"as_of\""),
        ("'infinity', 3", SqlState::INVALID_PARAMETER_VALUE, "infinity"),
    ] {
        assert_refused(
            &mut client,
            &format!("CALL billing.run_billing({arguments})"),
            &[],
            &code,
            &[word],
        );
    }
    assert_same_books("refused", &books(&mut client), &before);
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.billing_runs"), 0);
    // Nobody but an administrator runs it; whoever reads sees how far it is.
    client.batch_execute("SET ROLE billing_reader").unwrap();
    let denied = refusal(&mut client, &call(&history, 3), &[]);
    assert_eq!(denied.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.billing_progress"), 0);
    client.batch_execute("RESET ROLE; SET ROLE billing_admin").unwrap();
    client.batch_execute(&call(&history, 1000)).unwrap();
    client.batch_execute("RESET ROLE").unwrap();
    let done = "SELECT concat_ws(' ', state, done = total, made, finalized) FROM billing.billing_progress";
    let cycles = number(
        &mut client,
        "SELECT count(*) FROM billing.invoices WHERE billing_reason = 'subscription_cycle'",
    );
    let by_the_run = number(
        &mut client,
        "SELECT count(*) FROM billing.invoices WHERE finalized_at > created",
    );
    assert_eq!(text(&mut client, done), format!("finished t {cycles} {by_the_run}"));
}
