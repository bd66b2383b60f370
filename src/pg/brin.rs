//! Whether a BRIN index has to hear of a row.
//!
//! It has not as long as the row's range of pages is not summed up, which is so where rows are appended. PostgreSQL finds that out too,
//! but reads another page for it and makes ready what it does not need: a thirtieth of a single event. Here the index is not even opened.

use std::cell::Cell;

use pgrx::itemptr::item_pointer_get_both;
use pgrx::prelude::*;

use super::unguarded;

/// What does not change of a BRIN index as long as its table is locked for writing, or is told of.
#[derive(Debug)]
pub struct Ranges {
    pages_per_range: u32,
    file: unguarded::RelFile,
    /// The shared buffer in which the first page of the map was found last.
    map: Cell<pg_sys::Buffer>,
}

/// Where a page's contents begin (`PageGetContents`): behind the header, aligned.
const CONTENTS: usize = 24;
const FIRST_ROW: pg_sys::OffsetNumber = 1;
const NO_BUFFER: pg_sys::Buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
const MAIN_FORK: pg_sys::ForkNumber::Type = pg_sys::ForkNumber::MAIN_FORKNUM;
const META_PAGE: u32 = 0;
/// The first page that says where the summaries of ranges are, and of how many ranges (`REVMAP_PAGE_MAXITEMS`): 1.4 GB of table.
const FIRST_MAP: u32 = 1;
const RANGES_OF_MAP: u32 = (pg_sys::BLCKSZ - CONTENTS as u32 - 8) / size_of::<pg_sys::ItemPointerData>() as u32;

/// The contents of the first page (`BrinMetaPageData`).
#[repr(C)]
struct Meta {
    magic: u32,
    version: u32,
    pages_per_range: u32,
    last_map: u32,
}
const MAGIC: u32 = 0xA810_9CFA;
const VERSION: u32 = 1;

impl Ranges {
    /// `None`: it is no BRIN index, or has no map yet.
    ///
    /// # Safety
    /// The index must be open.
    pub unsafe fn of(index: pg_sys::Relation) -> Option<Ranges> {
        // SAFETY: by the caller; every BRIN index has this page, and its contents are this.
        unsafe {
            if (*(*index).rd_rel).relam != pg_sys::BRIN_AM_OID {
                return None;
            }
            let buffer = pg_sys::ReadBuffer(index, META_PAGE);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let meta = pg_sys::BufferGetPage(buffer).add(CONTENTS).cast::<Meta>();
            let is_known = ((*meta).magic, (*meta).version) == (MAGIC, VERSION) && (*meta).last_map >= FIRST_MAP;
            let pages_per_range = (*meta).pages_per_range;
            pg_sys::UnlockReleaseBuffer(buffer);
            (is_known && pages_per_range > 0).then_some(Ranges {
                pages_per_range,
                file: unguarded::file_of(index),
                map: Cell::new(NO_BUFFER),
            })
        }
    }

    /// Whether the index may have to hear of a row; asked once the row is in its page. Whoever sums its range up later reads that page
    /// later, and finds the row.
    ///
    /// # Safety
    /// The table must be locked for writing since before the ranges were found, or found unchanged. Under a guard.
    pub unsafe fn may_have_to_know(&self, row: pg_sys::ItemPointerData) -> bool {
        let map = self.map.get();
        // SAFETY: by the caller. If the buffer is one, and holds something else by now, nothing is pinned.
        unsafe {
            !self.is_plain(row)
                || map == NO_BUFFER
                || !unguarded::ReadRecentBuffer(self.file, MAIN_FORK, FIRST_MAP, map)
                || self.is_summed_up(row, map)
        }
    }

    /// The same, for certain.
    ///
    /// # Safety
    /// The index must be the same, and open. Under a guard.
    pub unsafe fn must_know(&self, index: pg_sys::Relation, row: pg_sys::ItemPointerData) -> bool {
        // SAFETY: by the caller; the page is there since before `of`, and never goes.
        unsafe {
            !self.is_plain(row) || {
                self.map.set(unguarded::ReadBuffer(index, FIRST_MAP));
                self.is_summed_up(row, self.map.get())
            }
        }
    }

    /// At a page's first row PostgreSQL may ask for the range before to be summed up; and it tells serializable readers of the index.
    fn is_plain(&self, row: pg_sys::ItemPointerData) -> bool {
        let (block, offset) = item_pointer_get_both(row);
        offset > FIRST_ROW
            && block / self.pages_per_range < RANGES_OF_MAP
            // SAFETY: a setting of the transaction.
            && unsafe { pg_sys::XactIsoLevel } != pg_sys::XACT_SERIALIZABLE as i32
    }

    /// # Safety
    /// The buffer must hold the first page of the map, and be pinned, which it is not any more then. The row must be a plain one. Under a
    /// guard.
    unsafe fn is_summed_up(&self, row: pg_sys::ItemPointerData, buffer: pg_sys::Buffer) -> bool {
        let (block, _) = item_pointer_get_both(row);
        // SAFETY: by the caller. What the page holds is one place for each range.
        unsafe {
            unguarded::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let map = pg_sys::BufferGetPage(buffer)
                .add(CONTENTS)
                .cast::<pg_sys::ItemPointerData>();
            let is_summed_up = (*map.add((block / self.pages_per_range) as usize)).ip_posid != 0;
            unguarded::UnlockReleaseBuffer(buffer);
            is_summed_up
        }
    }
}
