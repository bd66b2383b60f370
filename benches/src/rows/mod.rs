//! The rows of the table, in the order in which they are measured.

mod batches;
mod billing;
mod growth;
mod month;
mod roll_up;
mod singles;
mod storage;
mod worker;

use harness::Result;

use crate::plan::Plan;
use crate::report::Report;
use crate::server::Server;

pub type Measure = fn(&Server, &Plan, &mut Report) -> Result<()>;

pub const ALL: &[(&str, Measure)] = &[
    (singles::ROW, singles::measure),
    (worker::ROW, worker::measure),
    (batches::ROW, batches::measure),
    (roll_up::ROW, roll_up::measure),
    (storage::ROW, storage::measure),
    (month::ROW, month::measure),
    (growth::ROW, growth::measure),
    (billing::ROW, billing::measure),
];

pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}
