//! Two sessions that record, batch, cancel, roll up, commit and roll back at random, and what each must see.

use std::collections::{BTreeMap, HashSet};

use bigdecimal::BigDecimal;
use chrono::TimeZone;
use chrono_tz::Tz;
use harness::exactness::definition;
pub use harness::exactness::{METERS, formula, name};
use harness::{Database, Dice};
use postgres::Client;
use serde_json::{Value, json};

use super::oracle::{self, DAY, Event, HOUR, Micros, SECOND};
use crate::recording::counts;

pub const CUSTOMERS: [&str; 2] = ["acme", "zeta"];

/// Days around which events and queries gather: clocks change there, by day, at midnight, or never by whole hours.
pub const SCENES: [(Tz, i32, u32, u32); 8] = [
    (Tz::Europe__Paris, 2025, 3, 30),
    (Tz::Europe__Paris, 2025, 10, 26),
    (Tz::America__New_York, 2025, 11, 2),
    (Tz::America__Sao_Paulo, 2018, 11, 4),
    (Tz::America__Sao_Paulo, 2018, 2, 18),
    (Tz::America__Havana, 2025, 11, 2),
    (Tz::Asia__Kathmandu, 2025, 12, 31),
    (Tz::Asia__Kolkata, 2026, 2, 28),
];

pub fn middle(scene: usize) -> Micros {
    let (_, year, month, day) = SCENES[scene];
    chrono::Utc
        .with_ymd_and_hms(year, month, day, 0, 0, 0)
        .unwrap()
        .timestamp_micros()
}

/// What a transaction, or a savepoint in it, has done.
#[derive(Default)]
struct Level {
    added: Vec<Event>,
    cancelled: HashSet<String>,
}

pub struct Session {
    pub client: Client,
    /// The open transaction and its open savepoints; empty outside of a transaction.
    levels: Vec<Level>,
}

pub struct History {
    pub dice: Dice,
    /// Of `SCENES`, few enough that events are close together.
    pub scenes: [usize; 3],
    pub sessions: [Session; 2],
    committed: Vec<Event>,
    received: usize,
    /// Holds the lock of rolling up until its transaction ends: this test has one thread and must not wait for itself.
    roller: Option<usize>,
}

impl History {
    pub fn begin(database: &Database, seed: u64) -> History {
        let mut client = database.connect().unwrap();
        client.execute("SELECT billing.create_customer('zeta')", &[]).unwrap();
        for number in 0..METERS {
            let create = "SELECT billing.create_meter($1::text::billing.meter)";
            client.execute(create, &[&definition(number)]).unwrap();
        }
        // Made beforehand: a session whose open transaction made one would hold up the other, and this thread with it.
        client
            .execute(
                "SELECT billing.make_partition(at, at + interval '3 s')
                 FROM generate_series(date_trunc('second', now()), now() + interval '3 min', interval '3 s') at",
                &[],
            )
            .unwrap();
        let sessions = [(); 2].map(|()| {
            let mut client = database.connect().unwrap();
            client
                .batch_execute("SET billing.max_event_age = -1; SET statement_timeout = '60s'")
                .unwrap();
            Session {
                client,
                levels: Vec::new(),
            }
        });
        let mut dice = Dice::new(seed);
        History {
            scenes: [(); 3].map(|()| dice.below(SCENES.len())),
            dice,
            sessions,
            committed: Vec::new(),
            received: 0,
            roller: None,
        }
    }

    /// What a session must see: what is committed, and what it has done itself.
    pub fn visible(&self, session: usize) -> Vec<&Event> {
        let levels = &self.sessions[session].levels;
        self.committed
            .iter()
            .chain(levels.iter().flat_map(|level| &level.added))
            .filter(|e| !levels.iter().any(|level| level.cancelled.contains(&e.identifier)))
            .collect()
    }

    pub fn step(&mut self) {
        let session = self.dice.below(2);
        match (self.sessions[session].levels.len(), self.dice.below(20)) {
            (0, 0..3) => self.open(session, "BEGIN"),
            (1, 0..2) => self.open(session, "SAVEPOINT s"),
            (1, 2..4) => self.end(session, true),
            (1, 4) => self.end(session, false),
            (2, 0..3) => self.release(session, true),
            (2, 3..6) => self.release(session, false),
            (_, 6..10) => self.cancel(session),
            (_, 10..14) => self.record_batch(session),
            _ => self.record_one(session),
        }
    }

    fn open(&mut self, session: usize, sql: &str) {
        let session = &mut self.sessions[session];
        session.client.batch_execute(sql).unwrap();
        session.levels.push(Level::default());
    }

    fn release(&mut self, session: usize, keep: bool) {
        let session = &mut self.sessions[session];
        session
            .client
            .batch_execute(if keep {
                "RELEASE SAVEPOINT s"
            } else {
                "ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s"
            })
            .unwrap();
        let inner = session.levels.pop().unwrap();
        if keep {
            let outer = session.levels.last_mut().unwrap();
            outer.added.extend(inner.added);
            outer.cancelled.extend(inner.cancelled);
        }
    }

    fn end(&mut self, number: usize, keep: bool) {
        let session = &mut self.sessions[number];
        session
            .client
            .batch_execute(if keep { "COMMIT" } else { "ROLLBACK" })
            .unwrap();
        let levels = std::mem::take(&mut session.levels);
        if keep {
            self.settle(levels);
        }
        if self.roller == Some(number) {
            self.roller = None;
        }
    }

    /// Ends both sessions' transactions, so that partitions may be sealed.
    pub fn end_all(&mut self) {
        for session in 0..2 {
            if !self.sessions[session].levels.is_empty() {
                let keep = !self.dice.one_in(3);
                self.end(session, keep);
            }
        }
    }

    fn settle(&mut self, levels: Vec<Level>) {
        for level in levels {
            self.committed.extend(level.added);
            self.committed.retain(|e| !level.cancelled.contains(&e.identifier));
        }
    }

    fn done(&mut self, session: usize, level: Level) {
        match self.sessions[session].levels.last_mut() {
            None => self.settle(vec![level]),
            Some(last) => {
                last.added.extend(level.added);
                last.cancelled.extend(level.cancelled);
            }
        }
    }

    pub fn roll_up(&mut self, session: usize) {
        if self.roller.is_some_and(|roller| roller != session) {
            return;
        }
        if !self.sessions[session].levels.is_empty() {
            self.roller = Some(session);
        }
        self.sessions[session]
            .client
            .execute("SELECT billing.roll_up()", &[])
            .unwrap();
    }

    /// Of events that the other session is not about to cancel: it would wait.
    fn any_event(&mut self, session: usize) -> Option<Event> {
        let other = &self.sessions[1 - session].levels;
        let free: Vec<Event> = self
            .visible(session)
            .into_iter()
            .filter(|e| !other.iter().any(|level| level.cancelled.contains(&e.identifier)))
            .cloned()
            .collect();
        (!free.is_empty()).then(|| self.dice.of(&free).clone())
    }

    fn cancel(&mut self, session: usize) {
        let Some(event) = self.any_event(session) else { return };
        let sql = "SELECT billing.cancel_meter_event($1, $2, $3)";
        for expected in [true, false] {
            let cancelled: bool = self.sessions[session]
                .client
                .query_one(sql, &[&name(event.meter), &event.customer, &event.identifier])
                .unwrap()
                .get(0);
            assert_eq!(cancelled, expected, "{event:?}");
        }
        let level = Level {
            added: vec![],
            cancelled: HashSet::from([event.identifier]),
        };
        self.done(session, level);
    }

    fn time(&mut self, session: usize) -> Micros {
        let scene = *self.dice.of(&self.scenes);
        let at = middle(scene) + self.dice.between(-2 * DAY, 2 * DAY);
        match self.dice.below(6) {
            0 => at.div_euclid(HOUR) * HOUR,
            1 => at.div_euclid(DAY) * DAY,
            2 => at.div_euclid(HOUR) * HOUR - 1,
            // A tie with another event.
            3 => self.any_event(session).map_or(at, |event| event.at),
            _ => at,
        }
    }

    fn number(&mut self) -> BigDecimal {
        let digits = match self.dice.below(4) {
            0 => self.dice.below(10) as i64,
            1 => self.dice.between(-1000, 1000),
            _ => self.dice.between(-100_000_000_000_000, 1_000_000_000_000_000),
        };
        BigDecimal::new(digits.into(), *self.dice.of(&[0, 0, 2, 9, 12]))
    }

    fn event(&mut self, session: usize) -> Event {
        let mut dimensions = BTreeMap::from([("seat".to_owned(), format!("s{}", self.dice.below(12)))]);
        let number = self.dice.below(METERS);
        if number >= 7 || self.dice.one_in(3) {
            dimensions.insert("region".to_owned(), (*self.dice.of(&["eu", "us", "ü\"'"])).to_owned());
            dimensions.insert("tier".to_owned(), self.dice.below(2).to_string());
        }
        if self.dice.one_in(2) {
            dimensions.insert("note".to_owned(), (*self.dice.of(&["", "x"])).to_owned());
        }
        self.received += 1;
        Event {
            meter: number,
            customer: if self.dice.one_in(5) {
                CUSTOMERS[1]
            } else {
                CUSTOMERS[0]
            },
            identifier: format!("e{}", self.received),
            value: self.number(),
            at: self.time(session),
            received: self.received,
            dimensions,
        }
    }

    fn record_one(&mut self, session: usize) {
        let event = self.event(session);
        let again = self.dice.one_in(4);
        for expected in [true, false].into_iter().take(if again { 2 } else { 1 }) {
            let recorded: bool = self.sessions[session]
                .client
                .query_one(
                    "SELECT billing.record_meter_event($1, $2, $3::text::numeric, $4, $5, $6)",
                    &[
                        &name(event.meter),
                        &event.customer,
                        &event.value.to_plain_string(),
                        &event.identifier,
                        &oracle::instant(event.at),
                        &json!(event.dimensions),
                    ],
                )
                .unwrap()
                .get(0);
            assert_eq!(recorded, expected, "{event:?}");
        }
        let level = Level {
            added: vec![event],
            cancelled: HashSet::new(),
        };
        self.done(session, level);
    }

    fn record_batch(&mut self, session: usize) {
        let size = 1 + self.dice.below(40);
        let mut events: Vec<Event> = (0..size).map(|_| self.event(session)).collect();
        let client = &mut self.sessions[session].client;
        let row = if self.dice.one_in(2) {
            let stripes: Vec<Value> = events.iter().map(stripe).collect();
            client.query_one(
                "SELECT * FROM billing.record_meter_events($1::jsonb)",
                &[&json!(stripes)],
            )
        } else {
            client.query_one(
                "SELECT * FROM billing.record_meter_events($1, $2, $3::text[]::numeric[], $4, $5, $6)",
                &[
                    &events.iter().map(|e| name(e.meter)).collect::<Vec<_>>(),
                    &events.iter().map(|e| e.customer).collect::<Vec<_>>(),
                    &events.iter().map(|e| e.value.to_plain_string()).collect::<Vec<_>>(),
                    &events.iter().map(|e| e.identifier.as_str()).collect::<Vec<_>>(),
                    &events.iter().map(|e| oracle::instant(e.at)).collect::<Vec<_>>(),
                    &events.iter().map(|e| json!(e.dimensions)).collect::<Vec<_>>(),
                ],
            )
        };
        assert_eq!(counts(&row.unwrap()), (size as i64, 0, 0));
        let mut level = Level::default();
        level.added.append(&mut events);
        self.done(session, level);
    }
}

/// The event as Stripe's API takes it; numbers that are texts may come as numbers.
fn stripe(event: &Event) -> Value {
    let mut payload = json!(event.dimensions);
    payload["customer"] = json!(event.customer);
    if formula(event.meter) != "unique_count" {
        payload["value"] = json!(event.value.to_plain_string());
    }
    if let Some(tier) = event.dimensions.get("tier") {
        payload["tier"] = json!(tier.parse::<i64>().unwrap());
    }
    let timestamp = if event.at % SECOND == 0 {
        json!(event.at / SECOND)
    } else {
        json!(oracle::instant(event.at).to_rfc3339())
    };
    json!({
        "event_name": name(event.meter),
        "identifier": event.identifier,
        "timestamp": timestamp,
        "payload": payload,
    })
}
