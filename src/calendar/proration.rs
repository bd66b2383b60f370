//! Proration: what a part of a period costs.

use std::ops::Range;

use chrono::{DateTime, Utc};

use super::CalendarError;
use crate::pricing::{Dec, as_ratio, round_ratio};

/// How much of `whole` lies within `part`, as an exact fraction (numerator, denominator) between 0 and 1. The denominator
/// is the length of `whole` in microseconds and is not reduced, so the fractions of the parts of one period add up as
/// they stand. What `part` has outside of `whole` does not count.
pub fn fraction(part: Range<DateTime<Utc>>, whole: Range<DateTime<Utc>>) -> Result<(i64, i64), CalendarError> {
    let (start, end) = (whole.start.timestamp_micros(), whole.end.timestamp_micros());
    let length = end.checked_sub(start).ok_or(CalendarError::TimeOutOfRange)?;
    if length <= 0 {
        return Err(CalendarError::EmptyPeriod);
    }
    let covered_end = part.end.timestamp_micros().clamp(start, end);
    let covered_start = part.start.timestamp_micros().clamp(start, end);
    Ok(((covered_end - covered_start).max(0), length))
}

/// The amount (minor units) for the part of a period, rounded once, half away from zero: computed as one fraction of
/// integers, so nothing is lost before that.
pub fn prorate(amount: &Dec, part: Range<DateTime<Utc>>, whole: Range<DateTime<Utc>>) -> Result<i64, CalendarError> {
    let (covered, length) = fraction(part, whole)?;
    let (numerator, denominator) = as_ratio(amount);
    round_ratio(&(numerator * covered), &(denominator * length)).ok_or(CalendarError::AmountOutOfRange)
}
