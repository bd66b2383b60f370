//! Flights become events, and events are recorded in batches, as an import of history would.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use harness::{Error, Result};
use postgres::Client;
use serde_json::{Value, json};

use crate::flights::Flight;
use crate::screen::{Screen, grouped};

/// Flights to a call; each is up to four events.
pub const BATCH: usize = 5_000;
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub recorded: i64,
    pub duplicate: i64,
    pub rejected: i64,
}

/// The arguments of one call: parallel arrays.
#[derive(Default)]
struct Batch<'f> {
    event_names: Vec<&'f str>,
    customers: Vec<&'f str>,
    values: Vec<Option<i64>>,
    identifiers: Vec<String>,
    timestamps: Vec<DateTime<Utc>>,
    dimensions: Vec<Option<Value>>,
}

impl<'f> Batch<'f> {
    fn of(flights: &'f [Flight]) -> Self {
        let mut batch = Self::default();
        for flight in flights {
            batch.add(flight, "slots", Some(1), Some(json!({"airport": flight.airport})));
            // Without a tail number there is nothing to count, and the meter will say so.
            let tail_number = flight.tail_number.as_ref().map(|text| json!({"tail_number": text}));
            batch.add(flight, "aircraft", Some(1), tail_number);
            if flight.departed {
                batch.add(flight, "departures", Some(1), None);
                // A diverted flight flew, but nobody knows how far: an event without a value.
                batch.add(flight, "miles", flight.miles_flown, None);
            }
        }
        batch
    }

    fn add(&mut self, flight: &'f Flight, meter: &'f str, value: Option<i64>, dimensions: Option<Value>) {
        self.event_names.push(meter);
        self.customers.push(&flight.carrier);
        self.values.push(value);
        // One identifier serves all meters: each keeps its own.
        self.identifiers.push(flight.identifier());
        self.timestamps.push(flight.scheduled);
        self.dimensions.push(dimensions);
    }

    fn record(&self, client: &mut Client) -> Result<Outcome> {
        let counts = client.query_one(
            "SELECT * FROM billing.record_meter_events($1, $2, $3::int8[]::numeric[], $4, $5, $6)",
            &[
                &self.event_names,
                &self.customers,
                &self.values,
                &self.identifiers,
                &self.timestamps,
                &self.dimensions,
            ],
        )?;
        Ok(Outcome {
            recorded: counts.get("recorded"),
            duplicate: counts.get("duplicate"),
            rejected: counts.get("rejected"),
        })
    }
}

/// Records one batch; each call is a transaction.
pub fn record(client: &mut Client, flights: &[Flight]) -> Result<Outcome> {
    Batch::of(flights).record(client)
}

/// Records every flight, and says how fast.
pub fn import(client: &mut Client, flights: &[Flight], screen: &Screen) -> Result<Outcome> {
    client.batch_execute("SET billing.max_event_age = -1")?;
    let started = Instant::now();
    let mut sum = Outcome::default();
    let mut sent = 0;
    for batch in flights.chunks(BATCH) {
        let outcome = record(client, batch)?;
        sum.recorded += outcome.recorded;
        sum.duplicate += outcome.duplicate;
        sum.rejected += outcome.rejected;
        sent += batch.len();
        let events = sum.recorded + sum.duplicate + sum.rejected;
        let rate = events as f64 / started.elapsed().as_secs_f64();
        let what = format!("{:>9} events  {:>7}/s", grouped(events), grouped(rate as i64));
        screen.progress(sent, flights.len(), &what);
    }
    Ok(sum)
}

/// Waits until the background worker has folded everything into the buckets. It was never started by hand: creating the
/// extension did that.
pub fn await_worker(client: &mut Client) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while client
        .query_one("SELECT EXISTS (SELECT FROM billing.usage_pending)", &[])?
        .get(0)
    {
        if Instant::now() > deadline {
            let failure = client.query("SELECT last_error FROM billing.worker_jobs WHERE failing", &[])?;
            let why = failure.first().and_then(|row| row.get::<_, Option<String>>(0));
            let why = why.unwrap_or_else(|| "it reports no error".to_owned());
            return Err(Error::new(format!("the background worker does not keep up: {why}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
