//! The only room with `unsafe`: everything that touches PostgreSQL below its SQL surface.

pub mod array;
pub mod brin;
pub mod catalog;
pub mod error;
pub mod hash_partition;
pub mod heap;
pub mod index;
pub mod jsonb;
pub mod leaf;
pub mod liveness;
pub mod lookup;
pub mod numeric;
pub mod owner;
pub mod prefetch;
pub mod process;
pub mod query;
pub mod returned;
pub mod rows;
pub mod shape;
pub mod spi;
pub mod subtransaction;
pub mod table;
pub mod text;
pub mod time;
pub mod unguarded;
pub mod wire;
