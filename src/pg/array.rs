//! Array arguments taken apart once, their elements left where they lie.

use std::marker::PhantomData;
use std::slice;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::FromDatum;
use pgrx::impl_sql_translatable;
use pgrx::prelude::*;

/// The elements of an array of any number of dimensions, in storage order.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a, T> {
    datums: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    of: PhantomData<T>,
}

impl<T: FromDatum> Elements<'_, T> {
    pub fn len(&self) -> usize {
        self.datums.len()
    }

    /// Those that are not null.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// `None`: null, or beyond the end.
    pub fn get(&self, i: usize) -> Option<T> {
        let (datum, is_null) = (self.datums.get(i)?, self.nulls.get(i)?);
        // SAFETY: an element of an array whose SQL type was declared with T's as its element type.
        unsafe { T::from_datum(*datum, *is_null) }
    }
}

impl<T> FromDatum for Elements<'_, T> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the declared SQL type is an array; what is detoasted and taken apart lives as long as the call.
        unsafe {
            let array: *mut pg_sys::ArrayType = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            let (mut length, mut by_value, mut align) = (0, false, 0);
            pg_sys::get_typlenbyvalalign((*array).elemtype, &mut length, &mut by_value, &mut align);
            let (mut datums, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                (*array).elemtype,
                length.into(),
                by_value,
                align,
                &mut datums,
                &mut nulls,
                &mut count,
            );
            let count = usize::try_from(count).unwrap_or(0);
            if count == 0 {
                return Some(Elements {
                    datums: &[],
                    nulls: &[],
                    of: PhantomData,
                });
            }
            Some(Elements {
                datums: slice::from_raw_parts(datums, count),
                nulls: slice::from_raw_parts(nulls, count),
                of: PhantomData,
            })
        }
    }
}

impl_sql_translatable!(super::numeric::NumericRef, "numeric");
impl_sql_translatable!(super::time::Micros, "timestamp with time zone");
impl_sql_translatable!(Elements<'_, super::text::TextRef<'_>>, "text[]");
impl_sql_translatable!(Elements<'_, super::numeric::NumericRef>, "numeric[]");
impl_sql_translatable!(Elements<'_, super::time::Micros>, "timestamptz[]");
impl_sql_translatable!(Elements<'_, super::jsonb::Item<'_>>, "jsonb[]");

// SAFETY: reads the datum as FromDatum does.
unsafe impl<'fcx, T> ArgAbi<'fcx> for Elements<'fcx, T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller, a datum of this type that is not null.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Elements {
            datums: &[],
            nulls: &[],
            of: PhantomData,
        })
    }
}
