//! Exactness while everything happens at once: a storm of recording, rolling back, cancelling, folding, killing and reading,
//! and the account of it.
//!
//!     session, roller, reader, killer ──▶ ledger (what clients were told) ──▶ audit (what the database holds) ──▶ findings
//!
//! What an event is follows from its number and the run's seed alone, so whoever sends it, sends the same, and the audit
//! needs nothing from the database to know what must be there.

mod audit;
mod board;
mod buckets;
mod catalog;
mod event;
mod finding;
mod killer;
mod ledger;
mod question;
mod reader;
mod roller;
mod sabotage;
mod session;
mod stage;
mod storm;
mod transaction;

pub use catalog::{FORMULAS, METERS, create as create_catalog, declared, definition, formula, name};
pub use finding::{Finding, Kind};
pub use sabotage::control;
pub use stage::{Kills, Plan};
pub use storm::{Outcome, run};
