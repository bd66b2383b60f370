//! One event to a transaction, as in `singles`, while the worker rolls up.

use std::time::Duration;

use harness::Result;

use crate::plan::Plan;
use crate::race::{Line, Race};
use crate::report::{Report, Target, Unit};
use crate::rows::singles::{CALL, Customers, PLAIN};
use crate::server::{Commit, Server, Tables};

pub const ROW: &str = "worker";

const WORKER: Line = Line {
    name: "record_meter_event, worker rolling up",
    database: "worker",
    tables: Tables::Billing,
    sql: CALL,
    worker: true,
};

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    let race = Race {
        lines: &[&PLAIN, &WORKER],
        turns: 8,
        slice: Duration::from_millis(500),
    };
    for customers in [Customers::Uniform, Customers::Hot] {
        server.set("billing.roll_up_interval", interval(customers))?;
        for commit in Commit::BOTH {
            let series = race.run(server, plan, commit, |sql| customers.script(sql))?;
            let case = format!("{}, synchronous_commit {}", customers.name(), commit.setting());
            let judged = [(WORKER.name, PLAIN.name, Target::must(0.85).aim(0.95))];
            report.add(ROW, case, Unit::PerSecond, series, &judged);
        }
    }
    server.set("billing.roll_up_interval", "1s")
}

/// The worker goes by the clock, which does not stop where its clients and it do, for about half of the time: twice the interval at which it
/// rolls up under such load if nobody stops it. Where a second's events hardly share a bucket it rests for five.
fn interval(customers: Customers) -> &'static str {
    match customers {
        Customers::Uniform => "10s",
        Customers::Hot => "2s",
    }
}
