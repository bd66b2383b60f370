//! Points in time: unix seconds or ISO 8601 in, ISO 8601 in UTC out.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde_json::Value;

use super::Invalid;
use super::object::Object;

/// Years that ISO 8601 writes in four digits.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// Takes a time from a field: whole unix seconds (a number, or a text of digits as in Stripe's requests), or an ISO
/// 8601 text with a time zone, to the microsecond.
pub(super) fn take(object: &mut Object, field: &str) -> Result<Option<DateTime<Utc>>, Invalid> {
    let Some(value) = object.take(field) else {
        return Ok(None);
    };
    read(&value)
        .map(Some)
        .map_err(|rule| object.error(field, Some(&value), rule))
}

/// The normalised text, such as `2024-01-31T00:00:00Z`.
pub(super) fn print(time: DateTime<Utc>) -> Value {
    Value::String(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Reads a time, or says what is wrong with it.
pub(super) fn read(value: &Value) -> Result<DateTime<Utc>, &'static str> {
    const FORM: &str = "must be unix seconds, or ISO 8601 with a time zone, such as 2024-01-31T00:00:00Z";
    const RANGE: &str = "must be in the years 1 to 9999";
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(FORM),
    };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let time = if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().map_err(|_| RANGE)?;
        DateTime::from_timestamp(seconds, 0).ok_or(RANGE)?
    } else if value.is_string() {
        DateTime::parse_from_rfc3339(&text).map_err(|_| FORM)?.to_utc()
    } else {
        return Err(FORM);
    };
    if !YEARS.contains(&time.year()) {
        return Err(RANGE);
    }
    match time.nanosecond() {
        // chrono reads the second 60 as the 59th with more than a second's nanoseconds.
        1_000_000_000.. => Err("must not be a leap second"),
        nanoseconds if nanoseconds % 1000 != 0 => Err("must not be finer than a microsecond"),
        _ => Ok(time),
    }
}
