//! Folding a backlog, against recording it.

use std::time::Instant;

use harness::{Error, Result};
use postgres::Client;

use crate::events::{Events, Identifiers, Recording};
use crate::plan::Plan;
use crate::report::{Report, Target, Unit};
use crate::rounds::{Contender, alternate};
use crate::server::{Server, Tables, number, settle};

pub const ROW: &str = "roll_up";

const DATABASE: &str = "roll_up";

/// Sizes of the calls that a backlog comes from.
const BACKLOGS: [(&str, usize); 3] = [
    ("roll_up of single events", 1),
    ("roll_up of batches of 1,000", 1_000),
    ("roll_up of batches of 10,000", 10_000),
];
const RECORDINGS: [(&str, usize); 2] = [
    ("recording, 10,000 to a call", 10_000),
    ("recording, 100,000 to a call", 100_000),
];

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    let filled = plan.choose(1_000_000, 100_000);
    let events = plan.choose(500_000, 100_000);
    server.checkpoint()?;
    server.database(DATABASE, Tables::Billing, 1, filled)?;
    let mut client = server.client(DATABASE)?;
    client.batch_execute("SET synchronous_commit = off")?;
    for (_, size) in BACKLOGS {
        make_backlog(&mut client, events, size)?;
    }
    drop(client);

    let folds = BACKLOGS.map(|(name, size)| {
        Contender::new(name, move || {
            let mut client = server.client(DATABASE)?;
            let rate = fold(&mut client, events, size)?;
            settle(&mut client)?;
            Ok(rate)
        })
    });
    let recordings = RECORDINGS.map(|(name, size)| {
        Contender::new(name, move || {
            let mut client = server.client(DATABASE)?;
            client.batch_execute("SET synchronous_commit = off")?;
            let rate = record(&mut client, 100_000, size)?;
            settle(&mut client)?;
            Ok(rate)
        })
    });
    let series = alternate(plan.rounds(), folds.into_iter().chain(recordings).collect())?;
    let mut judged = Vec::new();
    for (fold, _) in BACKLOGS {
        for (recording, _) in RECORDINGS {
            judged.push((fold, recording, Target::must(1.5).aim(5.0)));
        }
    }
    report.add(
        ROW,
        format!("a backlog of {events} events"),
        Unit::PerSecond,
        series,
        &judged,
    );
    server.drop(&[DATABASE])
}

/// Records `events` in calls of `size` and keeps what that leaves in the queue, to put it there again and again.
pub fn make_backlog(client: &mut Client, events: usize, size: usize) -> Result<()> {
    if size == 1 {
        let sql = format!(
            "SELECT count(billing.record_meter_event('api_calls', 'cus_' || 10000 + floor(random() * 10000)::int, 1,
                 gen_random_uuid()::text, now() - random() * interval '1 hour'))
             FROM generate_series(1, {events})"
        );
        client.batch_execute(&sql)?;
    } else {
        record(client, events, size)?;
    }
    client.batch_execute(&format!(
        "CREATE TABLE backlog_{size} AS SELECT * FROM billing.usage_pending"
    ))?;
    settle(client)
}

/// Events per second of recording `events` in calls of `size`.
pub fn record(client: &mut Client, events: usize, size: usize) -> Result<f64> {
    let recording = Recording::of_arrays(client)?;
    let batches = (0..events / size).map(|_| Events::random(size, Identifiers::Random).arrays());
    let batches = batches.collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    for batch in &batches {
        recording.call(client, batch, size)?;
    }
    Ok(events as f64 / started.elapsed().as_secs_f64())
}

/// Events per second of folding the backlog of `events` from calls of `size`.
pub fn fold(client: &mut Client, events: usize, size: usize) -> Result<f64> {
    client.batch_execute(&format!(
        "INSERT INTO billing.usage_pending SELECT * FROM backlog_{size}"
    ))?;
    let started = Instant::now();
    let folded = number(client, "SELECT billing.roll_up()")?;
    let rate = events as f64 / started.elapsed().as_secs_f64();
    if usize::try_from(folded).is_ok_and(|folded| folded == events) {
        return Ok(rate);
    }
    Err(Error::new(format!("of {events} events {folded} were folded")))
}
