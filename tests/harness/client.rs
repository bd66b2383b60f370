//! PostgreSQL's own client programs on a cluster: psql, pg_dump, pg_restore.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::error::{Context, Error, Result};

impl Cluster {
    /// Any client program of this cluster's installation, told where the cluster is.
    pub fn client(&self, name: &str, database: &str) -> Command {
        let mut command = self.install().command(name);
        command
            .arg("--host")
            .arg(self.socket_dir())
            .args(["--port", &self.port().to_string()]);
        command.args(["--username", "postgres", "--dbname", database, "--no-password"]);
        command
    }

    /// Feeds `sql` to psql, which stops at the first error; returns what it printed, without headers and padding.
    pub fn psql(&self, database: &str, arguments: &[&str], sql: &str) -> Result<String> {
        let mut psql = self.client("psql", database);
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
        ])
        .args(arguments);
        answer(&mut psql, "psql", sql)
    }

    /// Dumps `database` into `file`, in the format that `arguments` choose (`--format=custom`, `--inserts` …).
    pub fn pg_dump(&self, database: &str, arguments: &[&str], file: &Path) -> Result<()> {
        let mut dump = self.client("pg_dump", database);
        answer(dump.args(arguments).arg("--file").arg(file), "pg_dump", "").map(drop)
    }

    /// Restores a dump that is not plain SQL into the existing `database`.
    pub fn pg_restore(&self, database: &str, arguments: &[&str], file: &Path) -> Result<()> {
        let mut restore = self.client("pg_restore", database);
        answer(
            restore.arg("--exit-on-error").args(arguments).arg(file),
            "pg_restore",
            "",
        )
        .map(drop)
    }
}

fn answer(command: &mut Command, name: &str, input: &str) -> Result<String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context(|| format!("cannot run {name}"))?;
    let pipe = child.stdin.take();
    // Written beside the reading: a long script and its long answer would otherwise wait for each other.
    let output = std::thread::scope(|scope| {
        if let Some(mut pipe) = pipe {
            // A program that stops early closes the pipe; its exit code tells.
            scope.spawn(move || pipe.write_all(input.as_bytes()));
        }
        child.wait_with_output()
    });
    let output = output.context(|| format!("cannot await {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end_matches('\n')
            .to_owned());
    }
    Err(Error::new(format!(
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
