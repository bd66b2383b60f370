//! Errors as PostgreSQL reports them: SQLSTATE, message, hint.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::calendar::CalendarError;
use crate::types::{Invalid, Kind};

pub type Result<T> = std::result::Result<T, ErrorReport>;

/// An ERROR that ends the statement.
pub fn error(code: PgSqlErrorCode, message: impl Into<String>) -> ErrorReport {
    ErrorReport::new(code, message.into(), "pg_billing")
}

/// NULL where the argument `name` must have a value: SQLSTATE 22004.
pub fn null_argument(name: &str) -> ErrorReport {
    error(
        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        format!("argument \"{name}\" must not be null"),
    )
}

pub fn required<T>(name: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| null_argument(name))
}

impl From<Invalid> for ErrorReport {
    fn from(invalid: Invalid) -> Self {
        let code = match invalid.kind {
            Kind::Malformed => PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
            Kind::Invalid => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            Kind::NotSupported => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            Kind::Binary => PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        };
        let report = error(code, invalid.to_string());
        match invalid.hint {
            Some(hint) => report.set_hint(hint),
            None => report,
        }
    }
}

impl From<CalendarError> for ErrorReport {
    fn from(problem: CalendarError) -> Self {
        use PgSqlErrorCode::*;
        let (code, hint) = match problem {
            CalendarError::UnknownInterval(_) => {
                (ERRCODE_INVALID_PARAMETER_VALUE, "Use 'day', 'week', 'month' or 'year'.")
            }
            CalendarError::ZeroCount => (ERRCODE_INVALID_PARAMETER_VALUE, "A period is one interval or more."),
            CalendarError::EmptyPeriod => (ERRCODE_INVALID_PARAMETER_VALUE, "Ranges are half-open: [start, end)."),
            CalendarError::TimeOutOfRange => (
                ERRCODE_DATETIME_FIELD_OVERFLOW,
                "Periods lie between the years -262143 and 262142.",
            ),
            CalendarError::AmountOutOfRange => (
                ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                "Amounts are minor units of the currency, at most 9,223,372,036,854,775,807.",
            ),
        };
        error(code, problem.to_string()).set_hint(hint)
    }
}
