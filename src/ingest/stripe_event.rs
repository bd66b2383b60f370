//! Stripe's meter event object: `{event_name, payload, identifier, timestamp}`.

use std::rc::Rc;

use bigdecimal::{BigDecimal, ToPrimitive};
use chrono::DateTime;

use super::meters::Meter;
use super::rejection::{Code, Rejection, reject};
use super::submitted::{Dimensions, Submitted, SubmittedValue, add_dimension, text_value};
use crate::pg::jsonb::{Container, Item};
use crate::pg::text::TextRef;
use crate::pg::time::{MICROS_PER_SECOND, Micros};
use crate::pricing::{Quantity, parse_dec};
use crate::types::Formula;

/// Keys that Stripe's own objects carry, and that mean nothing here.
const MEANINGLESS: [&str; 3] = ["object", "created", "livemode"];

/// Where the customer stands when the meter names no key.
const CUSTOMER_KEYS: [&str; 2] = ["customer", "stripe_customer_id"];

/// The object's fields, taken apart once.
pub struct StripeEvent<'a> {
    event_name: Option<Item<'a>>,
    payload: Option<Item<'a>>,
    identifier: Option<Item<'a>>,
    timestamp: Option<Item<'a>>,
    unknown: Option<&'a str>,
}

impl<'a> StripeEvent<'a> {
    pub fn of(event: Container<'a>) -> StripeEvent<'a> {
        let mut fields = StripeEvent {
            event_name: None,
            payload: None,
            identifier: None,
            timestamp: None,
            unknown: None,
        };
        event.entries(|key, item| match key {
            "event_name" => fields.event_name = Some(item),
            "payload" => fields.payload = Some(item),
            "identifier" => fields.identifier = Some(item),
            "timestamp" => fields.timestamp = Some(item),
            key if MEANINGLESS.contains(&key) => {}
            key => fields.unknown = fields.unknown.or(Some(key)),
        });
        fields
    }

    pub fn event_name(&self) -> Option<&'a str> {
        match self.event_name {
            Some(Item::Text(name)) => Some(name),
            _ => None,
        }
    }

    /// Reads an event whose meter is known.
    pub fn read(&self, meter: &Rc<Meter>) -> Result<Submitted<'a>, Rejection> {
        if let Some(unknown) = self.unknown {
            return reject(Code::InvalidEvent, format!("unknown field \"{unknown}\""));
        }
        let payload = match self.payload {
            Some(Item::Object(payload)) => payload,
            Some(other) => {
                return reject(
                    Code::InvalidEvent,
                    format!("payload is not an object: {}", excerpt(other)),
                );
            }
            None => return reject(Code::InvalidEvent, "field \"payload\" is missing"),
        };
        let identifier = match self.identifier {
            None | Some(Item::Null) => None,
            Some(Item::Text(text)) => Some(TextRef::of(text)),
            Some(other) => {
                return reject(
                    Code::InvalidIdentifier,
                    format!("identifier is not a text: {}", excerpt(other)),
                );
            }
        };
        let timestamp = match self.timestamp {
            None | Some(Item::Null) => None,
            Some(given) => Some(timestamp(given)?),
        };
        read_payload(payload, meter, identifier, timestamp)
    }
}

fn read_payload<'a>(
    payload: Container<'a>,
    meter: &Meter,
    identifier: Option<TextRef<'a>>,
    timestamp: Option<Micros>,
) -> Result<Submitted<'a>, Rejection> {
    // The text under the value key of unique_count is what is counted: it stays among the dimensions.
    let value_key = (meter.formula != Formula::UniqueCount).then_some(meter.value_key.as_str());
    let mut entries = Vec::new();
    payload.entries(|key, item| entries.push((key, item)));
    let mut take = |wanted: &str| {
        let at = entries.iter().position(|(key, _)| *key == wanted)?;
        Some(entries.swap_remove(at).1)
    };
    let customer = match &meter.customer_key {
        Some(key) => take(key),
        None => CUSTOMER_KEYS.iter().find_map(|key| take(key)),
    };
    let value = value_key.and_then(&mut take);
    let customer = match customer {
        None | Some(Item::Null) => None,
        Some(Item::Text(id)) => Some(TextRef::of(id)),
        // A number as its digits, which outlive this call in the caller's memory as any argument does.
        Some(Item::Number(id)) => Some(TextRef::kept(&id.to_text())),
        Some(other) => {
            return reject(
                Code::NoCustomerDefined,
                format!("customer is not a text: {}", excerpt(other)),
            );
        }
    };
    let value = match value {
        _ if meter.formula == Formula::UniqueCount => SubmittedValue::Number(Quantity::ONE, None),
        None | Some(Item::Null) if meter.formula == Formula::Count => SubmittedValue::Number(Quantity::ONE, None),
        None | Some(Item::Null) => SubmittedValue::Missing,
        Some(Item::Text(text)) => text_value(text),
        Some(Item::Number(number)) => number.into(),
        Some(other) => SubmittedValue::NotANumber(excerpt(other)),
    };
    let mut dimensions = Dimensions::new();
    for (key, item) in entries {
        add_dimension(&mut dimensions, key, item)?;
    }
    Ok(Submitted {
        customer,
        value,
        identifier,
        timestamp,
        dimensions,
    })
}

/// Unix seconds as a number or its text, or ISO 8601 with a time zone.
fn timestamp(given: Item) -> Result<Micros, Rejection> {
    let text = match given {
        Item::Number(seconds) => seconds.to_text(),
        Item::Text(text) => text.to_owned(),
        other => return reject(Code::InvalidTimestamp, format!("timestamp is {}", excerpt(other))),
    };
    let instant = match text.parse::<i64>() {
        Ok(seconds) => seconds
            .checked_mul(MICROS_PER_SECOND)
            .and_then(Micros::from_unix_micros),
        Err(_) => match parse_dec(&text) {
            Some(seconds) => (seconds * BigDecimal::from(MICROS_PER_SECOND))
                .to_i64()
                .and_then(Micros::from_unix_micros),
            None => DateTime::parse_from_rfc3339(&text)
                .ok()
                .and_then(|at| Micros::from_chrono(at.to_utc())),
        },
    };
    match instant {
        Some(instant) => Ok(instant),
        None => reject(
            Code::InvalidTimestamp,
            format!("timestamp \"{}\" is not a time", excerpt(given)),
        ),
    }
}

fn excerpt(item: Item) -> String {
    item.to_string().chars().take(100).collect()
}
