//! The extension's own relations by name, and the news that one of them has changed.
//!
//! PostgreSQL tells every backend of a change to a relation when it commits, and the changing backend itself when the command ends or
//! is rolled back. Triggers on the tables whose rows are kept in memory send that message for changes of their rows too.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;

use foldhash::HashMap;
use pgrx::prelude::*;

use super::error::{Result, error};

thread_local! {
    static WATCHED: RefCell<Vec<Watched>> = const { RefCell::new(Vec::new()) };
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static CHANGES_OF_ROWS: Cell<u64> = const { Cell::new(0) };
    static LISTENING: Cell<bool> = const { Cell::new(false) };
}

struct Watched {
    relation: pg_sys::Oid,
    /// Whether its rows are kept too.
    rows: bool,
}

/// Takes in the changes that others have committed. Locking a relation does it too, but not one that this transaction had locked.
pub fn take_in_changes() {
    // SAFETY: reads what other backends sent; any time within a transaction will do.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// How many changes of watched relations this backend has taken in.
pub fn changes() -> u64 {
    CHANGES.get()
}

/// The same of those whose rows are kept. Others change each time that autovacuum has been there, and reading customers and filters anew
/// for that would take a busy server as long as a thousand events.
pub fn changes_of_rows() -> u64 {
    CHANGES_OF_ROWS.get()
}

/// What a backend keeps until it hears of a change.
pub struct Kept<T> {
    changes: fn() -> u64,
    kept: RefCell<(u64, T)>,
}

/// Of relations.
impl<T: Default> Default for Kept<T> {
    fn default() -> Self {
        Self {
            changes,
            kept: RefCell::default(),
        }
    }
}

impl<T: Default> Kept<T> {
    /// Of what the rows say in relations that [`watch_rows`] was told of.
    pub fn of_rows() -> Self {
        Self {
            changes: changes_of_rows,
            kept: RefCell::default(),
        }
    }

    pub fn with<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        self.forget_if_changed();
        read(&self.kept.borrow().1)
    }

    /// Keeps what was read since [`changes`], or [`watch_rows`], said `since`, unless something has changed meanwhile.
    pub fn keep(&self, since: u64, write: impl FnOnce(&mut T)) {
        self.forget_if_changed();
        if (self.changes)() == since {
            write(&mut self.kept.borrow_mut().1);
        }
    }

    fn forget_if_changed(&self) {
        let now = (self.changes)();
        let mut kept = self.kept.borrow_mut();
        if kept.0 != now {
            *kept = (now, T::default());
        }
    }
}

/// From now on a change of the relation counts in [`changes`].
pub fn watch(relation: pg_sys::Oid) {
    watched(relation, |_| {});
}

/// From now on a change of the rows of a relation of schema billing is told to [`Kept::of_rows`]. Returns how many there were, to be asked
/// before the rows are read.
pub fn watch_rows(name: &'static CStr) -> Result<u64> {
    watched(relation(name)?, |watched| watched.rows = true);
    Ok(changes_of_rows())
}

fn watched(relation: pg_sys::Oid, change: impl FnOnce(&mut Watched)) {
    if !LISTENING.replace(true) {
        // SAFETY: registered once; backends have room for ten.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_change), pg_sys::Datum::null()) }
    }
    WATCHED.with_borrow_mut(|all| {
        let nth = all
            .iter()
            .position(|watched| watched.relation == relation)
            .unwrap_or_else(|| {
                all.push(Watched { relation, rows: false });
                all.len() - 1
            });
        change(&mut all[nth]);
    });
}

#[pg_guard]
extern "C-unwind" fn on_change(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let rows = match relation {
        pg_sys::InvalidOid => Some(true),
        _ => WATCHED.with(|all| {
            let all = all.try_borrow().ok()?;
            Some(all.iter().find(|watched| watched.relation == relation)?.rows)
        }),
    };
    if let Some(rows) = rows {
        CHANGES.set(CHANGES.get() + 1);
        CHANGES_OF_ROWS.set(CHANGES_OF_ROWS.get() + u64::from(rows));
    }
}

/// Has every backend forget what it keeps of the relation, once this transaction commits.
#[pg_extern(sql = false)]
fn announce_change(relation: pg_sys::Oid) {
    // SAFETY: queues a message; a relation that does not exist is an ERROR.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) }
}

/// A relation of schema billing, watched from now on. It is missing only while the extension is.
pub fn relation(name: &'static CStr) -> Result<pg_sys::Oid> {
    thread_local!(static KNOWN: Kept<HashMap<&'static CStr, pg_sys::Oid>> = Kept::default());
    if let Some(oid) = KNOWN.with(|known| known.with(|known| known.get(name).copied())) {
        return Ok(oid);
    }
    let since = changes();
    // SAFETY: catalog look-ups of C strings.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"billing".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    if oid == pg_sys::InvalidOid {
        return Err(error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("table billing.{} does not exist", name.to_string_lossy()),
        )
        .set_hint("CREATE EXTENSION pg_billing makes it."));
    }
    watch(oid);
    KNOWN.with(|known| {
        known.keep(since, |known| {
            known.insert(name, oid);
        })
    });
    Ok(oid)
}

/// Who owns the extension's tables.
pub fn owner() -> Result<pg_sys::Oid> {
    let relation = relation(c"meters")?;
    // SAFETY: a catalog look-up; the tuple is released.
    unsafe {
        let id = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(id, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return Ok(pg_sys::InvalidOid);
        }
        let form: pg_sys::Form_pg_class = pg_sys::GETSTRUCT(tuple).cast();
        let owner = (*form).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Ok(owner)
    }
}

/// Whether a row of this creator is this very transaction's, and so may yet be rolled back.
pub fn is_own(creator: pg_sys::TransactionId) -> bool {
    // SAFETY: reads the state of the transaction.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(creator) }
}
