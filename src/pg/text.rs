//! Arguments that are texts, checked to be UTF-8.
//!
//! A database of encoding SQL_ASCII lets any bytes pass as text; pgrx's own strings panic on those.

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::impl_sql_translatable;
use pgrx::prelude::*;

use super::error::error;

#[derive(Debug, Clone)]
pub struct Text(pub String);

/// A text where it lies in an argument, not copied.
#[derive(Debug, Clone, Copy)]
pub struct TextRef<'a> {
    pub text: &'a str,
    /// The same text as PostgreSQL has it, if it has.
    datum: Option<pg_sys::Datum>,
}

impl<'a> TextRef<'a> {
    pub fn of(text: &'a str) -> TextRef<'a> {
        TextRef { text, datum: None }
    }

    /// A copy in the current memory context, which is to outlive `'a`.
    pub fn kept(text: &str) -> TextRef<'a> {
        // SAFETY: a text was just made there.
        unsafe { TextRef::from_datum(TextRef::of(text).datum(), false) }.unwrap_or(TextRef::of(""))
    }

    /// The text as PostgreSQL has it: made in the current memory context if it does not lie there already.
    pub fn datum(&self) -> pg_sys::Datum {
        self.datum
            .or_else(|| self.text.into_datum())
            .unwrap_or(pg_sys::Datum::null())
    }
}

/// A text in memory of our own, laid out as PostgreSQL has texts.
#[derive(Debug)]
pub struct KeptText(Box<[u32]>);

impl KeptText {
    pub fn of(text: &str) -> KeptText {
        let size = pg_sys::VARHDRSZ + text.len();
        let mut kept = vec![0_u32; size.div_ceil(size_of::<u32>())].into_boxed_slice();
        // SAFETY: there is room for the header and the text, and a text is below PostgreSQL's 1 GB.
        unsafe {
            let varlena = kept.as_mut_ptr().cast::<pg_sys::varlena>();
            pgrx::set_varsize_4b(varlena, size as i32);
            let bytes = varlena.cast::<u8>().add(pg_sys::VARHDRSZ);
            bytes.copy_from_nonoverlapping(text.as_ptr(), text.len());
        }
        KeptText(kept)
    }

    pub fn as_str(&self) -> &str {
        // SAFETY: what was put there by `of`.
        unsafe { std::str::from_utf8_unchecked(pgrx::varlena_to_byte_slice(self.0.as_ptr().cast())) }
    }

    /// Good as long as this is.
    pub fn datum(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0.as_ptr())
    }
}

/// A value as it lies where that can be read, or else a copy in the current memory context.
///
/// # Safety
/// The datum must be a varlena.
pub unsafe fn detoasted(datum: pg_sys::Datum) -> *mut pg_sys::varlena {
    let varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: by the caller.
    unsafe {
        match pgrx::varlena::varatt_is_1b_e(varlena) || pgrx::varlena::varatt_is_4b_c(varlena) {
            true => pg_sys::pg_detoast_datum_packed(varlena),
            false => varlena,
        }
    }
}

impl<'a> FromDatum for TextRef<'a> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<TextRef<'a>> {
        if is_null {
            return None;
        }
        // SAFETY: the declared SQL type is text; a copy made by detoasting lives as long as the call, as the argument does.
        unsafe {
            let varlena = detoasted(datum);
            let bytes = pgrx::varlena_to_byte_slice(varlena);
            let text = std::str::from_utf8(bytes).unwrap_or_else(|_| {
                utf8(bytes.to_vec());
                ""
            });
            Some(TextRef {
                text,
                datum: Some(pg_sys::Datum::from(varlena)),
            })
        }
    }
}

impl_sql_translatable!(TextRef<'_>, "text");

// SAFETY: reads the datum as FromDatum does; the text lives as long as the argument.
unsafe impl<'fcx> ArgAbi<'fcx> for TextRef<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller, a datum of this type that is not null.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(TextRef::of(""))
    }
}

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Text> {
        // SAFETY: the declared SQL type is text, whose bytes are laid out as bytea's.
        unsafe { <&[u8]>::from_datum(datum, is_null) }.map(|bytes| Text(utf8(bytes.to_vec())))
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

impl_sql_translatable!(Text, "text");

// SAFETY: reads the datum as FromDatum does; the result owns its text.
unsafe impl UnboxDatum for Text {
    type As<'src> = Text;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Text
    where
        Self: 'src,
    {
        // SAFETY: by the caller, a datum of this type that is not null.
        unsafe { Text::from_datum(datum.sans_lifetime(), false) }.unwrap_or(Text(String::new()))
    }
}

// SAFETY: as above.
unsafe impl<'fcx> ArgAbi<'fcx> for Text {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller, a datum of this type that is not null.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Text(String::new()))
    }
}
