//! The rules that an event must meet, and the event that met them.

use bigdecimal::BigDecimal;
use chrono::SecondsFormat;

use super::meters::Meter;
use super::rejection::{Code, Rejection, reject};
use super::submitted::{Dimensions, Submitted, SubmittedValue};
use crate::pg::time::{MICROS_PER_SECOND, Micros};
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
/// Stripe's limit is 15 for fear of doubles; exact decimals need one only against abuse.
const MOST_DIGITS: u64 = 28;

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
pub struct Event {
    pub customer: String,
    pub event_name: String,
    pub identifier: String,
    pub value: BigDecimal,
    pub timestamp: Micros,
    /// The sender gave the timestamp, so a retry would carry it too.
    pub timestamp_given: bool,
    pub dimensions: Dimensions,
}

pub fn check(
    submitted: Submitted,
    meter: &Meter,
    customer_exists: impl Fn(&str) -> bool,
    clock: &Clock,
) -> Result<Event, Rejection> {
    let Submitted {
        event_name,
        customer,
        value,
        identifier,
        timestamp,
        dimensions,
    } = submitted;
    if !meter.active {
        return reject(Code::ArchivedMeter, format!("meter \"{event_name}\" is inactive"));
    }
    let Some(customer) = customer else {
        return reject(Code::NoCustomerDefined, "the event names no customer");
    };
    if !customer_exists(&customer) {
        return reject(
            Code::CustomerNotFound,
            format!("no such customer \"{}\"", excerpt(&customer)),
        );
    }
    let value = check_value(value)?;
    let identifier = match identifier {
        // Time-ordered, so that made identifiers are appended to the index instead of scattered over it.
        None => uuid::Uuid::now_v7().simple().to_string(),
        Some(given) if given.is_empty() => return reject(Code::InvalidIdentifier, "identifier is empty"),
        Some(given) if given.len() > LONGEST_IDENTIFIER => {
            return reject(
                Code::InvalidIdentifier,
                format!(
                    "identifier has {} bytes, at most {LONGEST_IDENTIFIER}: \"{}…\"",
                    given.len(),
                    excerpt(&given)
                ),
            );
        }
        Some(given) => given,
    };
    check_dimensions(&dimensions, &customer, meter)?;
    let timestamp_given = timestamp.is_some();
    let timestamp = match timestamp {
        Some(given) => check_timestamp(given, clock)?,
        // As for any SQL default, so that a preview in the same transaction, whose as_of is now(), has it.
        None => Micros::transaction_start(),
    };
    Ok(Event {
        customer,
        event_name,
        identifier,
        value,
        timestamp,
        timestamp_given,
        dimensions,
    })
}

fn check_value(value: SubmittedValue) -> Result<BigDecimal, Rejection> {
    match value {
        SubmittedValue::Missing => reject(Code::ValueNotFound, "the event has no value"),
        SubmittedValue::NotANumber(text) => reject(Code::InvalidValue, format!("value \"{text}\" is not a number")),
        SubmittedValue::Number(value) => {
            let value = value.normalized();
            let (_, scale) = value.as_bigint_and_exponent();
            // Digits written out in full: those of 1e30 are 31, those of 1e-30 are 30.
            let fraction = scale.max(0) as u64;
            let written = value.digits().max(fraction) + scale.min(0).unsigned_abs();
            if written > MOST_DIGITS {
                let text: String = value.to_scientific_notation().chars().take(60).collect();
                return reject(
                    Code::TooManyDigits,
                    format!("value {text} has {written} digits, at most {MOST_DIGITS}"),
                );
            }
            Ok(value)
        }
    }
}

fn check_dimensions(dimensions: &Dimensions, customer: &str, meter: &Meter) -> Result<(), Rejection> {
    if let Some(missing) = meter.dimension_keys.iter().find(|key| !dimensions.contains_key(*key)) {
        return reject(
            Code::MissingDimensions,
            format!(
                "the event has no \"{missing}\", which meter \"{}\" needs",
                meter.event_name
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
    let key = customer.len() + meter.event_name.len() + split + meter.dimension_keys.len() * JSONB_ENTRY + counted;
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
        let text = iso(timestamp);
        return reject(
            Code::InFuture,
            format!("timestamp {text} is later than {}", iso(clock.latest)),
        );
    }
    if timestamp < clock.oldest {
        let text = iso(timestamp);
        return reject(
            Code::TooFarInPast,
            format!("timestamp {text} is before {}", iso(clock.oldest)),
        );
    }
    Ok(timestamp)
}

fn iso(at: Micros) -> String {
    match at.to_chrono() {
        Some(at) => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None if at.0 > 0 => "infinity".into(),
        None => "-infinity".into(),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}
