//! What a server process has of its own.

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use harness::{Context, Error, Result};
use postgres::Client;

use crate::server::number;

/// Shorter than a batch takes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Does the work, and says by how many KiB the private memory (RssAnon, which leaves out shared buffers) of the client's
/// server process has grown at its highest.
pub fn growth<T>(client: &mut Client, work: impl FnOnce(&mut Client) -> Result<T>) -> Result<(T, f64)> {
    let process = number(client, "SELECT pg_backend_pid()::bigint")?;
    let before = private_kib(process)?;
    let (stop, stopped) = channel::<()>();
    thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut most = before;
            loop {
                most = most.max(private_kib(process)?);
                if stopped.recv_timeout(BETWEEN_LOOKS) != Err(RecvTimeoutError::Timeout) {
                    return Ok(most);
                }
            }
        });
        let done = work(client);
        drop(stop);
        let most: Result<u32> = watcher
            .join()
            .unwrap_or_else(|_| Err(Error::new("watching the memory panicked")));
        Ok((done?, f64::from(most? - before)))
    })
}

fn private_kib(process: i64) -> Result<u32> {
    let file = format!("/proc/{process}/status");
    let status = fs::read_to_string(&file).context(|| format!("cannot read {file}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::new(format!("{file} does not say RssAnon")))
}
