//! Random histories against a model of the rules: whichever way billing is run over one, it comes to the same invoices, to the cent.

mod books;
mod calendar;
mod changing;
mod model;
mod play;
mod prices;
mod runs;
mod story;

use std::sync::{Barrier, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use harness::{Cluster, Dice, Options, cluster_under_test};
use postgres::Client;

use crate::recording::{number, text};
use books::{Told, assert_same_books, books};
use play::{connect, happen, open, shown, told, unordered};
use story::History;

/// Without workers: nothing but these tests' sessions folds usage.
fn quiet_cluster() -> &'static Cluster {
    static QUIET: OnceLock<Cluster> = OnceLock::new();
    QUIET.get_or_init(|| cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap())
}

/// PG_BILLING_TEST_SEED repeats a run, PG_BILLING_TEST_HISTORIES says how many seeds to try, from that one on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number("PG_BILLING_TEST_SEED").unwrap_or(now.as_millis() as u64);
    let seeds = first..first + number("PG_BILLING_TEST_HISTORIES").unwrap_or(1);
    println!(
        "PG_BILLING_TEST_SEED={} PG_BILLING_TEST_HISTORIES={}",
        seeds.start,
        seeds.end - seeds.start
    );
    seeds
}

const SUBSCRIPTIONS: usize = 16;

/// Plays a history; `bill` is called for each run, after what happens before it.
fn play(history: &History, mut bill: impl FnMut(&harness::Database, &mut Client, usize)) -> Vec<Told> {
    let database = open(quiet_cluster(), history);
    let mut client = connect(&database);
    for run in 0..history.runs.len() {
        happen(&mut client, history, run);
        bill(&database, &mut client, run);
    }
    assert_adds_up(&mut client);
    books(&mut client)
}

fn generate(client: &mut Client, as_of: i64) -> i64 {
    number(client, &format!("SELECT billing.generate_invoices('{}')", shown(as_of)))
}

/// Lines add up to their invoice, invoices to the ledger, and numbers have no gaps.
fn assert_adds_up(client: &mut Client) {
    let lines = "SELECT count(*) FROM billing.invoices i
        LEFT JOIN LATERAL (SELECT count(*) AS count, sum(l.amount) AS sum FROM billing.invoice_lines l WHERE l.invoice = i.id) l ON true
        WHERE (l.count, l.sum) IS DISTINCT FROM (i.line_count::bigint, i.subtotal::numeric)
           OR i.total <> i.subtotal - i.total_discount_amount - i.total_credit_amount + i.total_exclusive_tax_amount
           OR i.finalization_error IS NOT NULL";
    assert_eq!(number(client, lines), 0, "invoices that are not their lines");
    // What invoices were above and below zero is what was to pay, and what is left in the ledger.
    let ledger = "SELECT string_agg(concat_ws(' ', i.customer, i.total, i.due, t.amount), '; ') FROM (
            SELECT customer, sum(total) AS total, sum(amount_due) AS due FROM billing.invoices
            WHERE status NOT IN ('draft', 'void') GROUP BY customer) i
        LEFT JOIN (SELECT customer, sum(amount) AS amount FROM billing.customer_balance_transactions GROUP BY customer) t
            USING (customer)
        WHERE i.total <> i.due + coalesce(t.amount, 0) OR t.amount > 0
           OR billing.customer_balance(customer, 'usd') <> coalesce(t.amount, 0)";
    assert_eq!(text(client, ledger), "NULL", "invoices that are not the ledger");
    let numbers = "SELECT count(number) = coalesce(max(substr(number, 5)::bigint), 0) FROM billing.invoices";
    assert_eq!(text(client, numbers), "t", "numbers with gaps");
}

/// Nothing is left to do, and nothing is done twice.
fn assert_done(client: &mut Client, as_of: i64, found: &[Told]) {
    assert_eq!(generate(client, as_of), 0);
    client
        .batch_execute(&format!("CALL billing.run_billing('{}', 3)", shown(as_of)))
        .unwrap();
    assert_same_books("again", &books(client), found);
}

#[test]
fn runs_on_time_come_to_what_the_rules_say() {
    for seed in seeds() {
        let history = History::new(seed, SUBSCRIPTIONS);
        let expected = told(&model::invoices(&history));
        // Else the history shows nothing.
        let has = |what: &str| {
            expected
                .iter()
                .flat_map(|invoice| &invoice.lines)
                .any(|line| line.starts_with(what))
        };
        assert!(
            expected.len() > 40 && has("late_usage") && has("licensed"),
            "seed {seed}"
        );
        let last = history.runs.len() - 1;
        let found = play(&history, |_, client, run| {
            generate(client, history.runs[run]);
            if run == last {
                let found = books(client);
                assert_done(client, history.runs[run], &found);
            }
        });
        assert_same_books(&format!("seed {seed}"), &found, &expected);
    }
}

/// One run in as many as you like, some of them too early for anything.
#[test]
fn many_runs_come_to_the_same_as_one() {
    for seed in seeds() {
        let history = History::new(seed, SUBSCRIPTIONS);
        let mut dice = Dice::new(seed);
        let found = play(&history, |_, client, run| {
            let as_of = history.runs[run];
            let before = if run == 0 {
                story::BEGINNING
            } else {
                history.runs[run - 1]
            };
            let mut stops: Vec<i64> = (0..dice.below(5)).map(|_| dice.between(before, as_of)).collect();
            stops.sort_unstable();
            for stop in stops {
                if dice.one_in(3) {
                    let batch = 1 + dice.below(7);
                    client
                        .batch_execute(&format!("CALL billing.run_billing('{}', {batch})", shown(stop)))
                        .unwrap();
                } else {
                    generate(client, stop);
                }
            }
            generate(client, as_of);
            assert_eq!(generate(client, as_of), 0);
        });
        let expected = told(&model::invoices(&history));
        assert_same_books(&format!("seed {seed}"), &unordered(found), &unordered(expected));
    }
}

/// Runs at the same time by both ways, with batches of 1 to 7. Numbers and balances go by who was first; the rest does not.
#[test]
fn sessions_at_once_come_to_the_same_as_one() {
    const SESSIONS: usize = 3;
    for seed in seeds() {
        let history = History::new(seed, SUBSCRIPTIONS);
        let mut dice = Dice::new(seed);
        let found = play(&history, |database, client, run| {
            let as_of = shown(history.runs[run]);
            let barrier = Barrier::new(SESSIONS);
            std::thread::scope(|scope| {
                for _ in 0..SESSIONS {
                    let sql = match dice.below(4) {
                        0 => format!("SELECT billing.generate_invoices('{as_of}')"),
                        _ => format!("CALL billing.run_billing('{as_of}', {})", 1 + dice.below(7)),
                    };
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let mut client = connect(database);
                        barrier.wait();
                        client.batch_execute(&sql).unwrap();
                    });
                }
            });
            // What another session held when a run looked is that one's to finish: by now all have.
            let left = number(
                client,
                "SELECT count(*) FROM billing.billing_progress WHERE state <> 'finished'",
            );
            assert_eq!(left, 0);
        });
        let expected = told(&model::invoices(&history));
        assert_same_books(&format!("seed {seed}"), &unordered(found), &unordered(expected));
    }
}

/// All that happens is known from the beginning; one run at the end. Batches give the very numbers and balances of one transaction.
#[test]
fn a_late_run_comes_to_the_same_as_runs_on_time() {
    for seed in seeds() {
        let mut history = History::new(seed, SUBSCRIPTIONS);
        for event in &mut history.events {
            event.arrives = 0;
            event.cancelled = event.cancelled.map(|_| 0);
        }
        let expected = told(&model::invoices(&history));
        let last = history.runs.len() - 1;
        let late = play(&history, |_, client, run| {
            if run == last {
                generate(client, history.runs[run]);
            }
        });
        assert_same_books(
            &format!("seed {seed}, unnumbered"),
            &unordered(late.clone()),
            &unordered(expected),
        );
        let batch = 1 + Dice::new(seed).below(7);
        let in_batches = play(&history, |_, client, run| {
            if run == last {
                let sql = format!("CALL billing.run_billing('{}', {batch})", shown(history.runs[run]));
                client.batch_execute(&sql).unwrap();
                let progress = "SELECT state || ' ' || (done - total) FROM billing.billing_progress";
                assert_eq!(text(client, progress), "finished 0");
            }
        });
        assert_same_books(&format!("seed {seed}, in batches of {batch}"), &in_batches, &late);
    }
}

/// What is billed for a period in the end is what its final usage costs, whatever came first.
#[test]
fn any_order_of_arrival_ends_at_the_same_total() {
    for seed in seeds() {
        let totals: Vec<Vec<(String, String)>> = (0..2)
            .map(|way| {
                let history = History::new(seed, SUBSCRIPTIONS).shuffled(seed + way);
                let database = open(quiet_cluster(), &history);
                let mut client = connect(&database);
                for run in 0..history.runs.len() {
                    happen(&mut client, &history, run);
                    generate(&mut client, history.runs[run]);
                }
                assert_same_books(
                    &format!("seed {seed}, way {way}"),
                    &books(&mut client),
                    &told(&model::invoices(&history)),
                );
                // Of subscriptions that go on: what comes late for an ended one is on no invoice.
                let sql =
                    "SELECT concat_ws(' ', i.subscription, l.price, l.period_start, l.period_end), sum(l.amount)::text
                    FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
                    JOIN billing.subscriptions s ON s.id = i.subscription AND s.status <> 'canceled'
                    JOIN billing.prices p ON p.id = l.price
                    WHERE l.kind <> 'licensed' GROUP BY 1 ORDER BY 1";
                let rows = client.query(sql, &[]).unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            })
            .collect();
        assert!(totals[0].len() > 20, "seed {seed}: {}", totals[0].len());
        for (one, other) in std::iter::zip(&totals[0], &totals[1]) {
            assert_eq!(one, other, "seed {seed}");
        }
    }
}
