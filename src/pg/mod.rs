//! The only room with `unsafe`: everything that touches PostgreSQL below its SQL surface.

pub mod error;
pub mod json;
pub mod leaf;
pub mod liveness;
pub mod numeric;
pub mod spi;
pub mod time;
pub mod wire;
