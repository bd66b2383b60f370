//! The only room with `unsafe`: everything that touches PostgreSQL below its SQL surface.

pub mod error;
pub mod leaf;
pub mod liveness;
pub mod numeric;
pub mod process;
pub mod spi;
pub mod text;
pub mod time;
pub mod wire;
