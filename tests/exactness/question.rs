//! A question to `meter_event_summaries`, answered together with a plain count of the events by one statement, and so of one
//! snapshot: all functions in it are STABLE, and read what the statement that calls them reads.

use chrono::{DateTime, Utc};
use postgres::Client;
use serde_json::{Value, json};

use super::catalog::{CUSTOMERS, METERS, formula, name};
use super::event::{DAY, HOUR, Micros, SECOND, World, instant};
use super::transaction::Stop;
use crate::dice::Dice;

const ASK: &str = "
    WITH asked AS MATERIALIZED (
        SELECT row_number() OVER (ORDER BY s.start_time)::int AS window_no, s.*
        FROM billing.meter_event_summaries($1, $2, $3, $4, $5, $6, $7) s
    ),
    counted AS MATERIALIZED (
        SELECT r.*
        FROM (SELECT array_agg(a.start_time ORDER BY a.window_no) || max(a.end_time) FROM asked a) AS b (bounds),
             LATERAL exactness.recount($1, $2, $8, b.bounds, $6) r
    )
    SELECT count(*), coalesce(sum(c.events), 0)::bigint,
           min(a.start_time) = $3 AND max(a.end_time) = $4 AND sum(a.end_time - a.start_time) = $4 - $3,
           string_agg(format('[%s, %s) is %s and should be %s', a.start_time, a.end_time,
                             coalesce(a.aggregated_value::text, 'NULL'), coalesce(c.value::text, 'NULL')), '; ' ORDER BY a.window_no)
               FILTER (WHERE a.aggregated_value IS DISTINCT FROM c.value)
    FROM asked a FULL JOIN counted c USING (window_no)";

#[derive(Debug)]
pub struct Question {
    meter: usize,
    customer: &'static str,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    window: Option<&'static str>,
    filter: Option<Value>,
    zone: &'static str,
}

impl Question {
    /// All that a customer can have used in a run.
    pub fn whole(world: &World, meter: usize, customer: &'static str) -> Self {
        Self {
            meter,
            customer,
            start: instant(world.start - 40 * DAY),
            end: instant(world.start + 2 * HOUR),
            window: None,
            filter: None,
            zone: "UTC",
        }
    }

    pub fn any(world: &World, dice: &mut Dice) -> Self {
        let meter = dice.below(METERS);
        let window = *dice.of(&[None, None, Some("hour"), Some("day"), Some("month")]);
        let reach = match window {
            Some("hour") => 30 * HOUR,
            // An integral over each window for each change before it.
            Some("day") if formula(meter) == "weighted_sum" => 3 * DAY,
            Some(_) => 36 * DAY,
            None => *dice.of(&[3 * HOUR, 3 * DAY, 36 * DAY]),
        };
        let reach = match window {
            Some("hour") if formula(meter) == "weighted_sum" => 6 * HOUR,
            _ => reach,
        };
        let mut bound = |least: Micros, beyond: Micros| {
            let at = world.start + dice.between(least, beyond);
            match dice.below(5) {
                0 => at.div_euclid(HOUR) * HOUR,
                1 => at.div_euclid(DAY) * DAY,
                2 => at.div_euclid(60 * SECOND) * 60 * SECOND,
                _ => at,
            }
        };
        let start = bound(-reach, -HOUR);
        let end = bound(-HOUR, 600 * SECOND).max(start + 1);
        let filter = match dice.below(10) {
            0 => Some(json!({"region": "eu"})),
            1 => Some(json!({"region": "ü\"'", "tier": "1"})),
            2 => Some(json!({"note": "x"})),
            3 => Some(json!({"region": "nowhere"})),
            _ => None,
        };
        Self {
            meter,
            customer: if dice.one_in(2) {
                CUSTOMERS[0]
            } else {
                *dice.of(&CUSTOMERS)
            },
            start: instant(start),
            end: instant(end),
            window,
            filter,
            zone: *dice.of(&["UTC", "UTC", "Asia/Kathmandu", "America/New_York"]),
        }
    }

    /// How many events were counted, and what the summary says of them that is not so.
    pub fn ask(&self, client: &mut Client) -> Result<(i64, Option<String>), Stop> {
        let row = client.query_one(
            ASK,
            &[
                &name(self.meter),
                &self.customer,
                &self.start,
                &self.end,
                &self.window,
                &self.filter,
                &self.zone,
                &formula(self.meter),
            ],
        )?;
        let (windows, events): (i64, i64) = (row.get(0), row.get(1));
        let tiled: Option<bool> = row.get(2);
        let wrong: Option<String> = row.get(3);
        let wrong = match tiled {
            Some(true) => wrong,
            _ => Some(format!("{windows} windows that do not make up the range")),
        };
        Ok((events, wrong.map(|wrong| format!("{self:?}: {wrong}"))))
    }
}
