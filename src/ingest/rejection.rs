//! Why an event was refused, in Stripe's words where Stripe has them.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::error::{Result, error};
use crate::pg::spi::{self, Statement, arg};

/// The codes that stand in parentheses at the end of messages and in `meter_event_rejections.error_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    NoMeter,
    ArchivedMeter,
    NoCustomerDefined,
    CustomerNotFound,
    ValueNotFound,
    InvalidValue,
    TooManyDigits,
    TooFarInPast,
    InFuture,
    MissingDimensions,
    /// Ours: Stripe has no code for the rest.
    InvalidDimensions,
    InvalidIdentifier,
    InvalidTimestamp,
    InvalidEvent,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NoMeter => "no_meter",
            Code::ArchivedMeter => "archived_meter",
            Code::NoCustomerDefined => "meter_event_no_customer_defined",
            Code::CustomerNotFound => "meter_event_customer_not_found",
            Code::ValueNotFound => "meter_event_value_not_found",
            Code::InvalidValue => "meter_event_invalid_value",
            Code::TooManyDigits => "meter_event_value_too_many_digits",
            Code::TooFarInPast => "timestamp_too_far_in_past",
            Code::InFuture => "timestamp_in_future",
            Code::MissingDimensions => "missing_dimension_payload_keys",
            Code::InvalidDimensions => "meter_event_invalid_dimensions",
            Code::InvalidIdentifier => "meter_event_invalid_identifier",
            Code::InvalidTimestamp => "meter_event_invalid_timestamp",
            Code::InvalidEvent => "meter_event_invalid",
        }
    }

    fn sqlstate(self) -> PgSqlErrorCode {
        match self {
            Code::NoMeter => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            Code::ArchivedMeter => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Code::CustomerNotFound => PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION,
            Code::NoCustomerDefined | Code::ValueNotFound => PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Code::TooManyDigits => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            _ => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Code::NoMeter => "Create the meter with billing.create_meter(), or check the event name.",
            Code::ArchivedMeter => "Reactivate it with billing.reactivate_meter().",
            Code::NoCustomerDefined => {
                "Send the customer's id; in JSON, in the payload under the meter's customer key."
            }
            Code::CustomerNotFound => "Create the customer with billing.create_customer().",
            Code::ValueNotFound => "Send the value; in JSON, in the payload under the meter's value key.",
            Code::InvalidValue => "A value is a finite decimal number.",
            Code::TooManyDigits => "A value has at most 28 digits.",
            Code::TooFarInPast => "Set billing.max_event_age to -1 to import history.",
            Code::InFuture => "Check the sender's clock, or set billing.max_event_lead.",
            Code::MissingDimensions => "Send every key of the meter's dimension_payload_keys.",
            Code::InvalidDimensions => "Dimensions are a JSON object of texts, numbers and booleans.",
            Code::InvalidIdentifier => "An identifier has 1 to 255 bytes; leave it out to have one made.",
            Code::InvalidTimestamp => "A timestamp is Unix seconds, or text in ISO 8601 with a time zone.",
            Code::InvalidEvent => {
                "An event is an object with event_name, payload, and optionally identifier and timestamp."
            }
        }
    }
}

#[derive(Debug)]
pub struct Rejection {
    pub code: Code,
    pub message: String,
}

pub fn reject<T>(code: Code, message: impl Into<String>) -> std::result::Result<T, Rejection> {
    Err(Rejection {
        code,
        message: message.into(),
    })
}

impl From<Rejection> for ErrorReport {
    fn from(rejection: Rejection) -> Self {
        error(
            rejection.code.sqlstate(),
            format!("{} ({})", rejection.message, rejection.code.as_str()),
        )
        .set_hint(rejection.code.hint())
    }
}

/// Keeps a refused event whole, as JSON text, beside the good ones of its batch.
pub fn keep(event: &str, rejection: &Rejection) -> Result<()> {
    const KEEP: Statement = Statement {
        sql: "INSERT INTO billing.meter_event_rejections (event, error_code, error_message) VALUES ($1::jsonb, $2, $3)",
        types: &[PgBuiltInOids::TEXTOID, PgBuiltInOids::TEXTOID, PgBuiltInOids::TEXTOID],
    };
    let kept = [
        arg(event),
        arg(rejection.code.as_str()),
        arg(rejection.message.as_str()),
    ];
    spi::execute(&KEEP, &kept)?;
    Ok(())
}
