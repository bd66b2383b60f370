//! Ids that sort by creation.

use pgrx::prelude::*;

use crate::pg::text::Text;

/// `prefix_` and the 32 hex digits of a UUIDv7: of two ids that one backend makes, the later is the greater.
#[pg_extern(sql = false)]
fn generate_id(prefix: Text) -> String {
    format!("{}_{}", prefix.0, uuid::Uuid::now_v7().simple())
}
