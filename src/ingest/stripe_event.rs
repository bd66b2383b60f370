//! Stripe's meter event object: `{event_name, payload, identifier, timestamp}`.

use bigdecimal::{BigDecimal, ToPrimitive};
use chrono::DateTime;
use serde_json::{Map, Value};

use super::meters::Meter;
use super::rejection::{Code, Rejection, reject};
use super::submitted::{Submitted, SubmittedValue, dimensions, number};
use crate::pg::time::Micros;
use crate::types::Formula;

/// Keys that Stripe's own objects carry, and that mean nothing here.
const MEANINGLESS: [&str; 3] = ["object", "created", "livemode"];

/// Where the customer stands when the meter names no key.
const CUSTOMER_KEYS: [&str; 2] = ["customer", "stripe_customer_id"];

pub fn event_name(event: &Value) -> Option<&str> {
    event.get("event_name").and_then(Value::as_str)
}

/// Reads an event whose meter is known.
pub fn read(event: &Value, meter: &Meter) -> Result<Submitted, Rejection> {
    let Some(event) = event.as_object() else {
        return reject(Code::InvalidEvent, format!("not an object: {}", excerpt(event)));
    };
    if let Some(unknown) = event.keys().find(|key| {
        !["event_name", "payload", "identifier", "timestamp"].contains(&key.as_str())
            && !MEANINGLESS.contains(&key.as_str())
    }) {
        return reject(Code::InvalidEvent, format!("unknown field \"{unknown}\""));
    }
    let mut payload = match event.get("payload") {
        Some(Value::Object(payload)) => payload.clone(),
        Some(other) => {
            return reject(
                Code::InvalidEvent,
                format!("payload is not an object: {}", excerpt(other)),
            );
        }
        None => return reject(Code::InvalidEvent, "field \"payload\" is missing"),
    };
    let identifier = match event.get("identifier") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => {
            return reject(
                Code::InvalidIdentifier,
                format!("identifier is not a text: {}", excerpt(other)),
            );
        }
    };
    let timestamp = match event.get("timestamp") {
        None | Some(Value::Null) => None,
        Some(given) => Some(timestamp(given)?),
    };
    let customer = take_customer(&mut payload, meter)?;
    let value = match meter.formula {
        // The text under the value key is what is counted: it stays among the dimensions.
        Formula::UniqueCount => SubmittedValue::Number(1.into()),
        formula => match payload.remove(&meter.value_key) {
            None | Some(Value::Null) if formula == Formula::Count => SubmittedValue::Number(1.into()),
            None | Some(Value::Null) => SubmittedValue::Missing,
            Some(Value::String(text)) => number(&text),
            Some(Value::Number(given)) => number(&given.to_string()),
            Some(other) => SubmittedValue::NotANumber(excerpt(&other)),
        },
    };
    Ok(Submitted {
        event_name: meter.event_name.clone(),
        customer,
        value,
        identifier,
        timestamp,
        dimensions: dimensions(payload)?,
    })
}

fn take_customer(payload: &mut Map<String, Value>, meter: &Meter) -> Result<Option<String>, Rejection> {
    let taken = match &meter.customer_key {
        Some(key) => payload.remove(key),
        None => CUSTOMER_KEYS.iter().find_map(|key| payload.remove(*key)),
    };
    match taken {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(Value::Number(id)) => Ok(Some(id.to_string())),
        Some(other) => reject(
            Code::NoCustomerDefined,
            format!("customer is not a text: {}", excerpt(&other)),
        ),
    }
}

/// Unix seconds as a number or its text, or ISO 8601 with a time zone.
fn timestamp(given: &Value) -> Result<Micros, Rejection> {
    let text = match given {
        Value::Number(seconds) => seconds.to_string(),
        Value::String(text) => text.clone(),
        other => return reject(Code::InvalidTimestamp, format!("timestamp is {}", excerpt(other))),
    };
    let instant = match number(&text) {
        SubmittedValue::Number(seconds) => (seconds * BigDecimal::from(1_000_000))
            .to_i64()
            .and_then(Micros::from_unix_micros),
        _ => DateTime::parse_from_rfc3339(&text)
            .ok()
            .and_then(|at| Micros::from_chrono(at.to_utc())),
    };
    match instant {
        Some(instant) => Ok(instant),
        None => reject(
            Code::InvalidTimestamp,
            format!("timestamp \"{}\" is not a time", excerpt(given)),
        ),
    }
}

fn excerpt(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}
