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
        level
    };
    set(&[(c"search_path", SEARCH_PATH)]);
    let result = act();
    // SAFETY: as above.
    unsafe {
        pg_sys::AtEOXact_GUC(true, level);
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}

/// Runs `act`, whose statements are look-ups by an index that are planned once. Without sequential scans, which look best while
/// tables are empty, plans stay good when these grow; compiling would take longer than the whole answer.
pub fn looking_up<R>(act: impl FnOnce() -> Result<R>) -> Result<R> {
    // SAFETY: paired with the call below; an ERROR leaves the settings to the abort of the (sub)transaction.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    set(&[
        (c"search_path", SEARCH_PATH),
        (c"enable_seqscan", c"off"),
        (c"jit", c"off"),
    ]);
    let result = act();
    // SAFETY: as above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    result
}

/// Until the innermost level of settings ends.
fn set(settings: &[(&CStr, &CStr)]) {
    for (name, value) in settings {
        // SAFETY: settings that anybody may set; their names and values are copied.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
}
