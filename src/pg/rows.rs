//! Rows of the extension's own tables in the snapshot of the calling statement, without a statement of their own.
//!
//! What the executor prepares for a look-up takes several times as long as finding some dozens of rows.

use std::ffi::CStr;
use std::thread::LocalKey;

use pgrx::prelude::*;

use super::catalog;
use super::error::Result;
use super::index;
use super::pages::Pages;
use super::spi::Arg;
use super::table::positions;
use super::text::detoasted;

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// That a column equals a text of collation "C", or lies on one side of a time.
#[derive(Clone, Copy)]
pub enum Condition {
    Is(pg_sys::Datum),
    AtLeast(pg_sys::Datum),
    Before(pg_sys::Datum),
}

/// Whether the caller may read all rows of a table of schema billing. If not, only a statement can say what may be read, or that
/// nothing may. Locks the table, as a statement does before it asks.
pub fn may_read_all(table: pg_sys::Oid) -> bool {
    // SAFETY: takes a lock, which stays as after any statement, and looks things up in the catalog.
    unsafe {
        pg_sys::LockRelationOid(table, LOCK);
        let allowed = pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        allowed == pg_sys::AclResult::ACLCHECK_OK && !has_policies(table)
    }
}

/// Raises 42501 where the caller may not read the table at all.
pub fn require_select(table: pg_sys::Oid) {
    // SAFETY: look-ups in the catalog.
    unsafe {
        let allowed = pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode);
        if allowed != pg_sys::AclResult::ACLCHECK_OK {
            pg_sys::aclcheck_error(allowed, pg_sys::ObjectType::OBJECT_TABLE, pg_sys::get_rel_name(table));
        }
    }
}

/// Whether the caller sees the table through policies.
pub fn has_policies(table: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalog.
    let row_security = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    row_security == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}

/// A table that is open for reading `N` of its columns. Nobody asks whether the caller may.
pub struct Rows<const N: usize> {
    relation: pg_sys::Relation,
    /// Where each column stands: a restored table may order them differently.
    positions: [usize; N],
    slot: *mut pg_sys::TupleTableSlot,
}

/// An index of such a table, open as well.
pub struct Index<'a, const N: usize> {
    rows: &'a Rows<N>,
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
}

impl<const N: usize> Rows<N> {
    pub fn open(table: pg_sys::Oid, columns: &[&CStr; N]) -> Result<Rows<N>> {
        // SAFETY: closed in `close`; on ERROR the transaction's resource owner closes it.
        unsafe { Rows::of(pg_sys::table_open(table, LOCK), columns) }
    }

    /// `None`: the table was dropped meanwhile.
    pub fn open_if_there(table: pg_sys::Oid, columns: &[&CStr; N]) -> Result<Option<Rows<N>>> {
        // SAFETY: as in `open`.
        unsafe {
            let relation = pg_sys::try_table_open(table, LOCK);
            (!relation.is_null()).then(|| Rows::of(relation, columns)).transpose()
        }
    }

    /// # Safety
    /// The relation must be open.
    unsafe fn of(relation: pg_sys::Relation, columns: &[&CStr; N]) -> Result<Rows<N>> {
        Ok(Rows {
            relation,
            positions: positions(relation, columns)?,
            // SAFETY: by the caller.
            slot: unsafe { pg_sys::table_slot_create(relation, std::ptr::null_mut()) },
        })
    }

    /// What a snapshot sees was there before it, and so was its page.
    pub fn is_empty(&self) -> bool {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM) == 0 }
    }

    /// Reads the whole table for the rows of which the `nth` column is each text, of collation "C". The first of them should tell most rows
    /// apart.
    pub fn look_through<const K: usize>(
        &self,
        texts: [(usize, pg_sys::Datum); K],
        mut each: impl FnMut(&[Arg; N]) -> Result<()>,
    ) -> Result<()> {
        // SAFETY: the relation is open, the slot of its type, and the snapshot is the calling statement's, which outlives this.
        unsafe {
            let snapshot = pg_sys::GetActiveSnapshot();
            let Some(pages) = Pages::of(self.relation, self.positions[texts[0].0]) else {
                return self.scan(texts, snapshot, each);
            };
            let wanted = texts.map(|(nth, text)| (nth, text_of(text)));
            pages.look_through(wanted[0].1, snapshot, self.slot, || {
                let columns = self.columns();
                let is_wanted = |(nth, text): &(usize, &[u8])| columns[*nth].is_some_and(|is| text_of(is) == *text);
                match wanted.iter().all(is_wanted) {
                    true => each(&columns),
                    false => Ok(()),
                }
            })
        }
    }

    /// The same, as PostgreSQL does it.
    ///
    /// # Safety
    /// The snapshot must be that of the calling statement.
    unsafe fn scan<const K: usize>(
        &self,
        texts: [(usize, pg_sys::Datum); K],
        snapshot: pg_sys::Snapshot,
        mut each: impl FnMut(&[Arg; N]) -> Result<()>,
    ) -> Result<()> {
        let mut keys = texts.map(|(nth, text)| key(self.positions[nth] + 1, Condition::Is(text)));
        // SAFETY: by the caller; the relation is open and the slot of its type. The keys are compared where the row lies, before anything
        // of it is unpacked.
        unsafe {
            let scan = pg_sys::table_beginscan(self.relation, snapshot, K as i32, keys.as_mut_ptr());
            while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) {
                pgrx::check_for_interrupts!();
                each(&self.columns())?;
            }
            pg_sys::table_endscan(scan);
            pg_sys::ExecClearTuple(self.slot);
        }
        Ok(())
    }

    /// The index of this name, by which to look rows up by up to `most` conditions; `None`: it does not serve this snapshot.
    pub fn index(&self, name: &'static CStr, most: usize) -> Result<Option<Index<'_, N>>> {
        // The table is locked: whoever replaces the index waits for that before dropping it, and has told of it.
        Ok(self.open_index(catalog::relation(name)?, most))
    }

    /// The same of the index on these columns; `None` also: there is none.
    pub fn index_on(
        &self,
        known: &'static LocalKey<index::Known>,
        columns: &[&CStr],
        most: usize,
    ) -> Option<Index<'_, N>> {
        // SAFETY: the relation is open, and locked as above.
        let found = unsafe { index::on(known, self.relation, columns, index::Kind::Any) }?;
        self.open_index(found, most)
    }

    fn open_index(&self, index: pg_sys::Oid, most: usize) -> Option<Index<'_, N>> {
        // SAFETY: closed in `close`; on ERROR the transaction's resource owner closes it.
        unsafe {
            let index = pg_sys::index_open(index, LOCK);
            let form = (*index).rd_index;
            if !(*form).indisvalid || (*form).indcheckxmin {
                pg_sys::index_close(index, LOCK);
                return None;
            }
            let snapshot = pg_sys::GetActiveSnapshot();
            #[cfg(feature = "pg18")]
            let scan = pg_sys::index_beginscan(self.relation, index, snapshot, std::ptr::null_mut(), most as i32, 0);
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(self.relation, index, snapshot, most as i32, 0);
            Some(Index {
                rows: self,
                index,
                scan,
            })
        }
    }

    /// # Safety
    /// The slot must hold a row, and what is returned must not be used once it holds another.
    unsafe fn columns(&self) -> [Arg; N] {
        // SAFETY: by the caller; every position is below the number of columns.
        unsafe {
            let last = self.positions.iter().max().map_or(0, |position| position + 1);
            pg_sys::slot_getsomeattrs(self.slot, last as i32);
            self.positions.map(|position| {
                let is_null = *(*self.slot).tts_isnull.add(position);
                (!is_null).then(|| *(*self.slot).tts_values.add(position))
            })
        }
    }

    pub fn close(self) {
        // SAFETY: made in `open`; the lock stays until the transaction ends, as after any statement.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

impl<const N: usize> Index<'_, N> {
    /// Looks up the rows of which the `nth` column of the index meets each condition.
    pub fn look_up<const K: usize>(
        &self,
        conditions: [(usize, Condition); K],
        mut each: impl FnMut(&[Arg; N]) -> Result<()>,
    ) -> Result<()> {
        self.look_up_while(conditions, |columns| each(columns).map(|()| true))?;
        Ok(())
    }

    /// The same, until `each` says `false`: then this does.
    pub fn look_up_while<const K: usize>(
        &self,
        conditions: [(usize, Condition); K],
        mut each: impl FnMut(&[Arg; N]) -> Result<bool>,
    ) -> Result<bool> {
        let mut keys = conditions.map(|(nth, condition)| key(nth + 1, condition));
        // SAFETY: the scan is open for that many keys, which it copies; the slot is of the table's type.
        unsafe {
            pg_sys::index_rescan(self.scan, keys.as_mut_ptr(), K as i32, std::ptr::null_mut(), 0);
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            while pg_sys::index_getnext_slot(self.scan, forward, self.rows.slot) {
                pgrx::check_for_interrupts!();
                if !each(&self.rows.columns())? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    pub fn close(self) {
        // SAFETY: made in `index`; the lock stays until the transaction ends.
        unsafe {
            pg_sys::index_endscan(self.scan);
            pg_sys::ExecClearTuple(self.rows.slot);
            pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// # Safety
/// The datum must be a text, and outlive what is returned.
unsafe fn text_of<'a>(text: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: by the caller.
    unsafe { pgrx::varlena_to_byte_slice(detoasted(text)) }
}

/// `column` from 1.
fn key(column: usize, condition: Condition) -> pg_sys::ScanKeyData {
    let (strategy, function, value) = match condition {
        Condition::Is(text) => (pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ, text),
        Condition::AtLeast(time) => (pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_TIMESTAMPTZ_GE, time),
        Condition::Before(time) => (pg_sys::BTLessStrategyNumber, pg_sys::F_TIMESTAMPTZ_LT, time),
    };
    let mut entry = pg_sys::ScanKeyData::default();
    // SAFETY: fills the entry in. It compares texts by the "C" collation, which is the columns' own.
    unsafe {
        pg_sys::ScanKeyInit(
            &mut entry,
            column as pg_sys::AttrNumber,
            strategy as pg_sys::StrategyNumber,
            function.into(),
            value,
        );
    }
    entry
}
