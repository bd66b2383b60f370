//! Billing periods and proration, in UTC at microsecond precision. All ranges are half-open.

mod error;
mod interval;

pub use error::CalendarError;
pub use interval::Interval;
