//! What a changing history must come to, worked out from the rules in integers. First what each invoice is made of: charges, credits for
//! unused time, and usage to be rated. Then, in the order in which invoices become final, their amounts. Nothing here asks the
//! extension for anything.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Months};

use super::super::model::{GRACE, Span, rounded, span, usage};
use super::super::prices::Price;
use super::super::story::{History, Micros, Subscription};
use super::story::{Behavior, COUPONS, Changing, Duration, ItemChange, Off, TAX_RATES, What};

const WHOLE: i128 = 1_000_000;

/// Half away from zero.
fn nearest(numerator: i128, denominator: i128) -> i64 {
    let amount = rounded(numerator.abs(), denominator);
    if numerator < 0 { -amount } else { amount }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub kind: &'static str,
    pub price: String,
    pub start: Micros,
    pub end: Micros,
    pub tenths: i64,
    pub amount: i64,
    pub discount: i64,
    pub credit: i64,
    pub tax: i64,
}

#[derive(Debug, Clone)]
pub struct Invoice {
    pub subscription: usize,
    pub reason: &'static str,
    pub created: Micros,
    pub finalized_at: Option<Micros>,
    pub lines: Vec<Line>,
    pub starting: i64,
    pub ending: i64,
}

impl Invoice {
    pub fn total(&self) -> i64 {
        let net = |line: &Line| line.amount - line.discount - line.credit + line.tax;
        self.lines.iter().map(net).sum()
    }
}

/// A time for which an item is billed by its usage at a price.
#[derive(Clone, Copy)]
struct Segment {
    item: usize,
    price: &'static Price,
    start: Micros,
    end: Micros,
    /// Its item was removed at the end of it.
    removed: bool,
}

/// What an invoice is made of before its usage is rated.
struct Draft {
    subscription: usize,
    reason: &'static str,
    created: Micros,
    at_once: bool,
    /// The run that makes it final; of what is final at once, the run after that.
    run: Option<usize>,
    /// The run whose usage it knows.
    known: usize,
    /// The run that makes it.
    made: usize,
    usage: Vec<Segment>,
    fixed: Vec<Line>,
}

/// What was charged for a licensed item. What is given back of it closes it from there on.
struct Charge {
    item: usize,
    price: &'static Price,
    tenths: i64,
    amount: i64,
    start: Micros,
    end: Micros,
    open_until: Micros,
    /// What was given back of it, and what that took back of its discounts once it was invoiced.
    given: i64,
    returned: (i64, i64),
    /// When its invoice was made; none while it waits.
    invoiced: Option<Micros>,
}

/// A line that waits for its invoice, and the charge that it gives back.
type Waiting = (Line, Option<usize>);

struct Item {
    price: &'static Price,
    quantity: i64,
    /// Since when its usage is billed at this price.
    since: Micros,
    removed: Option<Micros>,
}

/// A list of coupons since a time.
type Lists<'a> = Vec<(Micros, &'a [usize])>;

/// What the coupons in force when an invoice is made take off a line.
fn discount(lists: &[Lists], created: Micros, end: Micros, amount: i64) -> i64 {
    let mut rest = amount;
    // The first level that has any, of a subscription and then its customer.
    for list in lists {
        let Some((since, list)) = list.iter().rev().find(|(since, _)| *since <= created) else {
            continue;
        };
        let until = |coupon: usize| match COUPONS[coupon].duration {
            Duration::Months(months) => {
                let start = DateTime::from_timestamp_micros(*since).unwrap();
                Some((start + Months::new(months)).timestamp_micros())
            }
            _ => None,
        };
        let in_force: Vec<usize> = list
            .iter()
            .copied()
            .filter(|coupon| until(*coupon).is_none_or(|until| created < until || end <= until))
            .collect();
        for coupon in &in_force {
            if rest > 0 {
                rest -= match COUPONS[*coupon].off {
                    Off::Millionths(millionths) => nearest(i128::from(rest) * i128::from(millionths), WHOLE),
                    Off::Cents(cents) => unreachable!("{cents} off: by all lines"),
                };
            }
        }
        if !in_force.is_empty() {
            break;
        }
    }
    amount - rest
}

/// One subscription on its way from its start to its end.
struct Course<'a> {
    history: &'a History,
    subscription: &'a Subscription,
    place: usize,
    items: Vec<Item>,
    charges: Vec<Charge>,
    segments: Vec<Segment>,
    waiting: Vec<Waiting>,
    lists: [Lists<'a>; 2],
    current: Span,
    ends_with_period: bool,
    over: bool,
    drafts: Vec<Draft>,
}

impl<'a> Course<'a> {
    fn new(changing: &'a Changing, place: usize) -> Self {
        let subscription = &changing.history.subscriptions[place];
        let items = subscription.items.iter().map(|(price, quantity)| Item {
            price,
            quantity: *quantity,
            since: subscription.start,
            removed: None,
        });
        Self {
            history: &changing.history,
            subscription,
            place,
            items: items.collect(),
            charges: Vec::new(),
            segments: Vec::new(),
            waiting: Vec::new(),
            lists: [
                vec![(subscription.start, &changing.coupons[place])],
                vec![(0, &changing.customer_coupons[subscription.customer])],
            ],
            current: span(subscription, subscription.start),
            ends_with_period: subscription.cancel_at_period_end,
            over: false,
            drafts: Vec::new(),
        }
    }

    fn draft(
        &mut self,
        reason: &'static str,
        created: Micros,
        at_once: bool,
        usage: Vec<Segment>,
        fixed: Vec<Waiting>,
    ) {
        // The last one of a subscription may have nothing but what came late.
        if usage.is_empty() && fixed.is_empty() && reason != "subscription_cycle" {
            return;
        }
        let mut lines = Vec::new();
        for (mut line, gives_back) in fixed {
            line.discount = match gives_back {
                None => discount(&self.lists, created, line.end, line.amount),
                // What stays charged keeps its part of what is left of the discounts that the charge has on its own invoice.
                Some(n) => {
                    let charge = &mut self.charges[n];
                    let whole = discount(&self.lists, charge.invoiced.unwrap(), charge.end, charge.amount);
                    let (amount, left) = (charge.amount - charge.returned.0, whole - charge.returned.1);
                    let kept = match amount {
                        0 => 0,
                        _ => nearest(i128::from(left) * i128::from(amount + line.amount), i128::from(amount)),
                    };
                    charge.returned = (charge.returned.0 - line.amount, charge.returned.1 + left - kept);
                    kept - left
                }
            };
            lines.push(line);
        }
        let fixed = lines;
        let run = self.history.run_at(if at_once { created } else { created + GRACE });
        let made = self.history.run_at(created);
        if let Some(known) = run.or(made) {
            self.drafts.push(Draft {
                subscription: self.place,
                reason,
                created,
                at_once,
                run,
                known,
                made: made.unwrap_or(known),
                usage,
                fixed,
            });
        }
    }

    /// Licensed items in advance, for the period that begins.
    fn advance(&mut self, created: Micros) -> Vec<Waiting> {
        let Span { start, end, whole } = self.current;
        let mut lines = Vec::new();
        for (n, item) in self.items.iter().enumerate() {
            if item.price.source.is_some() || item.removed.is_some() {
                continue;
            }
            let amount = item.price.thousandths(item.quantity * 10);
            let amount = match whole {
                None => 0,
                Some(whole) if whole == (start, end) => rounded(amount, 1000),
                Some(whole) if self.subscription.prorates => {
                    rounded(amount * i128::from(end - start), 1000 * i128::from(whole.1 - whole.0))
                }
                // A stub before the first boundary is free, a period cut short costs all.
                Some(whole) if start > whole.0 => 0,
                Some(_) => rounded(amount, 1000),
            };
            self.charges.push(Charge {
                item: n,
                price: item.price,
                tenths: item.quantity * 10,
                amount,
                start,
                end,
                open_until: end,
                given: 0,
                returned: (0, 0),
                invoiced: Some(created),
            });
            let line = Line {
                kind: "licensed",
                price: item.price.id(),
                start,
                end,
                tenths: item.quantity * 10,
                amount,
                discount: 0,
                credit: 0,
                tax: 0,
            };
            lines.push((line, None));
        }
        lines
    }

    fn start(&mut self) {
        let start = self.subscription.start;
        let lines = self.advance(start);
        self.draft(
            "subscription_create",
            start,
            !self.subscription.sends_invoices,
            Vec::new(),
            lines,
        );
    }

    /// The usage that is billed when a period ends, in the order of items and time.
    fn usage_until(&mut self, until: Micros) -> Vec<Segment> {
        let mut usage = std::mem::take(&mut self.segments);
        if self.current.whole.is_some() {
            for (n, item) in self.items.iter().enumerate() {
                if item.price.source.is_some() && item.removed.is_none() {
                    usage.push(Segment {
                        item: n,
                        price: item.price,
                        start: item.since.max(self.current.start),
                        end: until,
                        removed: false,
                    });
                }
            }
        }
        usage.retain(|segment| segment.start < segment.end);
        usage.sort_by_key(|segment| (segment.item, segment.start));
        usage
    }

    /// Ends the periods that end by a time.
    fn go_on(&mut self, until: Micros) {
        while !self.over && self.current.end <= until && self.history.run_at(self.current.end).is_some() {
            let end = self.current.end;
            let usage = self.usage_until(end);
            let mut fixed = self.take_waiting(end);
            let cut = self.subscription.cancel_at.is_some_and(|cancel_at| cancel_at <= end);
            if cut || self.ends_with_period {
                self.over = true;
            } else {
                self.current = span(self.subscription, end);
                fixed.extend(self.advance(end));
            }
            self.draft("subscription_cycle", end, false, usage, fixed);
        }
    }

    fn take_waiting(&mut self, created: Micros) -> Vec<Waiting> {
        for charge in &mut self.charges {
            charge.invoiced.get_or_insert(created);
        }
        std::mem::take(&mut self.waiting)
    }

    /// What was really charged is given back for the time that is left of it.
    fn give_back(&mut self, item: usize, since: Micros) {
        for n in 0..self.charges.len() {
            let charge = &self.charges[n];
            let from = charge.start.max(since);
            if charge.item != item || from >= charge.open_until {
                continue;
            }
            let until = charge.open_until;
            let share = rounded(
                i128::from(charge.amount) * i128::from(until - from),
                i128::from(charge.end - charge.start),
            );
            let amount = -share.min(charge.amount - charge.given);
            if charge.amount != 0 {
                let line = Line {
                    kind: "unused_time",
                    price: charge.price.id(),
                    start: from,
                    end: until,
                    tenths: charge.tenths,
                    amount,
                    discount: 0,
                    credit: 0,
                    tax: 0,
                };
                self.waiting.push((line, Some(n)));
            }
            self.charges[n].given -= amount;
            self.charges[n].open_until = from;
        }
    }

    fn charge(&mut self, n: usize, since: Micros) {
        let item = &self.items[n];
        let end = self.current.end;
        // A trial is free.
        let Some(whole) = self.current.whole else { return };
        if item.price.source.is_some() || since >= end {
            return;
        }
        let amount = rounded(
            item.price.thousandths(item.quantity * 10) * i128::from(end - since),
            1000 * i128::from(whole.1 - whole.0),
        );
        if item.quantity == 0 && amount == 0 {
            return;
        }
        // What was charged before it and was not given back is used up.
        for charge in self.charges.iter_mut().filter(|charge| charge.item == n) {
            charge.open_until = charge.open_until.min(since.max(charge.start));
        }
        self.charges.push(Charge {
            item: n,
            price: item.price,
            tenths: item.quantity * 10,
            amount,
            start: since,
            end,
            open_until: end,
            given: 0,
            returned: (0, 0),
            invoiced: None,
        });
        let line = Line {
            kind: "licensed",
            price: item.price.id(),
            start: since,
            end,
            tenths: item.quantity * 10,
            amount,
            discount: 0,
            credit: 0,
            tax: 0,
        };
        self.waiting.push((line, None));
    }

    /// What an item has used at its price until now is billed by itself.
    fn close(&mut self, n: usize, at: Micros, removed: bool) -> Option<Segment> {
        let item = &mut self.items[n];
        let start = item.since.max(self.current.start);
        item.since = at;
        let segment = Segment {
            item: n,
            price: item.price,
            start,
            end: at,
            removed,
        };
        (item.price.source.is_some() && self.current.whole.is_some() && start < at).then_some(segment)
    }

    fn change(&mut self, at: Micros, changes: &[ItemChange], behavior: Behavior, since: Micros) {
        let mut anew = Vec::new();
        for change in changes {
            let (n, terms) = match *change {
                ItemChange::Add(price, quantity) => {
                    self.items.push(Item {
                        price,
                        quantity,
                        since: at,
                        removed: None,
                    });
                    anew.push(self.items.len() - 1);
                    continue;
                }
                ItemChange::Quantity(n, quantity) => {
                    if self.items[n].quantity == quantity {
                        continue;
                    }
                    (n, Some((self.items[n].price, quantity)))
                }
                ItemChange::Swap(n, price, quantity) => (n, Some((price, quantity))),
                ItemChange::Remove(n) => (n, None),
            };
            if self.items[n].price.source.is_some() {
                let segment = self.close(n, at, terms.is_none());
                self.segments.extend(segment);
            } else if behavior != Behavior::None {
                self.give_back(n, since);
            }
            match terms {
                Some((price, quantity)) => {
                    let item = &mut self.items[n];
                    (item.price, item.quantity, item.since) = (price, quantity, at);
                    anew.push(n);
                }
                None => self.items[n].removed = Some(at),
            }
        }
        if behavior == Behavior::None {
            return;
        }
        anew.sort_unstable();
        for n in anew {
            self.charge(n, since);
        }
        if behavior == Behavior::AlwaysInvoice {
            // What was removed just now is billed with it.
            let (mut usage, others): (Vec<Segment>, Vec<Segment>) = self
                .segments
                .iter()
                .partition(|segment| segment.removed && segment.end == at);
            self.segments = others;
            usage.sort_by_key(|segment| (segment.item, segment.start));
            let fixed = self.take_waiting(at);
            self.draft("subscription_update", at, true, usage, fixed);
        }
    }

    fn cancel(&mut self, at: Micros, prorate: bool, invoice_now: bool) {
        if prorate {
            for n in 0..self.items.len() {
                if self.items[n].removed.is_none() && self.items[n].price.source.is_none() {
                    self.give_back(n, at);
                }
            }
        }
        let usage = self.usage_until(at);
        let fixed = self.take_waiting(at);
        self.over = true;
        self.draft("subscription_cycle", at, invoice_now, usage, fixed);
    }
}

impl<'a> Course<'a> {
    fn run(mut self, changing: &'a Changing) -> (Vec<Draft>, [Lists<'a>; 2]) {
        if self.history.run_at(self.subscription.start).is_none() {
            return (Vec::new(), self.lists);
        }
        self.start();
        let place = self.place;
        for change in changing.changes.iter().filter(|change| change.subscription == place) {
            match &change.what {
                What::Coupons(list) => self.lists[0].push((change.at, list)),
                what => {
                    self.go_on(change.at);
                    match what {
                        What::Items { items, behavior, since } => {
                            self.change(change.at, items, *behavior, since.unwrap_or(change.at));
                        }
                        What::Cancel { prorate, invoice_now } => self.cancel(change.at, *prorate, *invoice_now),
                        What::CancelAtPeriodEnd => self.ends_with_period = true,
                        _ => unreachable!("wild"),
                    }
                }
            }
        }
        self.go_on(Micros::MAX);
        (self.drafts, self.lists)
    }
}

/// What has been billed of the usage of an item at a price since a time.
struct Billed {
    price: &'static Price,
    end: Micros,
    amount: i64,
    discount: i64,
    credit: i64,
}

/// Subscription, item, start and price.
type Key = (usize, usize, Micros, String);

struct Books<'a> {
    changing: &'a Changing,
    lists: Vec<[Lists<'a>; 2]>,
    billed: BTreeMap<Key, Billed>,
    /// What is left of each grant.
    grants: Vec<i64>,
    balances: Vec<i64>,
}

impl Books<'_> {
    /// An invoice with its usage as it is known when it becomes final, what came late for those before it, and what is taken off and
    /// put on.
    fn rate(&mut self, draft: Draft, takes_late: bool) -> Option<Invoice> {
        let history = &self.changing.history;
        let customer = history.subscriptions[draft.subscription].customer;
        if draft.usage.is_empty() && draft.fixed.is_empty() {
            let came_late = self.billed.iter().any(|(key, billed)| {
                let source = billed.price.source.unwrap();
                let tenths = usage(history, customer, source, key.2, billed.end, draft.made);
                key.0 == draft.subscription && rounded(billed.price.thousandths(tenths), 1000) != billed.amount
            });
            if !(takes_late && came_late) {
                return None;
            }
        }
        let line = |kind, price: &Price, start, end, billed: i64| {
            let tenths = usage(history, customer, price.source.unwrap(), start, end, draft.known);
            let amount = rounded(price.thousandths(tenths), 1000) - billed;
            let mut line = Line {
                kind,
                price: price.id(),
                start,
                end,
                tenths,
                amount,
                discount: 0,
                credit: 0,
                tax: 0,
            };
            if amount > 0 {
                line.discount = discount(&self.lists[draft.subscription], draft.created, end, amount);
            }
            line
        };
        // Each with the price of its usage, in the order in which credit pays for them.
        let mut lines: Vec<(Option<(Key, &'static Price)>, Line)> = Vec::new();
        for segment in &draft.usage {
            let key = (draft.subscription, segment.item, segment.start, segment.price.id());
            let line = line("usage", segment.price, segment.start, segment.end, 0);
            lines.push((Some((key, segment.price)), line));
        }
        lines.extend(draft.fixed.iter().map(|line| (None, line.clone())));
        if takes_late {
            for (key, billed) in self.billed.iter().filter(|(key, _)| key.0 == draft.subscription) {
                let mut line = line("late_usage", billed.price, key.2, billed.end, billed.amount);
                if line.amount < 0 {
                    // What stays billed keeps its part of the discounts, and of the rest its part of the credit.
                    let kept = i128::from(billed.amount + line.amount);
                    let discount = nearest(i128::from(billed.discount) * kept, i128::from(billed.amount));
                    let charged = billed.amount - billed.discount;
                    let credit = match charged {
                        0 => 0,
                        _ => nearest(
                            i128::from(billed.credit) * (kept - i128::from(discount)),
                            i128::from(charged),
                        ),
                    };
                    line.discount = discount - billed.discount;
                    line.credit = credit - billed.credit;
                }
                if line.amount != 0 {
                    lines.push((Some((key.clone(), billed.price)), line));
                }
            }
        }
        let finalized_at = draft.run.map(|_| {
            if draft.at_once {
                draft.created
            } else {
                draft.created + GRACE
            }
        });
        self.pay(&draft, customer, &mut lines);
        for (key, line) in &mut lines {
            let rest = line.amount - line.discount - line.credit;
            line.tax = self.changing.tax_rates[draft.subscription]
                .iter()
                .map(|rate| nearest(i128::from(rest) * i128::from(TAX_RATES[*rate]), WHOLE))
                .sum();
            if let Some((key, price)) = key.take() {
                let billed = self.billed.entry(key).or_insert(Billed {
                    price,
                    end: line.end,
                    amount: 0,
                    discount: 0,
                    credit: 0,
                });
                billed.amount += line.amount;
                billed.discount += line.discount;
                billed.credit += line.credit;
            }
        }
        let mut lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
        lines.sort();
        let mut invoice = Invoice {
            subscription: draft.subscription,
            reason: draft.reason,
            created: draft.created,
            finalized_at,
            lines,
            starting: 0,
            ending: 0,
        };
        if draft.run.is_some() {
            invoice.starting = self.balances[customer];
            invoice.ending = (invoice.starting + invoice.total()).min(0);
            self.balances[customer] = invoice.ending;
        }
        Some(invoice)
    }

    /// Credit pays for usage, grant after grant and line after line: no more than the usage comes to, or the invoice.
    fn pay(&mut self, draft: &Draft, customer: usize, lines: &mut [(Option<(Key, &'static Price)>, Line)]) {
        let known = if draft.at_once {
            draft.created
        } else {
            draft.created + GRACE
        };
        let mut order: Vec<usize> = (0..self.grants.len())
            .filter(|n| {
                let grant = &self.changing.grants[*n];
                grant.customer == customer
                    && grant.created <= known
                    && grant.effective_at <= draft.created
                    && grant.expires_at.is_none_or(|expires_at| draft.created < expires_at)
            })
            .collect();
        order.sort_by_key(|n| {
            let grant = &self.changing.grants[*n];
            (
                grant.priority,
                grant.expires_at.is_none(),
                grant.expires_at,
                grant.effective_at,
                grant.created,
            )
        });
        // What comes back with usage that is given back is for later invoices.
        let mut back = vec![0; self.grants.len()];
        let rest = |line: &Line| line.amount - line.discount - line.credit;
        for (n, grant) in self
            .changing
            .grants
            .iter()
            .enumerate()
            .filter(|(_, grant)| grant.customer == customer)
        {
            let expired = grant.expires_at.is_some_and(|expires_at| expires_at <= known);
            let given = lines
                .iter()
                .filter(|(of, line)| line.credit < 0 && of.as_ref().is_some_and(|(_, price)| grant.pays_for(price)));
            back[n] = if expired {
                0
            } else {
                given.map(|(_, line)| -line.credit).sum()
            };
        }
        for n in order {
            let grant = &self.changing.grants[n];
            let pays = |of: &Option<(Key, &'static Price)>| of.as_ref().is_some_and(|(_, price)| grant.pays_for(price));
            let usage: i64 = lines
                .iter()
                .filter(|(of, _)| pays(of))
                .map(|(_, line)| rest(line))
                .sum();
            let all: i64 = lines.iter().map(|(_, line)| rest(line)).sum();
            let mut room = self.grants[n].min(usage).min(all);
            for (_, line) in lines.iter_mut().filter(|(of, _)| pays(of)) {
                let paid = room.min(rest(line)).max(0);
                line.credit += paid;
                room -= paid;
                if draft.run.is_some() {
                    self.grants[n] -= paid;
                }
            }
        }
        if draft.run.is_some() {
            for (left, back) in std::iter::zip(&mut self.grants, back) {
                *left += back;
            }
        }
    }
}

/// Every invoice in the order of its number, drafts last.
pub fn invoices(changing: &Changing) -> Vec<Invoice> {
    let mut drafts = Vec::new();
    let mut lists = Vec::new();
    for place in 0..changing.history.subscriptions.len() {
        let (made, of) = Course::new(changing, place).run(changing);
        drafts.extend(made);
        lists.push(of);
    }
    // What is final at once is so before the run, in the order of what happened; and before it, unless there is nothing on it, the drafts
    // of its subscription whose grace is over by then.
    let at_once: Vec<(usize, Option<usize>, Micros)> = drafts
        .iter()
        .filter(|draft| draft.at_once && !(draft.usage.is_empty() && draft.fixed.is_empty()))
        .map(|draft| (draft.subscription, draft.run, draft.created))
        .collect();
    let moment = |draft: &Draft| {
        let after = at_once.iter().filter(|(subscription, run, at)| {
            (*subscription, *run) == (draft.subscription, draft.run) && draft.created + GRACE <= *at
        });
        if draft.at_once {
            Some(draft.created)
        } else {
            after.map(|(.., at)| *at).min()
        }
    };
    drafts.sort_by_key(|draft| {
        let moment = moment(draft);
        (
            draft.run.unwrap_or(usize::MAX),
            moment.is_none(),
            moment,
            draft.at_once,
            draft.created,
            draft.subscription,
        )
    });
    let mut drafts = VecDeque::from(drafts);
    let mut books = Books {
        changing,
        lists,
        billed: BTreeMap::new(),
        grants: changing.grants.iter().map(|grant| grant.amount).collect(),
        balances: vec![0; changing.history.customers],
    };
    let mut invoices = Vec::new();
    while let Some(draft) = drafts.pop_front() {
        // What came late is on the first invoice that is not final yet, also when a later one is final sooner.
        let earlier = |other: &Draft| other.subscription == draft.subscription && other.created < draft.created;
        let takes_late = draft.reason == "subscription_cycle" && !drafts.iter().any(earlier);
        invoices.extend(books.rate(draft, takes_late));
    }
    invoices
}
