//! Many events in one pass: checked, sorted as the index is, recorded once each, aggregated before they are queued.

use std::collections::HashSet;
use std::rc::Rc;

use super::check::{Clock, check};
use super::identity::{Identity, Numbered};
use super::meters::{self, Meter};
use super::pending::Pending;
use super::rejection::{self, Rejection};
use super::submitted::Submitted;
use crate::pg::error::Result;
use crate::pg::time::Micros;
use crate::worker;

/// Fewer are cheaper one by one than in a subtransaction; and a transaction of many small batches should not gather too many of these.
const WORTH_A_SUBTRANSACTION: usize = 64;
/// Also in at most 16 parts: beyond 64 subtransactions, others pay for looking at this transaction's rows.
const AT_ONCE: usize = 10_000;
const MOST_PARTS: usize = 16;

#[derive(Debug, Default)]
pub struct Counts {
    pub recorded: i64,
    pub duplicate: i64,
    pub rejected: i64,
}

impl Counts {
    pub fn row(self) -> (i64, i64, i64) {
        (self.recorded, self.duplicate, self.rejected)
    }
}

pub type Entry<'a> = std::result::Result<(Rc<Meter>, Submitted<'a>), Rejection>;

/// Records the good ones of a batch, and keeps the refused ones: `source` gives entry `i` as the client sent it, as JSON text.
pub fn record_all(entries: Vec<Entry>, source: impl Fn(usize) -> String) -> Result<Counts> {
    let clock = Clock::read();
    let mut seen = HashSet::new();
    let customers = entries
        .iter()
        .flatten()
        .filter_map(|(_, submitted)| submitted.customer)
        .filter(|customer| seen.insert(customer.text));
    let unknown = meters::unknown_customers(customers)?;
    let mut counts = Counts::default();
    let mut events = Vec::with_capacity(entries.len());
    for (i, entry) in entries.into_iter().enumerate() {
        let checked = entry.and_then(|(meter, submitted)| {
            check(
                submitted,
                &meter,
                |id| unknown.is_empty() || !unknown.contains(id),
                &clock,
            )
        });
        match checked {
            Ok(event) => events.push((i, event)),
            Err(refused) => {
                rejection::keep(&source(i), &refused)?;
                counts.rejected += 1;
            }
        }
    }
    counts.recorded = record(&events, clock.now)?;
    counts.duplicate = events.len() as i64 - counts.recorded;
    Ok(counts)
}

/// Records one event, or raises why not. `false`: recorded before.
pub fn record_one(meter: &Rc<Meter>, submitted: Submitted) -> Result<bool> {
    let clock = Clock::read();
    let known = match submitted.customer {
        Some(customer) => meters::customer_exists(customer)?,
        None => false,
    };
    let event = check(submitted, meter, |_| known, &clock)?;
    event.anticipate();
    let mut identity = Identity::open(clock.now)?;
    let recorded = identity.record(&event, clock.now)?;
    identity.close();
    if let Some(at) = recorded {
        let mut pending = Pending::default();
        pending.add(&event, at);
        pending.write()?;
    }
    worker::start_if_missing();
    Ok(recorded.is_some())
}

/// The number of events that were not recorded before.
fn record(events: &[Numbered], received_at: Micros) -> Result<i64> {
    if events.is_empty() {
        return Ok(0);
    }
    // In the order of the unique index: its pages are visited once, and two batches never wait for each other crosswise. Stable, so
    // of two events with one identity the first stays.
    let mut sorted: Vec<&Numbered> = events.iter().collect();
    sorted.sort_by_key(|(_, event)| {
        (
            event.customer.text,
            event.meter.event_name.as_str(),
            event.identifier.as_str(),
        )
    });
    let mut identity = Identity::open(received_at)?;
    let mut pending = Pending::default();
    let mut recorded = 0;
    for part in sorted.chunks(AT_ONCE.max(events.len().div_ceil(MOST_PARTS))) {
        let together = match part.len() {
            ..WORTH_A_SUBTRANSACTION => None,
            _ => identity.record_together(part, received_at)?,
        };
        for (n, (i, event)) in part.iter().enumerate() {
            let at = match &together {
                Some(together) => together[n],
                // "The latest received" of a batch is the last of the array.
                None => identity.record(event, received_at.saturating_add(*i as i64))?,
            };
            if let Some(at) = at {
                pending.add(event, at);
                recorded += 1;
            }
        }
    }
    identity.close();
    pending.write()?;
    worker::start_if_missing();
    Ok(recorded)
}
