//! pg_billing: Stripe-style usage-based billing inside PostgreSQL.
//!
//! Data flows one way: ingest → events → roll-up → buckets → rating → invoices. The first six modules are pure and are all that
//! is compiled without a `pgNN` feature; the others need PostgreSQL.

pub mod adjustment;
pub mod calendar;
pub mod customer_ids;
pub mod filter;
pub mod pricing;
pub mod types;

#[cfg(feature = "pg")]
mod functions;
#[cfg(feature = "pg")]
mod ingest;
#[cfg(feature = "pg")]
mod install;
#[cfg(feature = "pg")]
mod pg;
#[cfg(feature = "pg")]
mod settings;
#[cfg(feature = "pg")]
mod usage;
#[cfg(feature = "pg")]
mod worker;
