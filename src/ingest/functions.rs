//! The SQL functions that record events; declared in `sql/record.sql`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::prelude::*;
use serde_json::{Map, Value, json};

use super::batch::{Entry, record_all, record_one};
use super::meters::{self, Meter};
use super::rejection::{Code, Rejection, reject};
use super::stripe_event::StripeEvent;
use super::submitted::{Dimensions, Submitted, SubmittedValue, dimensions};
use crate::pg::array::Elements;
use crate::pg::catalog;
use crate::pg::error::{Result, error, null_argument, required};
use crate::pg::jsonb::Item;
use crate::pg::numeric::{NumericRef, Read};
use crate::pg::text::TextRef;
use crate::pg::time::Micros;
use crate::types::Formula;

#[pg_extern(sql = false)]
fn record_meter_event(
    event_name: Option<TextRef>,
    customer: Option<TextRef>,
    value: Option<NumericRef>,
    identifier: Option<TextRef>,
    timestamp: Option<Micros>,
    dimensions: Option<Item>,
) -> Result<bool> {
    catalog::take_in_changes();
    let event_name = required("event_name", event_name)?.text;
    if let Some(customer) = customer {
        meters::anticipate(customer);
    }
    let Some(meter) = meters::meter(event_name)? else {
        return Err(no_meter(event_name).into());
    };
    record_one(&meter, typed(customer, value, identifier, timestamp, dimensions)?)
}

#[pg_extern(sql = false)]
fn record_meter_events_json(
    events: Option<Item>,
) -> Result<TableIterator<'static, (name!(recorded, i64), name!(duplicate, i64), name!(rejected, i64))>> {
    catalog::take_in_changes();
    let mut items = Vec::new();
    match required("events", events)? {
        Item::Array(array) => array.elements(|item| items.push(item)),
        event @ Item::Object(_) => items.push(event),
        other => {
            let shown: String = other.to_string().chars().take(100).collect();
            return Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("events must be a meter event object or an array of them, not {shown}"),
            )
            .set_hint("An event is {\"event_name\": …, \"payload\": {…}, \"identifier\": …, \"timestamp\": …}."));
        }
    }
    let meters = Meters::default();
    let entries = items.iter().map(|item| read(*item, &meters)).collect::<Result<_>>()?;
    Ok(TableIterator::once(
        record_all(entries, |i| items[i].to_string())?.row(),
    ))
}

fn read<'a>(event: Item<'a>, meters: &Meters) -> Result<Entry<'a>> {
    let Item::Object(object) = event else {
        let shown: String = event.to_string().chars().take(100).collect();
        return Ok(reject(Code::InvalidEvent, format!("not an object: {shown}")));
    };
    let event = StripeEvent::of(object);
    let Some(event_name) = event.event_name() else {
        return Ok(reject(Code::NoMeter, "field \"event_name\" is missing or not a text"));
    };
    Ok(match meters.get(event_name)? {
        Some(meter) => event.read(&meter).map(|submitted| (meter, submitted)),
        None => Err(no_meter(event_name)),
    })
}

#[pg_extern(sql = false)]
fn record_meter_events_arrays(
    event_names: Option<Elements<TextRef>>,
    customers: Option<Elements<TextRef>>,
    values: Option<Elements<NumericRef>>,
    identifiers: Option<Elements<TextRef>>,
    timestamps: Option<Elements<Micros>>,
    dimensions: Option<Elements<Item>>,
) -> Result<TableIterator<'static, (name!(recorded, i64), name!(duplicate, i64), name!(rejected, i64))>> {
    catalog::take_in_changes();
    let event_names = required("event_names", event_names)?;
    let count = event_names.len();
    let columns = Columns {
        customers: column("customers", customers.ok_or_else(|| null_argument("customers"))?, count)?,
        values: column("values", values.ok_or_else(|| null_argument("values"))?, count)?,
        identifiers: identifiers
            .map(|given| column("identifiers", given, count))
            .transpose()?,
        timestamps: timestamps.map(|given| column("timestamps", given, count)).transpose()?,
        dimensions: dimensions.map(|given| column("dimensions", given, count)).transpose()?,
        event_names,
    };
    let meters = Meters::default();
    let entries = (0..count).map(|i| columns.entry(i, &meters)).collect::<Result<_>>()?;
    Ok(TableIterator::once(
        record_all(entries, |i| columns.source(i, &meters))?.row(),
    ))
}

/// Parallel arrays of one length.
struct Columns<'a> {
    event_names: Elements<'a, TextRef<'a>>,
    customers: Elements<'a, TextRef<'a>>,
    values: Elements<'a, NumericRef>,
    identifiers: Option<Elements<'a, TextRef<'a>>>,
    timestamps: Option<Elements<'a, Micros>>,
    dimensions: Option<Elements<'a, Item<'a>>>,
}

impl<'a> Columns<'a> {
    fn entry(&self, i: usize, meters: &Meters) -> Result<Entry<'a>> {
        let Some(event_name) = self.event_names.get(i) else {
            return Ok(reject(Code::NoMeter, "the event name is null"));
        };
        let Some(meter) = meters.get(event_name.text)? else {
            return Ok(Err(no_meter(event_name.text)));
        };
        let submitted = typed(
            self.customers.get(i),
            self.values.get(i),
            self.identifiers.and_then(|given| given.get(i)),
            self.timestamps.and_then(|given| given.get(i)),
            self.dimensions.and_then(|given| given.get(i)),
        );
        Ok(submitted.map(|submitted| (meter, submitted)))
    }

    /// The event as a rejection keeps it: as one would send it as JSON.
    fn source(&self, i: usize, meters: &Meters) -> String {
        let text = |given: Option<TextRef>| given.map(|given| given.text.to_owned());
        let meter = self
            .event_names
            .get(i)
            .and_then(|name| meters.get(name.text).ok().flatten());
        let customer_key = meter
            .as_ref()
            .and_then(|meter| meter.customer_key.as_deref())
            .unwrap_or("customer");
        let value_key = meter.as_ref().map_or("value", |meter| meter.value_key.as_str());
        let given = self.dimensions.and_then(|given| given.get(i)).map(|given| {
            let sent = given.to_string();
            // Nested more deeply than any event needs: as a text.
            serde_json::from_str(&sent).unwrap_or(Value::String(sent))
        });
        let value = self.values.get(i);
        let text_of_value = value.map(NumericRef::to_text);
        let (own_value, beside) = match meter.as_ref().map(|meter| meter.formula) {
            // What is counted is among the dimensions, and the value means nothing as long as it is one.
            Some(Formula::UniqueCount) => match value.map(NumericRef::read) {
                Some(Read::Quantity(_)) => (None, None),
                _ => (None, Some(json!({ "value": text_of_value }))),
            },
            // In JSON, none would count as one.
            Some(Formula::Count) if value.is_none() => (Some(json!([null])), None),
            _ => (Some(json!(text_of_value)), None),
        };
        let mut payload = match given {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(entries))
                if !entries.contains_key(customer_key) && (own_value.is_none() || !entries.contains_key(value_key)) =>
            {
                entries
            }
            // What could not be sent among the payload's own keys is refused as this, too.
            Some(other) => Map::from_iter([("given dimensions".to_owned(), json!([other]))]),
        };
        payload.insert(customer_key.to_owned(), text(self.customers.get(i)).into());
        if let Some(value) = own_value {
            payload.insert(value_key.to_owned(), value);
        }
        if let Some(beside) = beside {
            payload.insert("given value".to_owned(), beside);
        }
        let timestamp = self.timestamps.and_then(|given| given.get(i));
        json!({
            "event_name": text(self.event_names.get(i)),
            "payload": payload,
            "identifier": text(self.identifiers.and_then(|given| given.get(i))),
            "timestamp": timestamp.map(Micros::to_iso),
        })
        .to_string()
    }
}

fn column<'a, T: pgrx::FromDatum>(name: &str, values: Elements<'a, T>, count: usize) -> Result<Elements<'a, T>> {
    if values.len() == count {
        return Ok(values);
    }
    let message = format!(
        "argument \"{name}\" has {} elements, but \"event_names\" has {count}",
        values.len()
    );
    Err(error(PgSqlErrorCode::ERRCODE_ARRAY_ELEMENT_ERROR, message).set_hint("Give every array one element an event."))
}

/// The meters of one call: nearly always few, and often the same as of the event before.
#[derive(Default)]
struct Meters(RefCell<HashMap<String, Option<Rc<Meter>>>>);

impl Meters {
    fn get(&self, event_name: &str) -> Result<Option<Rc<Meter>>> {
        if let Some(known) = self.0.borrow().get(event_name) {
            return Ok(known.clone());
        }
        let found = meters::meter(event_name)?;
        self.0.borrow_mut().insert(event_name.to_owned(), found.clone());
        Ok(found)
    }
}

fn no_meter(event_name: &str) -> Rejection {
    let name: String = event_name.chars().take(100).collect();
    Rejection {
        code: Code::NoMeter,
        message: format!("no meter has the event name \"{name}\""),
    }
}

fn typed<'a>(
    customer: Option<TextRef<'a>>,
    value: Option<NumericRef>,
    identifier: Option<TextRef<'a>>,
    timestamp: Option<Micros>,
    given: Option<Item>,
) -> std::result::Result<Submitted<'a>, Rejection> {
    let dimensions = match given {
        None | Some(Item::Null) => Dimensions::new(),
        Some(Item::Object(object)) => dimensions(object)?,
        Some(other) => {
            let shown: String = other.to_string().chars().take(100).collect();
            return reject(
                Code::InvalidDimensions,
                format!("dimensions are not an object of scalars: {shown}"),
            );
        }
    };
    Ok(Submitted {
        customer,
        value: value.map_or(SubmittedValue::Missing, SubmittedValue::from),
        identifier,
        timestamp,
        dimensions,
    })
}
