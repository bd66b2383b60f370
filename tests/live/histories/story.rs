//! A random history: who subscribes to what, which usage arrives when and what of it is cancelled, and when billing runs. Everything
//! follows from the seed.

use harness::Dice;

use super::prices::{self, Interval, Price, Source};

/// Microseconds since 1970-01-01 UTC.
pub type Micros = i64;

pub const HOUR: Micros = 3_600_000_000;
pub const DAY: Micros = 24 * HOUR;
/// 2024-01-01
pub const BEGINNING: Micros = 1_704_067_200_000_000;
/// After the last period whose usage these histories record.
const LAST_DAY: i64 = 100;

pub struct Subscription {
    pub id: String,
    pub customer: usize,
    pub start: Micros,
    pub anchor: Option<Micros>,
    pub trial_end: Option<Micros>,
    pub cancel_at: Option<Micros>,
    pub cancel_at_period_end: bool,
    pub prorates: bool,
    pub sends_invoices: bool,
    /// Prices, and quantities of licensed ones.
    pub items: Vec<(&'static Price, i64)>,
}

pub struct Event {
    pub customer: usize,
    pub source: Source,
    pub tenths: i64,
    pub at: Micros,
    pub identifier: usize,
    /// The run before which it is recorded.
    pub arrives: usize,
    /// The run before which it is cancelled, not earlier than that.
    pub cancelled: Option<usize>,
}

impl Event {
    /// Whether it counts at a run.
    pub fn counts(&self, run: usize) -> bool {
        self.arrives <= run && self.cancelled.is_none_or(|cancelled| cancelled > run)
    }
}

pub struct History {
    pub customers: usize,
    /// In the order of their start.
    pub subscriptions: Vec<Subscription>,
    pub events: Vec<Event>,
    /// The `as_of` of each run.
    pub runs: Vec<Micros>,
}

impl History {
    pub fn new(seed: u64, subscriptions: usize) -> Self {
        let mut dice = Dice::new(seed);
        let mut runs = vec![BEGINNING + dice.between(1, 4 * DAY)];
        while runs[runs.len() - 1] < BEGINNING + (LAST_DAY + 40) * DAY {
            // Some within the grace of a draft, most days apart.
            let pause = if dice.one_in(4) { HOUR } else { 14 * DAY };
            runs.push(runs[runs.len() - 1] + dice.between(1, pause));
        }
        let customers = subscriptions / 2 + 1;
        let mut subscriptions: Vec<_> = (0..subscriptions).map(|_| subscription(&mut dice, customers)).collect();
        subscriptions.sort_by_key(|subscription| subscription.start);
        for (n, subscription) in subscriptions.iter_mut().enumerate() {
            subscription.id = format!("s{n:03}");
        }
        let events = (0..customers * 60)
            .map(|n| event(&mut dice, n, customers, &runs))
            .collect();
        Self {
            customers,
            subscriptions,
            events,
            runs,
        }
    }

    /// The first run that is not before a time.
    pub fn run_at(&self, time: Micros) -> Option<usize> {
        self.runs.iter().position(|as_of| *as_of >= time)
    }

    /// The same events on other ways: each arrives, and is cancelled, at some other run, or at the first.
    pub fn shuffled(mut self, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        // Before the last runs, so that there is an invoice for what is late.
        let runs = self
            .runs
            .iter()
            .filter(|run| **run < BEGINNING + LAST_DAY * DAY)
            .count();
        for event in &mut self.events {
            event.arrives = dice.below(runs);
            event.cancelled = event
                .cancelled
                .map(|_| event.arrives + dice.below(runs - event.arrives));
        }
        self
    }
}

fn subscription(dice: &mut Dice, customers: usize) -> Subscription {
    let interval = *dice.of(&[Interval::Month, Interval::Month, Interval::Week, Interval::TenDays]);
    let start = BEGINNING + dice.between(0, 40 * DAY);
    let mut items: Vec<_> = Vec::new();
    while items.is_empty() {
        for price in prices::all().filter(|price| price.interval == interval) {
            if dice.one_in(3) {
                items.push((price, dice.between(0, 9)));
            }
        }
    }
    let mut later = |one_in: usize, within: Micros| dice.one_in(one_in).then(|| start + dice.between(HOUR, within));
    let anchor = later(4, 27 * DAY);
    let trial_end = later(5, 20 * DAY);
    let cancel_at = later(5, 80 * DAY);
    Subscription {
        id: String::new(),
        customer: dice.below(customers),
        start,
        anchor,
        trial_end,
        cancel_at,
        cancel_at_period_end: cancel_at.is_none() && dice.one_in(10),
        prorates: !dice.one_in(5),
        sends_invoices: dice.one_in(4),
        items,
    }
}

fn event(dice: &mut Dice, identifier: usize, customers: usize, runs: &[Micros]) -> Event {
    // Whole hours and days now and then, as periods have their bounds anywhere.
    let unit = *dice.of(&[1, 1, 1_000_000, HOUR, DAY]);
    let at = BEGINNING + dice.between(0, LAST_DAY * DAY) / unit * unit;
    let source = *dice.of(&[Source::Sum, Source::Sum, Source::Max, Source::Count, Source::Last]);
    // Of two events at the same time the one received later is the last: without such pairs the order of arrival counts nowhere.
    let at = if source == Source::Last {
        at + identifier as Micros
    } else {
        at
    };
    let on_time = runs.iter().position(|as_of| *as_of > at).unwrap_or(runs.len() - 1);
    let left = runs.len() - on_time;
    let arrives = if dice.one_in(4) {
        on_time + dice.below(left)
    } else {
        on_time
    };
    let cancelled = dice.one_in(6).then(|| arrives + dice.below(runs.len() - arrives));
    Event {
        customer: dice.below(customers),
        source,
        tenths: dice.between(-60, 400),
        at,
        identifier,
        arrives,
        cancelled,
    }
}
