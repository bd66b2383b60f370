//! Ids that sort by creation.

use pgrx::prelude::*;

/// `prefix_` and the 32 hex digits of a UUIDv7: of two ids that one backend makes, the later is the greater.
#[pg_extern(sql = false)]
fn generate_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}
