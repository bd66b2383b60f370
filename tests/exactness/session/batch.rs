//! What a session does with many events in one statement.

use postgres::Row;
use serde_json::Value;

use super::{Open, Session, Stop};
use crate::exactness::event::{Event, instant};
use crate::exactness::finding::Kind;

/// The ways of sending many events in one statement.
#[derive(Debug, Clone, Copy)]
enum Form {
    Arrays,
    Json,
    /// one call for each, in one statement
    Rows,
    /// one block of PL/pgSQL for each, some undone
    Blocks,
}

const ROWS: &str = "SELECT array_agg(billing.record_meter_event(e, c, v, i, t, d) ORDER BY n)
    FROM unnest($1::text[], $2::text[], $3::text[]::numeric[], $4::text[], $5::timestamptz[], $6::jsonb[])
         WITH ORDINALITY AS a (e, c, v, i, t, d, n)";
const BLOCKS: &str = "SELECT exactness.record_in_blocks($1, $2, $3::text[]::numeric[], $4, $5, $6, $7)";

impl Session<'_> {
    pub(super) fn batch(&mut self, open: &mut Open) -> Result<(), Stop> {
        let form = *self.dice.of(&[
            Form::Arrays,
            Form::Arrays,
            Form::Arrays,
            Form::Json,
            Form::Rows,
            Form::Blocks,
        ]);
        let largest = self.stage.plan.largest_batch;
        let size = match (form, self.dice.below(20)) {
            (Form::Rows | Form::Blocks, _) | (_, 0..12) => 2 + self.dice.below(20),
            (Form::Arrays, 19) => largest / 2 + self.dice.below(largest / 2),
            _ => 20 + self.dice.below(largest / 10),
        };
        let mut numbers = Vec::with_capacity(size);
        for _ in 0..size {
            let number = match numbers.len() {
                sent if sent > 0 && self.dice.one_in(12) => numbers[self.dice.below(sent)],
                _ if self.dice.one_in(20) => self.stage.board.again(&mut self.dice),
                _ => self.stage.board.fresh(),
            };
            numbers.push(number);
        }
        // Not all in the order of their making.
        if self.dice.one_in(2) {
            numbers.reverse();
        }
        let acknowledged: Vec<bool> = numbers.iter().map(|number| self.board().is_recorded(*number)).collect();
        numbers.iter().for_each(|number| self.board().attempt(*number));
        let events: Vec<Event> = numbers.iter().map(|number| self.world().event(*number)).collect();
        match form {
            Form::Arrays | Form::Json => self.send_batch(open, form, &numbers, events, &acknowledged),
            Form::Rows | Form::Blocks => self.send_singly(open, form, &numbers, &events, &acknowledged),
        }
    }

    /// Of a statement on its own, whose answer did not come: all of it may have been recorded.
    pub(super) fn unanswered(open: &mut Open, mut sent: Vec<u32>, rejected: usize) -> Stop {
        sent.sort_unstable();
        sent.dedup();
        let told = open.told();
        told.rows += sent.len() as u64;
        told.rejected += rejected as u64;
        told.batched.extend(sent);
        Stop::Broken
    }

    /// Answered by three counts.
    fn send_batch(
        &mut self,
        open: &mut Open,
        form: Form,
        numbers: &[u32],
        mut events: Vec<Event>,
        acknowledged: &[bool],
    ) -> Result<(), Stop> {
        let mut names: Vec<String> = events.iter().map(Event::event_name).collect();
        let mut bad = 0;
        while self.dice.one_in(6) {
            let (event, name) = self.unacceptable();
            events.push(event);
            names.push(name);
            bad += 1;
        }
        let connection = self.connection()?;
        let row = match form {
            Form::Json => {
                let mut stripes: Vec<Value> = events.iter().map(Event::stripe).collect();
                for (stripe, name) in stripes.iter_mut().zip(&names) {
                    stripe["event_name"] = Value::from(name.as_str());
                }
                connection.client.query_one(&connection.json, &[&Value::from(stripes)])
            }
            _ => {
                let columns = Columns::of(&events);
                connection.client.query_one(
                    &connection.arrays,
                    &[
                        &names,
                        &columns.customers,
                        &columns.values,
                        &columns.identifiers,
                        &columns.timestamps,
                        &columns.dimensions,
                    ],
                )
            }
        };
        let row = match row.map_err(Stop::from) {
            Err(Stop::Broken) => return Err(Self::unanswered(open, numbers.to_vec(), bad)),
            row => row?,
        };
        let (recorded, duplicate, rejected) = counts(&row);
        let mut free: Vec<u32> = numbers
            .iter()
            .zip(acknowledged)
            .filter(|(number, acknowledged)| !**acknowledged && !open.holds(**number))
            .map(|(number, _)| *number)
            .collect();
        free.sort_unstable();
        free.dedup();
        if (recorded + duplicate, rejected) != (numbers.len(), bad) || recorded > free.len() {
            let what = format!(
                "recorded {recorded}, duplicate {duplicate}, rejected {rejected} of {} events, of which {} could be new, and {bad} bad ones",
                numbers.len(),
                free.len(),
            );
            self.board().report(Kind::Answer, what);
        }
        let told = open.told();
        told.rejected += bad as u64;
        told.rows += recorded as u64;
        if recorded == free.len() {
            told.recorded.extend(free);
        } else if recorded == 0 {
            self.ledger.seen.extend(free);
        } else {
            told.batched.extend(free);
        }
        Ok(())
    }

    /// Answered one by one.
    fn send_singly(
        &mut self,
        open: &mut Open,
        form: Form,
        numbers: &[u32],
        events: &[Event],
        acknowledged: &[bool],
    ) -> Result<(), Stop> {
        let columns = Columns::of(events);
        let names: Vec<String> = events.iter().map(Event::event_name).collect();
        let keep: Vec<bool> = events.iter().map(|_| !self.dice.one_in(3)).collect();
        let client = &mut self.connection()?.client;
        let row = match form {
            Form::Blocks => client.query_one(
                BLOCKS,
                &[
                    &names,
                    &columns.customers,
                    &columns.values,
                    &columns.identifiers,
                    &columns.timestamps,
                    &columns.dimensions,
                    &keep,
                ],
            ),
            _ => client.query_one(
                ROWS,
                &[
                    &names,
                    &columns.customers,
                    &columns.values,
                    &columns.identifiers,
                    &columns.timestamps,
                    &columns.dimensions,
                ],
            ),
        };
        let answers: Vec<Option<bool>> = match row.map_err(Stop::from) {
            Err(Stop::Broken) => {
                let kept = numbers
                    .iter()
                    .zip(&keep)
                    .filter(|(_, keep)| **keep || matches!(form, Form::Rows));
                return Err(Self::unanswered(open, kept.map(|(number, _)| *number).collect(), 0));
            }
            row => row?.get(0),
        };
        if answers.len() != numbers.len() {
            return Err(Stop::Fault(format!(
                "{} answers to {} events",
                answers.len(),
                numbers.len()
            )));
        }
        for ((number, acknowledged), answer) in numbers.iter().zip(acknowledged).zip(answers) {
            if let Some(recorded) = answer {
                self.told_of(open, *number, recorded, *acknowledged);
            }
        }
        Ok(())
    }
}

fn counts(row: &Row) -> (usize, usize, usize) {
    let count = |column: &str| usize::try_from(row.get::<_, i64>(column)).unwrap_or(usize::MAX);
    (count("recorded"), count("duplicate"), count("rejected"))
}

/// Events as parallel arrays.
struct Columns<'e> {
    customers: Vec<&'static str>,
    values: Vec<String>,
    identifiers: Vec<&'e str>,
    timestamps: Vec<Option<chrono::DateTime<chrono::Utc>>>,
    dimensions: Vec<Option<Value>>,
}

impl<'e> Columns<'e> {
    fn of(events: &'e [Event]) -> Self {
        Self {
            customers: events.iter().map(|event| event.customer).collect(),
            values: events.iter().map(Event::value).collect(),
            identifiers: events.iter().map(|event| event.identifier.as_str()).collect(),
            timestamps: events.iter().map(|event| event.at.map(instant)).collect(),
            dimensions: events.iter().map(Event::json).collect(),
        }
    }
}
