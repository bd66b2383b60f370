//! What a run is to be, and what all its threads have before them.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use postgres::Client;

use super::audit::Audit;
use super::board::Board;
use super::event::World;
use super::ledger::Ledger;
use super::session::{Session, Temper};
use super::transaction::Stop;
use crate::cluster::Cluster;
use crate::dice::Dice;

/// Far more than any step takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, Default)]
pub struct Kills {
    pub count: u64,
    /// recorded between two of them, at least
    pub events_between: u64,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub events: u64,
    pub checks: u64,
    pub kills: Kills,
    pub partition_width: &'static str,
    pub largest_batch: usize,
    pub recorders: usize,
    /// Sessions that leave their transactions open for seconds.
    pub slow: usize,
    pub rollers: usize,
    pub worker: bool,
    /// The worker starts with the server, rather than with the first event.
    pub preload: bool,
    /// Two of the four readers ask a streaming standby.
    pub standby: bool,
    /// How often to say how far it is.
    pub progress: Option<Duration>,
    /// How long it goes on at least: over some boundaries of narrow partitions.
    pub least: Duration,
}

/// What all threads of a run have before them.
pub struct Stage<'c> {
    pub plan: &'c Plan,
    pub cluster: &'c Cluster,
    pub standby: Option<&'c Cluster>,
    pub database: String,
    pub world: World,
    pub board: Board,
}

impl Stage<'_> {
    pub fn dice(&self, of: usize) -> Dice {
        Dice::new(Dice::new(self.plan.seed.wrapping_add(of as u64)).seed())
    }

    /// Under a name that the killer knows.
    pub fn connect(&self, name: &str) -> std::result::Result<Client, Stop> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.board.await_up();
            let mut config = self.cluster.config("postgres", &self.database);
            let attempt = config
                .application_name(name)
                .options("-c statement_timeout=280s")
                .connect(postgres::NoTls);
            match attempt {
                Ok(client) => return Ok(client),
                Err(_) if self.plan.kills.count > 0 && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(Stop::Fault(format!("cannot connect: {error}"))),
            }
        }
    }

    pub fn connect_to_standby(&self) -> std::result::Result<Client, Stop> {
        let standby = self.standby.unwrap_or(self.cluster);
        standby
            .connect(&self.database)
            .map_err(|error| Stop::Fault(format!("cannot connect to the standby: {error}")))
    }

    /// A connection may end only where something is killed. Returns when the server is up again.
    pub fn expect_kill(&self) -> std::result::Result<(), String> {
        if self.plan.kills.count == 0 {
            return Err("the connection was lost".to_owned());
        }
        self.board.await_up();
        Ok(())
    }

    /// Without a worker the last tenth is left in the queue.
    pub fn is_folding(&self) -> bool {
        let left = self.plan.events - self.board.events.load(SeqCst).min(self.plan.events);
        !self.board.is_over() && (self.plan.worker || left > self.plan.events / 10)
    }

    pub fn count(&self, events: u64) {
        self.board.events.fetch_add(events, SeqCst);
    }

    pub fn checked(&self) {
        self.board.checks.fetch_add(1, SeqCst);
    }

    /// After the storm, a new session's one event.
    pub fn record_once(&self, number: usize) -> Ledger {
        Session::new(self, 500 + number, Temper::Busy).once()
    }

    pub fn audit<'a>(&'a self, ledger: &'a Ledger) -> Audit<'a> {
        Audit {
            world: &self.world,
            board: &self.board,
            ledger,
        }
    }
}
