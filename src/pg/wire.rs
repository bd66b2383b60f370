//! Binary send and receive, in the manner of jsonb: a version byte, then the JSON text.

use pgrx::datum::Internal;
use pgrx::prelude::*;

use super::error::{Result, error};

const VERSION: u8 = 1;

/// The JSON text of a received value. Anything but version 1 and UTF-8 is SQLSTATE 22P03.
pub fn receive(mut buffer: Internal) -> Result<String> {
    let malformed = |message: String| {
        error(
            PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
            format!("invalid binary value: {message}"),
        )
    };
    // SAFETY: PostgreSQL calls a receive function with a StringInfo that lives as long as the call.
    let buffer = unsafe { buffer.get_mut::<pg_sys::StringInfoData>() }.ok_or_else(|| malformed("no message".into()))?;
    let (cursor, len) = (buffer.cursor as usize, buffer.len as usize);
    // SAFETY: data holds len bytes, and cursor <= len.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.data.cast::<u8>().add(cursor), len - cursor) };
    buffer.cursor = buffer.len;
    match bytes.split_first() {
        Some((&VERSION, text)) => std::str::from_utf8(text)
            .map(str::to_owned)
            .map_err(|_| malformed("the text is not valid UTF-8".into())),
        Some((version, _)) => Err(malformed(format!("unknown version {version}, expected {VERSION}"))),
        None => Err(malformed("it is empty".into())),
    }
}

pub fn send(json: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(json.len() + 1);
    message.push(VERSION);
    message.extend_from_slice(json.as_bytes());
    message
}

unsafe extern "C-unwind" {
    // common/hashfn.h, which pgrx does not bind: pure functions of their arguments that raise nothing.
    fn hash_bytes(key: *const u8, len: i32) -> u32;
    fn hash_bytes_extended(key: *const u8, len: i32, seed: u64) -> u64;
}

/// Hashes stored bytes as PostgreSQL hashes a bytea of the same content.
pub fn hash(bytes: &[u8]) -> i32 {
    // SAFETY: reads exactly len bytes.
    unsafe { hash_bytes(bytes.as_ptr(), bytes.len() as i32) as i32 }
}

pub fn hash_extended(bytes: &[u8], seed: i64) -> i64 {
    // SAFETY: reads exactly len bytes.
    unsafe { hash_bytes_extended(bytes.as_ptr(), bytes.len() as i32, seed as u64) as i64 }
}
