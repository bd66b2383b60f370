//! Direct access to one partition of `billing.meter_events`: searching it for an identity, rows of open transactions included.

use std::ffi::CStr;

use pgrx::itemptr::item_pointer_to_u64;
use pgrx::prelude::*;

use super::error::Result;
use super::heap::Undecided;
use super::index;
use super::spi::Arg;
use super::table::{Arbiter, Table, positions, unusable};

/// The columns of an event, in the order of [`Tuple`].
pub const COLUMNS: [&CStr; COLUMN_COUNT] = [
    c"customer",
    c"event_name",
    c"identifier",
    c"value",
    c"timestamp",
    c"received_at",
    c"dimensions",
];
pub const COLUMN_COUNT: usize = 7;
/// The first columns are the identity, in the order of the unique index.
pub const KEY_COLUMNS: usize = 3;

pub type Tuple = [Arg; COLUMN_COUNT];
pub type Key = [pg_sys::Datum; KEY_COLUMNS];

/// Another row with the same identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    None,
    /// Committed, or of this very transaction.
    Recorded,
    /// Inserted by a transaction that has not ended; a token other than 0 says that even the insertion may be taken back.
    Pending {
        xid: pg_sys::TransactionId,
        token: u32,
        /// Where the row stands.
        row: u64,
    },
}

/// A partition that is open for searching.
pub struct Leaf {
    relation: pg_sys::Relation,
    identity: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    undecided: Undecided,
}

impl Leaf {
    /// `None`: the partition was dropped meanwhile. A partition that is not an ordinary local table is an error.
    pub fn open(oid: pg_sys::Oid) -> Result<Option<Leaf>> {
        // SAFETY: relations are closed in `close`; on ERROR the transaction's resource owner closes them.
        unsafe {
            let relation = pg_sys::try_table_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if relation.is_null() {
                return Ok(None);
            }
            Ok(Some(Leaf::of_relation(relation)?))
        }
    }

    /// # Safety
    /// The relation must be open.
    unsafe fn of_relation(relation: pg_sys::Relation) -> Result<Leaf> {
        // SAFETY: by the caller.
        unsafe {
            if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
                return Err(unusable(relation, "is not an ordinary table"));
            }
            let index = require_identity_index(relation)?;
            Ok(Leaf {
                relation,
                identity: pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE),
                slot: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                undecided: Undecided::of_extension()?,
            })
        }
    }

    /// Looks for rows of the identities, uncommitted ones included: hands out each key's rival in turn.
    pub fn search(&self) -> Search<'_> {
        // SAFETY: index and relation are open; the snapshot is there until the scan ends, or with it goes its memory context.
        unsafe {
            let snapshot = pg_sys::palloc0(size_of::<pg_sys::SnapshotData>()).cast::<pg_sys::SnapshotData>();
            (*snapshot).snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
            #[cfg(feature = "pg18")]
            let scan = pg_sys::index_beginscan(
                self.relation,
                self.identity,
                snapshot,
                std::ptr::null_mut(),
                KEY_COLUMNS as i32,
                0,
            );
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(self.relation, self.identity, snapshot, KEY_COLUMNS as i32, 0);
            Search {
                leaf: self,
                snapshot,
                scan,
            }
        }
    }

    /// A row that its inserter may yet take back without a token, as [`Heap`](super::heap::Heap) does, is looked at again once that is
    /// decided: whoever waited for the end of its transaction might wait for a row that is not there.
    pub fn find_rival(&self, key: &Key) -> Rival {
        let mut decided = None;
        loop {
            let mut search = self.search();
            let rival = search.find_rival(key);
            search.end();
            match rival {
                Rival::Pending { xid, token: 0, row } if decided != Some((xid, row)) => {
                    self.undecided.wait();
                    decided = Some((xid, row));
                }
                rival => return rival,
            }
        }
    }

    /// Reads the identity of every event whose transaction has committed by now.
    pub fn each_identity(&self, mut read: impl FnMut([&[u8]; KEY_COLUMNS])) -> Result<()> {
        let positions = positions(self.relation, &COLUMNS)?;
        let last = positions[..KEY_COLUMNS].iter().max().map_or(0, |position| position + 1);
        // SAFETY: the relation is open, and the slot of its type; the columns are texts and NOT NULL. In a wide row they too
        // may be compressed, or lie elsewhere: what is made of them then is freed here.
        unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let scan = pg_sys::table_beginscan(self.relation, snapshot, 0, std::ptr::null_mut());
            while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) {
                pgrx::check_for_interrupts!();
                pg_sys::slot_getsomeattrs(self.slot, last as i32);
                let stored: [*mut pg_sys::varlena; KEY_COLUMNS] =
                    std::array::from_fn(|i| (*(*self.slot).tts_values.add(positions[i])).cast_mut_ptr());
                let plain = stored.map(|text| pg_sys::pg_detoast_datum_packed(text));
                read(plain.map(|text| pgrx::varlena_to_byte_slice(text)));
                for (plain, stored) in plain.into_iter().zip(stored) {
                    if plain != stored {
                        pg_sys::pfree(plain.cast());
                    }
                }
            }
            pg_sys::table_endscan(scan);
            pg_sys::UnregisterSnapshot(snapshot);
            pg_sys::ExecClearTuple(self.slot);
        }
        Ok(())
    }

    pub fn close(self) {
        // SAFETY: opened in `open`; the lock stays until the transaction ends, as after any statement.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::index_close(self.identity, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// Waits until the rival's transaction, or only its speculative insertion, has ended. Whoever waits must have ended its searches.
pub fn wait_for(xid: pg_sys::TransactionId, token: u32) {
    // SAFETY: no buffer lock is held. Relation and tid would only decorate messages.
    unsafe {
        if token != 0 {
            pg_sys::SpeculativeInsertionWait(xid, token);
        } else {
            pg_sys::XactLockTableWait(
                xid,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                pg_sys::XLTW_Oper::XLTW_None,
            );
        }
    }
}

/// A scan of the identity index that goes from key to key.
pub struct Search<'a> {
    leaf: &'a Leaf,
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::IndexScanDesc,
}

impl Search<'_> {
    /// A recorded rival rather than a pending one: the latter may be a retry that is about to be taken back, and is nothing to wait for.
    pub fn find_rival(&mut self, key: &Key) -> Rival {
        // SAFETY: the scan is open; snapshot and keys outlive the calls.
        unsafe {
            let mut keys = [pg_sys::ScanKeyData::default(); KEY_COLUMNS];
            for (i, (entry, value)) in keys.iter_mut().zip(key).enumerate() {
                // ScanKeyInit compares with the "C" collation, which is the columns' own.
                pg_sys::ScanKeyInit(
                    entry,
                    i as pg_sys::AttrNumber + 1,
                    pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                    pg_sys::F_TEXTEQ.into(),
                    *value,
                );
            }
            let mut rival = Rival::None;
            // A cancellation may commit between the reading of the index and of the table: the old version is dead by then, and the
            // new one's entry came after. That happens to a row once, so a second search after a dead version settles it.
            for _ in 0..2 {
                pg_sys::index_rescan(
                    self.scan,
                    keys.as_mut_ptr(),
                    KEY_COLUMNS as i32,
                    std::ptr::null_mut(),
                    0,
                );
                let mut met_dead = false;
                while !pg_sys::index_getnext_tid(self.scan, pg_sys::ScanDirection::ForwardScanDirection).is_null() {
                    if !pg_sys::index_fetch_heap(self.scan, self.leaf.slot) {
                        met_dead = true;
                    } else if (*self.snapshot).xmin == pg_sys::InvalidTransactionId {
                        return Rival::Recorded;
                    } else if rival == Rival::None {
                        rival = Rival::Pending {
                            xid: (*self.snapshot).xmin,
                            token: (*self.snapshot).speculativeToken,
                            row: item_pointer_to_u64((*self.leaf.slot).tts_tid),
                        };
                    }
                }
                if rival != Rival::None || !met_dead {
                    break;
                }
            }
            rival
        }
    }

    pub fn end(self) {
        // SAFETY: begun in `search`.
        unsafe {
            pg_sys::index_endscan(self.scan);
            pg_sys::pfree(self.snapshot.cast());
            pg_sys::ExecClearTuple(self.leaf.slot);
        }
    }
}

/// What decides identity in a partition. Without a valid index the partition is of no use: SQLSTATE 55000.
pub fn arbiter<const N: usize>(table: &Table<N>) -> Result<Arbiter> {
    // SAFETY: a Table's relation is open.
    unsafe { require_identity_index(table.relation) }?;
    Ok(table.arbiter(&COLUMNS[..KEY_COLUMNS]))
}

/// # Safety
/// The relation must be open.
unsafe fn require_identity_index(relation: pg_sys::Relation) -> Result<pg_sys::Oid> {
    // SAFETY: by the caller.
    unsafe { identity_index(relation) }
        .ok_or_else(|| unusable(relation, "has no unique index on (customer, event_name, identifier)"))
}

/// # Safety
/// The relation must be open.
unsafe fn identity_index(relation: pg_sys::Relation) -> Option<pg_sys::Oid> {
    thread_local!(static KNOWN: index::Known = index::Known::default());
    // SAFETY: by the caller.
    unsafe { index::on(&KNOWN, relation, &COLUMNS[..KEY_COLUMNS], index::Kind::Unique) }
}
