//! The background worker. Nothing depends on it: it calls the same SQL functions that a person could call.
//!
//! Preloaded, a launcher starts with the server, starts one worker for each database, and ends; a worker that finds no extension in
//! its database ends too. Without preload, the first event recorded in a backend starts the worker on demand. CREATE EXTENSION does
//! not: a restore begins with it, and a worker must find the data whole.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::prelude::*;

use crate::pg::liveness;
use crate::pg::process::{self, worker_entry};
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::settings;

const LIBRARY: &str = "pg_billing";
/// A worker that fails as a whole (a job's failure only shows in billing.worker_jobs) comes back after this.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// How long the launcher waits for slots (max_worker_processes) to become free; recording starts the workers that it could not.
const LAUNCH_TRIES: u32 = 120;
const LAUNCH_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A job that takes long rests this many times as long before it is run again, ...
const RESTS: u32 = 9;
/// ... but no longer than this: what is pending makes summaries slower, and alerts wait for it.
const RESTS_AT_MOST: Duration = Duration::from_secs(5);
/// How often a backend that records looks whether the worker lives.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A job that `billing.run_job()` knows, and how often the worker runs it.
struct Job {
    name: &'static str,
    every: fn() -> Duration,
    /// Whether it may come later than that where it takes long.
    rests: bool,
}

const JOBS: [Job; 2] = [
    Job {
        name: "roll_up",
        every: || Duration::from_millis(settings::ROLL_UP_INTERVAL.get().unsigned_abs().into()),
        rests: true,
    },
    // A partition ahead of time is only ahead if it comes before the present one ends.
    Job {
        name: "maintain_partitions",
        every: || Duration::from_secs(settings::PARTITION_WIDTH.get().unsigned_abs().min(60).into()),
        rests: false,
    },
];

/// A library in `shared_preload_libraries` starts its launcher with the server.
pub fn register_launcher_if_preloading() {
    if !process::is_preloading() || process::is_binary_upgrade() {
        return;
    }
    BackgroundWorkerBuilder::new("pg_billing launcher")
        .set_type("pg_billing launcher")
        .set_library(LIBRARY)
        .set_function("pg_billing_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .load();
}

worker_entry!(pg_billing_launcher_main, launch);

fn launch(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi(Some("postgres"), None);
    let databases = BackgroundWorker::transaction(|| {
        const DATABASES: Statement = Statement {
            sql: "SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datallowconn AND NOT d.datistemplate",
            types: &[],
        };
        spi::fetch(&DATABASES, &[], Sees::Latest, |row| row.required::<pg_sys::Oid>(1))
    });
    // Workers that find no extension give their slots back, so there may be one later.
    let mut databases = databases.unwrap_or_default();
    for _ in 0..LAUNCH_TRIES {
        databases.retain(|database| !start(*database));
        if databases.is_empty() || !BackgroundWorker::wait_latch(Some(LAUNCH_AGAIN_AFTER)) {
            break;
        }
    }
}

/// Starts this database's worker unless it lives, at most once in a while; an event recorded is reason enough to look.
pub fn start_if_missing() {
    thread_local!(static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) });
    let due = LOOKED.get().is_none_or(|at| at.elapsed() >= LOOK_EVERY);
    if due && settings::WORKER.get() {
        LOOKED.set(Some(Instant::now()));
        if !liveness::worker_is_alive() {
            start(process::this_database());
        }
    }
}

/// Starts this database's worker when the transaction commits, which may be the one that creates the extension.
#[pg_extern(sql = false)]
fn start_worker() {
    if settings::WORKER.get() {
        let database = process::this_database();
        pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, move || {
            start(database);
        });
    }
}

/// Not while pg_upgrade runs the server. `false`: no slot is free (max_worker_processes); the next look tries again.
fn start(database: pg_sys::Oid) -> bool {
    if process::is_binary_upgrade() {
        return true;
    }
    BackgroundWorkerBuilder::new("pg_billing worker")
        .set_type("pg_billing worker")
        .set_library(LIBRARY)
        .set_function("pg_billing_worker_main")
        .set_argument(Some(database.into()))
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART_AFTER))
        .load_dynamic()
        .is_ok()
}

/// Has another process make the partition that receives events now, in a transaction of its own and of the caller's width, and waits
/// for it: made in the caller's, it would have everybody wait until that ends. It may fail, for want of a slot, of a lock, or of an
/// extension that is committed: then the caller makes the partition after all.
pub fn make_partition_apart() {
    let nobody_would_come = process::is_in_recovery() || process::is_binary_upgrade();
    if !settings::WORKER.get() || process::is_background_worker() || nobody_would_come {
        return;
    }
    let maker = BackgroundWorkerBuilder::new("pg_billing partition maker")
        .set_type("pg_billing partition maker")
        .set_library(LIBRARY)
        .set_function("pg_billing_partition_main")
        .set_argument(Some(process::this_database().into()))
        .set_extra(&format!("{}s", settings::PARTITION_WIDTH.get()))
        .set_notify_pid(process::id())
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .load_dynamic();
    if let Ok(maker) = maker {
        // However it ended, the list of partitions says what came of it.
        let _ = maker.wait_for_shutdown();
    }
}

worker_entry!(pg_billing_partition_main, make_partition);

fn make_partition(argument: pg_sys::Datum) {
    const MAKE: Statement = Statement {
        // The caller waits, so a lock that it holds must not be waited for long.
        sql: "SELECT billing.make_next_partition()
              FROM pg_catalog.set_config('lock_timeout', '500ms', true) AS l,
                   pg_catalog.set_config('billing.partition_width', $1, true) AS w",
        types: &[PgBuiltInOids::TEXTOID],
    };
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(argument.value() as u32)), None);
    if wanted_here() {
        let width = BackgroundWorker::get_extra();
        if let Err(problem) = BackgroundWorker::transaction(|| spi::fetch(&MAKE, &[arg(width)], Sees::Own, |_| Ok(())))
        {
            log!("pg_billing partition maker: {}", problem.message());
        }
    }
}

worker_entry!(pg_billing_worker_main, work);

fn work(argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(argument.value() as u32)), None);
    if !settings::WORKER.get() || !wanted_here() || !liveness::claim() {
        process::end_for_good();
    }
    process::report_idle();
    let mut due = JOBS.map(|job| (job, Instant::now()));
    loop {
        for (job, at) in &mut due {
            if Instant::now() >= *at {
                if !wanted_here() {
                    process::end_for_good();
                }
                let started = Instant::now();
                run(job.name);
                let took = if job.rests { started.elapsed() } else { Duration::ZERO };
                *at = Instant::now() + (job.every)().max(rest_after(took));
            }
        }
        let next = due
            .iter()
            .map(|(_, at)| at.saturating_duration_since(Instant::now()))
            .min();
        // Returns false on SIGTERM or when the postmaster is gone.
        if !BackgroundWorker::wait_latch(next.map(|wait| wait.max(Duration::from_millis(1)))) {
            process::end_for_good();
        }
        if BackgroundWorker::sighup_received() {
            process::reload_settings();
            if !settings::WORKER.get() {
                process::end_for_good();
            }
            due.iter_mut().for_each(|(_, at)| *at = Instant::now());
        }
    }
}

/// How long the worker leaves a job alone that took so long. Sessions that record fast need the processor themselves, and the more events a
/// fold takes in, the more of them share a bucket, writing which is most of its work.
fn rest_after(took: Duration) -> Duration {
    (took * RESTS).min(RESTS_AT_MOST)
}

fn wanted_here() -> bool {
    const EXISTS: Statement = Statement {
        // A connection to a template would keep CREATE DATABASE from copying it.
        sql: "SELECT true FROM pg_catalog.pg_extension e, pg_catalog.pg_database d
              WHERE e.extname OPERATOR(pg_catalog.=) 'pg_billing'
                AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND NOT d.datistemplate",
        types: &[],
    };
    BackgroundWorker::transaction(|| spi::fetch(&EXISTS, &[], Sees::Latest, |_| Ok(())))
        .is_ok_and(|rows| !rows.is_empty())
}

/// Each job in a transaction of its own; billing.run_job() keeps a failure in billing.worker_jobs.
fn run(job: &'static str) {
    const RUN: Statement = Statement {
        sql: "SELECT billing.run_job($1)",
        types: &[PgBuiltInOids::TEXTOID],
    };
    process::report_running(job);
    if let Err(problem) = BackgroundWorker::transaction(|| spi::fetch(&RUN, &[arg(job)], Sees::Own, |_| Ok(()))) {
        log!("pg_billing worker: job {job} failed: {}", problem.message());
    }
    process::report_idle();
}
