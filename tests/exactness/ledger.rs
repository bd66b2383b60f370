//! What one client was told, by transactions whose end it knows, and what it may have done otherwise.

/// What a transaction was told so far, or a savepoint of it.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// recorded, said of each
    pub recorded: Vec<u32>,
    /// sent in batches that say only how many were recorded: there afterwards, by this batch or by another's
    pub batched: Vec<u32>,
    pub cancelled: Vec<u32>,
    /// rows of `billing.meter_events`
    pub rows: u64,
    /// rows of `billing.meter_event_rejections`
    pub rejected: u64,
}

impl Told {
    pub fn take_in(&mut self, inner: Told) {
        self.recorded.extend(inner.recorded);
        self.batched.extend(inner.batched);
        self.cancelled.extend(inner.cancelled);
        self.rows += inner.rows;
        self.rejected += inner.rejected;
    }
}

#[derive(Debug, Default, Clone)]
pub struct Ledger {
    pub committed: Told,
    /// Transactions of which the connection broke before their end was acknowledged: each happened as a whole or not at all.
    pub unknown: Vec<Told>,
    /// Told to be duplicates of what others have committed.
    pub seen: Vec<u32>,
    /// Acknowledged events that could not be cancelled: somebody else had done it.
    pub cancelled_before: Vec<u32>,
    pub transactions: u64,
    pub deadlocks: u64,
}

impl Ledger {
    pub fn take_in(&mut self, other: Ledger) {
        self.committed.take_in(other.committed);
        self.unknown.extend(other.unknown);
        self.seen.extend(other.seen);
        self.cancelled_before.extend(other.cancelled_before);
        self.transactions += other.transactions;
        self.deadlocks += other.deadlocks;
    }
}
