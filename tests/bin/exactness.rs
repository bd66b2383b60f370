//! `cargo exactness`: the long form of the test that every event counts once, whatever happens at the same time.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::exactness::{Finding, Kills, Outcome, Plan, control, run};
use harness::{Context, Error, PgInstall, Result, install_under_test, progress, toolchain};

const USAGE: &str = "cargo exactness [--events 1000000] [--checks 1000] [--kills 100] [--seed N]

Of each server, PostgreSQL 18 and, where they can be had, 15 and 16; PG_BILLING_TEST_PG=18 takes that one, with the extension that is installed there.";

struct Options {
    events: u64,
    checks: u64,
    kills: u64,
    seed: u64,
}

impl Options {
    fn read() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut given: HashMap<String, u64> = HashMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_default();
            let known = ["--events", "--checks", "--kills", "--seed"].contains(&name.as_str());
            if !known {
                return Err(Error::new(USAGE));
            }
            let number = value.parse().context(|| format!("{name} {value}: {USAGE}"))?;
            given.insert(name, number);
        }
        let of = |name: &str, usual: u64| given.get(name).copied().unwrap_or(usual);
        Ok(Self {
            events: of("--events", 1_000_000),
            checks: of("--checks", 1_000),
            kills: of("--kills", 100),
            seed: of("--seed", now.as_secs()),
        })
    }
}

fn main() -> ExitCode {
    match Options::read().and_then(|options| all(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all(options: &Options) -> Result<bool> {
    let started = Instant::now();
    let installs = provision()?;
    println!("seed {}", options.seed);
    let mut exact = true;
    for install in &installs {
        exact &= on(install, options)?;
    }
    let verdict = if exact { "every event counted once" } else { "NOT EXACT" };
    println!(
        "\n{verdict}, after {}; seed {}",
        progress::seconds(started.elapsed()),
        options.seed
    );
    Ok(exact)
}

/// The servers, with the extension as the sources have it.
fn provision() -> Result<Vec<PgInstall>> {
    if std::env::var_os("PG_BILLING_TEST_PG").is_some() {
        return Ok(vec![install_under_test()?]);
    }
    let provisions = toolchain::provision_all()?;
    for install in &provisions.installs {
        provisions.extension.install(install)?;
    }
    Ok(provisions.installs)
}

fn on(install: &PgInstall, options: &Options) -> Result<bool> {
    println!("\n== PostgreSQL {}", install.version()?);
    let narrow = Plan {
        seed: options.seed,
        events: options.events / 4,
        checks: options.checks / 2,
        kills: Kills::default(),
        partition_width: "2s",
        largest_batch: 3000,
        recorders: 8,
        slow: 2,
        rollers: 3,
        worker: true,
        preload: false,
        standby: true,
        progress: Some(Duration::from_secs(10)),
        least: Duration::from_secs(5),
    };
    let wide = Plan {
        events: options.events - narrow.events,
        checks: options.checks - narrow.checks,
        partition_width: "1d",
        ..narrow.clone()
    };
    let killed = Plan {
        events: options.kills * 500,
        checks: options.kills,
        kills: Kills {
            count: options.kills / 2,
            events_between: 200,
        },
        largest_batch: 300,
        rollers: 1,
        standby: false,
        ..narrow.clone()
    };
    let killed_preloaded = Plan {
        kills: Kills {
            count: options.kills - killed.kills.count,
            ..killed.kills
        },
        partition_width: "1d",
        preload: true,
        ..killed.clone()
    };
    let mut exact = true;
    for (what, plan) in [
        ("partitions of two seconds", narrow),
        ("one partition", wide),
        ("kill -9, the worker started by events", killed),
        ("kill -9, the worker preloaded", killed_preloaded),
    ] {
        println!("\n{what}");
        let started = Instant::now();
        let outcome = run(install, &plan)?;
        say(&outcome, started);
        exact &= shown(&outcome.findings);
    }
    println!("\nsabotage");
    exact &= shown(&control(install, options.seed)?);
    Ok(exact)
}

fn say(outcome: &Outcome, started: Instant) {
    let elapsed = started.elapsed();
    let Outcome {
        events,
        transactions,
        unknown,
        deadlocks,
        checks,
        telling,
        kills,
        partitions,
        raged,
        ..
    } = outcome;
    let rate = *events as f64 / raged.as_secs_f64();
    println!(
        "  {events} events ({rate:.0} a second) in {partitions} partitions, {transactions} transactions and {unknown} of unknown end, {deadlocks} deadlocks"
    );
    println!(
        "  {checks} checks, {telling} of them of events, {kills} kills, {}",
        progress::seconds(elapsed)
    );
}

fn shown(findings: &[Finding]) -> bool {
    for finding in findings {
        println!("  FOUND {finding}");
    }
    if findings.is_empty() {
        println!("  nothing found");
    }
    findings.is_empty()
}
