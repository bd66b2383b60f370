//! One event to a transaction, from eight clients, over 10,000 customers and on one.

use std::cell::Cell;

use harness::{Error, Result};

use crate::pgbench;
use crate::plan::Plan;
use crate::report::{Report, Target, Unit};
use crate::rounds::{Contender, alternate};
use crate::server::{Commit, Server, Tables, number, settle};

pub const ROW: &str = "singles";

const PLAIN: &str = "plain INSERT";
pub const RECORD: &str = "record_meter_event";
const WORKER: &str = "the same, worker rolling up";
const BY_HAND: &str = "PL/pgSQL by hand";

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
    for customers in [Customers::Uniform, Customers::Hot] {
        for commit in Commit::BOTH {
            case(server, plan, report, customers, commit)?;
        }
    }
    Ok(())
}

fn case(server: &Server, plan: &Plan, report: &mut Report, customers: Customers, commit: Commit) -> Result<()> {
    let lines = [
        Line::new("plain", PLAIN, Tables::Plain, INSERT),
        Line::new("record", RECORD, Tables::Billing, CALL),
        Line::new("worker", WORKER, Tables::Billing, CALL),
        Line::new("by_hand", BY_HAND, Tables::ByHand, CALL_BY_HAND),
    ];
    let filled = plan.choose(1_000_000, 100_000);
    server.checkpoint()?;
    for line in &lines {
        server.database(line.database, line.tables, 1, filled)?;
    }
    server
        .client("postgres")?
        .batch_execute("ALTER DATABASE worker SET billing.worker = on")?;

    let contenders = lines.iter().map(|line| {
        let script = customers.script(line.sql);
        Contender::new(line.name, move || {
            let slice = pgbench::run(&server.cluster, line.database, &script, commit, plan.slice())?;
            line.acknowledged
                .set(line.acknowledged.get() + slice.transactions as i64);
            if line.tables == Tables::Billing {
                settle(&mut server.client(line.database)?)?;
            }
            Ok(slice.rate)
        })
    });
    let series = alternate(plan.rounds_of_slices(), contenders.collect())?;
    let case = format!("{}, synchronous_commit {}", customers.name(), commit.setting());
    report.add(
        ROW,
        case,
        Unit::PerSecond,
        series,
        &[
            (RECORD, PLAIN, Target::must(0.9).aim(1.0)),
            (WORKER, PLAIN, Target::must(0.85).aim(0.95)),
            (RECORD, BY_HAND, customers.by_hand()),
        ],
    );
    for line in &lines {
        line.check(server, filled)?;
    }
    server.drop(&lines.each_ref().map(|line| line.database))
}

/// A contender with the database that is its own.
struct Line {
    database: &'static str,
    name: &'static str,
    tables: Tables,
    sql: &'static str,
    acknowledged: Cell<i64>,
}

pub const INSERT: &str = r#"INSERT INTO plain.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
VALUES ('cus_' || :n, 'api_calls', gen_random_uuid()::text, 1, now(), clock_timestamp());"#;
pub const CALL: &str =
    "SELECT billing.record_meter_event('api_calls', 'cus_' || :n, 1, gen_random_uuid()::text, now());";
const CALL_BY_HAND: &str = "SELECT plain.record_event('api_calls', 'cus_' || :n, 1, gen_random_uuid()::text, now());";

impl Line {
    fn new(database: &'static str, name: &'static str, tables: Tables, sql: &'static str) -> Self {
        Self {
            database,
            name,
            tables,
            sql,
            acknowledged: Cell::new(0),
        }
    }

    /// What was acknowledged is there, and counted.
    fn check(&self, server: &Server, filled: u32) -> Result<()> {
        let mut client = server.client(self.database)?;
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
        if self.name == WORKER && number(&mut client, rolled_up)? == 0 {
            return Err(Error::new("the worker has not rolled anything up"));
        }
        let acknowledged = self.acknowledged.get();
        if (events, counted) == (acknowledged, acknowledged) {
            return Ok(());
        }
        Err(Error::new(format!(
            "{}: {acknowledged} events were acknowledged, {events} are there, and {counted} are counted",
            self.name
        )))
    }
}
