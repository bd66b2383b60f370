//! PostgreSQL's functions as they are, and one guard around many of them.
//!
//! pgrx guards each call by itself, so that an ERROR unwinds Rust; eighty guards were a thirtieth of a single event.

use pgrx::prelude::*;

/// Calls what `calls` calls under one guard.
///
/// # Safety
/// An ERROR jumps out of `calls`: it must have nothing to drop, and must not panic.
pub unsafe fn under_one_guard<T>(calls: impl FnOnce() -> T) -> T {
    // SAFETY: by the caller; PostgreSQL is on this thread alone.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(calls) }
}

/// Where the pages of a relation are.
#[cfg(feature = "pg15")]
pub type RelFile = pg_sys::RelFileNode;
#[cfg(not(feature = "pg15"))]
pub type RelFile = pg_sys::RelFileLocator;

/// # Safety
/// The relation must be open.
pub unsafe fn file_of(relation: pg_sys::Relation) -> RelFile {
    // SAFETY: by the caller.
    unsafe {
        #[cfg(feature = "pg15")]
        return (*relation).rd_node;
        #[cfg(not(feature = "pg15"))]
        return (*relation).rd_locator;
    }
}

unsafe extern "C-unwind" {
    // These raise nothing, and need no guard.
    pub fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
    pub fn ExecStoreVirtualTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;

    // The others do.
    pub fn PreventCommandIfReadOnly(command: *const std::ffi::c_char);
    pub fn PreventCommandIfParallelMode(command: *const std::ffi::c_char);
    pub fn try_table_open(relation: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    pub fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    pub fn palloc0(size: pg_sys::Size) -> *mut std::ffi::c_void;
    pub fn InitResultRelInfo(
        result: *mut pg_sys::ResultRelInfo,
        relation: pg_sys::Relation,
        index: pg_sys::Index,
        root: *mut pg_sys::ResultRelInfo,
        instrument_options: i32,
    );
    pub fn ExecOpenIndices(result: *mut pg_sys::ResultRelInfo, speculative: bool);
    pub fn index_open(index: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    pub fn index_close(index: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    pub fn index_insert(
        index: pg_sys::Relation,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
        row: pg_sys::ItemPointer,
        table: pg_sys::Relation,
        check: pg_sys::IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    pub fn index_insert_cleanup(index: pg_sys::Relation, info: *mut pg_sys::IndexInfo);
    pub fn LockRelationOid(relation: pg_sys::Oid, lock: pg_sys::LOCKMODE);
    pub fn ReadRecentBuffer(
        file: RelFile,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
        recent: pg_sys::Buffer,
    ) -> bool;
    pub fn ReadBuffer(relation: pg_sys::Relation, block: pg_sys::BlockNumber) -> pg_sys::Buffer;
    pub fn heap_page_prune_opt(relation: pg_sys::Relation, buffer: pg_sys::Buffer);
    pub fn HeapTupleSatisfiesVisibility(
        tuple: pg_sys::HeapTuple,
        snapshot: pg_sys::Snapshot,
        buffer: pg_sys::Buffer,
    ) -> bool;
    pub fn LockBuffer(buffer: pg_sys::Buffer, mode: i32);
    pub fn UnlockReleaseBuffer(buffer: pg_sys::Buffer);
    pub fn ExecCloseIndices(result: *mut pg_sys::ResultRelInfo);
    pub fn ExecConstraints(
        result: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    );
    pub fn ExecInsertIndexTuples(
        result: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
        update: bool,
        no_duplicate_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
        #[cfg(not(feature = "pg15"))] only_summarizing: bool,
    ) -> *mut pg_sys::List;
    pub fn MakePerTupleExprContext(estate: *mut pg_sys::EState) -> *mut pg_sys::ExprContext;
    pub fn MakeSingleTupleTableSlot(
        row_type: pg_sys::TupleDesc,
        operations: *const pg_sys::TupleTableSlotOps,
    ) -> *mut pg_sys::TupleTableSlot;
    pub fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
    #[link_name = "ExecClearTuple__pgrx_cshim"]
    pub fn ExecClearTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
    #[link_name = "table_tuple_insert__pgrx_cshim"]
    pub fn table_tuple_insert(
        relation: pg_sys::Relation,
        slot: *mut pg_sys::TupleTableSlot,
        command: pg_sys::CommandId,
        options: i32,
        bulk: *mut pg_sys::BulkInsertStateData,
    );
    pub fn CreateTemplateTupleDesc(columns: i32) -> pg_sys::TupleDesc;
    pub fn TupleDescCopyEntry(
        to: pg_sys::TupleDesc,
        to_column: pg_sys::AttrNumber,
        from: pg_sys::TupleDesc,
        from_column: pg_sys::AttrNumber,
    );
    pub fn FreeTupleDesc(row_type: pg_sys::TupleDesc);
    pub fn heap_form_tuple(
        row_type: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    ) -> pg_sys::HeapTuple;
    pub fn heap_insert(
        relation: pg_sys::Relation,
        tuple: pg_sys::HeapTuple,
        command: pg_sys::CommandId,
        options: i32,
        bulk: *mut pg_sys::BulkInsertStateData,
    );
    pub fn heap_freetuple(tuple: pg_sys::HeapTuple);
    pub fn AllocSetContextCreateInternal(
        parent: pg_sys::MemoryContext,
        name: *const std::ffi::c_char,
        least: pg_sys::Size,
        initial: pg_sys::Size,
        most: pg_sys::Size,
    ) -> pg_sys::MemoryContext;
    pub fn MemoryContextReset(context: pg_sys::MemoryContext);
    pub fn GetCurrentTransactionId() -> pg_sys::TransactionId;
    pub fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    pub fn CommandCounterIncrement();
    pub fn LockAcquire(
        tag: *const pg_sys::LOCKTAG,
        mode: pg_sys::LOCKMODE,
        session: bool,
        no_wait: bool,
    ) -> pg_sys::LockAcquireResult::Type;
    pub fn LockRelease(tag: *const pg_sys::LOCKTAG, mode: pg_sys::LOCKMODE, session: bool) -> bool;
}
