//! What a history must come to: every invoice with its lines, and every customer's balance, worked out from the rules in integers, from
//! what had arrived at which run. Nothing here asks the extension for anything.

use std::collections::BTreeMap;

use super::calendar::period;
use super::prices::{Price, Source};
use super::story::{HOUR, History, Micros, Subscription};

/// billing.finalization_delay
pub const GRACE: Micros = HOUR;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub kind: &'static str,
    pub price: String,
    pub start: Micros,
    pub end: Micros,
    pub tenths: i64,
    pub amount: i64,
}

#[derive(Debug, Clone)]
pub struct Invoice {
    pub subscription: String,
    pub customer: usize,
    pub reason: &'static str,
    pub created: Micros,
    pub finalized_at: Option<Micros>,
    /// The run that finalized it; of those of a subscription's creation, the run after that.
    run: Option<usize>,
    pub lines: Vec<Line>,
    pub balances: Option<(i64, i64)>,
}

impl Invoice {
    pub fn total(&self) -> i64 {
        self.lines.iter().map(|line| line.amount).sum()
    }
}

/// Half away from zero; the numerator is not negative.
pub fn rounded(numerator: i128, denominator: i128) -> i64 {
    i64::try_from((2 * numerator + denominator) / (2 * denominator)).unwrap()
}

/// Usage never counts below zero.
pub fn usage(history: &History, customer: usize, source: Source, start: Micros, end: Micros, run: usize) -> i64 {
    let events = history.events.iter().filter(|event| {
        event.customer == customer && event.source == source && event.counts(run) && start <= event.at && event.at < end
    });
    let tenths = match source {
        Source::Sum => events.map(|event| event.tenths).sum(),
        Source::Count => 10 * i64::try_from(events.count()).unwrap(),
        Source::Max => events.map(|event| event.tenths).max().unwrap_or(0),
        Source::Last => events.max_by_key(|event| event.at).map_or(0, |event| event.tenths),
    };
    tenths.max(0)
}

/// One period of a subscription: its own bounds, and the whole one of which it may be a part; none in a trial.
pub struct Span {
    pub start: Micros,
    pub end: Micros,
    pub whole: Option<(Micros, Micros)>,
}

pub fn span(subscription: &Subscription, start: Micros) -> Span {
    let trial = subscription.trial_end.filter(|trial_end| start < *trial_end);
    let anchor = subscription
        .anchor
        .or(subscription.trial_end)
        .unwrap_or(subscription.start);
    let whole = period(anchor, subscription.items[0].0.interval, start);
    let end = trial.unwrap_or(whole.1);
    Span {
        start,
        end: subscription.cancel_at.map_or(end, |cancel_at| cancel_at.min(end)),
        whole: trial.is_none().then_some(whole),
    }
}

fn licensed(subscription: &Subscription, span: &Span) -> Vec<Line> {
    let part = span.end - span.start;
    let items = subscription.items.iter().filter(|(price, _)| price.source.is_none());
    items
        .map(|(price, quantity)| {
            let amount = price.thousandths(quantity * 10);
            let amount = match span.whole {
                None => 0,
                Some(whole) if whole == (span.start, span.end) => rounded(amount, 1000),
                Some((start, end)) if subscription.prorates => {
                    rounded(amount * i128::from(part), 1000 * i128::from(end - start))
                }
                // A stub before the first boundary is free, a period cut short costs all.
                Some((start, _)) if span.start > start => 0,
                Some(_) => rounded(amount, 1000),
            };
            Line {
                kind: "licensed",
                price: price.id(),
                start: span.start,
                end: span.end,
                tenths: quantity * 10,
                amount,
            }
        })
        .collect()
}

/// Every invoice in the order of its number, drafts last.
pub fn invoices(history: &History) -> Vec<Invoice> {
    let mut invoices: Vec<(usize, Invoice)> = Vec::new();
    for (place, subscription) in history.subscriptions.iter().enumerate() {
        invoices.extend(
            invoices_of(history, subscription)
                .into_iter()
                .map(|invoice| (place, invoice)),
        );
    }
    // What is charged at once is final when the subscription is created, before the run, in the order of creation.
    invoices.sort_by_key(|(place, invoice)| {
        let at_once = invoice.finalized_at == Some(invoice.created);
        (
            invoice.run.unwrap_or(usize::MAX),
            !at_once,
            invoice.finalized_at,
            *place,
            invoice.created,
        )
    });
    let mut balances = vec![0; history.customers];
    let mut invoices: Vec<Invoice> = invoices.into_iter().map(|(_, invoice)| invoice).collect();
    for invoice in invoices.iter_mut().filter(|invoice| invoice.run.is_some()) {
        let starting = balances[invoice.customer];
        let ending = (starting + invoice.total()).min(0);
        balances[invoice.customer] = ending;
        invoice.balances = Some((starting, ending));
    }
    invoices
}

fn invoices_of(history: &History, subscription: &Subscription) -> Vec<Invoice> {
    let mut invoices = Vec::new();
    // Created just before that run.
    let Some(made) = history.run_at(subscription.start) else {
        return invoices;
    };
    let mut add = |reason, created: Micros, finalized_at: Micros, run: Option<usize>, lines: Vec<Line>| {
        if !lines.is_empty() {
            invoices.push(Invoice {
                subscription: subscription.id.clone(),
                customer: subscription.customer,
                reason,
                created,
                finalized_at: run.map(|_| finalized_at),
                run,
                lines,
                balances: None,
            });
        }
    };
    let mut current = span(subscription, subscription.start);
    let first = licensed(subscription, &current);
    if subscription.sends_invoices {
        let finalized_at = subscription.start + GRACE;
        add(
            "subscription_create",
            subscription.start,
            finalized_at,
            history.run_at(finalized_at),
            first,
        );
    } else {
        add(
            "subscription_create",
            subscription.start,
            subscription.start,
            Some(made),
            first,
        );
    }

    let metered: Vec<&Price> = subscription
        .items
        .iter()
        .filter(|(price, _)| price.source.is_some())
        .map(|(price, _)| *price)
        .collect();
    // What each period of each price has been billed, in the order of items and periods.
    let mut billed: BTreeMap<(usize, Micros), (Micros, i64)> = BTreeMap::new();
    while let Some(made) = history.run_at(current.end) {
        let (start, end) = (current.start, current.end);
        let finalized_at = end + GRACE;
        let run = history.run_at(finalized_at);
        // A draft knows what there was when it was made.
        let known = run.unwrap_or(made);
        let rated = |price: &Price, start, end| {
            let tenths = usage(history, subscription.customer, price.source.unwrap(), start, end, known);
            (tenths, rounded(price.thousandths(tenths), 1000))
        };
        let line = |kind, price: &Price, start, end, tenths, amount| Line {
            kind,
            price: price.id(),
            start,
            end,
            tenths,
            amount,
        };
        let mut lines = Vec::new();
        for ((item, start), (end, billed)) in &mut billed {
            let (tenths, amount) = rated(metered[*item], *start, *end);
            if amount != *billed {
                lines.push(line(
                    "late_usage",
                    metered[*item],
                    *start,
                    *end,
                    tenths,
                    amount - *billed,
                ));
                *billed = amount;
            }
        }
        if current.whole.is_some() {
            for (item, price) in metered.iter().enumerate() {
                let (tenths, amount) = rated(price, start, end);
                lines.push(line("usage", price, start, end, tenths, amount));
                billed.insert((item, start), (end, amount));
            }
        }
        let ends =
            subscription.cancel_at_period_end || subscription.cancel_at.is_some_and(|cancel_at| cancel_at <= end);
        if !ends {
            current = span(subscription, end);
            lines.extend(licensed(subscription, &current));
        }
        lines.sort();
        add("subscription_cycle", end, finalized_at, run, lines);
        if ends {
            break;
        }
    }
    invoices
}
