//! What calendar arithmetic can refuse.

use std::error::Error;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalendarError {
    /// The text names no interval (SQLSTATE 22023).
    UnknownInterval(String),
    /// `interval_count` is zero (SQLSTATE 22023).
    ZeroCount,
    /// A period boundary lies outside the years that can be represented (SQLSTATE 22008).
    TimeOutOfRange,
    /// The period to take a part of has no length (SQLSTATE 22023).
    EmptyPeriod,
    /// The prorated amount does not fit `bigint` (SQLSTATE 22003).
    AmountOutOfRange,
}

impl fmt::Display for CalendarError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalendarError::UnknownInterval(text) => {
                write!(formatter, "interval must be day, week, month or year, not {text:?}")
            }
            CalendarError::ZeroCount => formatter.write_str("interval_count must be at least 1, not 0"),
            CalendarError::TimeOutOfRange => formatter.write_str("billing period boundary is out of range"),
            CalendarError::EmptyPeriod => formatter.write_str("cannot take a part of an empty period"),
            CalendarError::AmountOutOfRange => formatter.write_str("prorated amount is out of range for bigint"),
        }
    }
}

impl Error for CalendarError {}
