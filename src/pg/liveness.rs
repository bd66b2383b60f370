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
