//! Contenders of single events that take turns with clients that stay connected.
//!
//! The machine is fast and slow by the second, so turns are short, and those of a round add up.

use std::time::Duration;

use harness::{Error, Result};

use crate::pgbench::{Clients, Window};
use crate::plan::Plan;
use crate::rounds::{Contender, Series, take_turns};
use crate::server::{Commit, Server, Tables, number, settle};
use crate::worker::Worker;

/// At the beginning of a turn, not measured.
const LEAD_IN: Duration = Duration::from_millis(25);

/// A contender, with a database that is its own.
pub struct Line {
    pub name: &'static str,
    pub database: &'static str,
    pub tables: Tables,
    /// what the clients send
    pub sql: &'static str,
    /// whether a worker rolls up meanwhile; else that is done between the rounds
    pub worker: bool,
}

pub struct Race {
    pub lines: &'static [&'static Line],
    /// of each contender, in a round
    pub turns: usize,
    pub slice: Duration,
}

impl Race {
    /// Events per second, round by round. `script` makes what pgbench runs of a line's SQL.
    pub fn run(
        &self,
        server: &Server,
        plan: &Plan,
        commit: Commit,
        script: impl Fn(&str) -> String,
    ) -> Result<Vec<Series>> {
        let filled = plan.choose(1_000_000, 100_000);
        server.checkpoint()?;
        let mut contenders = Vec::new();
        for line in self.lines {
            server.database(line.database, line.tables, 1, filled)?;
            let worker = if line.worker { "on" } else { "off" };
            server.client("postgres")?.batch_execute(&format!(
                "ALTER DATABASE {} SET billing.worker = {worker}",
                line.database
            ))?;
            let clients = Clients::start(&server.cluster, line.database, &script(line.sql), commit)?;
            let worker = match line.worker {
                true => Some(Worker::of(server, line.database)?),
                false => None,
            };
            contenders.push((line, clients, worker));
        }
        let turns = contenders.iter_mut().map(|(line, clients, worker)| {
            let mut turns = 0;
            Contender::new(line.name, move || {
                let window = match worker {
                    Some(worker) => {
                        worker.go_on()?;
                        clients.turn(LEAD_IN, self.slice, || worker.stop_when_idle())?
                    }
                    None => clients.turn(LEAD_IN, self.slice, || Ok(()))?,
                };
                turns += 1;
                if line.tables == Tables::Billing && !line.worker && turns % self.turns == 0 {
                    settle(&mut server.client(line.database)?)?;
                }
                Ok(window)
            })
        });
        let rounds = plan.choose(15, 3);
        // One more, to warm up.
        let windows = take_turns((1 + rounds) * self.turns, turns.collect())?;
        let mut all = Vec::new();
        for ((line, clients, worker), windows) in contenders.into_iter().zip(windows) {
            // It goes on by itself.
            drop(worker);
            let acknowledged = clients.end()?;
            line.check(server, filled, acknowledged as i64)?;
            let counted = line.events_within(server, &windows.samples)?;
            let rounds = windows.samples.chunks(self.turns).zip(counted.chunks(self.turns));
            let rates = rounds.map(|(windows, events)| {
                let seconds: f64 = windows.iter().map(|window| window.seconds()).sum();
                events.iter().sum::<i64>() as f64 / seconds
            });
            all.push(Series {
                contender: line.name,
                samples: rates.skip(1).collect(),
            });
        }
        let databases: Vec<_> = self.lines.iter().map(|line| line.database).collect();
        server.drop(&databases)?;
        Ok(all)
    }
}

impl Line {
    /// How many events were received in each of these windows, which must be in order.
    fn events_within(&self, server: &Server, windows: &[Window]) -> Result<Vec<i64>> {
        let bounds: Vec<_> = windows.iter().flat_map(|window| [window.begin, window.end]).collect();
        let mut events = vec![0; windows.len()];
        let counts = format!(
            "SELECT width_bucket(received_at, $1), count(*) FROM {}.meter_events WHERE received_at >= $2 GROUP BY 1",
            self.tables.schema()
        );
        for row in server
            .client(self.database)?
            .query(&counts, &[&bounds, &bounds.first()])?
        {
            // 1 is from the first bound to the second, so what is odd is within a window.
            let slot = row.get::<_, i32>(0) as usize;
            if slot % 2 == 1 {
                events[slot / 2] = row.get(1);
            }
        }
        Ok(events)
    }

    /// What was acknowledged is there, and counted.
    fn check(&self, server: &Server, filled: u32, acknowledged: i64) -> Result<()> {
        let mut client = server.client(self.database)?;
        if self.tables == Tables::Billing {
            settle(&mut client)?;
        }
        let schema = self.tables.schema();
        let events = number(&mut client, &format!("SELECT count(*) FROM {schema}.meter_events"))? - i64::from(filled);
        let counted = match self.tables {
            Tables::Plain => events,
            Tables::Billing => {
                number(
                    &mut client,
                    "SELECT sum(event_count)::bigint FROM billing.usage_buckets WHERE width = 'hour'",
                )? - i64::from(filled)
            }
            Tables::ByHand => number(&mut client, "SELECT sum(event_count)::bigint FROM plain.usage_hours")?,
        };
        let rolled_up = "SELECT count(last_change) FROM billing.worker_jobs WHERE job = 'roll_up'";
        if self.worker && number(&mut client, rolled_up)? == 0 {
            return Err(Error::new("the worker has not rolled anything up"));
        }
        if (events, counted) == (acknowledged, acknowledged) {
            return Ok(());
        }
        Err(Error::new(format!(
            "{}: {acknowledged} events were acknowledged, {events} are there, and {counted} are counted",
            self.name
        )))
    }
}
