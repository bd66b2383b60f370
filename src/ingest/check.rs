//! The rules that an event must meet, and the event that met them.

use std::rc::Rc;

use pgrx::pg_sys;

use super::meters::Meter;
use super::rejection::{Code, Rejection, reject};
use super::submitted::{Dimensions, Submitted, SubmittedValue};
use crate::pg::text::TextRef;
use crate::pg::time::{MICROS_PER_SECOND, Micros};
use crate::pricing::{MOST_DIGITS, Quantity};
use crate::settings;
use crate::types::Formula;

/// Together with a customer's and a meter's, below what one B-tree entry holds (2,704 bytes).
const LONGEST_IDENTIFIER: usize = 255;
const LONGEST_DISTINCT_VALUE: usize = 500;
const LONGEST_SPLIT: usize = 900;
/// Customer, meter, dimensions and counted text are one B-tree entry of the buckets: 2,704 bytes, some of them PostgreSQL's own.
const LONGEST_BUCKET_KEY: usize = 2600;
/// What `jsonb` adds to a key and its text.
const JSONB_ENTRY: usize = 8;
/// 0001-01-01. No event is older, also where `billing.max_event_age` sets no limit: soon before, calendars end.
const YEAR_ONE: Micros = Micros(-63_082_281_600 * MICROS_PER_SECOND);

/// The clock of one call, and the limits around it.
pub struct Clock {
    pub now: Micros,
    oldest: Micros,
    latest: Micros,
}

impl Clock {
    pub fn read() -> Clock {
        let now = Micros::now();
        let lead = settings::micros(&settings::MAX_EVENT_LEAD).unwrap_or(0);
        Clock {
            now,
            oldest: settings::micros(&settings::MAX_EVENT_AGE)
                .map_or(YEAR_ONE, |age| now.saturating_add(-age).max(YEAR_ONE)),
            latest: now.saturating_add(lead),
        }
    }
}

/// An event that will be recorded, unless its identity was recorded before.
#[derive(Debug)]
pub struct Event<'a> {
    pub meter: Rc<Meter>,
    pub customer: TextRef<'a>,
    pub identifier: Identifier<'a>,
    pub value: Quantity,
    /// The value as it came, where it came as `numeric`.
    pub given_value: Option<pg_sys::Datum>,
    pub timestamp: Micros,
    /// The sender gave the timestamp, so a retry would carry it too.
    pub timestamp_given: bool,
    pub dimensions: Dimensions,
}

#[derive(Debug)]
pub enum Identifier<'a> {
    Given(TextRef<'a>),
    /// No retry can carry it, so nobody need search for it.
    Made(String),
}

impl Identifier<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Identifier::Given(given) => given.text,
            Identifier::Made(made) => made,
        }
    }

    pub fn datum(&self) -> pg_sys::Datum {
        match self {
            Identifier::Given(given) => given.datum(),
            Identifier::Made(made) => TextRef::of(made).datum(),
        }
    }
}

pub fn check<'a>(
    submitted: Submitted<'a>,
    meter: &Rc<Meter>,
    customer_exists: impl FnOnce(&str) -> bool,
    clock: &Clock,
) -> Result<Event<'a>, Rejection> {
    let Submitted {
        customer,
        value,
        identifier,
        timestamp,
        dimensions,
    } = submitted;
    if !meter.active {
        return reject(
            Code::ArchivedMeter,
            format!("meter \"{}\" is inactive", meter.event_name.as_str()),
        );
    }
    let Some(customer) = customer else {
        return reject(Code::NoCustomerDefined, "the event names no customer");
    };
    if !customer_exists(customer.text) {
        return reject(
            Code::CustomerNotFound,
            format!("no such customer \"{}\"", excerpt(customer.text)),
        );
    }
    let (value, given_value) = check_value(value)?;
    let identifier = match identifier {
        // Time-ordered, so that made identifiers are appended to the index instead of scattered over it.
        None => Identifier::Made(uuid::Uuid::now_v7().simple().to_string()),
        Some(given) if given.text.is_empty() => return reject(Code::InvalidIdentifier, "identifier is empty"),
        Some(given) if given.text.len() > LONGEST_IDENTIFIER => {
            return reject(
                Code::InvalidIdentifier,
                format!(
                    "identifier has {} bytes, at most {LONGEST_IDENTIFIER}: \"{}…\"",
                    given.text.len(),
                    excerpt(given.text)
                ),
            );
        }
        Some(given) => Identifier::Given(given),
    };
    check_dimensions(&dimensions, customer.text, meter)?;
    let timestamp_given = timestamp.is_some();
    let timestamp = match timestamp {
        Some(given) => check_timestamp(given, clock)?,
        // As for any SQL default, so that a preview in the same transaction, whose as_of is now(), has it.
        None => Micros::transaction_start(),
    };
    Ok(Event {
        meter: Rc::clone(meter),
        customer,
        identifier,
        value,
        given_value,
        timestamp,
        timestamp_given,
        dimensions,
    })
}

fn check_value(value: SubmittedValue) -> Result<(Quantity, Option<pg_sys::Datum>), Rejection> {
    match value {
        SubmittedValue::Missing => reject(Code::ValueNotFound, "the event has no value"),
        SubmittedValue::NotANumber(text) => reject(Code::InvalidValue, format!("value \"{text}\" is not a number")),
        SubmittedValue::TooLong(value) => {
            let value = value.normalized();
            let (_, scale) = value.as_bigint_and_exponent();
            // Digits written out in full: those of 1e30 are 31, those of 1e-30 are 30.
            let fraction = scale.max(0) as u64;
            let written = value.digits().max(fraction) + scale.min(0).unsigned_abs();
            let text: String = value.to_scientific_notation().chars().take(60).collect();
            reject(
                Code::TooManyDigits,
                format!("value {text} has {written} digits, at most {MOST_DIGITS}"),
            )
        }
        SubmittedValue::Number(value, given) => Ok((value, given)),
    }
}

fn check_dimensions(dimensions: &Dimensions, customer: &str, meter: &Meter) -> Result<(), Rejection> {
    if let Some(missing) = meter.dimension_keys.iter().find(|key| !dimensions.contains_key(*key)) {
        return reject(
            Code::MissingDimensions,
            format!(
                "the event has no \"{missing}\", which meter \"{}\" needs",
                meter.event_name.as_str()
            ),
        );
    }
    let split: usize = meter
        .dimension_keys
        .iter()
        .map(|key| key.len() + dimensions[key].len())
        .sum();
    if split > LONGEST_SPLIT {
        return reject(
            Code::InvalidDimensions,
            format!("the meter's dimensions have {split} bytes in this event, at most {LONGEST_SPLIT}"),
        );
    }
    let mut counted = 0;
    if meter.formula == Formula::UniqueCount {
        match dimensions.get(&meter.value_key) {
            None => {
                let key = &meter.value_key;
                return reject(Code::ValueNotFound, format!("the event has no \"{key}\" to count"));
            }
            Some(text) if text.len() > LONGEST_DISTINCT_VALUE => {
                let bytes = text.len();
                return reject(
                    Code::InvalidValue,
                    format!(
                        "the text to count has {bytes} bytes, at most {LONGEST_DISTINCT_VALUE}: \"{}…\"",
                        excerpt(text)
                    ),
                );
            }
            Some(text) => counted = text.len(),
        }
    }
    let key =
        customer.len() + meter.event_name.as_str().len() + split + meter.dimension_keys.len() * JSONB_ENTRY + counted;
    if key > LONGEST_BUCKET_KEY {
        return reject(
            Code::InvalidDimensions,
            format!("customer, meter, dimensions and counted text have {key} bytes, at most {LONGEST_BUCKET_KEY}"),
        );
    }
    Ok(())
}

fn check_timestamp(timestamp: Micros, clock: &Clock) -> Result<Micros, Rejection> {
    if timestamp > clock.latest {
        let text = timestamp.to_iso();
        return reject(
            Code::InFuture,
            format!("timestamp {text} is later than {}", clock.latest.to_iso()),
        );
    }
    if timestamp < clock.oldest {
        let text = timestamp.to_iso();
        return reject(
            Code::TooFarInPast,
            format!("timestamp {text} is before {}", clock.oldest.to_iso()),
        );
    }
    Ok(timestamp)
}

fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}
