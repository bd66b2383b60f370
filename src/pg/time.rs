//! Instants as PostgreSQL keeps them: microseconds since 2000-01-01 00:00:00 UTC.

use chrono::{DateTime, SecondsFormat, TimeZone, Utc};
use pgrx::datum::{FromDatum, TimestampWithTimeZone};
use pgrx::prelude::*;

use super::error::{Result, error};
use super::unguarded;

/// Seconds between the Unix epoch and PostgreSQL's.
const EPOCH_OFFSET_SECONDS: i64 = 946_684_800;
pub const MICROS_PER_SECOND: i64 = 1_000_000;
pub const MICROS_PER_HOUR: i64 = 3600 * MICROS_PER_SECOND;
pub const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// The wall clock, not the transaction's start.
    pub fn now() -> Micros {
        // SAFETY: GetCurrentTimestamp reads the clock and raises nothing.
        Micros(unsafe { unguarded::GetCurrentTimestamp() })
    }

    /// SQL's now(): the start of the transaction.
    pub fn transaction_start() -> Micros {
        // SAFETY: reads a variable that is set in every transaction.
        Micros(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
    }

    pub fn from_pg(value: TimestampWithTimeZone) -> Micros {
        Micros(value.into())
    }

    /// `None` for PostgreSQL's infinities and whatever a timestamptz cannot hold.
    pub fn to_pg(self) -> Option<TimestampWithTimeZone> {
        TimestampWithTimeZone::try_from(self.0).ok()
    }

    pub fn datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0)
    }

    /// ISO 8601 in UTC, the name of an infinity, or as PostgreSQL prints years that calendars do not know.
    pub fn to_iso(self) -> String {
        if let Some(at) = self.to_chrono() {
            return at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        }
        // SAFETY: timestamptz_out takes a timestamptz and returns a C string.
        unsafe {
            let text: Option<&std::ffi::CStr> =
                pgrx::direct_function_call(pg_sys::timestamptz_out, &[Some(self.datum())]);
            text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        }
    }

    pub fn is_finite(self) -> bool {
        self.0 != i64::MIN && self.0 != i64::MAX
    }

    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(EPOCH_OFFSET_SECONDS * MICROS_PER_SECOND)
    }

    pub fn from_unix_micros(unix: i64) -> Option<Micros> {
        unix.checked_sub(EPOCH_OFFSET_SECONDS * MICROS_PER_SECOND).map(Micros)
    }

    /// The start of the UTC hour that holds this instant.
    pub fn hour(self) -> Micros {
        self.floor(MICROS_PER_HOUR)
    }

    /// The start of the UTC day that holds this instant.
    pub fn day(self) -> Micros {
        self.floor(MICROS_PER_DAY)
    }

    /// An infinity is its own.
    fn floor(self, width: i64) -> Micros {
        match self.is_finite() {
            true => Micros(self.0 - self.0.rem_euclid(width)),
            false => self,
        }
    }

    pub fn saturating_add(self, micros: i64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }

    pub fn to_chrono(self) -> Option<DateTime<Utc>> {
        Utc.timestamp_micros(self.unix_micros())
            .single()
            .filter(|_| self.is_finite())
    }

    pub fn from_chrono(value: DateTime<Utc>) -> Option<Micros> {
        Micros::from_unix_micros(value.timestamp_micros())
    }
}

impl FromDatum for Micros {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Micros> {
        // The declared SQL type is timestamptz, which is passed by value.
        (!is_null).then(|| Micros(datum.value() as i64))
    }
}

// SAFETY: reads the datum as FromDatum does.
unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for Micros {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller, a datum of this type that is not null.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Micros(0))
    }
}

/// An argument that must be a finite instant: SQLSTATE 22023 otherwise, 22008 beyond the year 262142, where chrono ends.
pub fn finite(name: &str, value: TimestampWithTimeZone) -> Result<DateTime<Utc>> {
    let micros = Micros::from_pg(value);
    micros.to_chrono().ok_or_else(|| match micros.is_finite() {
        true => error(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!("argument \"{name}\" is out of range: {value}"),
        ),
        false => error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("argument \"{name}\" must be a finite timestamp, got {value}"),
        ),
    })
}
