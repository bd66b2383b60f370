//! The same work on more partitions and more events.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use harness::Result;

use crate::history::{self, History};
use crate::pgbench;
use crate::plan::Plan;
use crate::report::{Report, Target, Unit};
use crate::rounds::{Contender, alternate};
use crate::rows::month::Query;
use crate::rows::roll_up::{fold, make_backlog, record};
use crate::rows::singles;
use crate::server::{Commit, Server, Tables, settle};

pub const ROW: &str = "growth";

/// A contender with its database: the smallest first, by which the others are judged.
const SIZES: [(&str, &str); 4] = [
    ("1 partition", "partitions_1"),
    ("10 partitions", "partitions_10"),
    ("100 partitions", "partitions_100"),
    ("37 partitions, more events", history::DATABASE),
];

#[derive(Clone, Copy)]
enum Work {
    Single,
    Batches(usize),
    RollUp,
    Month,
}

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    History::prepare(server, plan)?;
    server.checkpoint()?;
    let filled = plan.choose(1_000_000, 100_000);
    for ((_, database), days) in SIZES.iter().zip([0, 9, 99]) {
        server.database(database, Tables::Billing, days, filled)?;
    }
    let backlog = plan.choose(100_000, 20_000);
    for (_, database) in SIZES {
        let mut client = server.client(database)?;
        settle(&mut client)?;
        make_backlog(&mut client, backlog, 1)?;
        History::warm(&mut client)?;
    }
    for work in [
        Work::Single,
        Work::Batches(1_000),
        Work::Batches(10_000),
        Work::RollUp,
        Work::Month,
    ] {
        let contenders =
            SIZES.map(|(name, database)| Contender::new(name, move || work.figure(server, plan, database, backlog)));
        let series = alternate(plan.rounds(), contenders.into())?;
        // Rates are judged by the smallest's; of times, the smallest's is judged by theirs.
        let target = Target::must(0.8).aim(1.0);
        let (smallest, _) = SIZES[0];
        let judged: Vec<_> = SIZES[1..]
            .iter()
            .map(|(name, _)| match work.unit() {
                Unit::Milliseconds => (smallest, *name, target),
                _ => (*name, smallest, target),
            })
            .collect();
        let case = format!(
            "{}; {filled} events, and {} in 37 partitions",
            work.name(),
            History::events(plan)
        );
        report.add(ROW, case, work.unit(), series, &judged);
    }
    server.drop(&SIZES.map(|(_, database)| database))
}

impl Work {
    fn name(self) -> String {
        match self {
            Work::Single => singles::NAME.to_owned(),
            Work::Batches(size) => format!("record_meter_events, {size} to a call"),
            Work::RollUp => "roll_up of single events".to_owned(),
            Work::Month => "meter_event_summaries of a customer's last 30 days".to_owned(),
        }
    }

    fn unit(self) -> Unit {
        match self {
            Work::Month => Unit::Milliseconds,
            _ => Unit::PerSecond,
        }
    }

    fn figure(self, server: &Server, plan: &Plan, database: &str, backlog: usize) -> Result<f64> {
        let mut client = server.client(database)?;
        client.batch_execute("SET synchronous_commit = off")?;
        let figure = match self {
            Work::Single => {
                let script = singles::Customers::Uniform.script(singles::CALL);
                pgbench::rate(
                    &server.cluster,
                    database,
                    &script,
                    Commit::NotFlushed,
                    Duration::from_secs(1),
                )?
            }
            Work::Batches(size) => record(&mut client, plan.choose(50_000, 20_000), size)?,
            Work::RollUp => fold(&mut client, backlog, 1)?,
            Work::Month => {
                let now = Utc::now();
                let range = [now - TimeDelta::days(30), now];
                return Query::Summary.milliseconds(&mut client, range, Duration::from_millis(300));
            }
        };
        settle(&mut client)?;
        Ok(figure)
    }
}
