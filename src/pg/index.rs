//! Finding an index of a table by its columns.

use std::ffi::CStr;
use std::thread::LocalKey;

use foldhash::HashMap;
use pgrx::prelude::*;

use super::catalog;
use super::table::column_name;

/// The indexes of one kind that were found already, by their tables.
pub type Known = catalog::Kept<HashMap<pg_sys::Oid, pg_sys::Oid>>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Unique,
    Any,
}

/// The B-tree of all rows on exactly these columns, in their order.
///
/// # Safety
/// The relation must be open.
pub unsafe fn on(
    known: &'static LocalKey<Known>,
    relation: pg_sys::Relation,
    columns: &[&CStr],
    kind: Kind,
) -> Option<pg_sys::Oid> {
    // SAFETY: by the caller.
    let oid = unsafe { (*relation).rd_id };
    let found_before = known.with(|known| known.with(|known| known.get(&oid).copied()));
    if found_before.is_some() {
        return found_before;
    }
    // Before it is looked for, so that no change in between is missed.
    catalog::watch(oid);
    let since = catalog::changes();
    // SAFETY: by the caller.
    let found = unsafe { find(relation, columns, kind) }?;
    known.with(|known| {
        known.keep(since, |known| {
            known.insert(oid, found);
        })
    });
    Some(found)
}

/// The same, without a look at what is known.
///
/// # Safety
/// The relation must be open.
pub unsafe fn find(relation: pg_sys::Relation, columns: &[&CStr], kind: Kind) -> Option<pg_sys::Oid> {
    // SAFETY: by the caller; each index is closed again before the next one.
    unsafe {
        let indexes = pgrx::PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation));
        indexes.iter_oid().find(|oid| {
            let index = pg_sys::index_open(*oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let fits = (*(*index).rd_index).indisvalid && is_on(index, relation, columns, kind);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            fits
        })
    }
}

/// Whether it is such an index, valid or not.
///
/// # Safety
/// Both must be open.
pub unsafe fn is_on(index: pg_sys::Relation, relation: pg_sys::Relation, columns: &[&CStr], kind: Kind) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let form = (*index).rd_index;
        let keys = (*form).indkey.values.as_slice((*form).indnkeyatts as usize);
        (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
            && ((*form).indisunique || kind == Kind::Any)
            && pg_sys::RelationGetIndexPredicate(index).is_null()
            && keys.len() == columns.len()
            // Texts in the order of their bytes, as they are compared; times have no collation.
            && (0..keys.len()).all(|nth| {
                let collation = *(*index).rd_indcollation.add(nth);
                collation == pg_sys::InvalidOid || collation == PgBuiltInOids::C_COLLATION_OID.value()
            })
            && keys
                .iter()
                .zip(columns)
                .all(|(attribute, name)| *attribute > 0 && column_name(relation, *attribute as usize - 1) == *name)
    }
}
