//! `jsonb` read where it lies, as PostgreSQL stores it: no text, no parser, no depth to run out of.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::FromDatum;
use pgrx::impl_sql_translatable;
use pgrx::prelude::*;

use super::numeric::NumericRef;
use super::text::utf8;

#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    Null,
    Bool(bool),
    Number(NumericRef),
    Text(&'a str),
    Array(Container<'a>),
    Object(Container<'a>),
}

/// An array or an object.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    at: *mut pg_sys::JsonbContainer,
    len: i32,
    of: PhantomData<&'a [u8]>,
}

impl<'a> Container<'a> {
    /// Gives each element to `read`.
    pub fn elements(&self, mut read: impl FnMut(Item<'a>)) {
        self.walk(|_, item| read(item));
    }

    /// Gives each key and value to `read`, in the order that `jsonb` keeps them.
    pub fn entries(&self, mut read: impl FnMut(&'a str, Item<'a>)) {
        self.walk(|key, item| read(key.unwrap_or_default(), item));
    }

    fn walk(&self, mut read: impl FnMut(Option<&'a str>, Item<'a>)) {
        let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
        // SAFETY: the container is well-formed, as all of PostgreSQL trusts; `value` is set before it is read.
        unsafe {
            let mut iterator = pg_sys::JsonbIteratorInit(self.at);
            let mut key = None;
            loop {
                use pg_sys::JsonbIteratorToken::*;
                // Of the container itself the beginning must not be skipped, of what is in it all may.
                match pg_sys::JsonbIteratorNext(&mut iterator, value.as_mut_ptr(), true) {
                    WJB_DONE => break,
                    WJB_KEY => key = Some(text(value.assume_init_ref())),
                    WJB_ELEM | WJB_VALUE => read(key, item(value.assume_init_ref())),
                    _ => {}
                }
            }
        }
    }

    /// The JSON text.
    pub fn to_text(self) -> String {
        // SAFETY: as in `walk`; the C string is copied before it is freed.
        unsafe {
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), self.at, self.len);
            let owned = utf8(std::ffi::CStr::from_ptr(text).to_bytes().to_vec());
            pg_sys::pfree(text.cast());
            owned
        }
    }
}

impl std::fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Null => f.write_str("null"),
            Item::Bool(flag) => write!(f, "{flag}"),
            Item::Number(number) => f.write_str(&number.to_text()),
            Item::Text(text) => f.write_str(&serde_json::Value::from(*text).to_string()),
            Item::Array(container) | Item::Object(container) => f.write_str(&container.to_text()),
        }
    }
}

/// The object without entries, made once.
pub fn empty_object() -> pg_sys::Datum {
    thread_local!(static EMPTY: Cell<Option<pg_sys::Datum>> = const { Cell::new(None) });
    EMPTY.get().unwrap_or_else(|| {
        // SAFETY: what is made in the top context lives as long as the process.
        let empty = unsafe {
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let empty = object(std::iter::empty());
            pg_sys::MemoryContextSwitchTo(context);
            empty
        };
        EMPTY.set(Some(empty));
        empty
    })
}

/// An object of texts, in the current memory context.
pub fn object<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> pg_sys::Datum {
    let string = |text: &str| {
        let mut value = pg_sys::JsonbValue {
            type_: pg_sys::jbvType::jbvString,
            // SAFETY: plain data, all of it set below that the tag says is there.
            val: unsafe { std::mem::zeroed() },
        };
        value.val.string.len = text.len() as i32;
        value.val.string.val = text.as_ptr().cast_mut().cast();
        value
    };
    let mut pairs: Vec<pg_sys::JsonbPair> = entries
        .map(|(key, value)| pg_sys::JsonbPair {
            key: string(key),
            value: string(value),
            order: 0,
        })
        .collect();
    // The order that jsonb keeps keys in: by length, then by bytes.
    // SAFETY: the keys were made above of texts that are alive.
    pairs.sort_by(|a, b| unsafe {
        let (a, b) = (text(&a.key), text(&b.key));
        (a.len(), a).cmp(&(b.len(), b))
    });
    // SAFETY: an object's pairs in order, each key once; the result is a copy.
    unsafe {
        let mut value = pg_sys::JsonbValue {
            type_: pg_sys::jbvType::jbvObject,
            val: std::mem::zeroed(),
        };
        value.val.object.nPairs = pairs.len() as i32;
        value.val.object.pairs = pairs.as_mut_ptr();
        pg_sys::Datum::from(pg_sys::JsonbValueToJsonb(&mut value))
    }
}

/// # Safety
/// A string or key that an iterator has just returned.
unsafe fn text<'a>(value: &pg_sys::JsonbValue) -> &'a str {
    // SAFETY: by the caller; the bytes lie in the document, which outlives the item.
    let bytes = unsafe {
        let string = value.val.string;
        std::slice::from_raw_parts(string.val.cast::<u8>(), string.len as usize)
    };
    std::str::from_utf8(bytes).unwrap_or_else(|_| {
        utf8(bytes.to_vec());
        ""
    })
}

/// # Safety
/// A value that an iterator has just returned.
unsafe fn item<'a>(value: &pg_sys::JsonbValue) -> Item<'a> {
    // SAFETY: by the caller; the tag says which member of the union is set.
    unsafe {
        use pg_sys::jbvType;
        match value.type_ {
            jbvType::jbvBool => Item::Bool(value.val.boolean),
            jbvType::jbvNumeric => Item::Number(NumericRef(pg_sys::Datum::from(value.val.numeric))),
            jbvType::jbvString => Item::Text(text(value)),
            jbvType::jbvBinary => container(value.val.binary.data, value.val.binary.len),
            _ => Item::Null,
        }
    }
}

/// # Safety
/// A container of a well-formed document.
unsafe fn container<'a>(at: *mut pg_sys::JsonbContainer, len: i32) -> Item<'a> {
    let found = Container {
        at,
        len,
        of: PhantomData,
    };
    // SAFETY: by the caller.
    let header = unsafe { (*at).header };
    if header & pg_sys::JB_FOBJECT != 0 {
        return Item::Object(found);
    }
    if header & pg_sys::JB_FSCALAR == 0 {
        return Item::Array(found);
    }
    // A scalar document is an array of one.
    let mut scalar = Item::Null;
    found.elements(|item| scalar = item);
    scalar
}

impl<'a> FromDatum for Item<'a> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Item<'a>> {
        if is_null {
            return None;
        }
        // SAFETY: the declared SQL type is jsonb; a copy made by detoasting lives as long as the call, as the argument does.
        unsafe {
            let jsonb: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            let len = pgrx::varlena::varsize_any_exhdr(jsonb.cast());
            Some(container(&raw mut (*jsonb).root, len as i32))
        }
    }
}

impl_sql_translatable!(Item<'_>, "jsonb");

// SAFETY: reads the datum as FromDatum does.
unsafe impl<'fcx> ArgAbi<'fcx> for Item<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller, a datum of this type that is not null.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Item::Null)
    }
}
