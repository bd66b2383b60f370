//! Many events to a call, one call to a transaction, from one client.

use std::time::Instant;

use harness::{Error, Result};
use postgres::Client;

use crate::events::{Events, Identifiers, Recording, copy};
use crate::plan::Plan;
use crate::report::{Judged, Report, Target, Unit};
use crate::rounds::{Contender, alternate};
use crate::server::{Commit, Server, Tables, number, settle};

pub const ROW: &str = "batches";

const COPY: &str = "COPY";
const ARRAYS: &str = "arrays";
const JSON: &str = "JSON";
const ORDERED: &str = "arrays, UUIDv7";
const GENERATED: &str = "arrays, no identifiers";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Copy,
    Arrays(Identifiers),
    Json,
}

/// A contender with the database that is its own.
struct Line {
    database: &'static str,
    name: &'static str,
    form: Form,
}

const LINES: [Line; 5] = [
    Line::new("copy", COPY, Form::Copy),
    Line::new("arrays", ARRAYS, Form::Arrays(Identifiers::Random)),
    Line::new("json", JSON, Form::Json),
    Line::new("ordered", ORDERED, Form::Arrays(Identifiers::Ordered)),
    Line::new("generated", GENERATED, Form::Arrays(Identifiers::Generated)),
];

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    let filled = plan.choose(1_000_000, 100_000);
    server.checkpoint()?;
    for line in &LINES {
        server.database(line.database, line.form.tables(), 1, filled)?;
    }
    // Calls of a size, and events of a turn: a turn is long enough to be timed, and so short that those of a round meet the same machine.
    let sizes = [
        (100, plan.choose(10_000, 5_000)),
        (1_000, plan.choose(20_000, 10_000)),
        (10_000, plan.choose(50_000, 20_000)),
        (100_000, 100_000),
    ];
    let mut sent = 0;
    for (size, events) in sizes {
        // What a flush costs vanishes in larger batches.
        let commits = if size <= 1_000 {
            &Commit::BOTH[..]
        } else {
            &[Commit::NotFlushed]
        };
        for commit in commits {
            case(server, plan, report, *commit, size, events)?;
            sent += events * (rounds(plan) + 1);
        }
    }
    for line in &LINES {
        line.check(server, sent + filled as usize)?;
    }
    server.drop(&LINES.each_ref().map(|line| line.database))
}

fn case(server: &Server, plan: &Plan, report: &mut Report, commit: Commit, size: usize, events: usize) -> Result<()> {
    let mut clients = Vec::new();
    for line in &LINES {
        let mut client = server.client(line.database)?;
        client.batch_execute(&format!("SET synchronous_commit = {}", commit.setting()))?;
        clients.push(client);
    }
    let contenders = LINES.iter().zip(&mut clients).map(|(line, client)| {
        Contender::new(line.name, move || {
            let rate = line.form.rate(client, size, events)?;
            if line.form != Form::Copy {
                settle(&mut server.client(line.database)?)?;
            }
            Ok(rate)
        })
    });
    let series = alternate(rounds(plan), contenders.collect())?;
    let judged: [Judged; 4] = [
        (ARRAYS, COPY, against_copy(size)),
        (JSON, ARRAYS, Target::must(0.7).aim(0.9)),
        (ORDERED, ARRAYS, Target::must(1.0)),
        (GENERATED, ARRAYS, Target::must(1.0)),
    ];
    let case = format!("{size} events to a call, synchronous_commit {}", commit.setting());
    report.add(ROW, case, Unit::PerSecond, series, &judged);
    Ok(())
}

/// More than of other rows, as a turn is a moment.
fn rounds(plan: &Plan) -> usize {
    plan.choose(11, 3)
}

fn against_copy(size: usize) -> Target {
    let must = match size {
        ..=999 => None,
        1_000..=9_999 => Some(0.6),
        10_000.. => Some(0.8),
    };
    Target { must, ..Target::NONE }.aim(1.1)
}

impl Form {
    const fn tables(self) -> Tables {
        match self {
            Form::Copy => Tables::Plain,
            Form::Arrays(_) | Form::Json => Tables::Billing,
        }
    }

    /// Events per second of `events` new events in calls of `size`.
    fn rate(self, client: &mut Client, size: usize, events: usize) -> Result<f64> {
        let batches = |identifiers| (0..events / size).map(move |_| Events::random(size, identifiers));
        let (recording, encoded) = match self {
            Form::Copy => {
                let batches: Vec<_> = batches(Identifiers::Random).map(|batch| batch.rows()).collect();
                let started = Instant::now();
                for rows in &batches {
                    copy(client, rows)?;
                }
                return Ok(events as f64 / started.elapsed().as_secs_f64());
            }
            Form::Arrays(identifiers) => (
                Recording::of_arrays(client)?,
                batches(identifiers)
                    .map(|batch| batch.arrays())
                    .collect::<Result<Vec<_>>>()?,
            ),
            Form::Json => (
                Recording::of_json(client)?,
                batches(Identifiers::Random)
                    .map(|batch| batch.json())
                    .collect::<Result<Vec<_>>>()?,
            ),
        };
        let started = Instant::now();
        for batch in &encoded {
            recording.call(client, batch, size)?;
        }
        Ok(events as f64 / started.elapsed().as_secs_f64())
    }
}

impl Line {
    const fn new(database: &'static str, name: &'static str, form: Form) -> Self {
        Self { database, name, form }
    }

    /// Every event that was sent is there.
    fn check(&self, server: &Server, sent: usize) -> Result<()> {
        let mut client = server.client(self.database)?;
        let schema = self.form.tables().schema();
        let events = number(&mut client, &format!("SELECT count(*) FROM {schema}.meter_events"))?;
        if usize::try_from(events).is_ok_and(|events| events == sent) {
            return Ok(());
        }
        Err(Error::new(format!(
            "{}: {sent} events were sent, and {events} are there",
            self.name
        )))
    }
}
