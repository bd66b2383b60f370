//! A database's worker, stopped while others have their turn.

use std::thread::sleep;
use std::time::{Duration, Instant};

use harness::{Context, Error, Result};
use postgres::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::server::Server;

/// How often it is asked whether it is idle.
const ASK_EVERY: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Worker {
    /// to another database
    client: Client,
    database: &'static str,
    /// once it has been stopped
    pid: Option<i32>,
}

impl Worker {
    /// The first event recorded starts it.
    pub fn of(server: &Server, database: &'static str) -> Result<Self> {
        let mut client = server.client("postgres")?;
        client.batch_execute("SET statement_timeout = '10s'")?;
        Ok(Self {
            client,
            database,
            pid: None,
        })
    }

    pub fn go_on(&mut self) -> Result<()> {
        self.pid.take().map_or(Ok(()), |pid| send(pid, Signal::CONT))
    }

    /// Not in the midst of a job: it may hold what others wait for.
    pub fn stop_when_idle(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(pid) = self.idle()? {
                send(pid, Signal::STOP)?;
                self.pid = Some(pid);
                // It may have begun one just then.
                if self.idle()? == Some(pid) {
                    return Ok(());
                }
                self.go_on()?;
            }
            sleep(ASK_EVERY);
        }
        Err(Error::new(format!("the worker of {} is never idle", self.database)))
    }

    fn idle(&mut self) -> Result<Option<i32>> {
        let idle = "SELECT pid FROM pg_stat_activity
                    WHERE datname = $1 AND backend_type = 'pg_billing worker' AND state = 'idle'";
        Ok(self.client.query_opt(idle, &[&self.database])?.map(|row| row.get(0)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without the worker there is nothing to go on.
        let _ = self.go_on();
    }
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    let process = Pid::from_raw(pid).ok_or_else(|| Error::new(format!("{pid} is no process")))?;
    kill_process(process, signal).context(|| "cannot signal the worker".to_owned())
}
