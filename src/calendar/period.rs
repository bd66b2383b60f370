//! Billing periods: which one holds a moment.

use std::ops::Range;

use chrono::{DateTime, Datelike, NaiveDate, Utc};

use super::{CalendarError, Interval};

const DAY_MICROS: i128 = 86_400_000_000;

/// The period `[start, end)` that holds `at`, of the row of periods that runs through `anchor` in both directions. The
/// k-th boundary is k × `count` intervals from the anchor itself, not from its neighbour, so that a month end that was
/// clamped (31 January → 28 February) comes back (→ 31 March). Days are 24 hours of UTC. Takes the same time however far
/// `at` is from `anchor`. Both are taken down to whole microseconds.
pub fn period_containing(
    anchor: DateTime<Utc>,
    interval: Interval,
    count: u32,
    at: DateTime<Utc>,
) -> Result<Range<DateTime<Utc>>, CalendarError> {
    if count == 0 {
        return Err(CalendarError::ZeroCount);
    }
    let count = i64::from(count);
    let (anchor, at) = (anchor.timestamp_micros(), at.timestamp_micros());
    match interval {
        Interval::Day => in_days(anchor, count, at),
        Interval::Week => in_days(anchor, 7 * count, at),
        Interval::Month => in_months(anchor, count, at),
        Interval::Year => in_months(anchor, 12 * count, at),
    }
    .ok_or(CalendarError::TimeOutOfRange)
}

fn in_days(anchor: i64, days: i64, at: i64) -> Option<Range<DateTime<Utc>>> {
    let (anchor, at) = (i128::from(anchor), i128::from(at));
    let length = DAY_MICROS * i128::from(days);
    let start = at - (at - anchor).rem_euclid(length);
    let boundary = |micros: i128| DateTime::from_timestamp_micros(i64::try_from(micros).ok()?);
    Some(boundary(start)?..boundary(start + length)?)
}

fn in_months(anchor: i64, months: i64, at: i64) -> Option<Range<DateTime<Utc>>> {
    let anchor = DateTime::from_timestamp_micros(anchor)?;
    let at = DateTime::from_timestamp_micros(at)?;
    let offset = (month_number(at) - month_number(anchor)).div_euclid(months) * months;
    let boundary = add_months(anchor, offset)?;
    // Clamping keeps a boundary within its month. So this one may lie after `at`, though no later than in its month; its
    // neighbours lie in earlier and in later months.
    if boundary > at {
        Some(add_months(anchor, offset - months)?..boundary)
    } else {
        Some(boundary..add_months(anchor, offset + months)?)
    }
}

/// Months since the start of year 0.
fn month_number(time: DateTime<Utc>) -> i64 {
    i64::from(time.year()) * 12 + i64::from(time.month0())
}

/// `months` after the anchor, on its day of the month, or on the last day of a month too short for that.
fn add_months(anchor: DateTime<Utc>, months: i64) -> Option<DateTime<Utc>> {
    let number = month_number(anchor) + months;
    let year = i32::try_from(number.div_euclid(12)).ok()?;
    let month = u32::try_from(number.rem_euclid(12) + 1).ok()?;
    let first = NaiveDate::from_ymd_opt(year, month, 1)?;
    let date = first.with_day(anchor.day().min(u32::from(first.num_days_in_month())))?;
    Some(date.and_time(anchor.time()).and_utc())
}
