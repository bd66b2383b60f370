//! One line for each step, with its time; the step's own output is shown only if it fails.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// Lines of a failed step's output that are shown.
const SHOWN: usize = 80;

/// Says that `label` needed nothing, or what came of it.
pub fn note(label: &str, outcome: &str) {
    println!("  {label:<52} {outcome}");
}

/// Runs `command` without showing its output, and says how long it took. When it fails, its last lines are printed.
pub fn quietly(label: &str, command: &mut Command) -> Result<()> {
    let mut log = tempfile::tempfile().context(|| format!("no file for the output of \"{label}\""))?;
    let clone = |log: &File| {
        log.try_clone()
            .context(|| format!("no file for the output of \"{label}\""))
    };
    command
        .stdin(std::process::Stdio::null())
        .stdout(clone(&log)?)
        .stderr(clone(&log)?);
    let started = Instant::now();
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().context(|| format!("cannot run {name}"))?;
    let (done, waiting) = mpsc::channel::<()>();
    let status = std::thread::scope(|scope| {
        scope.spawn(|| keep_company(label, started, waiting));
        let status = child.wait();
        drop(done);
        status
    })
    .context(|| format!("cannot await {name}"))?;
    if status.success() {
        note(label, &seconds(started.elapsed()));
        return Ok(());
    }
    note(label, &format!("failed after {}", seconds(started.elapsed())));
    let mut output = String::new();
    if log.seek(SeekFrom::Start(0)).is_ok() {
        let mut bytes = Vec::new();
        // What can be read is shown; a log that cannot be read must not hide the failure itself.
        let _ = log.read_to_end(&mut bytes);
        output = String::from_utf8_lossy(&bytes).into_owned();
    }
    let lines: Vec<&str> = output.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        println!("    | {line}");
    }
    Err(Error::new(format!("{label} failed ({status})")))
}

/// A terminal sees the seconds run; a log gets a line now and then, so that nobody takes a long build for a dead one.
fn keep_company(label: &str, started: Instant, waiting: mpsc::Receiver<()>) {
    let terminal = io::stdout().is_terminal();
    let pause = Duration::from_secs(if terminal { 1 } else { 30 });
    while waiting.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let so_far = seconds(started.elapsed());
        if terminal {
            print!("\r  {label:<52} {so_far} …");
            let _ = io::stdout().flush();
        } else {
            note(label, &format!("{so_far} so far"));
        }
    }
    if terminal {
        print!("\r\x1b[K");
    }
}

pub fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}
