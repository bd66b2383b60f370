//! Appending to a table of the extension's own that is a heap and nothing else: no executor is made ready for it, which took as long as
//! entering the row.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::prelude::*;

use super::catalog;
use super::error::{Result, error};
use super::spi::Arg;
use super::table::{attribute, found_positions};
use super::unguarded::{self, under_one_guard};

/// More columns than any of our tables has, dropped ones too.
const MOST_COLUMNS: usize = 32;

/// A heap that is open for appending rows of `N` columns.
pub struct Heap<const N: usize> {
    relation: pg_sys::Relation,
    /// Where each column stands: a restored table may order them differently.
    positions: [usize; N],
}

impl<const N: usize> Heap<N> {
    /// `None`: it was dropped meanwhile, or rows of it need more than to be stored; [`Table`](super::table::Table) knows how.
    pub fn open(oid: pg_sys::Oid, columns: &[&CStr; N]) -> Option<Heap<N>> {
        // SAFETY: closed in `close`; on ERROR the transaction's resource owner closes it.
        unsafe {
            under_one_guard(|| {
                // Before the lock, which a standby refuses in other words.
                unguarded::PreventCommandIfReadOnly(c"record_meter_event()".as_ptr());
                unguarded::PreventCommandIfParallelMode(c"record_meter_event()".as_ptr());
                let relation = unguarded::try_table_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
                if relation.is_null() {
                    return None;
                }
                match found_positions(relation, columns) {
                    Some(positions) if is_only_heap(relation) => Some(Heap { relation, positions }),
                    _ => {
                        unguarded::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
                        None
                    }
                }
            })
        }
    }

    /// Appends one row, stored without the columns at its end that hold what the table says of rows that lack them: the value with
    /// which a column was added, or NULL. Rewriting the table, as VACUUM FULL does, makes it forget such values, and then rows are
    /// stored whole.
    pub fn append(&mut self, row: &[Arg; N]) -> Result<()> {
        let mut values = [pg_sys::Datum::null(); MOST_COLUMNS];
        let mut nulls = [true; MOST_COLUMNS];
        for (position, value) in self.positions.iter().zip(row) {
            if let Some(value) = value {
                (values[*position], nulls[*position]) = (*value, false);
            }
        }
        // SAFETY: the relation is open and has no more columns than there is room for.
        unsafe {
            let row_type = (*self.relation).rd_att;
            let count = (*row_type).natts as usize;
            for (column, is_null) in nulls[..count].iter().enumerate() {
                if *is_null && (*attribute(self.relation, column)).attnotnull {
                    return Err(null_in(self.relation, column));
                }
            }
            let stored = self.columns_to_store(&values[..count], &nulls[..count]);
            let row_type = match stored == count {
                true => row_type,
                false => short_row_type(self.relation, stored),
            };
            under_one_guard(|| {
                let tuple = unguarded::heap_form_tuple(row_type, values.as_ptr(), nulls.as_ptr());
                let command = unguarded::GetCurrentCommandId(true);
                unguarded::heap_insert(self.relation, tuple, command, 0, std::ptr::null_mut());
                unguarded::heap_freetuple(tuple);
            });
        }
        Ok(())
    }

    /// How many columns a row must be stored with to be read back as it is.
    fn columns_to_store(&self, values: &[pg_sys::Datum], nulls: &[bool]) -> usize {
        let goes_without_saying = |column: &usize| {
            let mut nothing = false;
            // SAFETY: the relation is open and has that many columns; both values are of the column's type.
            unsafe {
                let missing = unguarded::getmissingattr((*self.relation).rd_att, *column as i32 + 1, &mut nothing);
                if nothing || nulls[*column] {
                    return nothing && nulls[*column];
                }
                let attribute = attribute(self.relation, *column);
                unguarded::datumIsEqual(
                    values[*column],
                    missing,
                    (*attribute).attbyval,
                    (*attribute).attlen.into(),
                )
            }
        };
        values.len() - (1..values.len()).rev().take_while(goes_without_saying).count()
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

/// Whether rows need no more than to be stored: an ordinary heap without indexes, triggers, checks or columns that are computed.
///
/// # Safety
/// The relation must be open.
unsafe fn is_only_heap(relation: pg_sys::Relation) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let form = (*relation).rd_rel;
        let constraints = (*(*relation).rd_att).constr;
        (*form).relkind as u8 == pg_sys::RELKIND_RELATION
            && (*form).relam == pg_sys::HEAP_TABLE_AM_OID
            && !(*form).relhasindex
            && (*relation).trigdesc.is_null()
            && (*(*relation).rd_att).natts as usize <= MOST_COLUMNS
            && (constraints.is_null() || (*constraints).num_check == 0 && !(*constraints).has_generated_stored)
    }
}

/// The row type of the first columns, kept until something of the table changes: making it is a hundredth of a single event.
///
/// # Safety
/// The relation must be open and have more columns.
unsafe fn short_row_type(relation: pg_sys::Relation, columns: usize) -> pg_sys::TupleDesc {
    /// With what `changes` stood at.
    type Made = HashMap<(pg_sys::Oid, usize), (u64, pg_sys::TupleDesc)>;
    thread_local!(static MADE: RefCell<Made> = RefCell::default());
    // SAFETY: by the caller. What is made in the top context lives until it is freed below.
    let key = unsafe { ((*relation).rd_id, columns) };
    let outdated = match MADE.with_borrow(|made| made.get(&key).copied()) {
        Some((since, row_type)) if since == catalog::changes() => return row_type,
        _ => MADE.with_borrow_mut(|made| made.remove(&key)),
    };
    // Before it is looked at, so that no change in between is missed.
    catalog::watch(key.0);
    let changes = catalog::changes();
    // SAFETY: as above.
    let made = unsafe {
        under_one_guard(|| {
            if let Some((_, row_type)) = outdated {
                unguarded::FreeTupleDesc(row_type);
            }
            let outer = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let row_type = unguarded::CreateTemplateTupleDesc(columns as i32);
            pg_sys::MemoryContextSwitchTo(outer);
            for column in 1..=columns as i16 {
                unguarded::TupleDescCopyEntry(row_type, column, (*relation).rd_att, column);
            }
            row_type
        })
    };
    MADE.with_borrow_mut(|known| known.insert(key, (changes, made)));
    made
}

/// # Safety
/// The relation must be open and have the column.
unsafe fn null_in(relation: pg_sys::Relation, column: usize) -> pg_sys::panic::ErrorReport {
    // SAFETY: by the caller.
    let name = unsafe { super::table::column_name(relation, column) };
    error(
        PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        format!("column {name:?} of a table that pg_billing records into may not be NULL"),
    )
    .set_hint("The tables that pg_billing records into must stay as it made them.")
}
