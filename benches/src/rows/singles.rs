//! One event to a transaction, from eight clients, over 10,000 customers and on one.

use std::time::Duration;

use harness::{Error, Result};

use crate::pgbench::{Clients, Window};
use crate::plan::Plan;
use crate::report::{Report, Target, Unit};
use crate::rounds::{Contender, Series, take_turns};
use crate::server::{Commit, Server, Tables, number, settle};

pub const ROW: &str = "singles";

pub const NAME: &str = "record_meter_event";

#[derive(Clone, Copy)]
pub enum Customers {
    Uniform,
    Hot,
}

impl Customers {
    /// `sql` for pgbench, with the number of each transaction's customer in `:n`.
    pub fn script(self, sql: &str) -> String {
        let number = match self {
            Customers::Uniform => "random(10000, 19999)",
            Customers::Hot => "10000",
        };
        format!("\\set n {number}\n{sql}")
    }

    fn name(self) -> &'static str {
        match self {
            Customers::Uniform => "10,000 customers",
            Customers::Hot => "one customer",
        }
    }

    fn by_hand(self) -> Target {
        match self {
            Customers::Uniform => Target::must(1.15),
            Customers::Hot => Target::must(3.0),
        }
    }
}

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    let short = Pace {
        lead_in: Duration::from_millis(25),
        slice: Duration::from_millis(250),
    };
    let plain_beside_worker = Pace {
        lead_in: Duration::from_millis(500),
        slice: Duration::from_secs(plan.choose(3, 1)),
    };
    // The worker folds by the clock, at most every five seconds or so, so its turns have to last.
    let worker = Pace {
        lead_in: Duration::from_secs(2),
        slice: Duration::from_secs(plan.choose(6, 3)),
    };
    let races = [
        Race {
            lines: &[(&PLAIN, short), (&RECORD, short), (&BY_HAND, short)],
            note: "",
            turns: 9,
        },
        Race {
            lines: &[(&PLAIN, plain_beside_worker), (&WORKER, worker)],
            note: ", the worker beside",
            turns: 1,
        },
    ];
    for customers in [Customers::Uniform, Customers::Hot] {
        for commit in Commit::BOTH {
            let judged = [
                (RECORD.name, PLAIN.name, Target::must(0.9).aim(1.0)),
                (WORKER.name, PLAIN.name, Target::must(0.85).aim(0.95)),
                (RECORD.name, BY_HAND.name, customers.by_hand()),
            ];
            for race in &races {
                let series = race.run(server, plan, customers, commit)?;
                let case = format!(
                    "{}, synchronous_commit {}{}",
                    customers.name(),
                    commit.setting(),
                    race.note
                );
                report.add(ROW, case, Unit::PerSecond, series, &judged);
            }
        }
    }
    Ok(())
}

/// A contender, with a database that is its own.
struct Line {
    name: &'static str,
    database: &'static str,
    tables: Tables,
    sql: &'static str,
}

const PLAIN: Line = Line {
    name: "plain INSERT",
    database: "plain",
    tables: Tables::Plain,
    sql: INSERT,
};
const RECORD: Line = Line {
    name: NAME,
    database: "record",
    tables: Tables::Billing,
    sql: CALL,
};
const WORKER: Line = Line {
    name: "the same, worker rolling up",
    database: "worker",
    tables: Tables::Billing,
    sql: CALL,
};
const BY_HAND: Line = Line {
    name: "PL/pgSQL by hand",
    database: "by_hand",
    tables: Tables::ByHand,
    sql: CALL_BY_HAND,
};

/// How long a turn lasts.
#[derive(Clone, Copy)]
struct Pace {
    /// at the beginning, not measured
    lead_in: Duration,
    slice: Duration,
}

/// Contenders that take turns. The machine is fast and slow by the second, so short turns meet the same of it, and a round adds up many.
struct Race<'a> {
    lines: &'a [(&'static Line, Pace)],
    note: &'static str,
    /// of each contender, in a round
    turns: usize,
}

impl Race<'_> {
    fn run(&self, server: &Server, plan: &Plan, customers: Customers, commit: Commit) -> Result<Vec<Series>> {
        let filled = plan.choose(1_000_000, 100_000);
        server.checkpoint()?;
        let mut clients = Vec::new();
        for (line, _) in self.lines {
            server.database(line.database, line.tables, 1, filled)?;
            let worker = if line.name == WORKER.name { "on" } else { "off" };
            server.client("postgres")?.batch_execute(&format!(
                "ALTER DATABASE {} SET billing.worker = {worker}",
                line.database
            ))?;
            let script = customers.script(line.sql);
            clients.push(Clients::start(&server.cluster, line.database, &script, commit)?);
        }
        let contenders = self.lines.iter().zip(&clients).map(|((line, pace), clients)| {
            let mut turns = 0;
            Contender::new(line.name, move || {
                let window = clients.turn(pace.lead_in, pace.slice)?;
                turns += 1;
                if line.tables == Tables::Billing && turns % self.turns == 0 {
                    settle(&mut server.client(line.database)?)?;
                }
                Ok(window)
            })
        });
        let rounds = plan.choose(15, 3);
        // One more, to warm up.
        let windows = take_turns((1 + rounds) * self.turns, contenders.collect())?;
        let mut all = Vec::new();
        for (((line, _), clients), windows) in self.lines.iter().zip(clients).zip(windows) {
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
        let databases: Vec<_> = self.lines.iter().map(|(line, _)| line.database).collect();
        server.drop(&databases)?;
        Ok(all)
    }
}

pub const INSERT: &str = r#"INSERT INTO plain.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
VALUES ('cus_' || :n, 'api_calls', gen_random_uuid()::text, 1, now(), clock_timestamp());"#;
pub const CALL: &str =
    "SELECT billing.record_meter_event('api_calls', 'cus_' || :n, 1, gen_random_uuid()::text, now());";
const CALL_BY_HAND: &str = "SELECT plain.record_event('api_calls', 'cus_' || :n, 1, gen_random_uuid()::text, now());";

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
        if self.name == WORKER.name && number(&mut client, rolled_up)? == 0 {
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
