//! What the database says against the independent count, figure by figure. A difference fails the demo.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use harness::{Context, Error, Result};
use postgres::Client;
use serde_json::Value;

use crate::catalog::{ALERTS, Alert, MONTHS, PRICES, month_start};
use crate::count::Count;
use crate::flights::Airline;
use crate::import::Outcome;
use crate::tariff;

const SHOWN: usize = 10;

/// Collects differences, so that the first does not hide the others.
#[derive(Default)]
pub struct Check {
    compared: i64,
    differences: Vec<String>,
}

impl Check {
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: impl FnOnce() -> String, found: &T, expected: &T) {
        self.compared += 1;
        if found != expected {
            self.differences
                .push(format!("{}: {found:?}, but the CSV says {expected:?}", what()));
        }
    }

    /// The number of figures that were compared, if all are equal.
    pub fn finish(self) -> Result<i64> {
        if self.differences.is_empty() {
            return Ok(self.compared);
        }
        let first: Vec<&str> = self.differences.iter().take(SHOWN).map(String::as_str).collect();
        Err(Error::new(format!(
            "{} of {} figures differ from the independent count:\n  {}",
            self.differences.len(),
            self.compared,
            first.join("\n  ")
        )))
    }

    pub fn import(&mut self, count: &Count, outcome: Outcome) {
        let expected = Outcome {
            recorded: count.recorded(),
            duplicate: 0,
            rejected: count.rejected(),
        };
        self.equal(|| "events".to_owned(), &outcome, &expected);
    }

    /// Every airline's usage by month and meter, and by airport for the meter that is split by it.
    pub fn usage(&mut self, client: &mut Client, airlines: &[Airline], count: &Count) -> Result<()> {
        for Airline { carrier, .. } in airlines {
            let year = count.year(carrier);
            for meter in PRICES.iter().filter_map(|price| price.meter) {
                let found = summaries(client, carrier, meter, None)?;
                self.months(
                    &format!("{meter} of {carrier}"),
                    &found,
                    year.each_ref().map(|month| month.of(meter)),
                );
            }
            for airport in count.airports(carrier) {
                let found = summaries(client, carrier, "slots", Some(airport))?;
                let expected = year
                    .each_ref()
                    .map(|month| month.slots.get(airport).copied().unwrap_or(0));
                self.months(&format!("slots of {carrier} at {airport}"), &found, expected);
            }
        }
        Ok(())
    }

    fn months(&mut self, what: &str, found: &[i64], expected: [i64; 12]) {
        self.equal(|| format!("{what}: months"), &found.len(), &expected.len());
        for ((month, found), expected) in MONTHS.iter().zip(found).zip(&expected) {
            self.equal(|| format!("{what} in {month}"), found, expected);
        }
    }

    /// Every invoice: its lines with quantity and amount, its total, its number.
    pub fn invoices(&mut self, client: &mut Client, airlines: &[Airline], count: &Count) -> Result<()> {
        let mut expected = BTreeMap::new();
        for Airline { carrier, .. } in airlines {
            for month in 0..=12 {
                expected.insert((carrier.clone(), month_start(month)?), lines_at(carrier, month, count)?);
            }
        }
        let mut found: BTreeMap<_, BTreeSet<Line>> = BTreeMap::new();
        let rows = client.query(
            "SELECT i.customer, i.created, l.price, l.period_start, l.period_end, l.quantity::text, l.amount
             FROM billing.invoices i JOIN billing.invoice_lines l ON l.invoice = i.id",
            &[],
        )?;
        for row in &rows {
            let line = (row.get(2), row.get(3), row.get(4), row.get(5), row.get(6));
            found.entry((row.get(0), row.get(1))).or_default().insert(line);
        }
        // A line that is there twice is one of the set, but two of the rows.
        self.equal(
            || "lines".to_owned(),
            &rows.len(),
            &expected.values().map(BTreeSet::len).sum(),
        );
        let none = BTreeSet::new();
        for (invoice, lines) in &expected {
            let there = found.get(invoice).unwrap_or(&none);
            let of = format!("the invoice of {} on {}", invoice.0, invoice.1);
            self.compared += lines.union(there).count() as i64;
            let missing = lines.difference(there).map(|line| format!("{of} lacks {line:?}"));
            let too_many = there
                .difference(lines)
                .map(|line| format!("{of} should not have {line:?}"));
            self.differences.extend(missing.chain(too_many));
        }
        let totals = client.query(
            "SELECT customer, created, total, amount_due, status FROM billing.invoices ORDER BY number",
            &[],
        )?;
        self.equal(|| "invoices".to_owned(), &totals.len(), &expected.len());
        for row in totals {
            let key: (String, DateTime<Utc>) = (row.get(0), row.get(1));
            let sum: i64 = expected.get(&key).into_iter().flatten().map(|line| line.4).sum();
            let found: (i64, i64, &str) = (row.get(2), row.get(3), row.get(4));
            self.equal(
                || format!("the invoice of {} on {}", key.0, key.1),
                &found,
                &(sum, sum, "open"),
            );
        }
        let numbers = client.query("SELECT number FROM billing.invoices ORDER BY number", &[])?;
        for (index, row) in numbers.iter().enumerate() {
            self.equal(
                || "invoice numbers without a gap".to_owned(),
                &row.get(0),
                &format!("INV-{:06}", index + 1),
            );
        }
        Ok(())
    }

    /// Alerts, as rows and as the listener heard them: usage only grew, so who ended at or above a threshold crossed it.
    pub fn alerts(&mut self, client: &mut Client, airlines: &[Airline], count: &Count, heard: &[Value]) -> Result<()> {
        let mut expected = BTreeSet::new();
        for alert in &ALERTS {
            let watched = airlines
                .iter()
                .filter(|airline| alert.customer.is_none_or(|only| only == airline.carrier));
            for Airline { carrier, .. } in watched {
                for start in crossings(alert, carrier, count)? {
                    expected.insert((alert.title.to_owned(), carrier.clone(), start));
                }
            }
        }
        let rows = client.query(
            "SELECT a.title, e.customer, e.period_start FROM billing.alert_events e JOIN billing.alerts a ON a.id = e.alert",
            &[],
        )?;
        let written: BTreeSet<_> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        self.equal(
            || "alerts written".to_owned(),
            &(rows.len(), &written),
            &(expected.len(), &expected),
        );
        let mut listened = BTreeSet::new();
        for alert in heard {
            let start = alert["period_start"]
                .as_str()
                .map(DateTime::parse_from_rfc3339)
                .transpose();
            let start = start
                .context(|| format!("no time in {alert}"))?
                .map(|start| start.to_utc());
            let text = |field: &str| alert[field].as_str().unwrap_or_default().to_owned();
            listened.insert((text("title"), text("customer"), start));
        }
        self.equal(
            || "alerts heard".to_owned(),
            &(heard.len(), &listened),
            &(expected.len(), &expected),
        );
        Ok(())
    }

    pub fn nothing_twice(&mut self, again: Outcome, invoices: i64) {
        self.equal(|| "events recorded twice".to_owned(), &again.recorded, &0);
        self.equal(|| "invoices made twice".to_owned(), &invoices, &0);
    }
}

fn summaries(client: &mut Client, carrier: &str, meter: &str, airport: Option<&str>) -> Result<Vec<i64>> {
    let dimensions = airport.map(|airport| serde_json::json!({"airport": airport}));
    let rows = client.query(
        "SELECT coalesce(aggregated_value, -1)::int8
         FROM billing.meter_event_summaries($1, $2, $3, $4, 'month', $5, 'America/New_York')",
        &[&meter, &carrier, &month_start(0)?, &month_start(12)?, &dimensions],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Price, service period, quantity, amount in cents.
type Line = (String, DateTime<Utc>, DateTime<Utc>, String, i64);

/// The lines of the invoice made when month `index` begins: the usage of the month before, the licensed items of this one.
fn lines_at(carrier: &str, index: usize, count: &Count) -> Result<BTreeSet<Line>> {
    let mut lines = BTreeSet::new();
    for price in &PRICES {
        let (quantity, period) = match (price.meter, index) {
            (None, _) => (count.airports(carrier).len() as i64, index),
            (Some(_), 0) => continue,
            (Some(meter), _) => (count.year(carrier)[index - 1].of(meter), index - 1),
        };
        let terms = serde_json::from_str(price.json).context(|| format!("{} is no JSON", price.id))?;
        let amount = tariff::amount(&terms, quantity)?;
        let [start, end] = [month_start(period)?, month_start(period + 1)?];
        lines.insert((price.id.to_owned(), start, end, quantity.to_string(), amount));
    }
    Ok(lines)
}

/// Starts of the periods in which `carrier` crosses the threshold; `None` for all time.
fn crossings(alert: &Alert, carrier: &str, count: &Count) -> Result<Vec<Option<DateTime<Utc>>>> {
    let year = count.year(carrier);
    let months = year.each_ref().map(|month| month.of(alert.event_name));
    if alert.recurrence == "one_time" {
        return Ok((months.iter().sum::<i64>() >= alert.gte)
            .then_some(None)
            .into_iter()
            .collect());
    }
    let crossed = (0..12).filter(|index| months[*index] >= alert.gte);
    crossed.map(|index| month_start(index).map(Some)).collect()
}
