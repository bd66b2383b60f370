//! Billing periods.

use pgrx::datum::{Range, RangeBound, TimestampWithTimeZone};
use pgrx::prelude::*;

use crate::calendar::{self, CalendarError, Interval};
use crate::pg::error::{Result, error};
use crate::pg::text::Text;
use crate::pg::time::{Micros, finite};

#[pg_extern(sql = false)]
fn period_containing(
    anchor: TimestampWithTimeZone,
    interval: Text,
    interval_count: i32,
    at: TimestampWithTimeZone,
) -> Result<Range<TimestampWithTimeZone>> {
    let interval: Interval = interval.0.parse()?;
    let count = u32::try_from(interval_count).map_err(|_| {
        error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("interval_count must be at least 1, not {interval_count}"),
        )
    })?;
    let period = calendar::period_containing(finite("anchor", anchor)?, interval, count, finite("at", at)?)?;
    let bound = |at| {
        Micros::from_chrono(at)
            .and_then(Micros::to_pg)
            .ok_or(CalendarError::TimeOutOfRange)
    };
    Ok(Range::new(
        RangeBound::Inclusive(bound(period.start)?),
        RangeBound::Exclusive(bound(period.end)?),
    ))
}
