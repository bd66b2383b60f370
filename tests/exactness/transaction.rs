//! A client's transaction: what it was told in it, and how it ends.

use postgres::Client;
use postgres::error::SqlState;

use super::ledger::Told;

/// Why a transaction could not go on.
#[derive(Debug)]
pub enum Stop {
    /// 40P01: gave way to others that waited crosswise
    Deadlock,
    /// 40001: the snapshot is too old
    Conflict,
    /// The connection is gone.
    Broken,
    /// What must not happen.
    Fault(String),
}

impl From<postgres::Error> for Stop {
    fn from(error: postgres::Error) -> Self {
        match error.as_db_error() {
            // 57P01 to 57P03: the server goes down, has crashed, or starts.
            Some(db) if db.code().code().starts_with("57P0") => Stop::Broken,
            Some(db) if *db.code() == SqlState::T_R_DEADLOCK_DETECTED => Stop::Deadlock,
            Some(db) if *db.code() == SqlState::T_R_SERIALIZATION_FAILURE => Stop::Conflict,
            Some(db) => Stop::Fault(format!("{} {}", db.code().code(), db.message())),
            None => Stop::Broken,
        }
    }
}

/// What is open: the transaction, or the one statement, and the savepoints in it.
#[derive(Debug)]
pub struct Open(Vec<Told>);

impl Open {
    pub fn new() -> Self {
        Self(vec![Told::default()])
    }

    pub fn depth(&self) -> usize {
        self.0.len()
    }

    pub fn told(&mut self) -> &mut Told {
        if self.0.is_empty() {
            self.0.push(Told::default());
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Whether this transaction has made sure that the event is there.
    pub fn holds(&self, number: u32) -> bool {
        self.0
            .iter()
            .any(|told| told.recorded.contains(&number) || told.batched.contains(&number))
    }

    pub fn has_cancelled(&self, number: u32) -> bool {
        self.0.iter().any(|told| told.cancelled.contains(&number))
    }

    pub fn savepoint(&mut self, client: &mut Client) -> Result<(), Stop> {
        client.batch_execute(&format!("SAVEPOINT s{}", self.0.len()))?;
        self.0.push(Told::default());
        Ok(())
    }

    pub fn release(&mut self, client: &mut Client, keep: bool) -> Result<(), Stop> {
        let inner = self.0.pop().unwrap_or_default();
        let name = format!("s{}", self.0.len());
        if keep {
            client.batch_execute(&format!("RELEASE SAVEPOINT {name}"))?;
            self.told().take_in(inner);
        } else {
            client.batch_execute(&format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"))?;
        }
        Ok(())
    }

    /// All that was told, the transaction having committed.
    pub fn all(self) -> Told {
        self.0.into_iter().fold(Told::default(), |mut all, told| {
            all.take_in(told);
            all
        })
    }
}
