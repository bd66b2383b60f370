//! The SQL functions that record events; declared in `sql/record.sql`.

use std::collections::{HashMap, HashSet};

use pgrx::AnyNumeric;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::batch::{Entry, no_meter, record_all, record_one};
use super::meters::{self, Meter};
use super::rejection::{Code, Rejection};
use super::stripe_event;
use super::submitted::{Dimensions, Submitted, SubmittedValue, dimensions};
use crate::pg::error::{Result, error, null_argument, required};
use crate::pg::numeric::to_decimal;
use crate::pg::text::{JsonText, Text};
use crate::pg::time::Micros;

#[pg_extern(sql = false)]
fn record_meter_event(
    event_name: Option<Text>,
    customer: Option<Text>,
    value: Option<AnyNumeric>,
    identifier: Option<Text>,
    timestamp: Option<TimestampWithTimeZone>,
    dimensions: Option<JsonText>,
) -> Result<bool> {
    let event_name = required("event_name", event_name)?.0;
    let meters = meters::load(HashSet::from([event_name.as_str()]))?;
    if !meters.contains_key(&event_name) {
        return Err(no_meter(&event_name).into());
    }
    let submitted = typed(event_name, customer, value, identifier, timestamp, dimensions)?;
    record_one(submitted, &meters)
}

#[pg_extern(sql = false)]
fn record_meter_events_json(
    events: Option<JsonText>,
) -> Result<TableIterator<'static, (name!(recorded, i64), name!(duplicate, i64), name!(rejected, i64))>> {
    let sent = required("events", events)?.0;
    let sources = split(&sent)?;
    // Each event is parsed on its own, so that one that cannot be parsed is refused alone.
    let events: Vec<Option<Value>> = sources.iter().map(|source| serde_json::from_str(source).ok()).collect();
    let meters = meters::load(events.iter().flatten().filter_map(stripe_event::event_name).collect())?;
    let entries = events.iter().map(|event| read(event.as_ref(), &meters)).collect();
    Ok(TableIterator::once(
        record_all(entries, &meters, |i| sources[i].to_owned())?.row(),
    ))
}

/// The text of each event of an array, or of the one event.
fn split(sent: &str) -> Result<Vec<&str>> {
    match sent.as_bytes().first() {
        Some(b'{') => Ok(vec![sent]),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(sent)
            .map(|events| events.into_iter().map(RawValue::get).collect())
            .map_err(|problem| {
                error(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("events cannot be read: {problem}"),
                )
            }),
        _ => Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("events must be a meter event object or an array of them, not {sent:.100}"),
        )
        .set_hint("An event is {\"event_name\": …, \"payload\": {…}, \"identifier\": …, \"timestamp\": …}.")),
    }
}

fn read(event: Option<&Value>, meters: &HashMap<String, Meter>) -> Entry {
    let refused = |code, message: String| Err(Rejection { code, message });
    let Some(event) = event else {
        return refused(Code::InvalidEvent, "the event is nested too deeply".into());
    };
    match stripe_event::event_name(event) {
        Some(event_name) => match meters.get(event_name) {
            Some(meter) => stripe_event::read(event, meter),
            None => Err(no_meter(event_name)),
        },
        None if event.is_object() => refused(Code::NoMeter, "field \"event_name\" is missing or not a text".into()),
        None => refused(Code::InvalidEvent, format!("not an object: {event:.100}")),
    }
}

#[pg_extern(sql = false)]
fn record_meter_events_arrays(
    event_names: Option<Vec<Option<Text>>>,
    customers: Option<Vec<Option<Text>>>,
    values: Option<Vec<Option<AnyNumeric>>>,
    identifiers: Option<Vec<Option<Text>>>,
    timestamps: Option<Vec<Option<TimestampWithTimeZone>>>,
    dimensions: Option<Vec<Option<JsonText>>>,
) -> Result<TableIterator<'static, (name!(recorded, i64), name!(duplicate, i64), name!(rejected, i64))>> {
    let event_names = required("event_names", event_names)?;
    let count = event_names.len();
    let columns = Columns {
        customers: column("customers", customers.ok_or_else(|| null_argument("customers"))?, count)?,
        values: column("values", values.ok_or_else(|| null_argument("values"))?, count)?,
        identifiers: optional_column("identifiers", identifiers, count)?,
        timestamps: optional_column("timestamps", timestamps, count)?,
        dimensions: optional_column("dimensions", dimensions, count)?,
        event_names,
    };
    let meters = meters::load(
        columns
            .event_names
            .iter()
            .flatten()
            .map(|name| name.0.as_str())
            .collect(),
    )?;
    let entries = (0..count).map(|i| columns.entry(i)).collect();
    Ok(TableIterator::once(
        record_all(entries, &meters, |i| columns.source(i))?.row(),
    ))
}

/// Parallel arrays of one length.
struct Columns {
    event_names: Vec<Option<Text>>,
    customers: Vec<Option<Text>>,
    values: Vec<Option<AnyNumeric>>,
    identifiers: Vec<Option<Text>>,
    timestamps: Vec<Option<TimestampWithTimeZone>>,
    dimensions: Vec<Option<JsonText>>,
}

impl Columns {
    fn entry(&self, i: usize) -> Entry {
        let Some(event_name) = &self.event_names[i] else {
            return Err(Rejection {
                code: Code::NoMeter,
                message: "the event name is null".into(),
            });
        };
        typed(
            event_name.0.clone(),
            self.customers[i].clone(),
            self.values[i].clone(),
            self.identifiers[i].clone(),
            self.timestamps[i],
            self.dimensions[i].clone(),
        )
    }

    /// The event as a rejection keeps it.
    fn source(&self, i: usize) -> String {
        json!({
            "event_name": self.event_names[i].as_ref().map(|text| &text.0),
            "customer": self.customers[i].as_ref().map(|text| &text.0),
            "value": self.values[i].as_ref().map(AnyNumeric::to_string),
            "identifier": self.identifiers[i].as_ref().map(|text| &text.0),
            "timestamp": self.timestamps[i].map(|at| at.to_string()),
            "dimensions": self.dimensions[i].as_ref().map(|given| parsed(given).unwrap_or_else(|| json!(given.0))),
        })
        .to_string()
    }
}

fn column<T>(name: &str, values: Vec<T>, count: usize) -> Result<Vec<T>> {
    if values.len() == count {
        return Ok(values);
    }
    let message = format!(
        "argument \"{name}\" has {} elements, but \"event_names\" has {count}",
        values.len()
    );
    Err(error(PgSqlErrorCode::ERRCODE_ARRAY_ELEMENT_ERROR, message).set_hint("Give every array one element an event."))
}

fn optional_column<T>(name: &str, values: Option<Vec<Option<T>>>, count: usize) -> Result<Vec<Option<T>>> {
    match values {
        Some(values) => column(name, values, count),
        None => Ok(std::iter::repeat_with(|| None).take(count).collect()),
    }
}

fn typed(
    event_name: String,
    customer: Option<Text>,
    value: Option<AnyNumeric>,
    identifier: Option<Text>,
    timestamp: Option<TimestampWithTimeZone>,
    given: Option<JsonText>,
) -> Entry {
    let value = match value {
        None => SubmittedValue::Missing,
        Some(value) => match to_decimal(&value) {
            Some(decimal) => SubmittedValue::Number(decimal),
            None => SubmittedValue::NotANumber(value.to_string()),
        },
    };
    let dimensions = match given.as_ref().map(|given| parsed(given).ok_or(given)) {
        None | Some(Ok(Value::Null)) => Dimensions::new(),
        Some(Ok(Value::Object(object))) => dimensions(object)?,
        Some(Ok(_)) | Some(Err(_)) => {
            let text: String = given
                .map(|given| given.0.chars().take(100).collect())
                .unwrap_or_default();
            let message = format!("dimensions are not an object of scalars: {text}");
            return Err(Rejection {
                code: Code::InvalidDimensions,
                message,
            });
        }
    };
    Ok(Submitted {
        event_name,
        customer: customer.map(|text| text.0),
        value,
        identifier: identifier.map(|text| text.0),
        timestamp: timestamp.map(Micros::from_pg),
        dimensions,
    })
}

/// `None`: nested more deeply than any event needs.
fn parsed(json: &JsonText) -> Option<Value> {
    serde_json::from_str(&json.0).ok()
}
