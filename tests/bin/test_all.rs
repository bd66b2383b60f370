//! `cargo test-all`: everything that must hold before a change lands, step by step, on a machine that has only Rust,
//! git, gcc and Python.

use std::process::{Command, ExitCode};
use std::time::Instant;

use harness::{PgInstall, Result, place, progress, toolchain};

#[derive(Default)]
struct Summary {
    lines: Vec<String>,
    failed: usize,
}

impl Summary {
    /// Runs one step and keeps its outcome; a failed step does not stop those that do not need it.
    fn step<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Option<T> {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = run();
        let (word, value) = match outcome {
            Ok(value) => ("ok", Some(value)),
            Err(error) => {
                eprintln!("error: {error}");
                self.failed += 1;
                ("FAILED", None)
            }
        };
        self.lines
            .push(format!("{word:<8} {name:<52} {}", progress::seconds(started.elapsed())));
        value
    }

    fn left_out(&mut self, what: &str) {
        self.lines.push(format!("left out {what}"));
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    let mut summary = Summary::default();

    summary.step("formatting", || {
        shown(cargo(&["fmt", "--all", "--", "--check", "--files-with-diff"]))
    });
    summary.step("lints, without PostgreSQL", || {
        shown(cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    });
    summary.step("unit tests, without PostgreSQL", || shown(cargo(&["test"])));
    if let Some(provisions) = summary.step("what the tests need", provision) {
        for toolchain::LeftOut(why) in &provisions.left_out {
            summary.left_out(why);
        }
        for install in &provisions.installs {
            on(install, &provisions.extension, &mut summary);
        }
    }

    println!("\n== summary after {}", progress::seconds(started.elapsed()));
    for line in &summary.lines {
        println!("  {line}");
    }
    match summary.failed {
        0 => ExitCode::SUCCESS,
        failed => {
            println!("{failed} of the steps failed");
            ExitCode::FAILURE
        }
    }
}

fn provision() -> Result<toolchain::Provisions> {
    let provisions = toolchain::provision_all()?;
    for install in &provisions.installs {
        progress::note(
            &format!("PostgreSQL {}", install.version()?),
            &install.pg_config().display().to_string(),
        );
    }
    Ok(provisions)
}

fn on(install: &PgInstall, extension: &toolchain::Extension, summary: &mut Summary) {
    let major = install.major;
    summary.step(&format!("lints for PostgreSQL {major}"), || {
        shown(extension.clippy(install))
    });
    let built = summary.step(&format!("build for PostgreSQL {major}"), || extension.install(install));
    if built.is_none() {
        return summary.left_out(&format!("live tests on PostgreSQL {major}, for want of a build"));
    }
    summary.step(&format!("live tests on PostgreSQL {major}"), || {
        let mut tests = cargo(&["test", "--package", "pg_billing-tests", "--test", "live"]);
        tests.env("PG_BILLING_TEST_PG", major.to_string());
        shown(tests)
    });
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    toolchain::undisturbed(&mut command)
        .args(arguments)
        .current_dir(place::project());
    command
}

fn shown(mut command: Command) -> Result<()> {
    let status = command
        .status()
        .map_err(|error| harness::Error::new(format!("cannot run cargo: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(harness::Error::new(format!("the step ended with {status}")))
    }
}
