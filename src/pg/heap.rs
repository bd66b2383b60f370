//! Entering rows into one of the extension's own tables that is a heap with plain indexes and nothing else: no executor is made ready
//! for it, which took as long as entering the row.

use std::cell::Cell;
use std::ffi::CStr;
use std::rc::Rc;
use std::thread::LocalKey;

use pgrx::itemptr::{item_pointer_get_both, item_pointer_set_all};
use pgrx::prelude::*;

use super::catalog::{self, Kept};
use super::error::{Result, error};
use super::shape::{Index, MOST_COLUMNS, MOST_INDEXES, Shape, Shapes};
use super::spi::Arg;
use super::table::column_name;
use super::unguarded::{self, under_one_guard};

const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
/// Rows with more bytes are taken apart (`TOAST_TUPLE_THRESHOLD`, a quarter of a page without its header and four pointers).
const WIDEST: u32 = (pg_sys::BLCKSZ - 40) / 4 / 8 * 8;

/// A heap that is open for rows of `N` columns.
pub struct Heap<const N: usize> {
    relation: pg_sys::Relation,
    shape: Rc<Shape<N>>,
    /// What [`catalog::changes`] stood at before the shape was looked at.
    since: u64,
}

/// A row with a value for each column of its table.
struct Values {
    values: [pg_sys::Datum; MOST_COLUMNS],
    nulls: [bool; MOST_COLUMNS],
}

impl<const N: usize> Heap<N> {
    /// `None`: it was dropped meanwhile, or rows of it need more than to be entered; [`Table`](super::table::Table) knows how. Of the
    /// columns the first `key` are those of the arbiter of [`Heap::insert_if`].
    pub fn open(
        oid: pg_sys::Oid,
        shapes: &'static LocalKey<Shapes<N>>,
        columns: &[&CStr; N],
        key: usize,
    ) -> Option<Heap<N>> {
        // SAFETY: closed in `close`; on ERROR the transaction's resource owner closes it.
        unsafe {
            let relation = under_one_guard(|| {
                // Before the lock, which a standby refuses in other words.
                unguarded::PreventCommandIfReadOnly(c"record_meter_event()".as_ptr());
                unguarded::PreventCommandIfParallelMode(c"record_meter_event()".as_ptr());
                unguarded::try_table_open(oid, LOCK)
            });
            if relation.is_null() {
                return None;
            }
            // Before it is looked at, so that no change in between is missed.
            let since = catalog::changes();
            let shape = Shapes::of(shapes, relation, columns, key);
            if shape.is_none() {
                pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            }
            shape.map(|shape| Heap { relation, shape, since })
        }
    }

    /// Enters one row. One that an index has already is SQLSTATE 23505.
    pub fn insert(&mut self, row: &[Arg; N]) -> Result<()> {
        let row = self.values(row)?;
        let row_type = self.type_to_store(&row);
        // SAFETY: the relation is open and the row has a value for each of its columns.
        unsafe {
            under_one_guard(|| {
                let indexes = self.open_indexes();
                let tuple = form(row_type, &row);
                self.store(tuple);
                self.index(&indexes, &row, tuple, pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES);
                self.close_indexes(&indexes);
                self.tell_ranges(&row, tuple);
                unguarded::heap_freetuple(tuple);
            });
        }
        Ok(())
    }

    /// Enters a row outright, and takes it back if the arbiter has its key already, or `keep` says no: for other sessions it is then as
    /// if it had never been. Returns whether it stays; one that is too wide for a page is not even entered. Those that meet it meanwhile
    /// wait in [`Undecided::wait`]. Nothing is waited for here: not for another row of that key either, nor for the table of what does not
    /// fit a page. `keep` must neither panic nor raise an ERROR.
    pub fn insert_if(&mut self, row: &[Arg; N], undecided: Undecided, keep: impl Fn() -> bool) -> Result<bool> {
        let row = self.values(row)?;
        let row_type = self.type_to_store(&row);
        // SAFETY: as in `insert`. On ERROR the lock goes with the transaction, as the row does.
        unsafe {
            let (stays, taken_back) = under_one_guard(|| {
                let tuple = form(row_type, &row);
                if (*tuple).t_len > WIDEST {
                    unguarded::heap_freetuple(tuple);
                    return (false, None);
                }
                let indexes = self.open_indexes();
                let xid = unguarded::GetCurrentTransactionId();
                unguarded::LockAcquire(&undecided.tag(), Undecided::WRITER, false, false);
                self.store(tuple);
                let is_new = self.index(&indexes, &row, tuple, pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL);
                let place = (*tuple).t_self;
                let stays = is_new && keep();
                self.close_indexes(&indexes);
                if stays {
                    unguarded::LockRelease(&undecided.tag(), Undecided::WRITER, false);
                    // Only now: nobody is to wait for it.
                    self.tell_ranges(&row, tuple);
                }
                unguarded::heap_freetuple(tuple);
                (stays, (!stays).then_some((place, xid)))
            });
            if let Some((place, xid)) = taken_back {
                self.take_back(place, xid);
                pg_sys::LockRelease(&undecided.tag(), Undecided::WRITER, false);
            }
            Ok(stays)
        }
    }

    /// Makes a row as if it had been inserted speculatively, and then takes it back as such: its xmin becomes invalid. PostgreSQL has
    /// no other way to unmake a row of a transaction that goes on, short of a subtransaction for each.
    ///
    /// The token is not logged, nor the page made dirty for it: it means nothing but to sessions that look at the row until the lines
    /// below have run, and nothing to a server that starts anew, for which the transaction has failed. What follows is logged, and
    /// replayed without a look at the token.
    ///
    /// # Safety
    /// This transaction must just have inserted the row, and hold the lock [`Undecided`].
    unsafe fn take_back(&self, mut row: pg_sys::ItemPointerData, xid: pg_sys::TransactionId) {
        // SAFETY: by the caller, the row is there; the page is pinned until all is done, and changed under its exclusive lock.
        unsafe {
            let (block, offset) = item_pointer_get_both(row);
            let buffer = pg_sys::ReadBuffer(self.relation, block);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as i32);
            let page = pg_sys::BufferGetPage(buffer);
            let tuple =
                pg_sys::PageGetItem(page, pg_sys::PageGetItemId(page, offset)).cast::<pg_sys::HeapTupleHeaderData>();
            let is_ours = (*tuple).t_choice.t_heap.t_xmin == xid;
            if is_ours {
                item_pointer_set_all(&mut (*tuple).t_ctid, TOKEN, pg_sys::SpecTokenOffsetNumber as u16);
            }
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            // Raises an ERROR where the row is not ours.
            pg_sys::heap_abort_speculative(self.relation, &mut row);
            pg_sys::ReleaseBuffer(buffer);
        }
    }

    /// NULL where it must not be is SQLSTATE 23502.
    fn values(&self, row: &[Arg; N]) -> Result<Values> {
        let mut columns = Values {
            values: [pg_sys::Datum::null(); MOST_COLUMNS],
            nulls: [true; MOST_COLUMNS],
        };
        for (position, value) in self.shape.positions.iter().zip(row) {
            if let Some(value) = value {
                (columns.values[*position], columns.nulls[*position]) = (*value, false);
            }
        }
        match self.shape.not_null.iter().find(|column| columns.nulls[**column]) {
            Some(column) => Err(self.null_in(*column)),
            None => Ok(columns),
        }
    }

    /// Rows are stored without the columns at their end that hold what the table says of rows that lack them: the value with which a
    /// column was added, or NULL. Rewriting the table, as VACUUM FULL does, makes it forget such values, and then rows are stored whole.
    fn type_to_store(&self, row: &Values) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open, its shape is this, and the row has a value of its type for each of its columns.
        unsafe {
            let row_type = (*self.relation).rd_att;
            let count = (*row_type).natts as usize;
            match self.shape.columns_to_store(&row.values[..count], &row.nulls[..count]) {
                stored if stored == count => row_type,
                stored => self.shape.short_row_type(self.relation, stored),
            }
        }
    }

    /// Puts a row into the heap, and its place into the tuple.
    ///
    /// # Safety
    /// The tuple must be of the table's first columns. Under a guard.
    unsafe fn store(&self, tuple: pg_sys::HeapTuple) {
        // SAFETY: by the caller.
        unsafe {
            let command = unguarded::GetCurrentCommandId(true);
            unguarded::heap_insert(self.relation, tuple, command, 0, std::ptr::null_mut());
        }
    }

    /// Those of rows. Those of ranges are only locked, before there is a row: else one could be moved to another file, which the lock of
    /// the table does not keep out (SET TABLESPACE), and be summed up there before the row is in its page. All in the order of their oids, as
    /// whoever locks several does.
    ///
    /// # Safety
    /// Under a guard. On ERROR the transaction's resource owner closes them.
    unsafe fn open_indexes(&self) -> [pg_sys::Relation; MOST_INDEXES] {
        let mut opened = [std::ptr::null_mut(); MOST_INDEXES];
        let mut next = 0;
        for index in &self.shape.indexes {
            // SAFETY: by the caller. The table is locked, so its indexes are there; there are at most so many.
            unsafe {
                if index.ranges.is_some() {
                    unguarded::LockRelationOid(index.oid, LOCK);
                } else {
                    *opened.get_unchecked_mut(next) = unguarded::index_open(index.oid, LOCK);
                    next += 1;
                }
            }
        }
        opened
    }

    /// # Safety
    /// Opened by `open_indexes`. Under a guard.
    unsafe fn close_indexes(&self, opened: &[pg_sys::Relation; MOST_INDEXES]) {
        for (relation, _) in opened.iter().zip(self.shape.of_rows()) {
            // SAFETY: by the caller. The lock stays until the transaction ends, as after any statement.
            unsafe { unguarded::index_close(*relation, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }

    /// Enters a stored row into the indexes of rows. `false`, if the arbiter is to be asked and not obeyed (`UNIQUE_CHECK_PARTIAL`): it has
    /// the key already, and the indexes after it were left out.
    ///
    /// # Safety
    /// The row must be the one that was stored as that tuple, and the indexes open. Under a guard.
    unsafe fn index(
        &self,
        opened: &[pg_sys::Relation; MOST_INDEXES],
        row: &Values,
        tuple: pg_sys::HeapTuple,
        check_arbiter: pg_sys::IndexUniqueCheck::Type,
    ) -> bool {
        for (relation, index) in opened.iter().zip(self.shape.of_rows()) {
            let check = match index.is_arbiter {
                true => check_arbiter,
                false => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
            };
            // SAFETY: by the caller.
            let entered = unsafe { self.enter(*relation, index, row, tuple, check) };
            if check == pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL && !entered {
                return false;
            }
        }
        true
    }

    /// Enters a stored row into the indexes of ranges, if they must know.
    ///
    /// # Safety
    /// The row must be the one that was stored as that tuple. Under a guard.
    unsafe fn tell_ranges(&self, row: &Values, tuple: pg_sys::HeapTuple) {
        for index in &self.shape.indexes {
            let Some(ranges) = &index.ranges else { continue };
            // SAFETY: by the caller. The index is locked, and with the lock came the news of what it was before.
            unsafe {
                let is_as_known = catalog::changes() == self.since;
                if !is_as_known || ranges.may_have_to_know((*tuple).t_self) {
                    let relation = unguarded::index_open(index.oid, LOCK);
                    if ranges.must_know(relation, (*tuple).t_self) {
                        self.enter(relation, index, row, tuple, pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO);
                    }
                    unguarded::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
                }
            }
        }
    }

    /// What the index says to it.
    ///
    /// # Safety
    /// As in `index`, of one index. Under a guard.
    unsafe fn enter(
        &self,
        relation: pg_sys::Relation,
        index: &Index,
        row: &Values,
        tuple: pg_sys::HeapTuple,
        check: pg_sys::IndexUniqueCheck::Type,
    ) -> bool {
        // SAFETY: by the caller. The index is a plain one, and there is room for as many columns as one can have.
        unsafe {
            let scratch = scratch();
            let outer = pg_sys::MemoryContextSwitchTo(scratch);
            let mut entry = [pg_sys::Datum::null(); MOST_COLUMNS];
            let mut nulls = [true; MOST_COLUMNS];
            for (nth, column) in index.columns.iter().enumerate() {
                (entry[nth], nulls[nth]) = (row.values[*column], row.nulls[*column]);
            }
            let info = index.info.as_ptr();
            // What the access method keeps there is of this row only.
            (*info).ii_AmCache = std::ptr::null_mut();
            (*info).ii_Context = scratch;
            let entered = unguarded::index_insert(
                relation,
                entry.as_mut_ptr(),
                nulls.as_mut_ptr(),
                &raw mut (*tuple).t_self,
                self.relation,
                check,
                false,
                info,
            );
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            unguarded::index_insert_cleanup(relation, info);
            pg_sys::MemoryContextSwitchTo(outer);
            unguarded::MemoryContextReset(scratch);
            entered
        }
    }

    fn null_in(&self, column: usize) -> pg_sys::panic::ErrorReport {
        // SAFETY: the relation is open and has the column.
        let name = unsafe { column_name(self.relation, column) };
        error(
            PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            format!("column {name:?} of a table that pg_billing records into may not be NULL"),
        )
        .set_hint("The tables that pg_billing records into must stay as it made them.")
    }

    pub fn close(self) {
        // SAFETY: opened in `open`. The lock stays until the transaction ends, as after any statement. The command counter moves so
        // that later statements see the rows.
        unsafe {
            under_one_guard(|| {
                unguarded::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
                unguarded::CommandCounterIncrement();
            });
        }
    }
}

/// # Safety
/// The type must be of the table's first columns. Under a guard.
unsafe fn form(row_type: pg_sys::TupleDesc, row: &Values) -> pg_sys::HeapTuple {
    // SAFETY: by the caller.
    unsafe { unguarded::heap_form_tuple(row_type, row.values.as_ptr(), row.nulls.as_ptr()) }
}

/// Memory for the entries of one row, made once per process.
///
/// # Safety
/// Under a guard.
unsafe fn scratch() -> pg_sys::MemoryContext {
    thread_local!(static SCRATCH: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) });
    if SCRATCH.get().is_null() {
        // SAFETY: lives as long as the process.
        SCRATCH.set(unsafe {
            unguarded::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"entries of pg_billing".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as pg_sys::Size,
                pg_sys::ALLOCSET_SMALL_INITSIZE as pg_sys::Size,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as pg_sys::Size,
            )
        });
    }
    SCRATCH.get()
}

/// Whether rows can be taken back, for readers of the log too: logical decoding would hand out a row that was inserted outright, and not
/// that it was taken back.
pub fn takes_back() -> bool {
    // SAFETY: set when the server starts.
    unsafe { pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 }
}

/// The token of rows that were inserted outright and are being taken back. PostgreSQL counts its tokens from 1, anew in each process.
const TOKEN: u32 = u32::MAX - 1;

/// The lock that a transaction has while it may yet take back a row that it inserted outright: such a row itself does not tell. One lock
/// for all, of a relation that nothing else locks so, because PostgreSQL gives that from a process's own memory as long as nobody waits:
/// a lock for each transaction, which only the shared table can have, took three times as long, a seventieth of a single event.
#[derive(Clone, Copy)]
pub struct Undecided(pg_sys::Oid);

impl Undecided {
    const WRITER: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
    const WAITER: pg_sys::LOCKMODE = pg_sys::ShareLock as pg_sys::LOCKMODE;

    pub fn of_extension() -> Result<Undecided> {
        thread_local!(static KNOWN: Kept<Option<pg_sys::Oid>> = Kept::default());
        if let Some(known) = KNOWN.with(|kept| kept.with(|known| *known)) {
            return Ok(Undecided(known));
        }
        let since = catalog::changes();
        let relation = catalog::relation(c"undecided_event")?;
        KNOWN.with(|kept| kept.keep(since, |known| *known = Some(relation)));
        Ok(Undecided(relation))
    }

    fn tag(self) -> pg_sys::LOCKTAG {
        pg_sys::LOCKTAG {
            // SAFETY: what a backend is connected to does not change.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.into(),
            locktag_field2: self.0.into(),
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        }
    }

    /// Waits until all have decided on the rows that they are inserting outright now. They wait for nobody until then.
    pub fn wait(self) {
        // SAFETY: no buffer lock is held.
        unsafe {
            pg_sys::LockAcquire(&self.tag(), Self::WAITER, false, false);
            pg_sys::LockRelease(&self.tag(), Self::WAITER, false);
        }
    }
}
