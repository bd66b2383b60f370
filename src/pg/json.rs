//! `jsonb` as its text. pgrx's own type parses at once, and panics on nesting that PostgreSQL accepts and the parser does not.

use std::ffi::CStr;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::{Datum, FromDatum, UnboxDatum};
use pgrx::prelude::*;
use pgrx::{direct_function_call, impl_sql_translatable};

#[derive(Debug, Clone)]
pub struct JsonText(pub String);

impl_sql_translatable!(JsonText, "jsonb");

impl FromDatum for JsonText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<JsonText> {
        if is_null {
            return None;
        }
        // SAFETY: the declared SQL type is jsonb, so the datum is a jsonb varlena; jsonb_out detoasts it and returns a C string.
        unsafe {
            let text: Option<&CStr> = direct_function_call(pg_sys::jsonb_out, &[Some(datum)]);
            text.map(|text| {
                let owned = JsonText(text.to_string_lossy().into_owned());
                pg_sys::pfree(text.as_ptr().cast_mut().cast());
                owned
            })
        }
    }
}

// SAFETY: reads the datum as FromDatum does; the result owns its text.
unsafe impl UnboxDatum for JsonText {
    type As<'src> = JsonText;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> JsonText
    where
        Self: 'src,
    {
        // SAFETY: by the caller, a jsonb that is not null.
        unsafe { JsonText::from_datum(datum.sans_lifetime(), false) }.unwrap_or(JsonText(String::new()))
    }
}

// SAFETY: as above.
unsafe impl<'fcx> ArgAbi<'fcx> for JsonText {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller, a jsonb that is not null.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(JsonText(String::new()))
    }
}
