//! Billing periods and proration, in UTC at microsecond precision. All ranges are half-open.

mod error;
mod interval;
mod period;
mod proration;

pub use error::CalendarError;
pub use interval::Interval;
pub use period::period_containing;
pub use proration::{fraction, prorate};

#[cfg(test)]
mod tests;
