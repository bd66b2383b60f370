//! What storing a row must know of its table and the indexes of it: found once per backend, and kept until something of the table
//! changes. To find it for each event was a twentieth of recording.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::thread::LocalKey;

use pgrx::prelude::*;

use super::brin::Ranges;
use super::catalog;
use super::index;
use super::table::{attribute, found_positions};
use super::unguarded::{self, under_one_guard};

/// More columns than any of our tables has, dropped ones too, and as many as an index can have.
pub const MOST_COLUMNS: usize = 32;
/// More than any of our tables has.
pub const MOST_INDEXES: usize = 8;

/// A heap, and indexes of plain columns, of which rows need no more than to be entered.
pub struct Shape<const N: usize> {
    /// Where each column stands: a restored table may order them differently.
    pub positions: [usize; N],
    pub not_null: Vec<usize>,
    /// What a stored row has in a column that it lacks, column by column; empty where that is NULL in each.
    missing: Vec<Missing>,
    pub indexes: Vec<Index>,
    /// The row type of so many first columns, made when first needed.
    short_row_type: Cell<Option<(usize, pg_sys::TupleDesc)>>,
}

pub struct Index {
    pub oid: pg_sys::Oid,
    /// The columns of an entry, from 0.
    pub columns: Vec<usize>,
    /// Whether it decides if a row is new. No other index is unique; while one is rebuilt there are two.
    pub is_arbiter: bool,
    /// As [`BuildIndexInfo`](pg_sys::BuildIndexInfo) makes it.
    pub info: Cell<pg_sys::IndexInfo>,
    /// Of a BRIN index.
    pub ranges: Option<Ranges>,
}

enum Missing {
    Null,
    Value(pg_sys::Datum),
    /// The bytes to which the datum points.
    Bytes(Box<[u8]>),
    /// Of a type whose values are told apart otherwise; such a column is always stored.
    Other,
}

/// The shapes of tables that are recorded into. What is no such table is kept as `None`. Nothing is dropped when the process ends:
/// PostgreSQL's memory may be gone by then.
#[derive(Default)]
pub struct Shapes<const N: usize>(ManuallyDrop<RefCell<Vec<Known<N>>>>);

struct Known<const N: usize> {
    table: pg_sys::Oid,
    /// What [`catalog::changes`] stood at.
    since: u64,
    shape: Option<Rc<Shape<N>>>,
}

impl<const N: usize> Shapes<N> {
    /// Of the columns the first `key` are those of the arbiter, if any are.
    ///
    /// # Safety
    /// The relation must be open, and locked since before this call.
    pub unsafe fn of(
        shapes: &'static LocalKey<Shapes<N>>,
        relation: pg_sys::Relation,
        columns: &[&CStr; N],
        key: usize,
    ) -> Option<Rc<Shape<N>>> {
        // SAFETY: by the caller.
        let table = unsafe { (*relation).rd_id };
        shapes.with(|shapes| {
            let now = catalog::changes();
            let known = shapes.0.borrow();
            if let Some(known) = known.iter().find(|known| known.table == table && known.since == now) {
                return known.shape.clone();
            }
            drop(known);
            // Before it is looked at, so that no change in between is missed.
            catalog::watch(table);
            let since = catalog::changes();
            // SAFETY: by the caller.
            let shape = unsafe { Shape::find(relation, columns, key) }.map(Rc::new);
            let mut known = shapes.0.borrow_mut();
            known.retain(|known| known.table != table);
            known.push(Known {
                table,
                since,
                shape: shape.clone(),
            });
            shape
        })
    }
}

impl<const N: usize> Shape<N> {
    /// The indexes that have an entry for each row.
    pub fn of_rows(&self) -> impl Iterator<Item = &Index> {
        self.indexes.iter().filter(|index| index.ranges.is_none())
    }

    /// `None`: a column or the arbiter is missing, or rows need more than to be entered, as triggers, checks and computed columns do.
    ///
    /// # Safety
    /// The relation must be open and locked.
    unsafe fn find(relation: pg_sys::Relation, columns: &[&CStr; N], key: usize) -> Option<Shape<N>> {
        // SAFETY: by the caller.
        unsafe {
            let form = (*relation).rd_rel;
            let row_type = (*relation).rd_att;
            let constraints = (*row_type).constr;
            let count = (*row_type).natts as usize;
            let is_fit = (*form).relkind as u8 == pg_sys::RELKIND_RELATION
                && (*form).relam == pg_sys::HEAP_TABLE_AM_OID
                && (*relation).trigdesc.is_null()
                && count <= MOST_COLUMNS
                && (constraints.is_null() || (*constraints).num_check == 0 && !(*constraints).has_generated_stored);
            #[cfg(feature = "pg18")]
            let is_fit = is_fit && (constraints.is_null() || !(*constraints).has_generated_virtual);
            if !is_fit || key > 0 && index::find(relation, &columns[..key], index::Kind::Unique).is_none() {
                return None;
            }
            let positions = found_positions(relation, columns)?;
            Some(Shape {
                indexes: indexes(relation, &positions[..key])?,
                positions,
                not_null: (0..count)
                    .filter(|column| (*attribute(relation, *column)).attnotnull)
                    .collect(),
                missing: match !constraints.is_null() && !(*constraints).missing.is_null() {
                    true => (0..count).map(|column| missing(relation, column)).collect(),
                    false => Vec::new(),
                },
                short_row_type: Cell::new(None),
            })
        }
    }

    /// How many columns a row must be stored with to be read back as it is: those at its end that hold what a row has that lacks them may
    /// be left out.
    ///
    /// # Safety
    /// The values must be of the columns' types, one for each.
    pub unsafe fn columns_to_store(&self, values: &[pg_sys::Datum], nulls: &[bool]) -> usize {
        let goes_without_saying = |column: &usize| match &self.missing[*column] {
            Missing::Null => nulls[*column],
            _ if nulls[*column] => false,
            Missing::Value(missing) => values[*column] == *missing,
            // SAFETY: by the caller, a varlena.
            Missing::Bytes(missing) => unsafe { *bytes_of(values[*column]) == **missing },
            Missing::Other => false,
        };
        match self.missing.len() {
            0 => values.len(),
            count => count - (1..count).rev().take_while(goes_without_saying).count(),
        }
    }

    /// The row type of the first columns.
    ///
    /// # Safety
    /// The relation must be that of this shape, open, and have more columns.
    pub unsafe fn short_row_type(&self, relation: pg_sys::Relation, columns: usize) -> pg_sys::TupleDesc {
        if let Some((made_for, row_type)) = self.short_row_type.get()
            && made_for == columns
        {
            return row_type;
        }
        // SAFETY: by the caller. What is made in the top context lives until it is freed here or in `drop`.
        unsafe {
            under_one_guard(|| {
                if let Some((_, row_type)) = self.short_row_type.take() {
                    unguarded::FreeTupleDesc(row_type);
                }
                let outer = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
                let row_type = unguarded::CreateTemplateTupleDesc(columns as i32);
                pg_sys::MemoryContextSwitchTo(outer);
                for column in 1..=columns as i16 {
                    unguarded::TupleDescCopyEntry(row_type, column, (*relation).rd_att, column);
                }
                self.short_row_type.set(Some((columns, row_type)));
                row_type
            })
        }
    }
}

impl<const N: usize> Drop for Shape<N> {
    fn drop(&mut self) {
        if let Some((_, row_type)) = self.short_row_type.take() {
            // SAFETY: made in `short_row_type`, and nobody else has it.
            unsafe { unguarded::FreeTupleDesc(row_type) }
        }
    }
}

/// What a row has that lacks the column.
///
/// # Safety
/// The relation must be open and have the column.
unsafe fn missing(relation: pg_sys::Relation, column: usize) -> Missing {
    // SAFETY: by the caller; the value is of the column's type.
    unsafe {
        let mut is_null = false;
        let value = pg_sys::getmissingattr((*relation).rd_att, column as i32 + 1, &mut is_null);
        let attribute = attribute(relation, column);
        match ((*attribute).attbyval, (*attribute).attlen) {
            _ if is_null => Missing::Null,
            (true, _) => Missing::Value(value),
            (false, VARLENA) => Missing::Bytes(bytes_of(value).into()),
            _ => Missing::Other,
        }
    }
}

const VARLENA: i16 = -1;

/// All bytes of a varlena, as `datumIsEqual()` compares them.
///
/// # Safety
/// The datum must be one.
unsafe fn bytes_of<'a>(varlena: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: by the caller.
    unsafe {
        let varlena = varlena.cast_mut_ptr::<pg_sys::varlena>();
        std::slice::from_raw_parts(varlena.cast(), pgrx::varlena::varsize_any(varlena))
    }
}

/// `None`: an entry of one of them needs more than columns of the row, one is unique that is not the arbiter, for which others would be
/// waited, or there are too many.
///
/// # Safety
/// The relation must be open and locked.
unsafe fn indexes(relation: pg_sys::Relation, key: &[usize]) -> Option<Vec<Index>> {
    // SAFETY: by the caller; each index is closed again before the next one.
    unsafe {
        let oids = pgrx::PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation));
        let mut indexes = Vec::with_capacity(oids.len());
        for oid in oids.iter_oid() {
            // That one takes entries from now on is told of the index.
            catalog::watch(oid);
            let index = pg_sys::index_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let is_checked_at_once = (*(*index).rd_index).indimmediate;
            let made = pg_sys::BuildIndexInfo(index);
            let info = *made;
            pg_sys::pfree(made.cast());
            // One that is being dropped takes no entries; one that is not built far enough yet neither, and may be an empty file.
            let ranges = match info.ii_ReadyForInserts {
                true => Ranges::of(index),
                false => None,
            };
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            let columns = &info.ii_IndexAttrNumbers[..info.ii_NumIndexAttrs as usize];
            let is_plain = info.ii_Expressions.is_null()
                && info.ii_Predicate.is_null()
                && info.ii_ExclusionOps.is_null()
                && is_checked_at_once
                && columns.iter().all(|column| *column > 0);
            let columns: Vec<usize> = columns.iter().map(|column| (*column - 1) as usize).collect();
            let is_arbiter = info.ii_Unique && columns == key;
            if !is_plain || info.ii_Unique && !is_arbiter {
                return None;
            }
            if info.ii_ReadyForInserts {
                indexes.push(Index {
                    oid,
                    columns,
                    is_arbiter,
                    info: Cell::new(info),
                    ranges,
                });
            }
        }
        (indexes.len() <= MOST_INDEXES).then_some(indexes)
    }
}
