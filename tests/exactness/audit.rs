//! The account at the end: what the database holds against what clients were told, event by event, and usage against a count
//! of those events.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::Value;

use super::board::Board;
use super::buckets::{self, Buckets};
use super::catalog::{CUSTOMERS, METERS, name};
use super::event::{Event, HOUR, Micros, World, in_thousandths};
use super::finding::{Finding, Kind};
use super::ledger::Ledger;
use super::question::Question;
use crate::error::{Error, Result};

/// Of one kind; the rest is only counted.
const SHOWN: usize = 5;

pub struct Audit<'a> {
    pub world: &'a World,
    pub board: &'a Board,
    pub ledger: &'a Ledger,
}

/// A row of `billing.meter_events`.
struct Row {
    at: Micros,
    received: Micros,
    cancelled: bool,
}

/// What clients know of one event.
#[derive(Debug, Default, Clone)]
struct Known {
    recorded: u32,
    batched: u32,
    seen: bool,
    unknown: bool,
    cancelled: u32,
    cancelled_before: bool,
    cancel_unknown: bool,
}

impl Known {
    fn must_be_there(&self) -> bool {
        self.recorded > 0 || self.batched > 0 || self.seen
    }

    fn may_be_there(&self) -> bool {
        self.recorded > 0 || self.batched > 0 || self.unknown
    }
}

impl Audit<'_> {
    /// All that is wrong. Nobody else may be recording. Folds what is pending.
    pub fn findings(&self, client: &mut Client) -> Result<Vec<Finding>> {
        let mut found = Found::default();
        let rows = self.account(client, &mut found)?;
        self.usage(client, &rows, &mut found)?;
        self.summaries(client, &mut found)?;
        self.verification(client, &mut found)?;
        self.worker(client, &mut found)?;
        Ok(found.into_findings())
    }

    /// What is wrong with the events, whatever was made of them.
    pub fn of_events(&self, client: &mut Client) -> Result<Vec<Finding>> {
        let mut found = Found::default();
        self.account(client, &mut found)?;
        Ok(found.into_findings())
    }

    /// What is wrong with the summaries of all customers and meters.
    pub fn of_summaries(&self, client: &mut Client) -> Result<Vec<Finding>> {
        let mut found = Found::default();
        self.summaries(client, &mut found)?;
        Ok(found.into_findings())
    }

    fn account(&self, client: &mut Client, found: &mut Found) -> Result<HashMap<u32, Row>> {
        let rows = self.rows(client, found)?;
        self.events(&rows, &self.known(), found);
        self.totals(client, &rows, found)?;
        self.partitions(client, found)?;
        Ok(rows)
    }

    fn rows(&self, client: &mut Client, found: &mut Found) -> Result<HashMap<u32, Row>> {
        let sql = "SELECT customer, event_name, identifier, value::text, \"timestamp\", received_at, dimensions, cancelled_at IS NOT NULL
                   FROM billing.meter_events";
        let until: DateTime<Utc> = client.query_one("SELECT clock_timestamp()", &[])?.get(0);
        let mut rows = HashMap::new();
        let none: [&str; 0] = [];
        let mut stored = client.query_raw(sql, none)?;
        while let Some(row) = stored.next()? {
            let identity: (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
            let Some(number) = self.world.number(identity.0, identity.1, identity.2) else {
                found.add(Kind::Unaccounted, || format!("nobody has sent {identity:?}"));
                continue;
            };
            let time = |column: usize| row.get::<_, DateTime<Utc>>(column).timestamp_micros();
            let (at, received) = (time(4), time(5));
            let event = self.world.event(number);
            let value = in_thousandths(row.get(3));
            let dimensions: Option<Value> = row.get(6);
            // Without a timestamp it is the transaction's start.
            let timely = event.at.map_or_else(
                || self.world.start - HOUR < at && at <= until.timestamp_micros(),
                |sent| sent == at,
            );
            if value != Some(i128::from(event.thousandths)) || dimensions != event.json() || !timely {
                found.add(Kind::Altered, || format!("{row:?} was sent as {event:?}"));
            }
            let cancelled = row.get(7);
            if rows
                .insert(
                    number,
                    Row {
                        at,
                        received,
                        cancelled,
                    },
                )
                .is_some()
            {
                found.add(Kind::Twice, || format!("in two rows: {event:?}"));
            }
        }
        Ok(rows)
    }

    fn known(&self) -> Vec<Known> {
        let mut known = vec![Known::default(); self.board.numbers()];
        let of = |number: &u32| *number as usize;
        let committed = &self.ledger.committed;
        committed
            .recorded
            .iter()
            .for_each(|number| known[of(number)].recorded += 1);
        committed
            .batched
            .iter()
            .for_each(|number| known[of(number)].batched += 1);
        committed
            .cancelled
            .iter()
            .for_each(|number| known[of(number)].cancelled += 1);
        self.ledger.seen.iter().for_each(|number| known[of(number)].seen = true);
        self.ledger
            .cancelled_before
            .iter()
            .for_each(|number| known[of(number)].cancelled_before = true);
        for told in &self.ledger.unknown {
            told.recorded
                .iter()
                .chain(&told.batched)
                .for_each(|number| known[of(number)].unknown = true);
            told.cancelled
                .iter()
                .for_each(|number| known[of(number)].cancel_unknown = true);
        }
        known
    }

    fn events(&self, rows: &HashMap<u32, Row>, known: &[Known], found: &mut Found) {
        for (number, known) in (0..).zip(known) {
            let row = rows.get(&number);
            let event = || format!("{known:?}: {:?}", self.world.event(number));
            if known.recorded > 1 || known.cancelled > 1 {
                found.add(Kind::Twice, || format!("acknowledged twice, {}", event()));
            }
            match row {
                None if known.must_be_there() => found.add(Kind::Lost, event),
                Some(_) if !known.may_be_there() => found.add(Kind::Unaccounted, event),
                Some(row) => {
                    let must_be = known.cancelled > 0 || known.cancelled_before;
                    let may_be = known.cancelled > 0 || known.cancel_unknown;
                    if (must_be && !row.cancelled) || (row.cancelled && !may_be) {
                        found.add(Kind::Cancellation, || {
                            format!("cancelled: {}, {}", row.cancelled, event())
                        });
                    }
                }
                None => {}
            }
        }
        for told in &self.ledger.unknown {
            let own = told
                .recorded
                .iter()
                .chain(&told.batched)
                .filter(|number| self.board.attempts(**number) == 1);
            let (there, gone): (Vec<u32>, Vec<u32>) = own.partition(|number| rows.contains_key(number));
            if !there.is_empty() && !gone.is_empty() {
                found.add(Kind::Torn, || {
                    format!("of one transaction {there:?} are there and {gone:?} are not")
                });
            }
        }
    }

    /// Batches say how many of their events they recorded, not which: with the rest accounted for one by one, the sum tells.
    fn totals(&self, client: &mut Client, rows: &HashMap<u32, Row>, found: &mut Found) -> Result<()> {
        let sql = "SELECT count(*) FROM billing.meter_event_rejections";
        let rejected: i64 = client.query_one(sql, &[])?.get(0);
        let unknown = |count: fn(&super::ledger::Told) -> u64| self.ledger.unknown.iter().map(count).sum::<u64>();
        let committed = &self.ledger.committed;
        for (what, there, least, more) in [
            ("events", rows.len() as u64, committed.rows, unknown(|told| told.rows)),
            (
                "rejections",
                rejected.unsigned_abs(),
                committed.rejected,
                unknown(|told| told.rejected),
            ),
        ] {
            if there < least || there > least + more {
                let kind = if there < least { Kind::Lost } else { Kind::Unaccounted };
                found.add(kind, || {
                    format!("{there} {what}, {least} acknowledged and {more} unknown")
                });
            }
        }
        Ok(())
    }

    fn partitions(&self, client: &mut Client, found: &mut Found) -> Result<()> {
        let sql = "
            WITH held AS (
                SELECT e.tableoid, count(*) AS events, min(e.\"timestamp\") AS least, max(e.\"timestamp\") AS greatest,
                       min(e.received_at) AS first, max(e.received_at) AS last
                FROM billing.meter_events e GROUP BY 1
            )
            SELECT p::text, h::text
            FROM billing.meter_event_partitions p
            FULL JOIN held h ON h.tableoid = to_regclass('billing.' || quote_ident(p.name))
            WHERE p.name IS NULL OR h.first < p.lower_bound OR h.last >= p.upper_bound
               OR p.sealed_at IS NOT NULL AND (p.event_count, p.min_timestamp, p.max_timestamp)
                                              IS DISTINCT FROM (coalesce(h.events, 0), h.least, h.greatest)
               OR EXISTS (SELECT FROM billing.meter_event_partitions o
                          WHERE o.name < p.name AND o.lower_bound < p.upper_bound AND p.lower_bound < o.upper_bound)";
        for row in client.query(sql, &[])? {
            let (partition, held): (Option<String>, Option<String>) = (row.get(0), row.get(1));
            found.add(Kind::Misplaced, || format!("partition {partition:?} holds {held:?}"));
        }
        Ok(())
    }

    fn usage(&self, client: &mut Client, rows: &HashMap<u32, Row>, found: &mut Found) -> Result<()> {
        let mut expected = Buckets::new();
        for (number, row) in rows.iter().filter(|(_, row)| !row.cancelled) {
            let event: Event = self.world.event(*number);
            buckets::add(&mut expected, &event, row.at, row.received);
        }
        let with_pending = buckets::with_pending(client)?;
        for difference in buckets::differences(&expected, &with_pending, buckets::is_subtracted) {
            found.add(Kind::Usage, || format!("buckets and queue: {difference}"));
        }
        client.batch_execute("SELECT billing.roll_up()")?;
        let left: i64 = client
            .query_one("SELECT count(*) FROM billing.usage_pending", &[])?
            .get(0);
        if left > 0 {
            found.add(Kind::Usage, || {
                format!("{left} rows are left in the queue after a roll-up")
            });
        }
        for difference in buckets::differences(&expected, &buckets::folded(client)?, |_| true) {
            found.add(Kind::Usage, || format!("buckets: {difference}"));
        }
        Ok(())
    }

    fn summaries(&self, client: &mut Client, found: &mut Found) -> Result<()> {
        for (meter, customer) in pairs() {
            let answer = Question::whole(self.world, meter, customer).ask(client);
            let (_, wrong) = answer.map_err(|stop| Error::new(format!("{} of {customer}: {stop:?}", name(meter))))?;
            if let Some(wrong) = wrong {
                found.add(Kind::Summary, || wrong);
            }
        }
        Ok(())
    }

    fn verification(&self, client: &mut Client, found: &mut Found) -> Result<()> {
        for (meter, customer) in pairs() {
            let sql = "SELECT v::text FROM billing.verify($1, $2, NULL, NULL) v";
            for row in client.query(sql, &[&name(meter), &customer])? {
                found.add(Kind::Verify, || {
                    format!("{} of {customer}: {}", name(meter), row.get::<_, &str>(0))
                });
            }
        }
        Ok(())
    }

    fn worker(&self, client: &mut Client, found: &mut Found) -> Result<()> {
        let sql = "SELECT concat_ws(' ', job, last_failure, last_error) FROM billing.worker_jobs WHERE failing OR last_failure IS NOT NULL";
        for row in client.query(sql, &[])? {
            found.add(Kind::Worker, || row.get(0));
        }
        Ok(())
    }
}

fn pairs() -> impl Iterator<Item = (usize, &'static str)> {
    (0..METERS).flat_map(|meter| CUSTOMERS.map(|customer| (meter, customer)))
}

#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    counts: HashMap<Kind, usize>,
}

impl Found {
    fn add(&mut self, kind: Kind, what: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= SHOWN {
            self.findings.push(Finding::new(kind, what()));
        }
    }

    fn into_findings(mut self) -> Vec<Finding> {
        for (kind, count) in self.counts.into_iter().filter(|(_, count)| *count > SHOWN) {
            self.findings
                .push(Finding::new(kind, format!("and {} more", count - SHOWN)));
        }
        self.findings
    }
}
