//! Acting as the extension's owner for a while, as SECURITY DEFINER functions with a pinned search_path do.
//!
//! `record_meter_event()` is called once per event and needs the owner's rights only when it looks something up. Being SECURITY
//! DEFINER as a whole would cost every event about as much as inserting it.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::catalog;
use super::error::Result;

const SEARCH_PATH: &CStr = c"pg_catalog, pg_temp";

/// Runs `act` with the rights of the owner of the extension's tables. An ERROR leaves both identity and settings to the abort of the (sub)transaction, which
/// restores them.
pub fn as_owner<R>(act: impl FnOnce() -> Result<R>) -> Result<R> {
    let owner = catalog::owner()?;
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: paired with the calls below, in the order of fmgr_security_definer().
    let level = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            SEARCH_PATH.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        level
    };
    let result = act();
    // SAFETY: as above.
    unsafe {
        pg_sys::AtEOXact_GUC(true, level);
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}
