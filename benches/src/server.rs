//! The cluster that is measured: as in production, with all commits reaching the disk, and without checkpoints on the way.

use harness::{Cluster, Options, PgInstall, Result};
use postgres::Client;

use crate::machine;

/// In KiB.
const GIB: u64 = 1 << 20;
const PAGE: u64 = 8;

#[derive(Debug)]
pub struct Server {
    pub cluster: Cluster,
}

/// Whose tables a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// the extension's
    Billing,
    /// a table of the same columns, partitions and indexes
    Plain,
    /// the same, and what one would write by hand
    ByHand,
}

impl Tables {
    pub fn schema(self) -> &'static str {
        match self {
            Tables::Billing => "billing",
            Tables::Plain | Tables::ByHand => "plain",
        }
    }

    fn definition(self) -> &'static [&'static str] {
        match self {
            Tables::Billing => &[include_str!("../sql/catalog.sql")],
            Tables::Plain => &[include_str!("../sql/plain.sql")],
            Tables::ByHand => &[include_str!("../sql/plain.sql"), include_str!("../sql/by_hand.sql")],
        }
    }
}

impl Server {
    pub fn start(install: &PgInstall) -> Result<Self> {
        // A quarter of the memory, as PostgreSQL's manual advises; what summaries and sums of the history read fits in the most.
        let buffers = (machine::memory_kib() / 4).min(6 * GIB);
        let options = Options::default()
            .durable()
            .set("shared_buffers", &format!("{buffers}kB"))
            // Checkpoints come between the measurements, where they are asked for.
            .set("max_wal_size", "40GB")
            .set("checkpoint_timeout", "1d")
            .set("maintenance_work_mem", "512MB")
            // Started where a contender has it beside.
            .set("billing.worker", "off");
        let server = Self {
            cluster: Cluster::start(install, &options)?,
        };
        let touch = include_str!("../sql/touch_buffers.sql").replace("{pages}", &(buffers / PAGE).to_string());
        server.client("postgres")?.batch_execute(&touch)?;
        server.checkpoint()?;
        Ok(server)
    }

    /// A new database with `events` spread over the last `days` days and today. A case has one for each contender, so that
    /// nobody's table grows by another's work.
    pub fn database(&self, name: &str, tables: Tables, days: u32, events: u32) -> Result<()> {
        let template = format!("{tables:?}_{days}_{events}").to_lowercase();
        let mut client = self.cluster.connect("postgres")?;
        if client
            .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&template])?
            .is_none()
        {
            client.batch_execute(&format!("CREATE DATABASE {template}"))?;
            let mut fill = self.cluster.connect(&template)?;
            for definition in tables.definition() {
                fill.batch_execute(definition)?;
            }
            let filling = include_str!("../sql/fill.sql")
                .replace("{schema}", tables.schema())
                .replace("{days}", &days.to_string())
                .replace("{events}", &events.to_string());
            fill.batch_execute(&filling)?;
            if tables == Tables::Billing {
                fill.batch_execute(include_str!("../sql/fold.sql"))?;
            }
            fill.batch_execute("VACUUM ANALYZE")?;
        }
        // Copied through the log, the pages are newer than the last checkpoint: writing them will not log them whole.
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log"))?;
        Ok(())
    }

    /// Starts a case from a written-out state, so that no checkpoint falls into it.
    pub fn checkpoint(&self) -> Result<()> {
        Ok(self.cluster.connect("postgres")?.batch_execute("CHECKPOINT")?)
    }

    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        self.cluster.set(name, value)?;
        Ok(self
            .cluster
            .connect("postgres")?
            .batch_execute("SELECT pg_reload_conf()")?)
    }

    pub fn client(&self, database: &str) -> Result<Client> {
        self.cluster.connect(database)
    }

    pub fn drop(&self, databases: &[&str]) -> Result<()> {
        let mut client = self.cluster.connect("postgres")?;
        for database in databases {
            client.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)"))?;
        }
        Ok(())
    }
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    Flushed,
    NotFlushed,
}

impl Commit {
    pub const BOTH: [Commit; 2] = [Commit::Flushed, Commit::NotFlushed];

    pub fn setting(self) -> &'static str {
        match self {
            Commit::Flushed => "on",
            Commit::NotFlushed => "off",
        }
    }
}

/// Empties the queue, and clears it of what is dead: the next slice must not pay for the last.
pub fn settle(client: &mut Client) -> Result<()> {
    client.batch_execute("SELECT billing.roll_up()")?;
    client.batch_execute("VACUUM billing.usage_pending")?;
    Ok(())
}

pub fn number(client: &mut Client, sql: &str) -> Result<i64> {
    Ok(client.query_one(sql, &[])?.get(0))
}
