//! Many clients at once, by PostgreSQL's own pgbench.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use chrono::{DateTime, Utc};
use harness::{Cluster, Context, Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::server::Commit;

pub const CLIENTS: u32 = 8;
/// Connecting, loading libraries and filling caches are over by then.
const LEAD_IN: Duration = Duration::from_secs(1);
/// How long clients that take turns would go on by themselves, in seconds: they are told to end.
const DAY: u64 = 86_400;

/// Runs `script` with prepared statements until a slice of time is over. Returns the commits per second, after a lead-in.
pub fn rate(cluster: &Cluster, database: &str, script: &str, commit: Commit, slice: Duration) -> Result<f64> {
    let file = file(script)?;
    let seconds = (LEAD_IN + slice).as_secs();
    let output = command(cluster, database, &file, commit, seconds)
        .arg("--progress=1")
        .output()
        .context(|| "cannot run pgbench".to_owned())?;
    let (said, progress) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let rate = || {
        let transactions = transactions(&said)?;
        let seconds = transactions / after(&said, "tps = ")?;
        // "progress: 1.0 s, 11846.5 tps, …"
        let lead_in = after(&progress, "progress: ")?;
        let early = after(&progress, " s, ")? * lead_in;
        Some((transactions - early) / (seconds - lead_in))
    };
    let rate = if output.status.success() { rate() } else { None };
    rate.ok_or_else(|| Error::new(format!("pgbench failed ({}): {said}{progress}", output.status)))
}

/// Clients that are connected all the time, and stopped but for their turns. So turns can be short, and take place in nearly the same
/// moment as those of others.
#[derive(Debug)]
pub struct Clients {
    pgbench: Child,
    _script: NamedTempFile,
}

/// A stretch of time in which clients worked, without the end.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub begin: DateTime<Utc>,
    pub end: DateTime<Utc>,
}

impl Window {
    pub fn seconds(self) -> f64 {
        (self.end - self.begin).as_seconds_f64()
    }
}

impl Clients {
    /// They connect in their first turn.
    pub fn start(cluster: &Cluster, database: &str, script: &str, commit: Commit) -> Result<Self> {
        let script = file(script)?;
        let pgbench = command(cluster, database, &script, commit, DAY)
            .spawn()
            .context(|| "cannot run pgbench".to_owned())?;
        let clients = Self {
            pgbench,
            _script: script,
        };
        clients.send(Signal::STOP)?;
        Ok(clients)
    }

    /// Works for as long as both say, and until `end` returns. Returns when that was, without the lead-in. A statement that is under way at
    /// the end is completed.
    pub fn turn(&self, lead_in: Duration, slice: Duration, end: impl FnOnce() -> Result<()>) -> Result<Window> {
        self.send(Signal::CONT)?;
        sleep(lead_in);
        let begin = Utc::now();
        sleep(slice);
        end()?;
        let end = Utc::now();
        self.send(Signal::STOP)?;
        Ok(Window { begin, end })
    }

    /// The acknowledged commits of all turns.
    pub fn end(mut self) -> Result<u64> {
        // What it would get from its own timer.
        self.send(Signal::ALARM)?;
        self.send(Signal::CONT)?;
        let status = self.pgbench.wait().context(|| "pgbench is lost".to_owned())?;
        let (mut said, mut complaints) = (String::new(), String::new());
        read(self.pgbench.stdout.take(), &mut said)?;
        read(self.pgbench.stderr.take(), &mut complaints)?;
        let transactions = if status.success() { transactions(&said) } else { None };
        transactions
            .map(|transactions| transactions as u64)
            .ok_or_else(|| Error::new(format!("pgbench failed ({status}): {said}{complaints}")))
    }

    fn send(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.pgbench), signal).context(|| "cannot signal pgbench".to_owned())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // After `end` both find that it has gone.
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
    }
}

fn file(script: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context(|| "no file for pgbench's script".to_owned())?;
    file.write_all(script.as_bytes())
        .context(|| "no file for pgbench's script".to_owned())?;
    Ok(file)
}

fn command(cluster: &Cluster, database: &str, script: &NamedTempFile, commit: Commit, seconds: u64) -> Command {
    let mut pgbench = cluster.install().command("pgbench");
    pgbench
        .arg("--host")
        .arg(cluster.socket_dir())
        .args(["--port", &cluster.port().to_string()])
        .args(["--username=postgres", "--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .args(["--client", &CLIENTS.to_string()])
        .args(["--time", &seconds.to_string()])
        .arg("--file")
        .arg(script.path())
        .arg(database)
        .env("PGOPTIONS", format!("-c synchronous_commit={}", commit.setting()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    pgbench
}

fn read(from: Option<impl std::io::Read>, text: &mut String) -> Result<()> {
    if let Some(mut from) = from {
        from.read_to_string(text)
            .context(|| "cannot read what pgbench says".to_owned())?;
    }
    Ok(())
}

fn transactions(said: &str) -> Option<f64> {
    after(said, "number of transactions actually processed: ")
}

/// The number that follows a label.
fn after(text: &str, label: &str) -> Option<f64> {
    let rest = &text[text.find(label)? + label.len()..];
    rest.split_whitespace().next()?.parse().ok()
}
