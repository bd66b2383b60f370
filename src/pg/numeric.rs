//! PostgreSQL's `numeric` to and from exact decimals.

use std::str::FromStr;

use bigdecimal::BigDecimal;
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::FromDatum;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, direct_function_call};

use super::error::{Result, error};
use super::text::detoasted;
use crate::pricing::{MOST_DIGITS, Quantity, Total};

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

/// A `numeric` where it lies.
#[derive(Debug, Clone, Copy)]
pub struct NumericRef(pub pg_sys::Datum);

/// What a `numeric` is as a quantity.
pub enum Read {
    Quantity(Quantity),
    /// Finite, with more digits than a quantity has.
    TooLong,
    NotANumber,
}

/// Bits of the header word, as numeric.c lays them out; on disk since 9.1.
mod header {
    pub const KIND: u16 = 0xC000;
    pub const LONG_NEGATIVE: u16 = 0x4000;
    pub const SHORT: u16 = 0x8000;
    pub const SPECIAL: u16 = 0xC000;
    pub const SHORT_NEGATIVE: u16 = 0x2000;
    pub const LONG_PLACES: u16 = 0x3FFF;
    pub const SHORT_PLACES: u16 = 0x1F80;
    pub const SHORT_PLACES_SHIFT: u16 = 7;
    pub const SHORT_WEIGHT: u16 = 0x003F;
    pub const SHORT_WEIGHT_NEGATIVE: u16 = 0x0040;
}

/// More groups of four digits are more than 28 digits, wherever the point stands, and fewer fit 128 bits.
const MOST_GROUPS: usize = 9;

impl NumericRef {
    /// Straight from the digits; the way through text costs more than the rest of the event's checks.
    pub fn read(self) -> Read {
        let first = self.word(0);
        let (negative, weight, digits) = match first & header::KIND {
            header::SPECIAL => return Read::NotANumber,
            header::SHORT => {
                let low = (first & header::SHORT_WEIGHT) as i16;
                let weight = match first & header::SHORT_WEIGHT_NEGATIVE {
                    0 => low,
                    _ => low | !(header::SHORT_WEIGHT as i16),
                };
                (first & header::SHORT_NEGATIVE != 0, weight, 2)
            }
            kind => (kind == header::LONG_NEGATIVE, self.word(2) as i16, 4),
        };
        let groups = self.bytes().len().saturating_sub(digits) / 2;
        if groups > MOST_GROUPS {
            return Read::TooLong;
        }
        let units = (0..groups).fold(0_i128, |units, i| {
            units * 10_000 + i128::from(self.word(digits + 2 * i))
        });
        let exponent = (i32::from(weight) + 1 - groups as i32) * 4;
        match Quantity::new(if negative { -units } else { units }, exponent) {
            Some(quantity) => Read::Quantity(quantity),
            None => Read::TooLong,
        }
    }

    fn word(self, at: usize) -> u16 {
        match self.bytes().get(at..at + 2) {
            Some(&[a, b]) => u16::from_ne_bytes([a, b]),
            _ => 0,
        }
    }

    /// What follows the varlena header; the first word of it may not be aligned.
    fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: a numeric is a varlena, which the caller's argument or document keeps alive.
        unsafe { pgrx::varlena_to_byte_slice(self.0.cast_mut_ptr()) }
    }

    pub fn to_text(self) -> String {
        // SAFETY: numeric_out takes a numeric and returns a C string.
        unsafe {
            let text: Option<&std::ffi::CStr> = direct_function_call(pg_sys::numeric_out, &[Some(self.0)]);
            text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        }
    }

    /// Without its zeros at the end if these are many: nobody should store sixteen thousand of them.
    pub fn presentable(self) -> NumericRef {
        if u32::from(self.places()) <= MOST_DIGITS {
            self
        } else {
            self.trimmed()
        }
    }

    /// How many digits are shown after the point, be they zeros.
    pub fn places(self) -> u16 {
        let first = self.word(0);
        match first & header::KIND {
            header::SHORT => (first & header::SHORT_PLACES) >> header::SHORT_PLACES_SHIFT,
            _ => first & header::LONG_PLACES,
        }
    }

    /// A copy in the current memory context.
    pub fn copied(self) -> NumericRef {
        // SAFETY: a numeric is a varlena.
        NumericRef(pg_sys::Datum::from(unsafe {
            pg_sys::pg_detoast_datum_copy(self.0.cast_mut_ptr())
        }))
    }

    fn trimmed(self) -> NumericRef {
        // SAFETY: numeric_trim_scale takes a numeric and returns one.
        let datum = unsafe { pgrx::direct_function_call_as_datum(pg_sys::numeric_trim_scale, &[Some(self.0)]) };
        NumericRef(datum.unwrap_or(self.0))
    }
}

impl FromDatum for NumericRef {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<NumericRef> {
        // SAFETY: the declared SQL type is numeric; a copy made by detoasting lives as long as the call, as the argument does.
        (!is_null).then(|| unsafe { NumericRef(pg_sys::Datum::from(detoasted(datum))) })
    }
}

// SAFETY: reads the datum as FromDatum does.
unsafe impl<'fcx> ArgAbi<'fcx> for NumericRef {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller, a datum of this type that is not null.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(NumericRef(pg_sys::Datum::null()))
    }
}

/// How many values become one; NULLs are passed over.
#[derive(Debug, Clone, Copy)]
pub enum Merge {
    Sum,
    Greatest,
    Least,
}

impl Merge {
    /// Adds a value, of a row that may go, to what is kept in the current memory context.
    pub fn add(self, kept: &mut Option<NumericRef>, value: Option<pg_sys::Datum>) {
        let Some(value) = value else { return };
        let Some(old) = *kept else {
            *kept = Some(NumericRef(value).copied());
            return;
        };
        let function = match self {
            Merge::Sum => pg_sys::numeric_add,
            Merge::Greatest => pg_sys::numeric_larger,
            Merge::Least => pg_sys::numeric_smaller,
        };
        // SAFETY: each takes two numerics and returns one: the sum is a new one, the greater or lesser one of the two, or a copy of it.
        let new = unsafe { pgrx::direct_function_call_as_datum(function, &[Some(old.0), Some(value)]) };
        let Some(new) = new.map(NumericRef).filter(|new| new.0 != old.0) else {
            return;
        };
        *kept = Some(match self {
            Merge::Sum => new,
            Merge::Greatest | Merge::Least => new.copied(),
        });
        // SAFETY: what is kept was made here.
        unsafe { pg_sys::pfree(old.0.cast_mut_ptr()) };
    }
}

pub fn from_quantity(value: Quantity) -> Result<pg_sys::Datum> {
    from_total(&value.into())
}

pub fn from_total(value: &Total) -> Result<pg_sys::Datum> {
    match value.as_i64() {
        Some(short) => Ok(from_units(short)),
        None => datum(&value.to_decimal()),
    }
}

fn datum(value: &BigDecimal) -> Result<pg_sys::Datum> {
    Ok(from_decimal(value)?.into_datum().unwrap_or(pg_sys::Datum::null()))
}

fn from_units((units, scale): (i64, u32)) -> pg_sys::Datum {
    // SAFETY: pure functions of integers that return a palloc'd numeric.
    unsafe {
        match scale {
            0 => pg_sys::Datum::from(pg_sys::int64_to_numeric(units)),
            // It shows four places or eight, whatever there are.
            scale => {
                NumericRef(pg_sys::Datum::from(pg_sys::int64_div_fast_to_numeric(
                    units,
                    scale as i32,
                )))
                .trimmed()
                .0
            }
        }
    }
}
