//! How a backend knows that this database's background worker is alive: the worker holds a lock for as long as it lives.

use pgrx::prelude::*;

/// Our advisory locks within a database: (class, object) in the two-key space.
const LOCK_CLASS: u32 = 0x6269_6C6C;
/// Only workers touch this one: it decides which of them stays.
const ELECTED: u32 = 1;
/// The elected worker holds it, backends look at it. Apart from ELECTED, so that a look never costs an election.
const ALIVE: u32 = 2;

fn tag(object: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: MyDatabaseId is set before any extension code runs in a backend.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: LOCK_CLASS,
        locktag_field3: object,
        locktag_field4: 2,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// Claims to be this database's worker until the process ends; `false`: another one lives.
pub fn claim() -> bool {
    let mode = pg_sys::ExclusiveLock as i32;
    acquire(ELECTED, mode, true) && acquire(ALIVE, mode, false)
}

/// Whether a worker lives in this database.
pub fn worker_is_alive() -> bool {
    let mode = pg_sys::ShareLock as i32;
    let free = acquire(ALIVE, mode, true);
    if free {
        // SAFETY: just acquired, as a session lock.
        unsafe { pg_sys::LockRelease(&tag(ALIVE), mode, true) };
    }
    !free
}

fn acquire(object: u32, mode: i32, dont_wait: bool) -> bool {
    // SAFETY: a session lock; the tag lives through the call.
    unsafe {
        pg_sys::LockAcquire(&tag(object), mode, true, dont_wait) != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// Whether the postmaster is loading `shared_preload_libraries` now.
pub fn is_preloading() -> bool {
    // SAFETY: a flag that only the postmaster's main thread writes.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether pg_upgrade is running this server: nothing may connect then but itself.
pub fn is_binary_upgrade() -> bool {
    // SAFETY: a flag set at the postmaster's start.
    unsafe { pg_sys::IsBinaryUpgrade }
}

pub fn this_database() -> pg_sys::Oid {
    // SAFETY: set before any extension code runs in a backend.
    unsafe { pg_sys::MyDatabaseId }
}

/// Ends a worker so that the postmaster forgets it instead of starting it again.
#[allow(unreachable_code)] // some versions declare that proc_exit does not return, others do not
pub fn end_for_good() -> ! {
    // SAFETY: runs the exit callbacks; code 0 means "do not restart".
    unsafe { pg_sys::proc_exit(0) };
    unreachable!("proc_exit does not return")
}

/// Takes over the configuration file after SIGHUP.
pub fn reload_settings() {
    // SAFETY: outside any transaction, as PostgreSQL's own workers call it.
    unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) }
}

pub fn report_running(job: &str) {
    report(pg_sys::BackendState::STATE_RUNNING, job);
}

pub fn report_idle() {
    report(pg_sys::BackendState::STATE_IDLE, "");
}

/// What pg_stat_activity shows of the worker.
fn report(state: pg_sys::BackendState::Type, activity: &str) {
    if let Ok(activity) = std::ffi::CString::new(activity) {
        // SAFETY: the text is copied.
        unsafe { pg_sys::pgstat_report_activity(state, activity.as_ptr()) }
    }
}
