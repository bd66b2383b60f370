//! What buckets must hold, counted from the events that clients sent, and what they do hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use chrono::{DateTime, Utc};
use postgres::{Client, Row};
use serde_json::{Value, json};

use super::catalog::{METERS, declared, formula, name};
use super::event::{DAY, Event, HOUR, Micros, in_thousandths, instant};
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    customer: String,
    meter: usize,
    width: Micros,
    start: Micros,
    dimensions: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.width == DAY { "day" } else { "hour" };
        let (meter, start) = (name(self.meter), instant(self.start));
        write!(f, "{} {meter} {width} {start} {}", self.customer, self.dimensions)
    }
}

/// Numbers are in thousandths. What an aggregation does not keep stays as it is here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    count: i128,
    sum: i128,
    time_sum: i128,
    max: Option<i128>,
    min: Option<i128>,
    last: Option<(Micros, Micros, String, i128)>,
    distinct: BTreeSet<String>,
}

pub type Buckets = HashMap<Key, State>;

/// Adds an event, as the server has received it, to the buckets of its hour and day.
pub fn add(buckets: &mut Buckets, event: &Event, at: Micros, received: Micros) {
    let value = i128::from(event.thousandths);
    let split: BTreeMap<&str, &String> = declared(event.meter)
        .iter()
        .filter_map(|key| Some((*key, event.dimensions.get(key)?)))
        .collect();
    for width in [HOUR, DAY] {
        let key = Key {
            customer: event.customer.to_owned(),
            meter: event.meter,
            width,
            start: at.div_euclid(width) * width,
            dimensions: json!(split).to_string(),
        };
        let state = buckets.entry(key).or_default();
        state.count += 1;
        match formula(event.meter) {
            "sum" => state.sum += value,
            "weighted_sum" => {
                state.sum += value;
                state.time_sum += value * i128::from(at);
            }
            "max" => state.max = state.max.max(Some(value)),
            "min" => state.min = Some(state.min.map_or(value, |least| least.min(value))),
            "last" => {
                let this = (at, received, event.identifier.clone(), value);
                if state.last.as_ref().is_none_or(|last| *last < this) {
                    state.last = Some(this);
                }
            }
            "unique_count" => state.distinct.extend(event.dimensions.get("seat").cloned()),
            _ => {}
        }
    }
}

/// Those aggregations from which a cancelled event is taken back at once; the others wait for a fold.
pub fn is_subtracted(meter: usize) -> bool {
    ["sum", "count", "weighted_sum"].contains(&formula(meter))
}

/// Buckets and queue together, of what is subtracted, by one statement.
pub fn with_pending(client: &mut Client) -> Result<Buckets> {
    let sql = "
        SELECT u.customer, u.event_name, u.width, u.start, u.dimensions, sum(u.event_count)::text AS event_count,
               sum(u.value_sum)::text AS value_sum, sum(u.value_time_sum)::text AS value_time_sum
        FROM (
            SELECT b.customer, b.event_name, b.width, b.start, b.dimensions, b.event_count, b.value_sum, b.value_time_sum
            FROM billing.usage_buckets b
            UNION ALL
            SELECT p.customer, p.event_name, w.width, date_trunc(w.width, p.hour, 'UTC'), p.dimensions, p.event_count, p.value_sum,
                   p.value_time_sum
            FROM billing.usage_pending p, (VALUES ('hour'), ('day')) AS w (width)
        ) u
        GROUP BY 1, 2, 3, 4, 5";
    let mut buckets = Buckets::new();
    for row in client.query(sql, &[])? {
        let key = key(&row)?;
        if is_subtracted(key.meter) {
            buckets.insert(key, sums(&row)?);
        }
    }
    Ok(buckets)
}

/// The buckets alone.
pub fn folded(client: &mut Client) -> Result<Buckets> {
    let sql = "
        SELECT customer, event_name, width, start, dimensions, event_count::text, value_sum::text, value_time_sum::text,
               value_max::text, value_min::text, last_value::text, last_timestamp, last_received_at, last_identifier
        FROM billing.usage_buckets";
    let mut buckets = Buckets::new();
    for row in client.query(sql, &[])? {
        let mut state = sums(&row)?;
        state.max = number(&row, "value_max")?;
        state.min = number(&row, "value_min")?;
        if let Some(value) = number(&row, "last_value")? {
            let time = |column: &str| row.get::<_, DateTime<Utc>>(column).timestamp_micros();
            state.last = Some((
                time("last_timestamp"),
                time("last_received_at"),
                row.get("last_identifier"),
                value,
            ));
        }
        buckets.insert(key(&row)?, state);
    }
    let sql = "SELECT customer, event_name, width, start, dimensions, value FROM billing.usage_distinct_values";
    for row in client.query(sql, &[])? {
        buckets.entry(key(&row)?).or_default().distinct.insert(row.get("value"));
    }
    Ok(buckets)
}

fn key(row: &Row) -> Result<Key> {
    let event_name: &str = row.get("event_name");
    let meter = (0..METERS).find(|meter| name(*meter) == event_name);
    Ok(Key {
        customer: row.get("customer"),
        meter: meter.ok_or_else(|| Error::new(format!("usage of a meter \"{event_name}\"")))?,
        width: if row.get::<_, &str>("width") == "day" {
            DAY
        } else {
            HOUR
        },
        start: row.get::<_, DateTime<Utc>>("start").timestamp_micros(),
        dimensions: row.get::<_, Value>("dimensions").to_string(),
    })
}

fn sums(row: &Row) -> Result<State> {
    Ok(State {
        count: number(row, "event_count")?.unwrap_or(0) / 1000,
        sum: number(row, "value_sum")?.unwrap_or(0),
        time_sum: number(row, "value_time_sum")?.unwrap_or(0),
        ..State::default()
    })
}

fn number(row: &Row, column: &str) -> Result<Option<i128>> {
    let text: Option<&str> = row.get(column);
    text.map(|text| {
        in_thousandths(text).ok_or_else(|| Error::new(format!("{column} {text} is no sum of what was sent")))
    })
    .transpose()
}

/// Where the two differ. A bucket of nothing is as good as none.
pub fn differences(expected: &Buckets, found: &Buckets, of: impl Fn(usize) -> bool) -> Vec<String> {
    let nothing = State::default();
    let mut differences = Vec::new();
    for (key, due) in expected.iter().filter(|(key, _)| of(key.meter)) {
        let told = found.get(key).unwrap_or(&nothing);
        if told != due {
            differences.push(format!("{key}: {told:?}, should be {due:?}"));
        }
    }
    for (key, told) in found.iter().filter(|(key, _)| of(key.meter)) {
        if !expected.contains_key(key) && *told != nothing {
            differences.push(format!("{key}: {told:?}, should be nothing"));
        }
    }
    differences.sort();
    differences
}
