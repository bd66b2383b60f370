//! Where PostgreSQL puts a row of a table that is partitioned by the hash of one text column.

use std::cell::UnsafeCell;

use pgrx::prelude::*;

/// The remainder of the partition, of `modulus` such, that holds this text of collation "C".
pub fn of_text(text: pg_sys::Datum, modulus: usize) -> usize {
    thread_local!(static HASH: UnsafeCell<Option<pg_sys::FmgrInfo>> = const { UnsafeCell::new(None) });
    // SAFETY: the cell is this function's alone, which does not call itself. What the look-up allocates lives in the top context, as
    // long as the process. The datum is a text, and not null.
    let hash = unsafe {
        let function = HASH.with(UnsafeCell::get);
        let function = (*function).get_or_insert_with(|| {
            let mut found = pg_sys::FmgrInfo::default();
            pg_sys::fmgr_info_cxt(pg_sys::F_HASHTEXTEXTENDED.into(), &mut found, pg_sys::TopMemoryContext);
            found
        });
        pg_sys::compute_partition_hash_value(1, function, &pg_sys::Oid::from(C_COLLATION), &text, &false)
    };
    (hash % modulus as u64) as usize
}

/// pg_collation's "C", whose number is part of PostgreSQL's catalog format.
const C_COLLATION: u32 = 950;
