//! The pages of a heap, looked through for rows that have one text.
//!
//! A sequential scan asks of each row whether the snapshot sees it, and has a function compare it. In the queue nearly all rows are of
//! other customers. Here the bytes are compared first, where they lie, and only where they are equal is it asked whether the row is seen.

use pgrx::prelude::*;

use super::prefetch::prefetch;
use super::table::attribute;
use super::unguarded::{self, under_one_guard};

/// The pages that a heap has now, and where in a row the text stands.
pub struct Pages {
    relation: pg_sys::Relation,
    count: pg_sys::BlockNumber,
    column: usize,
    /// Behind the header of each row that has all columns up to the text's.
    offset: usize,
}

/// Rows lie behind each other, but their page may be in no cache: so many are asked for in advance.
const AHEAD: usize = 8;
/// As many columns as one byte tells the nulls of.
const FIRST_NULLS: usize = 8;

impl Pages {
    /// `None`: a scan is to find the rows. Where transactions are serializable readers leave marks; a snapshot may be too old before 17; of a
    /// large table PostgreSQL reads ahead; and the text may not stand at the same place in each row.
    ///
    /// # Safety
    /// The relation must be open and have the column.
    pub unsafe fn of(relation: pg_sys::Relation, column: usize) -> Option<Pages> {
        // SAFETY: by the caller, and settings of the server and the transaction.
        unsafe {
            let is_heap = (*(*relation).rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID;
            let is_serializable = pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32;
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            let may_be_too_old = pg_sys::old_snapshot_threshold >= 0;
            #[cfg(not(any(feature = "pg15", feature = "pg16")))]
            let may_be_too_old = false;
            if !is_heap || is_serializable || may_be_too_old {
                return None;
            }
            let offset = offset_of(relation, column)?;
            let count = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            // Where a sequential scan begins to spare the other buffers.
            let is_large = count > pg_sys::NBuffers.unsigned_abs() / 4;
            (!is_large).then_some(Pages {
                relation,
                count,
                column,
                offset,
            })
        }
    }

    /// Puts each row that the snapshot sees and that has the text, or may have it, into the slot, and calls `each`.
    ///
    /// # Safety
    /// The relation must still be open, the slot of its type and the snapshot one of MVCC.
    pub unsafe fn look_through<E>(
        self,
        text: &[u8],
        snapshot: pg_sys::Snapshot,
        slot: *mut pg_sys::TupleTableSlot,
        mut each: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut found = Vec::new();
        let mut seen = 0;
        for block in 0..self.count {
            pgrx::check_for_interrupts!();
            // SAFETY: by the caller. The rows stay where they are as long as their page is pinned; the slot lets go of each before that ends.
            unsafe {
                let buffer = under_one_guard(|| self.find(block, text, snapshot, &mut found));
                if found.is_empty() {
                    continue;
                }
                for row in &mut found {
                    pg_sys::ExecStoreBufferHeapTuple(row, slot, buffer);
                    each()?;
                }
                pg_sys::ExecClearTuple(slot);
                pg_sys::ReleaseBuffer(buffer);
                seen += found.len();
                found.clear();
            }
        }
        // SAFETY: by the caller.
        unsafe { count_scan(self.relation, seen) };
        Ok(())
    }

    /// The page stays pinned if rows were found there.
    ///
    /// # Safety
    /// As in `look_through`. Under a guard.
    unsafe fn find(
        &self,
        block: pg_sys::BlockNumber,
        text: &[u8],
        snapshot: pg_sys::Snapshot,
        found: &mut Vec<pg_sys::HeapTupleData>,
    ) -> pg_sys::Buffer {
        // SAFETY: by the caller. The page is looked at under its lock; its header says how many line pointers follow, and each normal one
        // where a row is.
        unsafe {
            let buffer = unguarded::ReadBuffer(self.relation, block);
            // As a sequential scan does: what is dead need not be compared again and again.
            unguarded::heap_page_prune_opt(self.relation, buffer);
            unguarded::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer).cast::<u8>();
            let header = page.cast::<pg_sys::PageHeaderData>();
            let lines = (&raw const (*header).pd_linp).cast::<pg_sys::ItemIdData>();
            let bytes_of_lines = usize::from((*header).pd_lower).saturating_sub(lines.byte_offset_from(page) as usize);
            let count = bytes_of_lines / size_of::<pg_sys::ItemIdData>();
            for nth in 0..count {
                if nth + AHEAD < count {
                    prefetch(&*page.add((*lines.add(nth + AHEAD)).lp_off() as usize));
                }
                let line = lines.add(nth);
                if (*line).lp_flags() != pg_sys::LP_NORMAL {
                    continue;
                }
                let tuple = page
                    .add((*line).lp_off() as usize)
                    .cast::<pg_sys::HeapTupleHeaderData>();
                if !self.may_have(tuple, text) {
                    continue;
                }
                let mut row = pg_sys::HeapTupleData {
                    t_len: (*line).lp_len(),
                    t_tableOid: (*self.relation).rd_id,
                    t_data: tuple,
                    ..Default::default()
                };
                pgrx::itemptr::item_pointer_set_all(&mut row.t_self, block, nth as pg_sys::OffsetNumber + 1);
                if unguarded::HeapTupleSatisfiesVisibility(&mut row, snapshot, buffer) {
                    found.push(row);
                }
            }
            match found.is_empty() {
                true => unguarded::UnlockReleaseBuffer(buffer),
                false => unguarded::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32),
            }
            buffer
        }
    }

    /// Whether the row has this text. A text that is stored otherwise than in plain bytes, or not at all, may be any.
    ///
    /// # Safety
    /// The row must be one of this heap, in its page.
    unsafe fn may_have(&self, row: *const pg_sys::HeapTupleHeaderData, text: &[u8]) -> bool {
        // SAFETY: by the caller; what is read lies within the row, which has the column and no NULL before it.
        unsafe {
            let columns = usize::from((*row).t_infomask2) & pg_sys::HEAP_NATTS_MASK as usize;
            let has_nulls = u32::from((*row).t_infomask) & pg_sys::HEAP_HASNULL != 0;
            let all = (2_u32 << self.column) - 1;
            if columns <= self.column || has_nulls && u32::from(*(*row).t_bits.as_ptr()) & all != all {
                return true;
            }
            let mut stored = row.cast::<u8>().add(usize::from((*row).t_hoff) + self.offset);
            // A short header is not aligned; before a long one there are zeros.
            if *stored == 0 {
                stored = stored.add(stored.align_offset(size_of::<u32>()));
            }
            let stored = stored.cast::<pg_sys::varlena>();
            pgrx::varlena::varatt_is_1b_e(stored)
                || pgrx::varlena::varatt_is_4b_c(stored)
                || pgrx::varlena_to_byte_slice(stored) == text
        }
    }
}

/// In `pg_stat_all_tables` it is a sequential scan that came to so many rows.
///
/// # Safety
/// The relation must be open.
unsafe fn count_scan(relation: pg_sys::Relation, rows: usize) {
    // SAFETY: by the caller; what is counted is the relation's as long as it is open.
    unsafe {
        if (*relation).pgstat_info.is_null() && (*relation).pgstat_enabled {
            pg_sys::pgstat_assoc_relation(relation);
        }
        if let Some(counted) = (*relation).pgstat_info.as_mut() {
            #[cfg(feature = "pg15")]
            let (scans, returned) = (
                &mut counted.t_counts.t_numscans,
                &mut counted.t_counts.t_tuples_returned,
            );
            #[cfg(not(feature = "pg15"))]
            let (scans, returned) = (&mut counted.counts.numscans, &mut counted.counts.tuples_returned);
            *scans += 1;
            *returned += rows as pg_sys::PgStat_Counter;
        }
    }
}

/// Where the column's text begins behind the header, or the zeros before it; `None`: not at the same place in each row, or it is no text.
///
/// # Safety
/// The relation must be open and have the column.
unsafe fn offset_of(relation: pg_sys::Relation, column: usize) -> Option<usize> {
    // SAFETY: by the caller.
    unsafe {
        let mut offset: usize = 0;
        for before in 0..column {
            let before = &*attribute(relation, before);
            let width = usize::try_from(before.attlen).ok().filter(|width| *width > 0)?;
            if !before.attnotnull || before.attisdropped {
                return None;
            }
            let alignment = match before.attalign as u8 {
                pg_sys::TYPALIGN_CHAR => 1,
                pg_sys::TYPALIGN_SHORT => 2,
                pg_sys::TYPALIGN_INT => 4,
                _ => 8,
            };
            offset = offset.next_multiple_of(alignment) + width;
        }
        let is_text = (*attribute(relation, column)).atttypid == pg_sys::TEXTOID;
        (is_text && column < FIRST_NULLS).then_some(offset)
    }
}
