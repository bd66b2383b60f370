//! Direct access to one partition of `billing.meter_events`.
//!
//! A row is inserted speculatively, as the executor's own ON CONFLICT does: it stands in the table, but can still be taken back
//! without a trace while other partitions are searched for the same identity. The search uses a dirty snapshot, so it sees rows
//! of transactions that have not ended, at every isolation level. Order of events in `ingest::identity`.

use std::ffi::CStr;

use pgrx::PgRelation;
use pgrx::prelude::*;

use super::error::{Result, error};
use super::spi::Arg;

/// The columns of an event, in the order of [`Tuple`].
const COLUMNS: [&CStr; COLUMN_COUNT] = [
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
const KEY_COLUMNS: usize = 3;

pub type Tuple = [Arg; COLUMN_COUNT];

/// Has a statement on the parent table see partitions that others attached after this transaction had locked the parent.
pub fn see_new_partitions() {
    // SAFETY: reads what other backends sent; any time within a transaction will do.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

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
    },
}

/// A partition that is open for searching.
pub struct Leaf {
    relation: pg_sys::Relation,
    identity: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Leaf {
    /// `None`: the partition was dropped meanwhile. A partition that is not an ordinary local table is an error.
    pub fn open(oid: pg_sys::Oid, for_writing: bool) -> Result<Option<Leaf>> {
        let lock = if for_writing {
            pg_sys::RowExclusiveLock
        } else {
            pg_sys::AccessShareLock
        } as pg_sys::LOCKMODE;
        // SAFETY: relations are closed in `close`; on ERROR the transaction's resource owner closes them.
        unsafe {
            let relation = pg_sys::try_table_open(oid, lock);
            if relation.is_null() {
                return Ok(None);
            }
            if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION {
                return Err(unusable(relation, "is not an ordinary table"));
            }
            let Some(index) = identity_index(relation) else {
                return Err(unusable(
                    relation,
                    "has no unique index on (customer, event_name, identifier)",
                ));
            };
            let identity = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            Ok(Some(Leaf {
                relation,
                identity,
                slot,
            }))
        }
    }

    /// Looks for a row of the same identity, uncommitted ones included.
    pub fn find_rival(&self, tuple: &Tuple) -> Rival {
        // SAFETY: index and relation are open; the snapshot and keys outlive the scan.
        unsafe {
            let mut snapshot = pg_sys::SnapshotData {
                snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY,
                ..Default::default()
            };
            let mut keys = [pg_sys::ScanKeyData::default(); KEY_COLUMNS];
            for (i, key) in keys.iter_mut().enumerate() {
                // ScanKeyInit compares with the "C" collation, which is the columns' own.
                pg_sys::ScanKeyInit(
                    key,
                    i as pg_sys::AttrNumber + 1,
                    pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                    pg_sys::F_TEXTEQ.into(),
                    tuple[i].unwrap_or(pg_sys::Datum::null()),
                );
            }
            #[cfg(feature = "pg18")]
            let scan = pg_sys::index_beginscan(
                self.relation,
                self.identity,
                &mut snapshot,
                std::ptr::null_mut(),
                KEY_COLUMNS as i32,
                0,
            );
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(self.relation, self.identity, &mut snapshot, KEY_COLUMNS as i32, 0);
            let mut rival = Rival::None;
            // A cancellation may commit between the reading of the index and of the table: the old version is dead by then, and the
            // new one's entry came after. That happens to a row once, so a second search after a dead version settles it.
            for _ in 0..2 {
                pg_sys::index_rescan(scan, keys.as_mut_ptr(), KEY_COLUMNS as i32, std::ptr::null_mut(), 0);
                let mut met_dead = false;
                while !pg_sys::index_getnext_tid(scan, pg_sys::ScanDirection::ForwardScanDirection).is_null() {
                    if pg_sys::index_fetch_heap(scan, self.slot) {
                        rival = match u32::from(snapshot.xmin) {
                            0 => Rival::Recorded,
                            _ => Rival::Pending {
                                xid: snapshot.xmin,
                                token: snapshot.speculativeToken,
                            },
                        };
                        break;
                    }
                    met_dead = true;
                }
                if rival != Rival::None || !met_dead {
                    break;
                }
            }
            pg_sys::index_endscan(scan);
            pg_sys::ExecClearTuple(self.slot);
            rival
        }
    }

    /// Waits until the rival's transaction, or only its speculative insertion, has ended.
    pub fn wait_for(&self, xid: pg_sys::TransactionId, token: u32) {
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

    pub fn close(self) {
        // SAFETY: opened in `open`; locks stay until the transaction ends, as after any statement.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::index_close(self.identity, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// A partition that is open for writing.
pub struct Writer {
    pub leaf: Leaf,
    result: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    slot: *mut pg_sys::TupleTableSlot,
    arbiters: *mut pg_sys::List,
    /// Position of each column of [`COLUMNS`]: a restored partition may order them differently.
    positions: [usize; COLUMN_COUNT],
}

/// A row that stands in the table, but is not decided yet.
pub struct Speculative {
    token: u32,
    /// Another row came between the search and the insertion; this one must be taken back.
    pub conflict: bool,
}

impl Writer {
    pub fn open(oid: pg_sys::Oid) -> Result<Option<Writer>> {
        // SAFETY: both only look at the state of the transaction. Before the lock, which a standby refuses in other words.
        unsafe {
            pg_sys::PreventCommandIfReadOnly(c"record_meter_event()".as_ptr());
            pg_sys::PreventCommandIfParallelMode(c"record_meter_event()".as_ptr());
        }
        let Some(leaf) = Leaf::open(oid, true)? else {
            return Ok(None);
        };
        // SAFETY: the relation is open; executor state lives in the current memory context and is freed in `close`.
        unsafe {
            let relation = leaf.relation;
            if !(*relation).trigdesc.is_null() {
                return Err(unusable(relation, "has triggers, which recording would not fire"));
            }
            let positions = positions(relation)?;
            let result = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, true);
            let arbiters = pg_sys::lappend_oid(std::ptr::null_mut(), (*leaf.identity).rd_id);
            let estate = pg_sys::CreateExecutorState();
            let slot = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &pg_sys::TTSOpsVirtual);
            Ok(Some(Writer {
                leaf,
                result,
                estate,
                slot,
                arbiters,
                positions,
            }))
        }
    }

    /// Inserts a row that can still be taken back; other sessions that meet it wait for [`Writer::decide`].
    pub fn insert(&mut self, tuple: &Tuple) -> Speculative {
        // SAFETY: the slot belongs to this relation's row type, and every column of it is set before it is stored.
        unsafe {
            let relation = self.leaf.relation;
            let slot = self.slot;
            pg_sys::ExecClearTuple(slot);
            let columns = (*(*relation).rd_att).natts as usize;
            let values = std::slice::from_raw_parts_mut((*slot).tts_values, columns);
            let nulls = std::slice::from_raw_parts_mut((*slot).tts_isnull, columns);
            nulls.fill(true);
            for (position, value) in self.positions.iter().zip(tuple) {
                if let Some(value) = value {
                    values[*position] = *value;
                    nulls[*position] = false;
                }
            }
            pg_sys::ExecStoreVirtualTuple(slot);
            (*slot).tts_tableOid = (*relation).rd_id;
            if !(*(*relation).rd_att).constr.is_null() {
                pg_sys::ExecConstraints(self.result, slot, self.estate);
            }
            let token = pg_sys::SpeculativeInsertionLockAcquire(pg_sys::GetCurrentTransactionId());
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::table_tuple_insert_speculative(relation, slot, command, 0, std::ptr::null_mut(), token);
            let mut conflict = false;
            #[cfg(feature = "pg15")]
            pg_sys::ExecInsertIndexTuples(
                self.result,
                slot,
                self.estate,
                false,
                true,
                &mut conflict,
                self.arbiters,
            );
            #[cfg(not(feature = "pg15"))]
            pg_sys::ExecInsertIndexTuples(
                self.result,
                slot,
                self.estate,
                false,
                true,
                &mut conflict,
                self.arbiters,
                false,
            );
            Speculative { token, conflict }
        }
    }

    /// Keeps the row, or takes it back, and lets the sessions that wait for the decision go on.
    pub fn decide(&mut self, speculative: Speculative, keep: bool) {
        // SAFETY: the slot still holds the row of `insert`, whose token is ours.
        unsafe {
            pg_sys::table_tuple_complete_speculative(self.leaf.relation, self.slot, speculative.token, keep);
            pg_sys::SpeculativeInsertionLockRelease(pg_sys::GetCurrentTransactionId());
            pg_sys::ExecClearTuple(self.slot);
            let context = (*self.estate).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }

    pub fn close(self) {
        // SAFETY: all of it was made in `open`. The command counter moves so that later statements see the rows.
        unsafe {
            pg_sys::ExecCloseIndices(self.result);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::FreeExecutorState(self.estate);
            self.leaf.close();
            pg_sys::CommandCounterIncrement();
        }
    }
}

/// # Safety
/// The relation must be open.
unsafe fn identity_index(relation: pg_sys::Relation) -> Option<pg_sys::Oid> {
    // SAFETY: by the caller; each index is closed again before the next one.
    unsafe {
        let indexes = pgrx::PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation));
        indexes.iter_oid().find(|oid| {
            let index = pg_sys::index_open(*oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let form = (*index).rd_index;
            let keys = (*form).indkey.values.as_slice((*form).indnkeyatts as usize);
            let matches = (*form).indisunique
                && (*form).indisvalid
                && keys.len() == KEY_COLUMNS
                && keys
                    .iter()
                    .zip(&COLUMNS)
                    .all(|(attribute, name)| *attribute > 0 && column_name(relation, *attribute as usize - 1) == *name);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            matches
        })
    }
}

/// # Safety
/// The relation must be open and `position` one of its columns, from 0.
unsafe fn column_name<'a>(relation: pg_sys::Relation, position: usize) -> &'a CStr {
    // SAFETY: by the caller; a column's name ends with a zero byte.
    unsafe {
        #[cfg(feature = "pg18")]
        let attribute = pg_sys::TupleDescAttr((*relation).rd_att, position as i32);
        #[cfg(not(feature = "pg18"))]
        let attribute = (*(*relation).rd_att).attrs.as_ptr().add(position);
        if (*attribute).attisdropped {
            c""
        } else {
            CStr::from_ptr((*attribute).attname.data.as_ptr())
        }
    }
}

/// # Safety
/// The relation must be open.
unsafe fn positions(relation: pg_sys::Relation) -> Result<[usize; COLUMN_COUNT]> {
    let mut positions = [0; COLUMN_COUNT];
    for (position, name) in positions.iter_mut().zip(COLUMNS) {
        // SAFETY: by the caller; every index is below natts.
        let found = unsafe {
            let columns = (*(*relation).rd_att).natts as usize;
            (0..columns).find(|i| column_name(relation, *i) == name)
        };
        *position = found.ok_or_else(|| unusable(relation, &format!("has no column {name:?}")))?;
    }
    Ok(positions)
}

fn unusable(relation: pg_sys::Relation, why: &str) -> pg_sys::panic::ErrorReport {
    // SAFETY: the relation is open.
    let name = unsafe { PgRelation::from_pg(relation) }.name().to_owned();
    error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("partition \"{name}\" of billing.meter_events {why}"),
    )
    .set_hint("Partitions of billing.meter_events are made by pg_billing and must stay as they were made.")
}
