//! The SQL functions that record events; declared in `sql/record.sql`.

use std::collections::{HashMap, HashSet};

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, JsonB};
use serde_json::{Value, json};

use super::batch::{Entry, no_meter, record_all, record_one};
use super::meters::{self, Meter};
use super::rejection::{Code, Rejection};
use super::stripe_event;
use super::submitted::{Dimensions, Submitted, SubmittedValue, dimensions};
use crate::pg::error::{Result, error, null_argument, required};
use crate::pg::numeric::to_decimal;
use crate::pg::time::Micros;

#[pg_extern(sql = false)]
fn record_meter_event(
    event_name: Option<&str>,
    customer: Option<&str>,
    value: Option<AnyNumeric>,
    identifier: Option<&str>,
    timestamp: Option<TimestampWithTimeZone>,
    dimensions: Option<JsonB>,
) -> Result<bool> {
    let event_name = required("event_name", event_name)?;
    let meters = meters::load(HashSet::from([event_name]))?;
    if !meters.contains_key(event_name) {
        return Err(no_meter(event_name).into());
    }
    let submitted = typed(
        event_name,
        customer,
        value,
        identifier,
        timestamp,
        dimensions.map(|json| json.0),
    )?;
    record_one(submitted, &meters)
}

#[pg_extern(sql = false)]
fn record_meter_events_json(
    events: Option<JsonB>,
) -> Result<TableIterator<'static, (name!(recorded, i64), name!(duplicate, i64), name!(rejected, i64))>> {
    let events = match required("events", events)?.0 {
        Value::Array(events) => events,
        event @ Value::Object(_) => vec![event],
        other => {
            return Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("events must be a meter event object or an array of them, not {other:.100}"),
            )
            .set_hint("An event is {\"event_name\": …, \"payload\": {…}, \"identifier\": …, \"timestamp\": …}."));
        }
    };
    let meters = meters::load(events.iter().filter_map(stripe_event::event_name).collect())?;
    let entries = events.iter().map(|event| read(event, &meters)).collect();
    Ok(TableIterator::once(
        record_all(entries, &meters, |i| events[i].clone())?.row(),
    ))
}

fn read(event: &Value, meters: &HashMap<String, Meter>) -> Entry {
    let refused = |code, message: String| Err(Rejection { code, message });
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
    event_names: Option<Vec<Option<String>>>,
    customers: Option<Vec<Option<String>>>,
    values: Option<Vec<Option<AnyNumeric>>>,
    identifiers: Option<Vec<Option<String>>>,
    timestamps: Option<Vec<Option<TimestampWithTimeZone>>>,
    dimensions: Option<Vec<Option<JsonB>>>,
) -> Result<TableIterator<'static, (name!(recorded, i64), name!(duplicate, i64), name!(rejected, i64))>> {
    let event_names = required("event_names", event_names)?;
    let count = event_names.len();
    let columns = Columns {
        customers: column("customers", customers.ok_or_else(|| null_argument("customers"))?, count)?,
        values: column("values", values.ok_or_else(|| null_argument("values"))?, count)?,
        identifiers: optional_column("identifiers", identifiers, count)?,
        timestamps: optional_column("timestamps", timestamps, count)?,
        dimensions: optional_column(
            "dimensions",
            dimensions.map(|all| all.into_iter().map(|d| d.map(|j| j.0)).collect()),
            count,
        )?,
        event_names,
    };
    let meters = meters::load(columns.event_names.iter().flatten().map(String::as_str).collect())?;
    let entries = (0..count).map(|i| columns.entry(i)).collect();
    Ok(TableIterator::once(
        record_all(entries, &meters, |i| columns.source(i))?.row(),
    ))
}

/// Parallel arrays of one length.
struct Columns {
    event_names: Vec<Option<String>>,
    customers: Vec<Option<String>>,
    values: Vec<Option<AnyNumeric>>,
    identifiers: Vec<Option<String>>,
    timestamps: Vec<Option<TimestampWithTimeZone>>,
    dimensions: Vec<Option<Value>>,
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
            event_name,
            self.customers[i].as_deref(),
            self.values[i].clone(),
            self.identifiers[i].as_deref(),
            self.timestamps[i],
            self.dimensions[i].clone(),
        )
    }

    /// The event as a rejection keeps it.
    fn source(&self, i: usize) -> Value {
        json!({
            "event_name": self.event_names[i],
            "customer": self.customers[i],
            "value": self.values[i].as_ref().map(AnyNumeric::to_string),
            "identifier": self.identifiers[i],
            "timestamp": self.timestamps[i].map(|at| at.to_string()),
            "dimensions": self.dimensions[i],
        })
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
    event_name: &str,
    customer: Option<&str>,
    value: Option<AnyNumeric>,
    identifier: Option<&str>,
    timestamp: Option<TimestampWithTimeZone>,
    given: Option<Value>,
) -> Entry {
    let value = match value {
        None => SubmittedValue::Missing,
        Some(value) => match to_decimal(&value) {
            Some(decimal) => SubmittedValue::Number(decimal),
            None => SubmittedValue::NotANumber(value.to_string()),
        },
    };
    let dimensions = match given {
        None | Some(Value::Null) => Dimensions::new(),
        Some(Value::Object(object)) => dimensions(object)?,
        Some(other) => {
            let message = format!("dimensions are not an object: {other:.100}");
            return Err(Rejection {
                code: Code::InvalidDimensions,
                message,
            });
        }
    };
    Ok(Submitted {
        event_name: event_name.to_owned(),
        customer: customer.map(str::to_owned),
        value,
        identifier: identifier.map(str::to_owned),
        timestamp: timestamp.map(Micros::from_pg),
        dimensions,
    })
}
