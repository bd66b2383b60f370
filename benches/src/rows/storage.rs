//! Bytes on disk and in the log, per event, from empty tables.

use std::time::Duration;

use harness::Result;
use postgres::Client;

use crate::events::{Events, Identifiers, copy};
use crate::pgbench;
use crate::plan::Plan;
use crate::report::{Report, Target, Unit};
use crate::rounds::Series;
use crate::rows::roll_up::record;
use crate::rows::singles;
use crate::server::{Commit, Server, Tables, number};

pub const ROW: &str = "storage";

const DATABASE: &str = "storage";
const PLAIN: &str = "plain table";
const EVENTS: &str = "meter_events";
const QUEUE: &str = "recording";
const BUCKETS: &str = "the same, with buckets";
const ROLLED_UP: &str = "the same, with roll_up";

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    for size in [1, 1_000, 10_000] {
        // Pages that are new since the last checkpoint are never logged whole.
        server.checkpoint()?;
        let plain = bytes(server, plan, Tables::Plain, size)?;
        let billing = bytes(server, plan, Tables::Billing, size)?;
        let calls = match size {
            1 => "one event to a transaction".to_owned(),
            size => format!("{size} events to a call"),
        };
        let target = Target::must(1.3).aim(1.1).at_most();
        let series = vec![
            once(PLAIN, plain.disk),
            once(EVENTS, billing.disk),
            once(BUCKETS, billing.disk_after),
        ];
        report.add(
            ROW,
            format!("table and indexes, {calls}"),
            Unit::Bytes,
            series,
            &[(EVENTS, PLAIN, target), (BUCKETS, PLAIN, Target::NONE)],
        );
        let series = vec![
            once(PLAIN, plain.log),
            once(QUEUE, billing.log),
            once(ROLLED_UP, billing.log_after),
        ];
        report.add(
            ROW,
            format!("WAL, {calls}"),
            Unit::Bytes,
            series,
            &[(QUEUE, PLAIN, target), (ROLLED_UP, PLAIN, Target::NONE)],
        );
    }
    Ok(())
}

/// Sizes do not vary as times do: one round says it.
fn once(contender: &'static str, figure: f64) -> Series {
    Series {
        contender,
        samples: vec![figure],
    }
}

/// Bytes per event.
struct Bytes {
    disk: f64,
    log: f64,
    /// with what roll_up() adds
    disk_after: f64,
    log_after: f64,
}

/// What recording in calls of `size` writes, and what rolling it up adds.
fn bytes(server: &Server, plan: &Plan, tables: Tables, size: usize) -> Result<Bytes> {
    server.database(DATABASE, tables, 0, 0)?;
    let mut client = server.client(DATABASE)?;
    client.batch_execute("SET synchronous_commit = off")?;
    let events = plan.choose(200_000, 50_000);
    let start = log_position(&mut client)?;
    match (size, tables) {
        (1, _) => {
            let sql = if tables == Tables::Plain {
                singles::INSERT
            } else {
                singles::CALL
            };
            let script = singles::Customers::Uniform.script(sql);
            pgbench::rate(
                &server.cluster,
                DATABASE,
                &script,
                Commit::NotFlushed,
                Duration::from_secs(plan.choose(5, 2)),
            )?;
        }
        (_, Tables::Billing) => {
            record(&mut client, events, size)?;
        }
        _ => {
            for _ in 0..events / size {
                copy(&mut client, &Events::random(size, Identifiers::Random).rows())?;
            }
        }
    }
    let recorded = log_position(&mut client)?;
    let (mut end, mut buckets) = (recorded, 0);
    if tables == Tables::Billing {
        client.batch_execute("SELECT billing.roll_up()")?;
        end = log_position(&mut client)?;
        buckets = number(&mut client, "SELECT pg_total_relation_size('billing.usage_buckets')")?;
    }
    let schema = tables.schema();
    let disk = number(
        &mut client,
        &format!(
            "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
             WHERE inhparent = '{schema}.meter_events'::regclass"
        ),
    )?;
    let events = number(&mut client, &format!("SELECT count(*) FROM {schema}.meter_events"))?;
    drop(client);
    server.drop(&[DATABASE])?;
    let per_event = |bytes: i64| bytes as f64 / events as f64;
    Ok(Bytes {
        disk: per_event(disk),
        log: per_event(recorded - start),
        disk_after: per_event(disk + buckets),
        log_after: per_event(end - start),
    })
}

/// The log's length so far, also of what is not flushed.
fn log_position(client: &mut Client) -> Result<i64> {
    number(client, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
}
