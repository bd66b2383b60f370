//! `cargo bench-all`: what recording, rolling up, summing and invoicing cost, against what PostgreSQL itself charges for
//! the same.
//!
//! Every figure is a ratio of contenders that took turns in one run, so that whatever else the machine did met them all.

mod events;
mod history;
mod machine;
mod memory;
mod pgbench;
mod plan;
mod race;
mod report;
mod rounds;
mod rows;
mod server;
mod table;
mod worker;

use std::process::ExitCode;
use std::time::Instant;

use harness::{Error, PgInstall, Result, progress, toolchain};

use plan::Plan;
use report::Report;
use server::Server;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let plan = Plan::from_arguments()?;
    let started = Instant::now();
    let mut report = Report::new(&plan)?;
    let installs = installs(&plan)?;
    // One row's failure does not cost the run.
    let mut failed = Vec::new();
    for (nth, install) in installs.iter().enumerate() {
        let server = Server::start(install)?;
        report.begin(install.version()?);
        for (row, measure) in rows::ALL {
            if !plan.wants(row) || failed.contains(row) {
                continue;
            }
            if let Err(error) = measure(&server, &plan, &mut report) {
                eprintln!("\nerror: {row}: {error}");
                failed.push(row);
            } else if nth + 1 == installs.len() {
                println!("\n{}", report.keep(row, &plan)?.display());
            }
        }
    }
    println!("after {}", progress::seconds(started.elapsed()));
    match failed.len() {
        0 => Ok(()),
        failed => Err(Error::new(format!("{failed} rows failed"))),
    }
}

/// The servers to measure on, oldest first, with the extension built into them.
fn installs(plan: &Plan) -> Result<Vec<PgInstall>> {
    let mut installs = if plan.installed {
        toolchain::installs()
    } else {
        let provisions = toolchain::provision_all()?;
        let measured = |install: &&PgInstall| plan.measures_on(install.major);
        for install in provisions.installs.iter().filter(measured) {
            provisions.extension.install(install)?;
        }
        provisions.installs
    };
    installs.retain(|install| plan.measures_on(install.major));
    if installs.is_empty() {
        return Err(Error::new("there is no such PostgreSQL to measure on"));
    }
    Ok(installs)
}
