//! Where PostgreSQL puts a row of a table that is partitioned by the hash of one text column.

use std::cell::UnsafeCell;

use pgrx::prelude::*;

/// The remainder of the partition, of `modulus` such, that holds this text of collation "C".
pub fn of_text(mut text: pg_sys::Datum, modulus: usize) -> usize {
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
        let (mut collation, mut is_null) = (pg_sys::C_COLLATION_OID, false);
        pg_sys::compute_partition_hash_value(1, function, &raw mut collation, &raw mut text, &raw mut is_null)
    };
    (hash % modulus as u64) as usize
}
