//! A part of a transaction that can be taken back as a whole.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use super::error::Result;

/// Runs `act` in a subtransaction, which stays only if it returns `Some`. What `act` opens it must close; what was open before
/// stays usable.
pub fn attempt<R>(act: impl FnOnce() -> Result<Option<R>>) -> Result<Option<R>> {
    // SAFETY: as PL/pgSQL does it: whatever comes of it, the subtransaction ends here, and memory context and resource owner are
    // those of before again.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        let end = |keep: bool| {
            match keep {
                true => pg_sys::ReleaseCurrentSubTransaction(),
                false => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
            }
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        };
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = PgTryBuilder::new(AssertUnwindSafe(act))
            .catch_others(|caught| {
                end(false);
                caught.rethrow()
            })
            .execute();
        end(matches!(result, Ok(Some(_))));
        result
    }
}
