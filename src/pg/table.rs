//! Direct insertion into one of the extension's own tables: what the executor does, without a statement around it.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::PgRelation;
use pgrx::prelude::*;

use super::error::{Result, error};
use super::index;
use super::spi::Arg;
use super::unguarded::{self, under_one_guard};

/// As many as COPY inserts at once.
const AT_ONCE: usize = 1000;

/// A table that is open for writing rows of `N` columns.
pub struct Table<const N: usize> {
    pub relation: pg_sys::Relation,
    /// Where each column stands: a restored table may order them differently.
    positions: [usize; N],
    result: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    /// A copy of the row type for all slots but the first. The relation's own is counted, and a thousand counts slow down whatever
    /// else a resource owner keeps; for one row the copy would cost more.
    row_type: pg_sys::TupleDesc,
}

/// The unique indexes of one key. They say whether a row is new, where others would raise an ERROR.
#[derive(Clone, Copy)]
pub struct Arbiter(*mut pg_sys::List);

impl<const N: usize> Table<N> {
    /// `None`: it was dropped meanwhile. Anything but an ordinary local table without triggers is SQLSTATE 55000.
    pub fn open(oid: pg_sys::Oid, columns: &[&CStr; N]) -> Result<Option<Table<N>>> {
        /// Nothing of it is to be dropped.
        enum Found<const N: usize> {
            Gone,
            Unfit(pg_sys::Relation),
            Fit(
                pg_sys::Relation,
                [usize; N],
                *mut pg_sys::ResultRelInfo,
                *mut pg_sys::TupleTableSlot,
            ),
        }
        // SAFETY: closed in `close`; on ERROR the transaction's resource owner closes it. What else is made lives in the
        // current memory context or is freed in `close`.
        unsafe {
            let found = under_one_guard(|| {
                // Before the lock, which a standby refuses in other words.
                unguarded::PreventCommandIfReadOnly(c"record_meter_event()".as_ptr());
                unguarded::PreventCommandIfParallelMode(c"record_meter_event()".as_ptr());
                let relation = unguarded::try_table_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
                if relation.is_null() {
                    return Found::Gone;
                }
                match found_positions(relation, columns) {
                    Some(positions) if is_table(relation) && (*relation).trigdesc.is_null() => {
                        let result =
                            unguarded::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
                        (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
                        unguarded::InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
                        unguarded::ExecOpenIndices(result, false);
                        let slot =
                            unguarded::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual);
                        Found::Fit(relation, positions, result, slot)
                    }
                    _ => Found::Unfit(relation),
                }
            });
            match found {
                Found::Gone => Ok(None),
                Found::Unfit(relation) if !is_table(relation) => Err(unusable(relation, "is not an ordinary table")),
                Found::Unfit(relation) if !(*relation).trigdesc.is_null() => {
                    Err(unusable(relation, "has triggers, which recording would not fire"))
                }
                Found::Unfit(relation) => Err(lacks_column(relation, columns)),
                Found::Fit(relation, positions, result, slot) => Ok(Some(Table {
                    relation,
                    positions,
                    result,
                    estate: match leaves_expressions(relation, result) {
                        true => pg_sys::CreateExecutorState(),
                        false => kept_executor_state(),
                    },
                    slots: vec![slot],
                    row_type: std::ptr::null_mut(),
                })),
            }
        }
    }

    /// All unique indexes of these columns, also one that is not valid: while the index is rebuilt, and after that was broken off, there
    /// are two that take entries. Of two sessions that enter one key at once each may then be told of the other's; both take theirs back
    /// before they wait.
    pub fn arbiter(&self, columns: &[&CStr]) -> Arbiter {
        let mut arbiter = Arbiter(std::ptr::null_mut());
        // SAFETY: the indexes are open. The list goes with the memory context.
        unsafe {
            for nth in 0..(*self.result).ri_NumIndices as usize {
                let index = *(*self.result).ri_IndexRelationDescs.add(nth);
                if index::is_on(index, self.relation, columns, index::Kind::Unique) {
                    arbiter.0 = pg_sys::lappend_oid(arbiter.0, (*index).rd_id);
                }
            }
        }
        arbiter
    }

    /// Inserts one row.
    pub fn insert(&mut self, row: &[Arg; N]) {
        // SAFETY: the slot belongs to this relation's row type and holds the row.
        unsafe {
            let slot = self.fill(0, row);
            under_one_guard(|| {
                self.check(slot);
                self.store(slot);
                self.index(slot, None);
                self.forget(1);
            });
        }
    }

    /// Inserts a row that can still be taken back; other sessions that meet it wait for [`Table::decide`]. `Err(token)`: the arbiter has
    /// its key already, and it must be taken back.
    pub fn insert_speculatively(&mut self, row: &[Arg; N], arbiter: Arbiter) -> std::result::Result<u32, u32> {
        // SAFETY: as in `insert`.
        unsafe {
            let slot = self.fill(0, row);
            under_one_guard(|| self.check(slot));
            let token = pg_sys::SpeculativeInsertionLockAcquire(pg_sys::GetCurrentTransactionId());
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::table_tuple_insert_speculative(self.relation, slot, command, 0, std::ptr::null_mut(), token);
            if under_one_guard(|| self.index(slot, Some(arbiter))) {
                Err(token)
            } else {
                Ok(token)
            }
        }
    }

    /// Keeps the row of [`Table::insert_speculatively`], or takes it back, and lets the sessions that wait for the decision go on.
    pub fn decide(&mut self, token: u32, keep: bool) {
        // SAFETY: the first slot still holds that row, whose token is ours.
        unsafe {
            pg_sys::table_tuple_complete_speculative(self.relation, self.slots[0], token, keep);
            pg_sys::SpeculativeInsertionLockRelease(pg_sys::GetCurrentTransactionId());
            under_one_guard(|| self.forget(1));
        }
    }

    /// Inserts many rows, indexed in their order. `false`: the arbiter has the key of one of them already; then all of them must be taken
    /// back, by whoever can roll back this far.
    pub fn insert_many(
        &mut self,
        rows: impl Iterator<Item = Result<[Arg; N]>>,
        arbiter: Option<Arbiter>,
    ) -> Result<bool> {
        // SAFETY: the state of a bulk insertion, freed below; on ERROR the resource owner lets go of its buffer.
        let bulk = unsafe { pg_sys::GetBulkInsertState() };
        let mut rows = rows.peekable();
        let mut unique = true;
        while unique && rows.peek().is_some() {
            let mut filled = 0;
            for row in rows.by_ref().take(AT_ONCE) {
                let row = row?;
                // SAFETY: the datums live at least as long as this call.
                unsafe {
                    let slot = self.fill(filled, &row);
                    under_one_guard(|| self.check(slot));
                }
                filled += 1;
            }
            // SAFETY: that many slots are filled. What the insertion allocates goes with `forget`.
            unsafe {
                let per_tuple = under_one_guard(|| self.per_tuple());
                let outer = pg_sys::MemoryContextSwitchTo((*per_tuple).ecxt_per_tuple_memory);
                let command = pg_sys::GetCurrentCommandId(true);
                pg_sys::table_multi_insert(self.relation, self.slots.as_mut_ptr(), filled as i32, command, 0, bulk);
                pg_sys::MemoryContextSwitchTo(outer);
                unique = (0..filled).all(|nth| !under_one_guard(|| self.index(self.slots[nth], arbiter)));
                under_one_guard(|| self.forget(filled));
            }
        }
        // SAFETY: made above.
        unsafe { pg_sys::FreeBulkInsertState(bulk) };
        Ok(unique)
    }

    /// # Safety
    /// The datums of the row must live until it is inserted.
    unsafe fn fill(&mut self, nth: usize, row: &[Arg; N]) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: the slot has room for every column of the relation, and every column is set before it is stored.
        unsafe {
            let relation = self.relation;
            if nth == self.slots.len() {
                if nth == 1 {
                    self.row_type = pg_sys::CreateTupleDescCopyConstr((*relation).rd_att);
                }
                self.slots
                    .push(pg_sys::MakeSingleTupleTableSlot(self.row_type, &pg_sys::TTSOpsVirtual));
            }
            let slot = self.slots[nth];
            let columns = (*(*relation).rd_att).natts as usize;
            let values = std::slice::from_raw_parts_mut((*slot).tts_values, columns);
            let nulls = std::slice::from_raw_parts_mut((*slot).tts_isnull, columns);
            nulls.fill(true);
            for (position, value) in self.positions.iter().zip(row) {
                if let Some(value) = value {
                    values[*position] = *value;
                    nulls[*position] = false;
                }
            }
            unguarded::ExecStoreVirtualTuple(slot);
            (*slot).tts_tableOid = (*relation).rd_id;
            slot
        }
    }

    /// # Safety
    /// The slot must hold a row. Under a guard.
    unsafe fn check(&self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by the caller.
        unsafe {
            if !(*(*self.relation).rd_att).constr.is_null() {
                unguarded::ExecConstraints(self.result, slot, self.estate);
            }
        }
    }

    /// Puts a row into the table.
    ///
    /// # Safety
    /// The slot must hold it. Under a guard.
    unsafe fn store(&self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by the caller.
        unsafe {
            let command = unguarded::GetCurrentCommandId(true);
            unguarded::table_tuple_insert(self.relation, slot, command, 0, std::ptr::null_mut());
        }
    }

    /// Enters an inserted row into the indexes. `true`: the arbiter has its key already. Of another index that would be an ERROR.
    ///
    /// # Safety
    /// The slot must hold the row as it was inserted. Under a guard.
    unsafe fn index(&self, slot: *mut pg_sys::TupleTableSlot, arbiter: Option<Arbiter>) -> bool {
        let mut conflict = false;
        // SAFETY: by the caller.
        unsafe {
            if (*self.result).ri_NumIndices == 0 {
                return false;
            }
            let outer = pg_sys::MemoryContextSwitchTo((*self.per_tuple()).ecxt_per_tuple_memory);
            unguarded::ExecInsertIndexTuples(
                self.result,
                slot,
                self.estate,
                false,
                arbiter.is_some(),
                &mut conflict,
                arbiter.map_or(std::ptr::null_mut(), |arbiter| arbiter.0),
                #[cfg(not(feature = "pg15"))]
                false,
            );
            pg_sys::MemoryContextSwitchTo(outer);
        }
        conflict
    }

    /// # Safety
    /// The table must be open. Under a guard.
    unsafe fn per_tuple(&self) -> *mut pg_sys::ExprContext {
        // SAFETY: by the caller.
        unsafe {
            match (*self.estate).es_per_tuple_exprcontext {
                context if context.is_null() => unguarded::MakePerTupleExprContext(self.estate),
                context => context,
            }
        }
    }

    /// # Safety
    /// No tuple of the first `filled` slots may be needed any more. Under a guard.
    unsafe fn forget(&self, filled: usize) {
        // SAFETY: by the caller.
        unsafe {
            for slot in &self.slots[..filled] {
                unguarded::ExecClearTuple(*slot);
            }
            unguarded::MemoryContextReset((*self.per_tuple()).ecxt_per_tuple_memory);
        }
    }

    pub fn close(self) {
        // SAFETY: all of it was made in `open` and `fill`. The lock stays until the transaction ends, as after any statement. The
        // command counter moves so that later statements see the rows.
        unsafe {
            let kept = kept_executor_state();
            under_one_guard(|| {
                unguarded::ExecCloseIndices(self.result);
                for slot in &self.slots {
                    unguarded::ExecDropSingleTupleTableSlot(*slot);
                }
                if self.estate != kept {
                    pg_sys::FreeExecutorState(self.estate);
                }
                unguarded::table_close(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
                unguarded::CommandCounterIncrement();
            });
        }
    }
}

/// # Safety
/// The relation must be open.
unsafe fn is_table(relation: pg_sys::Relation) -> bool {
    // SAFETY: by the caller.
    unsafe { (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION }
}

/// Whether inserting prepares expressions in the executor state: then it must not be the one that is kept.
///
/// # Safety
/// The relation must be open, and its indexes in `result`.
unsafe fn leaves_expressions(relation: pg_sys::Relation, result: *mut pg_sys::ResultRelInfo) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let constraints = (*(*relation).rd_att).constr;
        let checks = !constraints.is_null() && (*constraints).num_check > 0;
        checks
            || (0..(*result).ri_NumIndices as usize).any(|i| {
                let index = *(*result).ri_IndexRelationInfo.add(i);
                !(*index).ii_Expressions.is_null() || !(*index).ii_Predicate.is_null()
            })
    }
}

/// The executor state of tables without expressions, made once per process: making it would be a fiftieth of a single event. It
/// keeps nothing from row to row.
fn kept_executor_state() -> *mut pg_sys::EState {
    thread_local!(static STATE: Cell<*mut pg_sys::EState> = const { Cell::new(std::ptr::null_mut()) });
    if STATE.get().is_null() {
        // SAFETY: what is made in the top context lives as long as the process.
        unsafe {
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            STATE.set(pg_sys::CreateExecutorState());
            pg_sys::MemoryContextSwitchTo(context);
        }
    }
    STATE.get()
}

/// # Safety
/// The relation must be open and `position` one of its columns, from 0.
pub unsafe fn attribute(relation: pg_sys::Relation, position: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: by the caller.
    unsafe {
        // As TupleDescAttr() finds it, behind the short forms of all columns.
        #[cfg(feature = "pg18")]
        let attribute = {
            let row_type = (*relation).rd_att;
            let short = (&raw const (*row_type).compact_attrs).cast::<pg_sys::CompactAttribute>();
            short
                .add((*row_type).natts as usize)
                .cast::<pg_sys::FormData_pg_attribute>()
                .add(position)
        };
        #[cfg(not(feature = "pg18"))]
        let attribute = (*(*relation).rd_att).attrs.as_ptr().add(position);
        attribute
    }
}

/// # Safety
/// The relation must be open and `position` one of its columns, from 0.
pub unsafe fn column_name<'a>(relation: pg_sys::Relation, position: usize) -> &'a CStr {
    // SAFETY: by the caller; a column's name ends with a zero byte.
    unsafe {
        let attribute = attribute(relation, position);
        if (*attribute).attisdropped {
            c""
        } else {
            CStr::from_ptr((*attribute).attname.data.as_ptr())
        }
    }
}

/// Where the columns stand, from 0.
pub fn positions<const N: usize>(relation: pg_sys::Relation, columns: &[&CStr; N]) -> Result<[usize; N]> {
    found_positions(relation, columns).ok_or_else(|| lacks_column(relation, columns))
}

fn lacks_column(relation: pg_sys::Relation, columns: &[&CStr]) -> pg_sys::panic::ErrorReport {
    let lacks = |name: &&CStr| found_positions(relation, &[*name]).is_none();
    let missing = columns.iter().copied().find(lacks).unwrap_or_default();
    unusable(relation, &format!("has no column {missing:?}"))
}

/// The same; `None` if one is missing. Nothing here is to be dropped.
pub fn found_positions<const N: usize>(relation: pg_sys::Relation, columns: &[&CStr; N]) -> Option<[usize; N]> {
    let mut positions = [0; N];
    // SAFETY: the relation is open, and every index is below natts.
    let named = |position: usize| unsafe { column_name(relation, position) };
    let count = unsafe { (*(*relation).rd_att).natts } as usize;
    for (i, name) in columns.iter().enumerate() {
        // Nearly always where it was made.
        positions[i] = if i < count && named(i) == *name {
            i
        } else {
            (0..count).find(|at| named(*at) == *name)?
        };
    }
    Some(positions)
}

pub fn unusable(relation: pg_sys::Relation, why: &str) -> pg_sys::panic::ErrorReport {
    // SAFETY: the relation is open.
    let name = unsafe { PgRelation::from_pg(relation) }.name().to_owned();
    error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("table \"billing.{name}\" {why}"),
    )
    .set_hint("The tables that pg_billing records into must stay as it made them.")
}
