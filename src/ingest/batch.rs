//! Many events in one pass: checked, sorted as the index is, recorded once each, aggregated before they are queued.

use std::collections::{HashMap, HashSet};

use super::check::{Clock, Event, check};
use super::identity::Identity;
use super::meters::{Meter, known_customers};
use super::pending::{Pending, jsonb};
use super::rejection::{self, Code, Rejection, reject};
use super::submitted::Submitted;
use crate::pg::error::Result;
use crate::pg::leaf::Tuple;
use crate::pg::numeric::from_decimal;
use crate::pg::spi::{Arg, arg};
use crate::pg::time::Micros;
use crate::worker;

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

pub type Entry = std::result::Result<Submitted, Rejection>;

pub fn no_meter(event_name: &str) -> Rejection {
    let name: String = event_name.chars().take(100).collect();
    Rejection {
        code: Code::NoMeter,
        message: format!("no meter has the event name \"{name}\""),
    }
}

/// Records the good ones of a batch, and keeps the refused ones: `source` gives entry `i` as the client sent it, as JSON text.
pub fn record_all(
    entries: Vec<Entry>,
    meters: &HashMap<String, Meter>,
    source: impl Fn(usize) -> String,
) -> Result<Counts> {
    let clock = Clock::read();
    let customers = known_customers(
        entries
            .iter()
            .flatten()
            .filter_map(|submitted| submitted.customer.as_deref())
            .collect::<HashSet<&str>>(),
    )?;
    let mut counts = Counts::default();
    let mut events = Vec::with_capacity(entries.len());
    for (i, entry) in entries.into_iter().enumerate() {
        match entry.and_then(|submitted| check_one(submitted, meters, &customers, &clock)) {
            Ok(event) => events.push((i, event)),
            Err(refused) => {
                rejection::keep(&source(i), &refused)?;
                counts.rejected += 1;
            }
        }
    }
    let taken = events.len() as i64;
    counts.recorded = record(events, meters, &clock)?;
    counts.duplicate = taken - counts.recorded;
    Ok(counts)
}

/// Records one event, or raises why not. `false`: recorded before.
pub fn record_one(submitted: Submitted, meters: &HashMap<String, Meter>) -> Result<bool> {
    let clock = Clock::read();
    let customers = known_customers(submitted.customer.as_deref().into_iter().collect())?;
    let event = check_one(submitted, meters, &customers, &clock)?;
    Ok(record(vec![(0, event)], meters, &clock)? == 1)
}

fn check_one(
    submitted: Submitted,
    meters: &HashMap<String, Meter>,
    customers: &HashSet<String>,
    clock: &Clock,
) -> std::result::Result<Event, Rejection> {
    match meters.get(&submitted.event_name) {
        Some(meter) => check(submitted, meter, |id| customers.contains(id), clock),
        None => reject(Code::NoMeter, no_meter(&submitted.event_name).message),
    }
}

/// The number of events that were not recorded before.
fn record(mut events: Vec<(usize, Event)>, meters: &HashMap<String, Meter>, clock: &Clock) -> Result<i64> {
    if events.is_empty() {
        return Ok(0);
    }
    // In the order of the unique index: its pages are visited once, and two batches never wait for each other crosswise. Stable, so
    // of two events with one identity the first stays.
    events.sort_by(|(_, a), (_, b)| {
        (&a.customer, &a.event_name, &a.identifier).cmp(&(&b.customer, &b.event_name, &b.identifier))
    });
    let mut identity = Identity::open()?;
    let mut pending = Pending::default();
    let mut recorded = 0;
    for (i, event) in &events {
        let Some(meter) = meters.get(&event.event_name) else {
            continue;
        };
        let fixed = fixed_columns(event)?;
        // "The latest received" of a batch is the last of the array.
        let received_at = clock.now.saturating_add(*i as i64);
        if let Some(received_at) = identity.record(event, received_at, |at| tuple(&fixed, event, at))? {
            pending.add(event, meter, received_at);
            recorded += 1;
        }
    }
    identity.close();
    pending.write()?;
    worker::start_if_missing();
    Ok(recorded)
}

/// The columns that do not depend on when the event is received.
fn fixed_columns(event: &Event) -> Result<[Arg; 5]> {
    let dimensions = if event.dimensions.is_empty() {
        None
    } else {
        arg(jsonb(&event.dimensions)?)
    };
    Ok([
        arg(event.customer.as_str()),
        arg(event.event_name.as_str()),
        arg(event.identifier.as_str()),
        arg(from_decimal(&event.value)?),
        dimensions,
    ])
}

fn tuple(fixed: &[Arg; 5], event: &Event, received_at: Micros) -> Tuple {
    let [customer, event_name, identifier, value, dimensions] = *fixed;
    [
        customer,
        event_name,
        identifier,
        value,
        Some(event.timestamp.datum()),
        Some(received_at.datum()),
        dimensions,
    ]
}
