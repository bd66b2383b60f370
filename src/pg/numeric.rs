//! PostgreSQL's `numeric` to and from exact decimals.

use std::str::FromStr;

use bigdecimal::BigDecimal;
use pgrx::AnyNumeric;
use pgrx::prelude::*;

use super::error::{Result, error};

/// NaN and infinities have no decimal: `None`.
pub fn to_decimal(value: &AnyNumeric) -> Option<BigDecimal> {
    BigDecimal::from_str(&value.to_string()).ok()
}

/// Beyond what `numeric` holds is SQLSTATE 22003.
pub fn from_decimal(value: &BigDecimal) -> Result<AnyNumeric> {
    AnyNumeric::try_from(value.to_plain_string().as_str()).map_err(|_| {
        error(
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("a value of {} digits is out of range for numeric", value.digits()),
        )
        .set_hint("numeric holds 131,072 digits before the decimal point and 16,383 after it.")
    })
}
