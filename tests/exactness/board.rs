//! What all threads of a run share: which events are taken, acknowledged and cancelled, how far it is, and what was found.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::finding::{Finding, Kind};
use crate::dice::Dice;

const RECORDED: u8 = 1;
const CANCELLED: u8 = 2;
/// How many of the newest numbers sessions fight over.
const CONTESTED: usize = 60;
/// Threads give each other this long to change something they wait for.
const GLANCE: Duration = Duration::from_millis(2);

pub struct Board {
    next: AtomicU32,
    /// Of each number, what the server has acknowledged to anybody.
    acknowledged: Vec<AtomicU8>,
    /// Of each number, how often it was sent.
    attempts: Vec<AtomicU8>,
    pub events: AtomicU64,
    pub checks: AtomicU64,
    pub kills: AtomicU64,
    events_due: u64,
    checks_due: u64,
    over: AtomicBool,
    down: AtomicBool,
    found: Mutex<Vec<Finding>>,
}

impl Board {
    pub fn new(events_due: u64, checks_due: u64) -> Self {
        // Of what is sent, much is rolled back.
        let numbers = usize::try_from(events_due).unwrap_or(0) * 4 + 200_000;
        let zeros = || std::iter::repeat_with(|| AtomicU8::new(0)).take(numbers).collect();
        Self {
            next: AtomicU32::new(0),
            acknowledged: zeros(),
            attempts: zeros(),
            events: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            kills: AtomicU64::new(0),
            events_due,
            checks_due,
            over: AtomicBool::new(false),
            down: AtomicBool::new(false),
            found: Mutex::new(Vec::new()),
        }
    }

    /// A number that nobody has had.
    pub fn fresh(&self) -> u32 {
        let number = self.next.fetch_add(1, SeqCst);
        if number as usize == self.acknowledged.len() {
            self.report(Kind::Error, "more events were sent than numbers were made for");
        }
        number.min(self.acknowledged.len() as u32 - 1)
    }

    /// A number that somebody has had: perhaps in this moment, perhaps long ago.
    pub fn again(&self, dice: &mut Dice) -> u32 {
        let beyond = self.numbers();
        let within = if dice.one_in(2) { beyond.min(CONTESTED) } else { beyond };
        match within {
            0 => self.fresh(),
            _ => (beyond - 1 - dice.below(within)) as u32,
        }
    }

    /// How many numbers were given out.
    pub fn numbers(&self) -> usize {
        (self.next.load(SeqCst) as usize).min(self.acknowledged.len())
    }

    pub fn attempt(&self, number: u32) {
        // Only whether it was more than one counts.
        let _ = self.attempts[number as usize].fetch_update(SeqCst, SeqCst, |n| Some(n.saturating_add(1)));
    }

    pub fn attempts(&self, number: u32) -> u8 {
        self.attempts[number as usize].load(SeqCst)
    }

    pub fn is_recorded(&self, number: u32) -> bool {
        self.acknowledged[number as usize].load(SeqCst) & RECORDED != 0
    }

    pub fn is_cancelled(&self, number: u32) -> bool {
        self.acknowledged[number as usize].load(SeqCst) & CANCELLED != 0
    }

    pub fn acknowledge_recorded(&self, number: u32) {
        self.acknowledged[number as usize].fetch_or(RECORDED, SeqCst);
    }

    pub fn acknowledge_cancelled(&self, number: u32) {
        self.acknowledged[number as usize].fetch_or(CANCELLED, SeqCst);
    }

    /// Whether what is due has been done.
    pub fn is_done(&self, kills_due: u64) -> bool {
        self.events.load(SeqCst) >= self.events_due
            && self.checks.load(SeqCst) >= self.checks_due
            && self.kills.load(SeqCst) >= kills_due
    }

    /// Keeps those who record from running away from those who check: each check is to meet a table that has grown.
    pub fn await_checks(&self) {
        self.await_while(|events, checks| events > checks + 0.05);
    }

    /// Keeps those who check from running away from those who record.
    pub fn await_events(&self) {
        self.await_while(|events, checks| events == 0.0 || checks > events + 0.05);
    }

    /// Of how much of what is due has been recorded and checked.
    fn await_while(&self, unfit: impl Fn(f64, f64) -> bool) {
        let share = |done: &AtomicU64, due: u64| done.load(SeqCst) as f64 / due.max(1) as f64;
        while unfit(
            share(&self.events, self.events_due),
            share(&self.checks, self.checks_due),
        ) && !self.is_over()
        {
            std::thread::sleep(GLANCE);
        }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    pub fn end(&self) {
        self.over.store(true, SeqCst);
    }

    /// Between a kill and the end of the recovery from it.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, SeqCst);
    }

    pub fn await_up(&self) {
        while self.down.load(SeqCst) {
            std::thread::sleep(GLANCE);
        }
    }

    /// What is wrong ends the run: more of it would only hide the first.
    pub fn report(&self, kind: Kind, what: impl Into<String>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.push(Finding::new(kind, what));
        self.end();
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
