//! Input, output, send, receive, casts, equality and hash of the three value types, which are stored as their binary form.

use std::ffi::{CStr, CString};

use pgrx::datum::Internal;
use pgrx::prelude::*;

use crate::pg::error::{Result, error};
use crate::pg::text::{Text, utf8};
use crate::pg::wire;
use crate::types::{self, Meter, Price, StripeObject, Subscription};

fn parse<T: StripeObject>(text: &str) -> Result<Vec<u8>> {
    Ok(T::parse(text)?.to_bytes()?)
}

fn print<T: StripeObject>(stored: &[u8]) -> Result<String> {
    Ok(T::from_bytes(stored)?.to_json())
}

fn c_string(text: String) -> Result<CString> {
    CString::new(text).map_err(|_| {
        error(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            "a stored value holds a zero byte",
        )
    })
}

macro_rules! sql_type {
    ($type:ty, $input:ident, $output:ident, $receive:ident, $send:ident) => {
        #[pg_extern(sql = false)]
        fn $input(input: &CStr) -> Result<Vec<u8>> {
            parse::<$type>(&utf8(input.to_bytes().to_vec()))
        }

        #[pg_extern(sql = false)]
        fn $output(value: &[u8]) -> Result<CString> {
            c_string(print::<$type>(value)?)
        }

        #[pg_extern(sql = false)]
        fn $receive(buffer: Internal) -> Result<Vec<u8>> {
            parse::<$type>(&wire::receive(buffer)?)
        }

        #[pg_extern(sql = false)]
        fn $send(value: &[u8]) -> Result<Vec<u8>> {
            Ok(wire::send(&print::<$type>(value)?))
        }
    };
}

sql_type!(Meter, meter_in, meter_out, meter_recv, meter_send);
sql_type!(Price, price_in, price_out, price_recv, price_send);
sql_type!(
    Subscription,
    subscription_in,
    subscription_out,
    subscription_recv,
    subscription_send
);

// Equal values have equal bytes, so one function serves all three types.

#[pg_extern(sql = false)]
fn value_eq(left: &[u8], right: &[u8]) -> bool {
    left == right
}

#[pg_extern(sql = false)]
fn value_ne(left: &[u8], right: &[u8]) -> bool {
    left != right
}

#[pg_extern(sql = false)]
fn value_hash(value: &[u8]) -> i32 {
    wire::hash(value)
}

#[pg_extern(sql = false)]
fn value_hash_extended(value: &[u8], seed: i64) -> i64 {
    wire::hash_extended(value, seed)
}

/// Raises 0A000 for a field of a returned subscription that means money and is not built yet.
#[pg_extern(sql = false)]
fn require_supported(subscription: &[u8]) -> Result<()> {
    Ok(Subscription::from_bytes(subscription)?.refuse_unsupported()?)
}

/// The changes of a subscription, as JSON text, validated and normalised.
#[pg_extern(sql = false)]
fn subscription_changes(changes: Text) -> Result<String> {
    Ok(types::changes(&changes.0)?)
}

/// The definition of a subscription schedule, or changes of one, as JSON text, validated and normalised.
#[pg_extern(sql = false)]
fn subscription_schedule_definition(definition: Text, is_update: bool) -> Result<String> {
    Ok(types::schedule(&definition.0, is_update)?)
}

/// The JSON of something put on a bill by hand, checked and normalised.
#[pg_extern(sql = false)]
fn normalised_bill(kind: Text, object: Text) -> Result<String> {
    let read = types::normalised_bill(&kind.0, &object.0).map_err(|mut invalid| {
        let hint = "The comment of the function says which fields there are; they are those of Stripe's API.";
        invalid.hint.get_or_insert_with(|| hint.to_owned());
        invalid
    });
    read?.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{}\" is no kind of request", kind.0),
        )
    })
}
