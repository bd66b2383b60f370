//! The process we run in: its flags, its end, its settings, what pg_stat_activity shows of it, and how workers enter.

use pgrx::prelude::*;

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

/// Whether this server is a standby, where no worker of ours would ever start.
pub fn is_in_recovery() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

pub fn is_background_worker() -> bool {
    // SAFETY: set at the start of a worker, null in any other process.
    unsafe { !pg_sys::MyBgworkerEntry.is_null() }
}

pub fn id() -> i32 {
    // SAFETY: set at the start of every process.
    unsafe { pg_sys::MyProcPid }
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
    // A client's backend does it between commands; without it autovacuum never hears what the worker wrote.
    // SAFETY: outside any transaction, as the call demands.
    unsafe { pg_sys::pgstat_report_stat(false) };
}

/// What pg_stat_activity shows of the worker.
fn report(state: pg_sys::BackendState::Type, activity: &str) {
    if let Ok(activity) = std::ffi::CString::new(activity) {
        // SAFETY: the text is copied.
        unsafe { pg_sys::pgstat_report_activity(state, activity.as_ptr()) }
    }
}

/// Makes `$life` what a background worker runs that was registered with the function name `$symbol`.
macro_rules! worker_entry {
    ($symbol:ident, $life:path) => {
        #[pg_guard]
        #[unsafe(no_mangle)] // the postmaster finds it by name
        pub extern "C-unwind" fn $symbol(argument: pg_sys::Datum) {
            $life(argument)
        }
    };
}
pub(crate) use worker_entry;
