//! A client that records, cancels, retries, rolls back and commits in every way there is, and keeps a ledger of what it was told.

mod acts;
mod batch;

use std::time::Duration;

use postgres::{Client, Statement};

use super::board::Board;
use super::event::World;
use super::finding::Kind;
use super::ledger::{Ledger, Told};
use super::stage::Stage;
use super::transaction::{Open, Stop};
use crate::dice::Dice;

const SINGLE: &str = "SELECT billing.record_meter_event($1, $2, $3::text::numeric, $4, $5, $6)";
const ARRAYS: &str = "SELECT recorded, duplicate, rejected
    FROM billing.record_meter_events($1, $2, $3::text[]::numeric[], $4, $5, $6)";
const JSON: &str = "SELECT recorded, duplicate, rejected FROM billing.record_meter_events($1::jsonb)";
const CANCEL: &str = "SELECT billing.cancel_meter_event($1, $2, $3)";

struct Connection {
    client: Client,
    single: Statement,
    arrays: Statement,
    json: Statement,
    cancel: Statement,
}

/// How a session spends its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    Busy,
    /// leaves its transactions open for seconds
    Slow,
}

pub struct Session<'s> {
    stage: &'s Stage<'s>,
    dice: Dice,
    number: usize,
    temper: Temper,
    connection: Option<Connection>,
    prepared: u32,
    /// The open transaction has cancelled, which an old snapshot may not (40001).
    may_conflict: bool,
    ledger: Ledger,
}

impl<'s> Session<'s> {
    pub fn new(stage: &'s Stage<'s>, number: usize, temper: Temper) -> Self {
        Self {
            stage,
            dice: stage.dice(number),
            number,
            temper,
            connection: None,
            prepared: 0,
            may_conflict: false,
            ledger: Ledger::default(),
        }
    }

    pub fn run(mut self) -> Ledger {
        while !self.board().is_over() {
            self.board().await_checks();
            self.step();
        }
        self.ledger
    }

    /// Records one new event, and perhaps cancels another.
    pub fn once(mut self) -> Ledger {
        let number = self.board().fresh();
        self.statement("single", |session, open| session.record(open, number));
        self.statement("cancel", |session, open| session.cancel(open));
        self.ledger
    }

    fn board(&self) -> &'s Board {
        &self.stage.board
    }

    fn world(&self) -> &'s World {
        &self.stage.world
    }

    fn connection(&mut self) -> Result<&mut Connection, Stop> {
        if self.connection.is_none() {
            let mut client = self.stage.connect("recorder")?;
            // Every second one with snapshots that grow old.
            if self.number % 2 == 1 {
                client.batch_execute("SET default_transaction_isolation = 'repeatable read'")?;
            }
            self.connection = Some(Connection {
                single: client.prepare(SINGLE)?,
                arrays: client.prepare(ARRAYS)?,
                json: client.prepare(JSON)?,
                cancel: client.prepare(CANCEL)?,
                client,
            });
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            None => Err(Stop::Broken),
        }
    }

    fn client(&mut self) -> Result<&mut Client, Stop> {
        Ok(&mut self.connection()?.client)
    }

    fn step(&mut self) {
        match (self.temper, self.dice.below(100)) {
            (Temper::Slow, _) | (_, 0..30) => self.transaction(),
            (_, 30..65) => self.statement("single", |session, open| session.single(open)),
            (_, 65..91) => self.statement("batch", |session, open| session.batch(open)),
            (_, 91) => self.statement("cancel", |session, open| session.cancel(open)),
            (_, 92..96) => self.statement("refused", |session, _| session.refused()),
            _ => self.statement("retry", |session, _| session.retry_with_another_value()),
        }
    }

    /// One statement that is a transaction. Only those of several events may have to give way to others.
    fn statement(&mut self, what: &str, act: impl FnOnce(&mut Self, &mut Open) -> Result<(), Stop>) {
        let mut open = Open::new();
        self.may_conflict = false;
        match act(self, &mut open) {
            Ok(()) => self.committed(open.all()),
            Err(Stop::Deadlock) if what == "batch" => self.ledger.deadlocks += 1,
            Err(Stop::Conflict) if self.may_conflict => {}
            // What was sent stands in `open`: it may have been done.
            Err(Stop::Broken) => self.broken(Some(open.all())),
            Err(stop) => self.fault(format!("{what}: {stop:?}")),
        }
    }

    fn transaction(&mut self) {
        let mut open = Open::new();
        self.may_conflict = false;
        let stop = match self.body(&mut open) {
            Ok(()) => return self.end(open),
            Err(stop) => stop,
        };
        match stop {
            Stop::Broken => return self.broken(None),
            Stop::Deadlock => self.ledger.deadlocks += 1,
            Stop::Conflict if self.may_conflict => {}
            stop => self.fault(format!("in a transaction: {stop:?}")),
        }
        if let Err(Stop::Broken) = self.client().and_then(|client| Ok(client.batch_execute("ROLLBACK")?)) {
            self.broken(None);
        }
    }

    fn body(&mut self, open: &mut Open) -> Result<(), Stop> {
        self.client()?.batch_execute("BEGIN")?;
        for _ in 0..1 + self.dice.below(5) {
            self.act(open)?;
        }
        while open.depth() > 1 {
            let keep = self.dice.one_in(2);
            self.release(open, keep)?;
        }
        let pause = match self.temper {
            Temper::Slow => 300 + self.dice.below(2500),
            Temper::Busy if self.dice.one_in(3) => self.dice.below(80),
            Temper::Busy => 0,
        };
        self.sit(pause);
        Ok(())
    }

    fn act(&mut self, open: &mut Open) -> Result<(), Stop> {
        match self.dice.below(48) {
            0..8 if self.temper == Temper::Busy => self.batch(open),
            8 => self.cancel(open),
            9..16 if open.depth() < 4 => {
                let client = self.client()?;
                open.savepoint(client)
            }
            16..20 if open.depth() > 1 => {
                let keep = self.dice.one_in(2);
                self.release(open, keep)
            }
            20..24 => {
                let client = self.client()?;
                open.savepoint(client)?;
                self.refused()?;
                self.release(open, false)
            }
            _ => self.single(open),
        }
    }

    fn release(&mut self, open: &mut Open, keep: bool) -> Result<(), Stop> {
        let client = self.client()?;
        open.release(client, keep)
    }

    fn end(&mut self, open: Open) {
        match self.dice.below(20) {
            0..4 => {
                if let Err(stop) = self.client().and_then(|client| Ok(client.batch_execute("ROLLBACK")?)) {
                    self.stopped(stop, None, "ROLLBACK");
                }
            }
            4..8 => self.in_two_phases(open),
            _ => {
                let told = open.all();
                match self.client().and_then(|client| Ok(client.batch_execute("COMMIT")?)) {
                    Ok(()) => self.committed(told),
                    Err(stop) => self.stopped(stop, Some(told), "COMMIT"),
                }
            }
        }
    }

    /// Whatever breaks, what became of it can be found out afterwards: a prepared transaction is there until it has ended.
    fn in_two_phases(&mut self, open: Open) {
        let told = open.all();
        let (commit, pause) = (!self.dice.one_in(3), self.dice.below(60));
        let gid = format!("exactness-{}-{}", self.number, self.prepared);
        self.prepared += 1;
        let mut sql = format!("PREPARE TRANSACTION '{gid}'");
        let finish = format!("{} PREPARED '{gid}'", if commit { "COMMIT" } else { "ROLLBACK" });
        loop {
            match self.client().and_then(|client| Ok(client.batch_execute(&sql)?)) {
                Ok(()) if sql == finish => break,
                Ok(()) => {
                    self.sit(pause);
                    sql.clone_from(&finish);
                }
                Err(Stop::Broken) => {
                    self.broken(None);
                    match self.is_prepared(&gid) {
                        Ok(true) => sql.clone_from(&finish),
                        // It never came to be prepared.
                        Ok(false) if sql != finish => return,
                        Ok(false) => break,
                        Err(problem) => return self.fault(format!("{gid}: {problem}")),
                    }
                }
                Err(stop) => return self.fault(format!("{sql}: {stop:?}")),
            }
        }
        if commit {
            self.committed(told);
        }
    }

    fn is_prepared(&mut self, gid: &str) -> Result<bool, String> {
        loop {
            let sql = "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = $1)";
            match self.client().and_then(|client| Ok(client.query_one(sql, &[&gid])?)) {
                Ok(row) => return Ok(row.get(0)),
                Err(Stop::Broken) => self.broken(None),
                Err(stop) => return Err(format!("{stop:?}")),
            }
        }
    }

    fn committed(&mut self, told: Told) {
        for number in told.recorded.iter().chain(&told.batched) {
            self.board().acknowledge_recorded(*number);
        }
        for number in &told.cancelled {
            self.board().acknowledge_cancelled(*number);
        }
        self.stage.count(told.rows);
        self.ledger.transactions += 1;
        self.ledger.committed.take_in(told);
    }

    fn stopped(&mut self, stop: Stop, told: Option<Told>, what: &str) {
        match stop {
            Stop::Broken => self.broken(told),
            other => self.fault(format!("{what}: {other:?}")),
        }
    }

    /// `told`: what would have been committed, had it come to that, which only the audit will show.
    fn broken(&mut self, told: Option<Told>) {
        self.connection = None;
        self.ledger.unknown.extend(told);
        if let Err(problem) = self.stage.expect_kill() {
            self.fault(problem);
        }
    }

    fn fault(&self, problem: String) {
        self.board()
            .report(Kind::Error, format!("session {}: {problem}", self.number));
    }

    fn sit(&self, milliseconds: usize) {
        if milliseconds > 0 {
            std::thread::sleep(Duration::from_millis(milliseconds as u64));
        }
    }
}
