//! One event to a transaction, from eight clients, over 10,000 customers and on one.

use std::time::Duration;

use harness::Result;

use crate::plan::Plan;
use crate::race::{Line, Race};
use crate::report::{Report, Target, Unit};
use crate::server::{Commit, Server, Tables};

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

    pub fn name(self) -> &'static str {
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

pub const INSERT: &str = r#"INSERT INTO plain.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
VALUES ('cus_' || :n, 'api_calls', gen_random_uuid()::text, 1, now(), clock_timestamp());"#;
pub const CALL: &str =
    "SELECT billing.record_meter_event('api_calls', 'cus_' || :n, 1, gen_random_uuid()::text, now());";
const CALL_BY_HAND: &str = "SELECT plain.record_event('api_calls', 'cus_' || :n, 1, gen_random_uuid()::text, now());";

pub const PLAIN: Line = Line {
    name: "plain INSERT",
    database: "plain",
    tables: Tables::Plain,
    sql: INSERT,
    worker: false,
};
const RECORD: Line = Line {
    name: NAME,
    database: "record",
    tables: Tables::Billing,
    sql: CALL,
    worker: false,
};
const BY_HAND: Line = Line {
    name: "PL/pgSQL by hand",
    database: "by_hand",
    tables: Tables::ByHand,
    sql: CALL_BY_HAND,
    worker: false,
};

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    let race = Race {
        lines: &[&PLAIN, &RECORD, &BY_HAND],
        turns: 9,
        slice: Duration::from_millis(250),
    };
    for customers in [Customers::Uniform, Customers::Hot] {
        for commit in Commit::BOTH {
            let series = race.run(server, plan, commit, |sql| customers.script(sql))?;
            let case = format!("{}, synchronous_commit {}", customers.name(), commit.setting());
            let judged = [
                (RECORD.name, PLAIN.name, Target::must(0.9).aim(1.0)),
                (RECORD.name, BY_HAND.name, customers.by_hand()),
            ];
            report.add(ROW, case, Unit::PerSecond, series, &judged);
        }
    }
    Ok(())
}
