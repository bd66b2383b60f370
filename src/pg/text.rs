//! Arguments that are texts, checked to be UTF-8, and `jsonb` as its text.
//!
//! A database of encoding SQL_ASCII lets any bytes pass as text; pgrx's own strings panic on those. Its own `jsonb` parses at once,
//! and panics on nesting that PostgreSQL accepts and the parser does not.

use std::ffi::CStr;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::{Datum, FromDatum, UnboxDatum};
use pgrx::prelude::*;
use pgrx::{direct_function_call, impl_sql_translatable};

use super::error::error;

#[derive(Debug, Clone)]
pub struct Text(pub String);

#[derive(Debug, Clone)]
pub struct JsonText(pub String);

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Text> {
        // SAFETY: the declared SQL type is text, whose bytes are laid out as bytea's.
        unsafe { <&[u8]>::from_datum(datum, is_null) }.map(|bytes| Text(utf8(bytes.to_vec())))
    }
}

impl FromDatum for JsonText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<JsonText> {
        if is_null {
            return None;
        }
        // SAFETY: the declared SQL type is jsonb, so the datum is a jsonb varlena; jsonb_out detoasts it and returns a C string.
        unsafe {
            let text: Option<&CStr> = direct_function_call(pg_sys::jsonb_out, &[Some(datum)]);
            text.map(|text| {
                let owned = JsonText(utf8(text.to_bytes().to_vec()));
                pg_sys::pfree(text.as_ptr().cast_mut().cast());
                owned
            })
        }
    }
}

/// Raises SQLSTATE 22021 for bytes that are no UTF-8.
pub fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|invalid| {
        let shown: String = String::from_utf8_lossy(invalid.as_bytes()).chars().take(60).collect();
        error(
            PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
            format!("text \"{shown}\" is not valid UTF-8"),
        )
        .set_hint("pg_billing takes texts in UTF-8 only; a database of encoding UTF8 makes sure of that.")
        .report(PgLogLevel::ERROR);
        String::new()
    })
}

macro_rules! argument {
    ($type:ident, $sql:literal) => {
        impl_sql_translatable!($type, $sql);

        // SAFETY: reads the datum as FromDatum does; the result owns its text.
        unsafe impl UnboxDatum for $type {
            type As<'src> = $type;

            unsafe fn unbox<'src>(datum: Datum<'src>) -> $type
            where
                Self: 'src,
            {
                // SAFETY: by the caller, a datum of this type that is not null.
                unsafe { $type::from_datum(datum.sans_lifetime(), false) }.unwrap_or($type(String::new()))
            }
        }

        // SAFETY: as above.
        unsafe impl<'fcx> ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: by the caller, a datum of this type that is not null.
                unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or($type(String::new()))
            }
        }
    };
}

argument!(Text, "text");
argument!(JsonText, "jsonb");
