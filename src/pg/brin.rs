//! Whether a BRIN index has to hear of a row.
//!
//! It has not as long as the row's range of pages is not summed up, which is so where rows are appended. PostgreSQL finds that out too,
//! but reads another page for it and makes ready what it does not need: a thirtieth of a single event.

use pgrx::itemptr::item_pointer_get_both;
use pgrx::prelude::*;

use super::unguarded;

/// What does not change of a BRIN index as long as its table is locked for writing.
#[derive(Debug, Clone, Copy)]
pub struct Ranges {
    pages_per_range: u32,
}

/// Where a page's contents begin (`PageGetContents`): behind the header, aligned.
const CONTENTS: usize = 24;
const FIRST_ROW: pg_sys::OffsetNumber = 1;
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
            (is_known && pages_per_range > 0).then_some(Ranges { pages_per_range })
        }
    }

    /// Asked once the row is in its page. Whoever sums its range up later reads that page later, and finds the row.
    ///
    /// # Safety
    /// The index must be the same, and open. Under a guard.
    pub unsafe fn must_know(self, index: pg_sys::Relation, row: pg_sys::ItemPointerData) -> bool {
        let (block, offset) = item_pointer_get_both(row);
        let range = block / self.pages_per_range;
        // At a page's first row PostgreSQL may ask for the range before to be summed up; and it tells serializable readers of the index.
        let is_plain = offset > FIRST_ROW
            && range < RANGES_OF_MAP
            // SAFETY: a setting of the transaction.
            && unsafe { pg_sys::XactIsoLevel } != pg_sys::XACT_SERIALIZABLE as i32;
        if !is_plain {
            return true;
        }
        // SAFETY: by the caller; the page is there since before `of`, and never goes. What it holds is one place for each range.
        unsafe {
            let buffer = unguarded::ReadBuffer(index, FIRST_MAP);
            unguarded::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let map = pg_sys::BufferGetPage(buffer)
                .add(CONTENTS)
                .cast::<pg_sys::ItemPointerData>();
            let is_summed_up = (*map.add(range as usize)).ip_posid != 0;
            unguarded::UnlockReleaseBuffer(buffer);
            is_summed_up
        }
    }
}
