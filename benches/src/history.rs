//! A database of 20 million events of 10,000 customers over 36 days, each day sealed and folded.

use std::sync::Mutex;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use harness::{Error, Result};
use postgres::Client;

use crate::plan::Plan;
use crate::server::{Server, Tables};

pub const DATABASE: &str = "history";
const DAYS: u64 = 36;
/// Servers are measured on machines of few cores.
const LOADERS: usize = 2;

pub struct History {
    last_day: NaiveDate,
}

impl History {
    pub fn events(plan: &Plan) -> u64 {
        plan.choose(20_000_000, 720_000)
    }

    /// Makes the database, which takes minutes, unless it is there.
    pub fn prepare(server: &Server, plan: &Plan) -> Result<Self> {
        // A partition can be sealed an hour after its end.
        let last_day = (Utc::now() - TimeDelta::minutes(61)).date_naive() - Days::new(1);
        let history = Self { last_day };
        let mut client = server.client("postgres")?;
        if client
            .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&DATABASE])?
            .is_none()
        {
            history.make(server, plan)?;
        }
        Ok(history)
    }

    fn make(&self, server: &Server, plan: &Plan) -> Result<()> {
        server.database(DATABASE, Tables::Billing, 0, 0)?;
        let mut days: Vec<NaiveDate> = (0..DAYS).map(|n| self.last_day - Days::new(n)).collect();
        let mut client = server.client(DATABASE)?;
        for day in &days {
            client.execute(
                "SELECT billing.make_partition($1::timestamptz, $1 + interval '24 hours')",
                &[&instant(*day, 0.0)],
            )?;
        }
        days.reverse();
        let days = Mutex::new(days.into_iter());
        let next = || days.lock().ok()?.next();
        std::thread::scope(|scope| {
            let loaders: Vec<_> = (0..LOADERS)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        let mut client = server.client(DATABASE)?;
                        while let Some(day) = next() {
                            fill(
                                &mut client,
                                include_str!("../sql/history_day.sql"),
                                day,
                                Self::events(plan) / DAYS,
                            )?;
                            client.batch_execute(&format!("VACUUM ANALYZE billing.{}", partition(day)))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            loaders.into_iter().try_for_each(|loader| {
                loader
                    .join()
                    .unwrap_or_else(|_| Err(Error::new("loading the history panicked")))
            })
        })?;
        client.batch_execute("VACUUM ANALYZE billing.usage_buckets")?;
        server.checkpoint()
    }

    /// Reads what summaries and sums need into shared buffers.
    pub fn warm(client: &mut Client) -> Result<()> {
        client.batch_execute(
            "CREATE EXTENSION IF NOT EXISTS pg_prewarm;
             SELECT pg_prewarm(oid) FROM pg_class
             WHERE relnamespace = 'billing'::regnamespace
               AND (relname ~ '^meter_events_p[0-9]+(_timestamp)?$' OR relname ~ '^usage_buckets(_pkey)?$')",
        )?;
        Ok(())
    }

    /// Leaves `events` more events of the last day unfolded.
    pub fn add_pending(&self, client: &mut Client, events: u64) -> Result<()> {
        fill(
            client,
            include_str!("../sql/history_pending.sql"),
            self.last_day,
            events,
        )?;
        client.batch_execute("VACUUM ANALYZE billing.usage_pending")?;
        Ok(())
    }

    /// Thirty days up to the end of the last.
    pub fn month(&self) -> [DateTime<Utc>; 2] {
        [
            instant(self.last_day - Days::new(29), 0.0),
            instant(self.last_day + Days::new(1), 0.0),
        ]
    }

    /// Thirty days that begin and end between hours, as a subscription's do.
    pub fn month_to_the_second(&self) -> [DateTime<Utc>; 2] {
        [
            instant(self.last_day - Days::new(30), 0.906),
            instant(self.last_day, 0.906),
        ]
    }
}

fn fill(client: &mut Client, sql: &str, day: NaiveDate, events: u64) -> Result<()> {
    let sql = sql
        .replace("{partition}", &partition(day))
        .replace("{day}", &instant(day, 0.0).to_rfc3339())
        .replace("{events}", &events.to_string());
    Ok(client.batch_execute(&sql)?)
}

fn partition(day: NaiveDate) -> String {
    format!("meter_events_p{}", day.format("%Y%m%d"))
}

fn instant(day: NaiveDate, of_day: f64) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc() + TimeDelta::microseconds((of_day * 86_400e6) as i64)
}
