//! `cargo demo`: pg_billing on a private PostgreSQL 18, on a machine that has only Rust, git, gcc and Python.

use std::process::ExitCode;

use harness::{Cluster, Database, Options, Result, toolchain};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    println!(
        "Preparing PostgreSQL 18 and pg_billing in {}",
        harness::place::toolchain().display()
    );
    let (postgres, extension) = toolchain::provision()?;
    extension.install(&postgres)?;
    let cluster = Cluster::start(&postgres, &Options::default())?;
    let database = Database::with_extension(&cluster)?;
    let version = database.psql("SELECT extversion FROM pg_extension WHERE extname = 'pg_billing'")?;
    println!(
        "pg_billing {version} runs on PostgreSQL {} at 127.0.0.1:{}",
        postgres.version()?,
        cluster.port()
    );
    Ok(())
}
