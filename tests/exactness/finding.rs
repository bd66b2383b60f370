//! What is wrong.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// acknowledged and not there
    Lost,
    /// one identity in more than one row, or recorded for more than one client
    Twice,
    /// there, though nobody was told that it is
    Unaccounted,
    /// there, with other content than was sent
    Altered,
    /// cancelled or not, against what was acknowledged
    Cancellation,
    /// in a partition where it does not belong, or not in the sealed partition's account
    Misplaced,
    /// some of a transaction that must be there as a whole or not at all
    Torn,
    /// an answer that cannot be
    Answer,
    /// an error where there must be none
    Error,
    /// buckets and queue together, or buckets when the queue is empty, against a count of the events
    Usage,
    /// a summary against a count of the events in the same snapshot
    Summary,
    /// what billing.verify() reports
    Verify,
    /// a job of the worker that fails, or a queue that it does not empty
    Worker,
    /// sabotage that the audit did not see
    Unnoticed,
}

#[derive(Debug, Clone)]
pub struct Finding {
    pub kind: Kind,
    pub what: String,
}

impl Finding {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}
