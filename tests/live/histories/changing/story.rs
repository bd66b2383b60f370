//! A random history in which what is billed changes: items, quantities and prices of running subscriptions, coupons, credit and tax.
//! Everything follows from the seed.

use harness::Dice;

use super::super::model::span;
use super::super::prices::{self, Interval, Price};
use super::super::story::{BEGINNING, DAY, HOUR, History, Micros, Subscription};

/// What a change does about the time that is left of a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behavior {
    CreateProrations,
    AlwaysInvoice,
    None,
}

impl Behavior {
    pub fn name(self) -> &'static str {
        match self {
            Behavior::CreateProrations => "create_prorations",
            Behavior::AlwaysInvoice => "always_invoice",
            Behavior::None => "none",
        }
    }
}

/// Items are told by their place among all that a subscription ever had.
#[derive(Clone, Copy)]
pub enum ItemChange {
    Quantity(usize, i64),
    Swap(usize, &'static Price, i64),
    Add(&'static Price, i64),
    Remove(usize),
}

pub enum What {
    Items {
        items: Vec<ItemChange>,
        behavior: Behavior,
        since: Option<Micros>,
    },
    Coupons(Vec<usize>),
    Cancel {
        prorate: bool,
        invoice_now: bool,
    },
    CancelAtPeriodEnd,
    // What follows is in wild histories only, which no model foretells.
    TaxRates(Vec<usize>),
    Threshold {
        amount_gte: i64,
        resets: bool,
    },
    PauseCollection {
        behavior: &'static str,
        resumes_at: Option<Micros>,
    },
    ResumeCollection,
    Pause,
    Resume {
        anchor: &'static str,
        behavior: Behavior,
    },
    Anchor(Behavior),
}

pub struct Change {
    pub subscription: usize,
    pub at: Micros,
    pub what: What,
}

/// What a coupon takes off.
pub enum Off {
    /// Of the whole.
    Millionths(i64),
    Cents(i64),
}

pub enum Duration {
    Forever,
    Months(u32),
    Once,
}

pub struct Coupon {
    pub off: Off,
    pub duration: Duration,
}

const fn coupon(off: Off, duration: Duration) -> Coupon {
    Coupon { off, duration }
}

/// The first ones are what the model knows.
pub const COUPONS: [Coupon; 7] = [
    coupon(Off::Millionths(125_000), Duration::Forever),
    coupon(Off::Millionths(333_333), Duration::Forever),
    coupon(Off::Millionths(70_000), Duration::Months(1)),
    coupon(Off::Millionths(500_000), Duration::Months(2)),
    coupon(Off::Cents(777), Duration::Forever),
    coupon(Off::Cents(250), Duration::Months(1)),
    coupon(Off::Millionths(900_000), Duration::Once),
];
const MODELLED: usize = 4;

/// Exclusive, in millionths.
pub const TAX_RATES: [i64; 2] = [75_000, 43_125];

/// Pays for the prices of one half: `curves` or the others, so that no line has two grants to choose from.
pub struct Grant {
    pub customer: usize,
    pub curves: bool,
    pub amount: i64,
    pub priority: i64,
    pub created: Micros,
    pub effective_at: Micros,
    pub expires_at: Option<Micros>,
}

impl Grant {
    pub fn pays_for(&self, price: &Price) -> bool {
        price.source.is_some()
            && self.curves == matches!(price.terms, prices::Terms::Graduated(_) | prices::Terms::Volume(_))
    }
}

/// Which thresholds wild histories have: when one is met depends on when somebody looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thresholds {
    None,
    Plain,
    Resetting,
}

pub struct Changing {
    pub history: History,
    /// In the order of time.
    pub changes: Vec<Change>,
    /// Of each subscription from its start on.
    pub coupons: Vec<Vec<usize>>,
    pub tax_rates: Vec<Vec<usize>>,
    /// Of each customer from the beginning on.
    pub customer_coupons: Vec<Vec<usize>>,
    pub grants: Vec<Grant>,
}

impl Changing {
    /// What the model foretells.
    pub fn new(seed: u64, subscriptions: usize) -> Self {
        Self::of(seed, subscriptions, None)
    }

    /// With what no model foretells, too.
    pub fn wild(seed: u64, subscriptions: usize, thresholds: Thresholds) -> Self {
        Self::of(seed, subscriptions, Some(thresholds))
    }

    fn of(seed: u64, subscriptions: usize, thresholds: Option<Thresholds>) -> Self {
        let wild = thresholds.is_some();
        let mut history = History::new(seed, subscriptions);
        let mut dice = Dice::new(!seed);
        // Changes go to subscriptions that live for a while.
        for subscription in &mut history.subscriptions {
            subscription.cancel_at_period_end &= dice.one_in(4);
        }
        let mut changes: Vec<Change> = Vec::new();
        for (place, subscription) in history.subscriptions.iter().enumerate() {
            changes.extend(changes_of(&mut dice, place, subscription, thresholds));
        }
        changes.sort_by_key(|change| change.at);
        let coupons: Vec<Vec<usize>> = history
            .subscriptions
            .iter()
            .map(|_| {
                if dice.one_in(3) {
                    some_coupons(&mut dice, wild)
                } else {
                    Vec::new()
                }
            })
            .collect();
        let tax_rates = history
            .subscriptions
            .iter()
            .map(|_| (0..TAX_RATES.len()).filter(|_| dice.one_in(4)).collect())
            .collect();
        let customer_coupons = (0..history.customers)
            .map(|_| {
                if dice.one_in(4) {
                    some_coupons(&mut dice, wild)
                } else {
                    Vec::new()
                }
            })
            .collect();
        let mut changing = Self {
            history,
            changes,
            coupons,
            tax_rates,
            customer_coupons,
            grants: Vec::new(),
        };
        changing.keep_lists_apart();
        for customer in 0..changing.history.customers {
            for curves in [false, true] {
                if dice.one_in(2) {
                    changing.grants.push(grant(&mut dice, customer, curves));
                }
            }
        }
        changing.grants.sort_by_key(|grant| grant.created);
        changing
    }

    /// Which of two lists counts where one has coupons of which only some are in force is another story.
    fn keep_lists_apart(&mut self) {
        for list in &mut self.customer_coupons {
            list.retain(|coupon| matches!(COUPONS[*coupon].duration, Duration::Forever));
        }
        for (place, subscription) in self.history.subscriptions.iter().enumerate() {
            if self.customer_coupons[subscription.customer].is_empty() {
                continue;
            }
            let lists = self.changes.iter_mut().filter(|change| change.subscription == place);
            let lists = lists.filter_map(|change| match &mut change.what {
                What::Coupons(list) => Some(list),
                _ => None,
            });
            for list in lists.chain([&mut self.coupons[place]]) {
                list.retain(|coupon| matches!(COUPONS[*coupon].duration, Duration::Forever));
            }
        }
    }

    /// All usage is there from the beginning.
    pub fn known(mut self) -> Self {
        for event in &mut self.history.events {
            event.arrives = 0;
            event.cancelled = event.cancelled.map(|_| 0);
        }
        self
    }

    pub fn is_known(&self) -> bool {
        self.history
            .events
            .iter()
            .all(|event| event.arrives == 0 && event.cancelled.is_none_or(|run| run == 0))
    }

    /// Subscriptions with items that had no usage for a time.
    pub fn interrupted(&self) -> Vec<&str> {
        let metered = |n: usize, place: usize| {
            // Of the items of the beginning; those that are added are looked at as if they could be either.
            let items = &self.history.subscriptions[place].items;
            items.get(n).map(|(price, _)| price.source.is_some())
        };
        let interrupts = |change: &Change| match &change.what {
            What::Pause => true,
            What::Items { items, .. } => items.iter().any(|item| match item {
                ItemChange::Swap(n, price, _) => metered(*n, change.subscription) != Some(price.source.is_some()),
                _ => false,
            }),
            _ => false,
        };
        let of = |change: &Change| self.history.subscriptions[change.subscription].id.as_str();
        self.changes
            .iter()
            .filter(|change| interrupts(change))
            .map(of)
            .collect()
    }

    /// What is a matter of who is first: between subscriptions of one customer.
    pub fn contested(&self) -> Contested {
        let subscriptions = &self.history.subscriptions;
        let of = |place: usize| self.changes.iter().filter(move |change| change.subscription == place);
        let shared = |place: usize| {
            let customer = subscriptions[place].customer;
            subscriptions.iter().filter(|other| other.customer == customer).count() > 1
        };
        let once = |list: &[usize]| list.iter().any(|n| matches!(COUPONS[*n].duration, Duration::Once));
        let keeps = |change: &Change| matches!(change.what, What::PauseCollection { .. });
        let mut contested = Contested {
            drafts: self.changes.iter().any(keeps),
            ..Contested::default()
        };
        for (place, subscription) in subscriptions.iter().enumerate() {
            let customer = subscription.customer;
            if !shared(place) {
                continue;
            }
            if self.grants.iter().any(|grant| grant.customer == customer) {
                contested.credit.push(subscription.id.clone());
            }
            let changed = of(place).any(|change| matches!(&change.what, What::Coupons(list) if once(list)));
            if changed || once(&self.coupons[place]) || once(&self.customer_coupons[customer]) {
                contested.coupons.push(subscription.id.clone());
            }
        }
        contested
    }
}

/// Subscriptions of which it is a matter of who is first whether an invoice had credit, or a coupon for once.
#[derive(Default)]
pub struct Contested {
    pub credit: Vec<String>,
    pub coupons: Vec<String>,
    /// What a draft that waits for a person shows, too: as of when it was last looked at.
    pub drafts: bool,
}

fn some_coupons(dice: &mut Dice, wild: bool) -> Vec<usize> {
    let known = if wild { COUPONS.len() } else { MODELLED };
    let mut all: Vec<usize> = (0..known).filter(|_| dice.one_in(2)).collect();
    if dice.one_in(2) {
        all.reverse();
    }
    all
}

fn grant(dice: &mut Dice, customer: usize, curves: bool) -> Grant {
    let created = BEGINNING + dice.between(0, 60 * DAY);
    let effective_at = created + dice.between(-10 * DAY, 20 * DAY);
    let expires_at = dice
        .one_in(2)
        .then(|| created.max(effective_at) + dice.between(DAY, 40 * DAY));
    Grant {
        customer,
        curves,
        amount: dice.between(10, 900),
        priority: dice.between(0, 3),
        created,
        effective_at,
        expires_at,
    }
}

/// like: of the same kind.
fn unused(
    dice: &mut Dice,
    interval: Interval,
    items: &[Option<(&'static Price, i64)>],
    like: Option<&Price>,
) -> Option<&'static Price> {
    let free: Vec<&'static Price> = prices::all()
        .filter(|price| price.interval == interval)
        .filter(|price| like.is_none_or(|like| like.source.is_some() == price.source.is_some()))
        .filter(|price| !items.iter().flatten().any(|(used, _)| std::ptr::eq(*used, *price)))
        .collect();
    (!free.is_empty()).then(|| *dice.of(&free))
}

/// The start and end of the period that a time is in.
fn period_at(subscription: &Subscription, at: Micros) -> (Micros, Micros) {
    let mut current = span(subscription, subscription.start);
    while current.end <= at {
        current = span(subscription, current.end);
    }
    (current.start, current.end)
}

fn changes_of(
    dice: &mut Dice,
    place: usize,
    subscription: &Subscription,
    thresholds: Option<Thresholds>,
) -> Vec<Change> {
    let wild = thresholds.is_some();
    // Where its periods are is known as long as nothing moves its anchor.
    let mut moved = thresholds == Some(Thresholds::Resetting);
    let mut paused = false;
    let interval = subscription.items[0].0.interval;
    let mut items: Vec<Option<(&'static Price, i64)>> = subscription.items.iter().copied().map(Some).collect();
    let end = match (subscription.cancel_at, subscription.cancel_at_period_end) {
        (Some(at), _) => at,
        (None, true) => period_at(subscription, subscription.start).1,
        (None, false) => BEGINNING + 110 * DAY,
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut at = subscription.start;
    for _ in 0..dice.below(9) {
        at = match dice.below(6) {
            0 => at,
            1 => period_at(subscription, at).1,
            2 => at + dice.between(1, HOUR),
            _ => at + dice.between(1, 14 * DAY),
        };
        if at >= end {
            break;
        }
        let what = if paused {
            paused = false;
            Some(resume(dice))
        } else {
            thresholds.filter(|_| dice.one_in(2)).and_then(|thresholds| {
                let trial = subscription.trial_end.is_some_and(|trial_end| at < trial_end);
                wild_change(dice, at, trial, thresholds)
            })
        };
        moved |= matches!(what, Some(What::Pause | What::Anchor(_)));
        paused |= matches!(what, Some(What::Pause));
        let what = if let Some(what) = what {
            what
        } else if dice.one_in(7) {
            // After what happened at that moment, which knows nothing of them.
            at += 1;
            What::Coupons(if dice.one_in(3) {
                Vec::new()
            } else {
                some_coupons(dice, wild)
            })
        } else {
            let behavior = *dice.of(&[
                Behavior::CreateProrations,
                Behavior::CreateProrations,
                Behavior::AlwaysInvoice,
                Behavior::None,
            ]);
            let start = period_at(subscription, at).0;
            let since = (behavior != Behavior::None && at > start && !moved && dice.one_in(4))
                .then(|| dice.between(start, at + 1));
            let mut list = Vec::new();
            let mut touched = Vec::new();
            for _ in 0..=usize::from(dice.one_in(3)) {
                let change = item_change(dice, interval, &items, &touched, wild);
                if let Some(change) = change {
                    match change {
                        ItemChange::Quantity(n, quantity) => {
                            items[n] = items[n].map(|(price, _)| (price, quantity));
                            touched.push(n);
                        }
                        ItemChange::Swap(n, price, quantity) => {
                            items[n] = Some((price, quantity));
                            touched.push(n);
                        }
                        ItemChange::Add(price, quantity) => {
                            touched.push(items.len());
                            items.push(Some((price, quantity)));
                        }
                        ItemChange::Remove(n) => {
                            items[n] = None;
                            touched.push(n);
                        }
                    }
                    list.push(change);
                }
            }
            // In the order in which they are carried out, or a price would be free before the item that had it is gone.
            list.sort_by_key(|change| !matches!(change, ItemChange::Remove(_)));
            What::Items {
                items: list,
                behavior,
                since,
            }
        };
        changes.push(Change {
            subscription: place,
            at,
            what,
        });
    }
    if subscription.cancel_at.is_none() && !subscription.cancel_at_period_end && dice.one_in(3) {
        let at = at + dice.between(0, 30 * DAY);
        if at < end {
            let what = match dice.below(3) {
                0 if !paused => What::CancelAtPeriodEnd,
                _ => What::Cancel {
                    prorate: dice.one_in(2),
                    invoice_now: dice.one_in(2),
                },
            };
            changes.push(Change {
                subscription: place,
                at,
                what,
            });
        }
    }
    changes
}

fn item_change(
    dice: &mut Dice,
    interval: Interval,
    items: &[Option<(&'static Price, i64)>],
    touched: &[usize],
    wild: bool,
) -> Option<ItemChange> {
    let live: Vec<usize> = (0..items.len())
        .filter(|n| items[*n].is_some() && !touched.contains(n))
        .collect();
    let quantity = dice.between(0, 12);
    let choice = dice.below(8);
    if choice == 0 || live.is_empty() {
        return Some(ItemChange::Add(unused(dice, interval, items, None)?, quantity));
    }
    let n = *dice.of(&live);
    let count = items.iter().flatten().count();
    // Without a model, what is billed of an item is told by its time: it has usage always or never.
    let like = items[n].map(|(price, _)| price).filter(|_| wild);
    match choice {
        1 if count > 1 => Some(ItemChange::Remove(n)),
        2 | 3 => Some(ItemChange::Swap(n, unused(dice, interval, items, like)?, quantity)),
        _ => {
            let (price, _) = items[n]?;
            match price.source {
                None => Some(ItemChange::Quantity(n, quantity)),
                Some(_) => Some(ItemChange::Swap(n, unused(dice, interval, items, like)?, quantity)),
            }
        }
    }
}

fn resume(dice: &mut Dice) -> What {
    let anchor = if dice.one_in(2) { "now" } else { "unchanged" };
    What::Resume {
        anchor,
        behavior: *dice.of(&[Behavior::CreateProrations, Behavior::AlwaysInvoice, Behavior::None]),
    }
}

const PAUSES: [&str; 3] = ["keep_as_draft", "mark_uncollectible", "void"];

fn wild_change(dice: &mut Dice, at: Micros, trial: bool, thresholds: Thresholds) -> Option<What> {
    match dice.below(7) {
        0 => Some(What::TaxRates(
            (0..TAX_RATES.len()).filter(|_| dice.one_in(2)).collect(),
        )),
        1 if thresholds != Thresholds::None => Some(What::Threshold {
            amount_gte: dice.between(50, 700),
            resets: thresholds == Thresholds::Resetting,
        }),
        2 => Some(What::PauseCollection {
            behavior: PAUSES[dice.below(PAUSES.len())],
            resumes_at: dice.one_in(2).then(|| at + dice.between(DAY, 30 * DAY)),
        }),
        3 => Some(What::ResumeCollection),
        4 => Some(What::Pause),
        5 if !trial => Some(What::Anchor(*dice.of(&[
            Behavior::CreateProrations,
            Behavior::AlwaysInvoice,
            Behavior::None,
        ]))),
        _ => None,
    }
}
