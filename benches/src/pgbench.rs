//! Many clients at once, by PostgreSQL's own pgbench.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use harness::{Cluster, Context, Error, Result};

use crate::server::Commit;

pub const CLIENTS: u32 = 8;
/// Connecting, loading libraries and filling caches are over by then, and a background worker is at work.
const LEAD_IN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Slice {
    /// acknowledged commits, those of the lead-in too
    pub transactions: u64,
    /// per second, after the lead-in
    pub rate: f64,
}

/// Runs `script` with prepared statements until a slice of time is over.
pub fn run(cluster: &Cluster, database: &str, script: &str, commit: Commit, slice: Duration) -> Result<Slice> {
    let mut file = tempfile::NamedTempFile::new().context(|| "no file for pgbench's script".to_owned())?;
    file.write_all(script.as_bytes())
        .context(|| "no file for pgbench's script".to_owned())?;
    let mut pgbench = cluster.install().command("pgbench");
    pgbench
        .arg("--host")
        .arg(cluster.socket_dir())
        .args(["--port", &cluster.port().to_string()]);
    pgbench.args([
        "--username=postgres",
        "--no-vacuum",
        "--protocol=prepared",
        "--progress=1",
        "--jobs=2",
    ]);
    pgbench.args([
        "--client",
        &CLIENTS.to_string(),
        "--time",
        &(LEAD_IN + slice).as_secs().to_string(),
    ]);
    pgbench.arg("--file").arg(file.path()).arg(database);
    pgbench.env("PGOPTIONS", format!("-c synchronous_commit={}", commit.setting()));
    let output = pgbench
        .stdin(Stdio::null())
        .output()
        .context(|| "cannot run pgbench".to_owned())?;
    let (said, progress) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
        .status
        .success()
        .then(|| parse(&said, &progress))
        .flatten()
        .ok_or_else(|| Error::new(format!("pgbench failed ({}): {said}{progress}", output.status)))
}

fn parse(said: &str, progress: &str) -> Option<Slice> {
    let after = |text: &str, label: &str| -> Option<f64> {
        let rest = &text[text.find(label)? + label.len()..];
        rest.split_whitespace().next()?.parse().ok()
    };
    let transactions = after(said, "number of transactions actually processed: ")?;
    let seconds = transactions / after(said, "tps = ")?;
    // "progress: 1.0 s, 11846.5 tps, …"
    let lead_in = after(progress, "progress: ")?;
    let early = after(progress, " s, ")? * lead_in;
    Some(Slice {
        transactions: transactions as u64,
        rate: (transactions - early) / (seconds - lead_in),
    })
}
