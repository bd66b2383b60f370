//! Histories in which what is billed changes while it is billed. Against a model of the rules; wild ones, which no model foretells,
//! against each other, billed in different ways, and against what holds of every history.

mod checks;
mod model;
mod play;
mod sabotage;
mod story;

use std::sync::Barrier;

use harness::{Database, Dice};
use postgres::Client;

use super::books::{Told, assert_same_books, books};
use super::play::{connect, shown};
use super::story::{BEGINNING, DAY, Micros};
use super::{assert_adds_up, generate, quiet_cluster, seeds};
use crate::recording::number;
use checks::{assert_billed_is_rated, assert_nothing_is_left_out, assert_sums};
use play::{assert_preview_holds, happen, ready, told, unordered};
use story::{Changing, Contested, Thresholds};

/// PG_BILLING_TEST_SUBSCRIPTIONS: in each history; a seed means something else with each number.
fn subscriptions() -> usize {
    std::env::var("PG_BILLING_TEST_SUBSCRIPTIONS").map_or(10, |number| number.parse().unwrap())
}

/// How billing is run over a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// At the runs of the history.
    OnTime,
    /// Before what changes and whenever else, each run twice, with previews of what comes next.
    Often,
    /// By several sessions in batches.
    AtOnce,
    /// When all is over.
    Late,
    LateInBatches,
}

const LEFT: &str = "SELECT count(*) FROM billing.billing_progress WHERE state <> 'finished'";

fn in_batches(client: &mut Client, as_of: Micros, batch_size: usize) {
    let sql = format!("CALL billing.run_billing('{}', {batch_size})", shown(as_of));
    client.batch_execute(&sql).unwrap();
}

fn by_several(database: &Database, client: &mut Client, dice: &mut Dice, as_of: Micros) {
    const SESSIONS: usize = 3;
    let barrier = Barrier::new(SESSIONS);
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            let (barrier, batch_size) = (&barrier, (!dice.one_in(4)).then(|| 1 + dice.below(7)));
            scope.spawn(move || {
                let mut client = connect(database);
                barrier.wait();
                match batch_size {
                    None => drop(
                        client
                            .execute(&format!("SELECT billing.generate_invoices('{}')", shown(as_of)), &[])
                            .unwrap(),
                    ),
                    Some(batch_size) => in_batches(&mut client, as_of, batch_size),
                }
            });
        }
    });
    assert_eq!(number(client, LEFT), 0);
    generate(client, as_of);
}

fn often(client: &mut Client, dice: &mut Dice, as_of: Micros) {
    match dice.below(4) {
        0 => in_batches(client, as_of, 1 + dice.below(7)),
        1 => assert_preview_holds(client, as_of),
        _ => drop(generate(client, as_of)),
    }
}

/// What billing comes to when it is run over a history in some way. What holds of every history is asserted of it.
fn play(changing: &Changing, way: Way, seed: u64) -> Vec<Told> {
    println!("seed {seed}, {way:?}");
    let database = ready(quiet_cluster(), changing);
    let mut client = connect(&database);
    let mut dice = Dice::new(seed);
    let runs = &changing.history.runs;
    let last = runs[runs.len() - 1];
    for (run, as_of) in runs.iter().copied().enumerate() {
        happen(&mut client, changing, run, |client, at| {
            if way == Way::Often && dice.one_in(2) {
                often(client, &mut dice, at);
            }
        });
        match way {
            Way::OnTime => drop(generate(&mut client, as_of)),
            Way::AtOnce => by_several(&database, &mut client, &mut dice, as_of),
            Way::Late if as_of == last => drop(generate(&mut client, as_of)),
            Way::LateInBatches if as_of == last => in_batches(&mut client, as_of, 5),
            Way::Late | Way::LateInBatches => (),
            Way::Often => {
                let before = if run == 0 { BEGINNING } else { runs[run - 1] };
                let mut stops: Vec<Micros> = (0..dice.below(3)).map(|_| dice.between(before, as_of)).collect();
                stops.sort_unstable();
                for stop in stops {
                    often(&mut client, &mut dice, stop);
                }
                generate(&mut client, as_of);
                assert_eq!(generate(&mut client, as_of), 0);
            }
        }
    }
    let made = books(&mut client);
    assert_eq!(generate(&mut client, last), 0);
    in_batches(&mut client, last, 3);
    assert_same_books("again", &books(&mut client), &made);
    assert_holds(&mut client, changing);
    made
}

/// What holds of every history, once what came late has been billed too.
fn assert_holds(client: &mut Client, changing: &Changing) {
    let runs = &changing.history.runs;
    let last = runs[runs.len() - 1];
    generate(client, last + 45 * DAY);
    let resumed =
        "SELECT billing.resume_subscription(s.id, as_of => $1::text::timestamptz) FROM billing.subscriptions s
                   WHERE s.status = 'paused' AND coalesce(s.cancel_at > $1::text::timestamptz, true) ORDER BY s.id";
    client.query(resumed, &[&shown(last + 45 * DAY)]).unwrap();
    // What a pause of collection has kept.
    let kept = "SELECT billing.finalize_invoice(i.id, $1::text::timestamptz) FROM billing.invoices i
                WHERE i.status = 'draft' AND NOT i.auto_advance ORDER BY i.created";
    client.query(kept, &[&shown(last + 45 * DAY)]).unwrap();
    generate(client, last + 90 * DAY);
    assert_adds_up(client);
    assert_sums(client);
    assert_nothing_is_left_out(client, &changing.interrupted());
    assert_billed_is_rated(client, changing.is_known());
}

#[test]
fn runs_on_time_come_to_what_the_rules_say() {
    for seed in seeds() {
        let changing = Changing::new(seed, subscriptions());
        let expected = told(&changing, &model::invoices(&changing));
        // Else the history shows nothing.
        assert!(expected.len() > 20, "seed {seed}");
        let found = play(&changing, Way::OnTime, seed);
        let unnumbered = |books: &[Told]| unordered(books.to_vec(), &Contested::default());
        assert_same_books(
            &format!("seed {seed}, unnumbered"),
            &unnumbered(&found),
            &unnumbered(&expected),
        );
        assert_same_books(&format!("seed {seed}"), &found, &expected);
    }
}

#[test]
fn many_runs_come_to_the_same_as_one() {
    for seed in seeds() {
        let changing = Changing::new(seed, subscriptions());
        let contested = changing.contested();
        let expected = told(&changing, &model::invoices(&changing));
        let found = play(&changing, Way::Often, seed);
        assert_same_books(
            &format!("seed {seed}"),
            &unordered(found, &contested),
            &unordered(expected, &contested),
        );
    }
}

#[test]
fn sessions_at_once_come_to_the_same_as_one() {
    for seed in seeds() {
        let changing = Changing::new(seed, subscriptions());
        let contested = changing.contested();
        let expected = told(&changing, &model::invoices(&changing));
        let found = play(&changing, Way::AtOnce, seed);
        assert_same_books(
            &format!("seed {seed}"),
            &unordered(found, &contested),
            &unordered(expected, &contested),
        );
    }
}

#[test]
fn a_late_run_comes_to_the_same_as_runs_on_time() {
    for seed in seeds() {
        let changing = Changing::new(seed, subscriptions()).known();
        let contested = changing.contested();
        let expected = unordered(told(&changing, &model::invoices(&changing)), &contested);
        let way = if seed % 2 == 0 { Way::Late } else { Way::LateInBatches };
        let found = unordered(play(&changing, way, seed), &contested);
        assert_same_books(&format!("seed {seed}, {way:?}"), &found, &expected);
    }
}

/// Which invoices there are depends on nobody's looking: any way of running comes to the same.
#[test]
fn wild_histories_come_to_the_same_in_any_way() {
    for seed in seeds() {
        let mut changing = Changing::wild(seed, subscriptions(), Thresholds::None);
        let ways = if seed % 3 == 0 {
            changing = changing.known();
            [Way::OnTime, Way::Late]
        } else if seed % 3 == 1 {
            [Way::OnTime, Way::Often]
        } else {
            [Way::Often, Way::AtOnce]
        };
        let contested = changing.contested();
        let [one, other] = ways.map(|way| unordered(play(&changing, way, seed), &contested));
        assert_same_books(&format!("seed {seed}, {ways:?}"), &other, &one);
    }
}

/// When a threshold is met depends on when somebody looks, what is billed in the end does not.
#[test]
fn thresholds_bill_nothing_twice_and_leave_nothing_out() {
    for seed in seeds() {
        let thresholds = if seed % 3 == 0 {
            Thresholds::Resetting
        } else {
            Thresholds::Plain
        };
        let changing = Changing::wild(seed, subscriptions(), thresholds);
        let way = [Way::OnTime, Way::Often, Way::AtOnce][usize::try_from(seed / 3 % 3).unwrap()];
        play(&changing, way, seed);
    }
}
