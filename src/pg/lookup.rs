//! Finding rows of one of the extension's own tables by a text key, without a statement.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::catalog;
use super::error::Result;

/// A table that is open for looking up, with what is committed now and this transaction's own rows, at every isolation level.
pub struct Lookup {
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::IndexScanDesc,
}

impl Lookup {
    /// `index` is a unique B-tree on one text column of collation "C".
    pub fn open(table: &'static CStr, index: &'static CStr) -> Result<Lookup> {
        let (table, index) = (catalog::relation(table)?, catalog::relation(index)?);
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: all of it is closed in `close`; on ERROR the transaction's resource owner closes it.
        unsafe {
            let relation = pg_sys::table_open(table, lock);
            let index = pg_sys::index_open(index, lock);
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            #[cfg(feature = "pg18")]
            let scan = pg_sys::index_beginscan(relation, index, snapshot, std::ptr::null_mut(), 1, 0);
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(relation, index, snapshot, 1, 0);
            Ok(Lookup {
                relation,
                index,
                slot: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                snapshot,
                scan,
            })
        }
    }

    /// Which transaction wrote the row of that key; `None`: there is no such row.
    pub fn creator(&mut self, key: pg_sys::Datum) -> Option<pg_sys::TransactionId> {
        // SAFETY: the scan is open, and the key outlives the calls. A stored row has an xmin.
        unsafe {
            let mut entry = pg_sys::ScanKeyData::default();
            // ScanKeyInit compares with the "C" collation, which is the column's own.
            pg_sys::ScanKeyInit(
                &mut entry,
                1,
                pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                pg_sys::F_TEXTEQ.into(),
                key,
            );
            pg_sys::index_rescan(self.scan, &mut entry, 1, std::ptr::null_mut(), 0);
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            if !pg_sys::index_getnext_slot(self.scan, forward, self.slot) {
                return None;
            }
            let mut is_null = false;
            let creator = pg_sys::slot_getsysattr(self.slot, pg_sys::MinTransactionIdAttributeNumber, &mut is_null);
            Some(pg_sys::TransactionId::from(creator.value() as u32))
        }
    }

    pub fn close(self) {
        // SAFETY: all of it was made in `open`; locks stay until the transaction ends, as after any statement.
        unsafe {
            pg_sys::index_endscan(self.scan);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::UnregisterSnapshot(self.snapshot);
            pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}
