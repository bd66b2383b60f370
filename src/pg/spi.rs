//! SPI with kept plans. pgrx's own client assigns a transaction id on reads and never frees results; this one does neither.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum};

use super::error::{Result, error};

/// A statement that is planned once per backend; its text is its identity.
pub struct Statement {
    pub sql: &'static str,
    pub types: &'static [pg_sys::BuiltinOid],
}

/// Which rows a read sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// What is committed now, at every isolation level, and this transaction's own rows.
    Latest,
    /// A writing statement: the usual snapshot of the isolation level.
    Own,
}

pub type Arg = Option<pg_sys::Datum>;

pub fn arg<T: IntoDatum>(value: T) -> Arg {
    value.into_datum()
}

/// What a datum is, of an argument or a column that SQL declares as `T`. It may lie where the datum does.
pub fn value<T: FromDatum>(datum: Arg) -> Option<T> {
    // SAFETY: the declared type is T's.
    datum.and_then(|datum| unsafe { T::from_datum(datum, false) })
}

pub struct Row {
    table: *mut pg_sys::SPITupleTable,
    index: usize,
}

impl Row {
    /// Column `n`, from 1; NULL is `None`. `T` must own its value: the row ends with the statement.
    pub fn get<T: FromDatum + 'static>(&self, n: i32) -> Option<T> {
        let mut is_null = false;
        // SAFETY: the table is alive while `fetch` runs its closure, index < numvals, and SPI_getbinval checks n.
        unsafe {
            let tuple = *(*self.table).vals.add(self.index);
            let datum = pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, n, &mut is_null);
            T::from_datum(datum, is_null)
        }
    }

    /// A column that the schema declares NOT NULL.
    pub fn required<T: FromDatum + 'static>(&self, n: i32) -> Result<T> {
        self.get(n).ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("unexpected null in column {n}"),
            )
        })
    }
}

thread_local! {
    static PLANS: RefCell<HashMap<&'static str, pg_sys::SPIPlanPtr>> = RefCell::default();
}

/// Runs a statement and gives each row to `read`.
pub fn fetch<R>(
    statement: &Statement,
    args: &[Arg],
    sees: Sees,
    mut read: impl FnMut(&Row) -> Result<R>,
) -> Result<Vec<R>> {
    connected(statement, args, sees, |_| {
        // SAFETY: SPI_tuptable is the result of the statement just run, or null for one without rows.
        let table = unsafe { pg_sys::SPI_tuptable };
        if table.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: not null, and alive until SPI_finish.
        let rows = unsafe { (*table).numvals } as usize;
        (0..rows).map(|index| read(&Row { table, index })).collect()
    })
}

/// Runs a statement for its effect: the number of rows it touched.
pub fn execute(statement: &Statement, args: &[Arg]) -> Result<u64> {
    connected(statement, args, Sees::Own, Ok)
}

fn connected<R>(statement: &Statement, args: &[Arg], sees: Sees, finish: impl FnOnce(u64) -> Result<R>) -> Result<R> {
    let read_only = sees == Sees::Latest;
    // SAFETY: connect and finish are paired; an ERROR between them unwinds to transaction abort, which cleans SPI and snapshots.
    unsafe {
        check(pg_sys::SPI_connect())?;
        let plan = plan(statement)?;
        if read_only {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        let mut values: Vec<pg_sys::Datum> = args.iter().map(|a| a.unwrap_or(pg_sys::Datum::null())).collect();
        let nulls: Vec<std::ffi::c_char> = args
            .iter()
            .map(|a| if a.is_some() { b' ' } else { b'n' } as _)
            .collect();
        check(pg_sys::SPI_execute_plan(
            plan,
            values.as_mut_ptr(),
            nulls.as_ptr(),
            read_only,
            0,
        ))?;
        let result = finish(pg_sys::SPI_processed);
        if read_only {
            pg_sys::PopActiveSnapshot();
        }
        check(pg_sys::SPI_finish())?;
        result
    }
}

/// # Safety
/// SPI must be connected.
unsafe fn plan(statement: &Statement) -> Result<pg_sys::SPIPlanPtr> {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(statement.sql).copied()) {
        return Ok(plan);
    }
    let sql = c_string(statement.sql)?;
    let mut types: Vec<pg_sys::Oid> = statement.types.iter().map(|oid| oid.value()).collect();
    // SAFETY: connected (see above); the kept plan outlives the connection.
    let plan = unsafe {
        // The plans are index look-ups whatever the parameters: PostgreSQL would weigh it up anew, for an array each time.
        let plan = pg_sys::SPI_prepare_cursor(
            sql.as_ptr(),
            types.len() as i32,
            types.as_mut_ptr(),
            pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
        );
        if plan.is_null() {
            return Err(error(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("could not prepare: {}", statement.sql),
            ));
        }
        check(pg_sys::SPI_keepplan(plan))?;
        plan
    };
    PLANS.with_borrow_mut(|plans| plans.insert(statement.sql, plan));
    Ok(plan)
}

fn check(code: i32) -> Result<i32> {
    if code >= 0 {
        return Ok(code);
    }
    // SAFETY: returns a static or palloc'd C string for every code.
    let name = unsafe { CStr::from_ptr(pg_sys::SPI_result_code_string(code)) };
    Err(error(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("SPI failed: {}", name.to_string_lossy()),
    ))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "statement with a zero byte"))
}
