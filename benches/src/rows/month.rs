//! One customer's month out of 20 million events.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use harness::{Error, Result};
use postgres::{Client, Statement};

use crate::events::METER;
use crate::history::{DATABASE, History};
use crate::plan::Plan;
use crate::report::{Report, Target, Unit};
use crate::rounds::{Contender, alternate};
use crate::server::{Server, number};

pub const ROW: &str = "month";

const SUMMARY: &str = "meter_event_summaries";
const GROUP_BY: &str = "sum over the events, B-tree";

/// Customers whose answers are compared.
const COMPARED: usize = 20;

pub type Range = [DateTime<Utc>; 2];

/// Where the pages are when the clock starts.
#[derive(Clone, Copy)]
enum Pages {
    InBuffers,
    /// after a restart: in the kernel's cache
    OutOfBuffers,
}

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    let history = History::prepare(server, plan)?;
    let ranges = [
        ("whole days", history.month()),
        ("to the second", history.month_to_the_second()),
    ];
    let mut pending = 0;
    for wanted in [0, 10_000, plan.choose(1_000_000, 100_000)] {
        history.add_pending(&mut server.client(DATABASE)?, wanted - pending)?;
        pending = wanted;
        History::warm(&mut server.client(DATABASE)?)?;
        // A quick run's few events are summed in no time.
        let target = match pending {
            10_000 if !plan.quick => Target::must(10.0),
            _ => Target::NONE,
        };
        for (name, range) in ranges {
            let name = format!("{} events, {name}, {pending} pending", History::events(plan));
            case(server, plan, report, name, range, Pages::InBuffers, target)?;
            compare(&mut server.client(DATABASE)?, range)?;
        }
        if pending == 10_000 {
            let (name, range) = ranges[0];
            let name = format!(
                "{} events, {name}, {pending} pending, after a restart",
                History::events(plan)
            );
            case(server, plan, report, name, range, Pages::OutOfBuffers, target)?;
        }
    }
    let mut client = server.client(DATABASE)?;
    let differing = number(
        &mut client,
        "SELECT count(*) FROM generate_series(10000, 10004) n,
         LATERAL billing.verify('api_calls', 'cus_' || n, NULL, NULL)",
    )?;
    if differing > 0 {
        return Err(Error::new(format!("{differing} buckets differ from their events")));
    }
    Ok(())
}

fn case(
    server: &Server,
    plan: &Plan,
    report: &mut Report,
    name: String,
    range: Range,
    pages: Pages,
    target: Target,
) -> Result<()> {
    let contenders = [(GROUP_BY, Query::Events), (SUMMARY, Query::Summary)].map(|(name, query)| {
        Contender::new(name, move || {
            let turn = match pages {
                Pages::InBuffers => Duration::from_millis(500),
                Pages::OutOfBuffers => {
                    server.cluster.restart()?;
                    // Short, or it would measure what it has read itself.
                    Duration::from_millis(100)
                }
            };
            query.milliseconds(&mut server.client(DATABASE)?, range, turn)
        })
    });
    let series = alternate(plan.rounds(), contenders.into())?;
    report.add(ROW, name, Unit::Milliseconds, series, &[(GROUP_BY, SUMMARY, target)]);
    Ok(())
}

#[derive(Clone, Copy)]
pub enum Query {
    Summary,
    Events,
}

impl Query {
    fn prepare(self, client: &mut Client) -> Result<Statement> {
        let sql = match self {
            Query::Summary => "SELECT aggregated_value::text FROM billing.meter_event_summaries($1, $2, $3, $4)",
            Query::Events => {
                // Planning 37 partitions anew would take longer than the answer.
                client.batch_execute("SET plan_cache_mode = force_generic_plan")?;
                r#"SELECT coalesce(sum(value), 0)::text FROM billing.meter_events
                   WHERE event_name = $1 AND customer = $2 AND "timestamp" >= $3 AND "timestamp" < $4
                     AND cancelled_at IS NULL"#
            }
        };
        Ok(client.prepare(sql)?)
    }

    fn ask(client: &mut Client, statement: &Statement, customer: &str, [start, end]: &Range) -> Result<String> {
        Ok(client.query_one(statement, &[&METER, &customer, start, end])?.get(0))
    }

    /// The mean of one customer after the other for `turn`.
    pub fn milliseconds(self, client: &mut Client, range: Range, turn: Duration) -> Result<f64> {
        let statement = self.prepare(client)?;
        // Makes the plans.
        Self::ask(client, &statement, &customer(), &range)?;
        let started = Instant::now();
        let mut asked = 0;
        while started.elapsed() < turn {
            Self::ask(client, &statement, &customer(), &range)?;
            asked += 1;
        }
        Ok(started.elapsed().as_secs_f64() * 1e3 / f64::from(asked))
    }
}

fn compare(client: &mut Client, range: Range) -> Result<()> {
    let (summary, events) = (Query::Summary.prepare(client)?, Query::Events.prepare(client)?);
    for _ in 0..COMPARED {
        let customer = customer();
        let summed = Query::ask(client, &summary, &customer, &range)?;
        let counted = Query::ask(client, &events, &customer, &range)?;
        if summed != counted {
            return Err(Error::new(format!(
                "{customer}: the summary says {summed}, the events {counted}"
            )));
        }
    }
    Ok(())
}

fn customer() -> String {
    format!("cus_{}", fastrand::u32(10_000..20_000))
}
