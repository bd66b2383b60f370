//! A run: a cluster of its own, everybody at work on it until what is due is done, and the audit afterwards.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postgres::Client;

use super::board::Board;
use super::event::World;
use super::finding::{Finding, Kind};
use super::killer::keep_killing;
use super::ledger::Ledger;
use super::reader::{Level, Reader};
use super::roller::keep_rolling;
use super::session::{Session, Temper};
use super::stage::{PATIENCE, Plan, Stage};
use super::{catalog, event};
use crate::cluster::Cluster;
use crate::database::Database;
use crate::error::Result;
use crate::install::PgInstall;
use crate::options::Options;
use crate::progress::note;

/// A fold takes its time after cancellations, which have whole days counted anew.
const PATIENCE_WITH_THE_WORKER: Duration = Duration::from_secs(900);

/// What a storm leaves behind, beside the database.
pub struct Past {
    /// what all sessions were told
    pub ledger: Ledger,
    pub telling: u64,
    pub raged: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub events: u64,
    pub transactions: u64,
    pub unknown: usize,
    pub deadlocks: u64,
    pub checks: u64,
    /// checks that had any events to count
    pub telling: u64,
    pub kills: u64,
    pub partitions: i64,
    /// of the storm, without what went before and came after it
    pub raged: Duration,
}

/// A storm and its audit.
pub fn run(install: &PgInstall, plan: &Plan) -> Result<Outcome> {
    after(install, plan, |stage, mut past| {
        let ledger = &mut past.ledger;
        if !plan.preload {
            // Whoever records next brings back a worker that was killed with its server.
            ledger.take_in(stage.record_once(0));
        }
        let mut findings = stage.board.findings();
        let mut client = stage.cluster.connect(&stage.database)?;
        if findings.is_empty() && plan.worker {
            findings.extend(await_drained(&mut client)?);
        }
        // In any case: what is lost says more than the error that came with it.
        findings.extend(stage.audit(ledger).findings(&mut client)?);
        if let Some(standby) = stage.standby {
            standby.catch_up_with(stage.cluster)?;
            findings.extend(
                stage
                    .audit(ledger)
                    .of_summaries(&mut standby.connect(&stage.database)?)?,
            );
        }
        let partitions = "SELECT count(DISTINCT tableoid) FROM billing.meter_events";
        Ok(Outcome {
            findings,
            events: stage.board.events.load(SeqCst),
            transactions: ledger.transactions,
            unknown: ledger.unknown.len(),
            deadlocks: ledger.deadlocks,
            checks: stage.board.checks.load(SeqCst),
            telling: past.telling,
            kills: stage.board.kills.load(SeqCst),
            partitions: client.query_one(partitions, &[])?.get(0),
            raged: past.raged,
        })
    })
}

/// Makes the storm and hands over what is left when it is over.
pub fn after<T>(install: &PgInstall, plan: &Plan, then: impl FnOnce(&Stage, Past) -> Result<T>) -> Result<T> {
    let options = options(plan);
    let cluster = Cluster::start(install, &options)?;
    let database = Database::with_extension(&cluster)?;
    catalog::create(&mut database.connect()?)?;
    let standby = if plan.standby {
        let options = options
            .set("hot_standby_feedback", "on")
            .set("max_standby_streaming_delay", "-1");
        Some(Cluster::standby_of(&cluster, &options)?)
    } else {
        None
    };
    if let Some(standby) = &standby {
        standby.catch_up_with(&cluster)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stage = Stage {
        plan,
        cluster: &cluster,
        standby: standby.as_ref(),
        database: database.name().to_owned(),
        world: World {
            seed: plan.seed,
            start: now.as_secs() as event::Micros * event::SECOND,
        },
        board: Board::new(plan.events, plan.checks),
    };
    let past = rage(&stage);
    then(&stage, past)
}

fn options(plan: &Plan) -> Options {
    let options = Options::default()
        .set("billing.worker", if plan.worker { "on" } else { "off" })
        .set("billing.partition_width", plan.partition_width)
        .set("billing.roll_up_interval", "50ms")
        .set("max_prepared_transactions", "50")
        // A search over many partitions locks each of them and its indexes.
        .set("max_locks_per_transaction", "1024")
        .set("deadlock_timeout", "200ms")
        .set("max_wal_size", "4GB")
        // The standby may be behind for a while.
        .set("wal_keep_size", "4GB");
    if plan.preload {
        options.preload("pg_billing")
    } else {
        options
    }
}

/// All threads, until what is due is done or something is found.
fn rage(stage: &Stage) -> Past {
    let plan = stage.plan;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..plan.recorders + plan.slow)
            .map(|number| {
                let temper = if number < plan.recorders {
                    Temper::Busy
                } else {
                    Temper::Slow
                };
                scope.spawn(move || Session::new(stage, number, temper).run())
            })
            .collect();
        let readers: Vec<_> = readers(plan)
            .map(|reader| scope.spawn(move || reader.keep_asking(stage)))
            .collect();
        for number in 0..plan.rollers {
            scope.spawn(move || keep_rolling(stage, number));
        }
        if plan.kills.count > 0 {
            scope.spawn(|| keep_killing(stage));
        }
        watch(stage);
        let mut ledger = Ledger::default();
        for session in sessions {
            match session.join() {
                Ok(one) => ledger.take_in(one),
                Err(_) => stage.board.report(Kind::Error, "a session panicked"),
            }
        }
        let telling = readers.into_iter().map(|reader| reader.join().unwrap_or(0)).sum();
        Past {
            ledger,
            telling,
            raged: started.elapsed(),
        }
    })
}

fn readers(plan: &Plan) -> impl Iterator<Item = Reader> {
    let on_standby = plan.standby;
    let levels = [Level::ReadCommitted, Level::RepeatableRead];
    (0..if on_standby { 4 } else { 2 }).map(move |number| Reader {
        number,
        level: levels[number % 2],
        on_standby: number >= 2,
    })
}

/// Until all is done, or nothing moves any more.
fn watch(stage: &Stage) {
    let board = &stage.board;
    let now = || {
        (
            board.events.load(SeqCst),
            board.checks.load(SeqCst),
            board.kills.load(SeqCst),
        )
    };
    let started = Instant::now();
    let (mut last, mut moved, mut said) = (now(), started, started);
    while !board.is_over() {
        std::thread::sleep(Duration::from_millis(20));
        if board.is_done(stage.plan.kills.count) && started.elapsed() >= stage.plan.least {
            board.end();
        }
        if now() != last {
            (last, moved) = (now(), Instant::now());
        } else if moved.elapsed() > PATIENCE {
            board.report(
                Kind::Error,
                format!("everything stands still after {last:?} events, checks and kills"),
            );
        }
        if stage.plan.progress.is_some_and(|every| said.elapsed() >= every) {
            said = Instant::now();
            let rate = last.0 as f64 / started.elapsed().as_secs_f64();
            let label = format!(
                "{:.0} s: {} events, {rate:.0} a second",
                started.elapsed().as_secs_f64(),
                last.0
            );
            note(&label, &format!("{} checks, {} kills", last.1, last.2));
        }
    }
}

/// The worker does it, and nobody else.
fn await_drained(client: &mut Client) -> Result<Option<Finding>> {
    let deadline = Instant::now() + PATIENCE_WITH_THE_WORKER;
    loop {
        let pending: i64 = client
            .query_one("SELECT count(*) FROM billing.usage_pending", &[])?
            .get(0);
        if pending == 0 {
            return Ok(None);
        }
        if Instant::now() > deadline {
            let what = format!("{pending} rows of the queue wait for a worker");
            return Ok(Some(Finding::new(Kind::Worker, what)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
