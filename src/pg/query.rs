//! One query on a table or on a single partition of it, planned once per backend and table.
//!
//! A statement on `billing.meter_events` locks and prunes every partition anew each time it runs, which takes longer than reading one
//! customer's hour.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

use pgrx::PgRelation;
use pgrx::prelude::*;

use super::error::{Result, error};
use super::spi::Arg;

/// Plans of some 30 kB; past that the memory starts anew.
const MOST_PLANS: usize = 100;

/// A query of `N` parameters and `M` columns, whose text names its table `{table}`.
pub struct Query<const N: usize, const M: usize> {
    pub sql: &'static str,
    pub types: [pg_sys::BuiltinOid; N],
}

/// Whether other processes take part in the caller's query: then no new snapshot can be had.
pub fn in_parallel() -> bool {
    // SAFETY: reads the state of the transaction.
    unsafe { pg_sys::IsInParallelMode() }
}

impl<const N: usize, const M: usize> Query<N, M> {
    /// Runs the query on a table of schema billing in the snapshot of the calling statement, as a STABLE function does, and gives each
    /// row to `read`. None, if the table was dropped meanwhile.
    pub fn run(
        &self,
        table: pg_sys::Oid,
        args: &[Arg; N],
        read: &mut dyn FnMut(&[Arg; M]) -> Result<()>,
    ) -> Result<()> {
        // SAFETY: opened and closed here; on ERROR the transaction's resource owner closes it. The lock stays, as after any statement.
        unsafe {
            let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if relation.is_null() {
                return Ok(());
            }
            // What the snapshot sees was there before it, and so was its page. Of another table the statement must ask for rights.
            let is_empty = (*(*relation).rd_rel).relispartition
                && (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION
                && pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM) == 0;
            if !is_empty {
                self.run_on(relation, args, read)?;
            }
            pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        Ok(())
    }

    /// # Safety
    /// The relation must be open.
    unsafe fn run_on(
        &self,
        relation: pg_sys::Relation,
        args: &[Arg; N],
        read: &mut dyn FnMut(&[Arg; M]) -> Result<()>,
    ) -> Result<()> {
        let mut values = args.map(|value| value.unwrap_or(pg_sys::Datum::null()));
        let nulls = args.map(|value| if value.is_some() { b' ' } else { b'n' } as std::ffi::c_char);
        // SAFETY: connect and finish are paired; an ERROR between them unwinds to transaction abort, which cleans up. The result
        // lives until SPI_finish; what the reader makes of it lives in the caller's memory context.
        unsafe {
            let outer = pg_sys::CurrentMemoryContext;
            check(pg_sys::SPI_connect())?;
            let plan = self.plan(relation)?;
            check(pg_sys::SPI_execute_plan(
                plan,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                true,
                0,
            ))?;
            let table = pg_sys::SPI_tuptable;
            let inner = pg_sys::MemoryContextSwitchTo(outer);
            for i in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(i);
                read(&std::array::from_fn(|column| {
                    let mut is_null = false;
                    let value = pg_sys::SPI_getbinval(tuple, (*table).tupdesc, column as i32 + 1, &mut is_null);
                    (!is_null).then_some(value)
                }))?;
            }
            pg_sys::MemoryContextSwitchTo(inner);
            check(pg_sys::SPI_finish())?;
        }
        Ok(())
    }

    /// # Safety
    /// SPI must be connected and the relation open.
    unsafe fn plan(&self, relation: pg_sys::Relation) -> Result<pg_sys::SPIPlanPtr> {
        thread_local!(static PLANS: RefCell<HashMap<(usize, pg_sys::Oid), pg_sys::SPIPlanPtr>> = RefCell::default());
        // SAFETY: by the caller. A kept plan outlives the connection; nobody else has those that are freed.
        unsafe {
            let key = (self.sql.as_ptr() as usize, (*relation).rd_id);
            if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).copied()) {
                return Ok(plan);
            }
            let table = PgRelation::from_pg(relation);
            let sql = self
                .sql
                .replace("{table}", &format!("billing.{}", quoted(table.name())));
            drop(table);
            let sql = CString::new(sql)
                .map_err(|_| error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "statement with a zero byte"))?;
            let mut types = self.types.map(|oid| oid.value());
            let plan = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                N as i32,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            );
            if plan.is_null() {
                return Err(error(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    format!("could not prepare: {sql:?}"),
                ));
            }
            check(pg_sys::SPI_keepplan(plan))?;
            PLANS.with_borrow_mut(|plans| {
                if plans.len() >= MOST_PLANS {
                    for (_, old) in plans.drain() {
                        pg_sys::SPI_freeplan(old);
                    }
                }
                plans.insert(key, plan);
            });
            Ok(plan)
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn check(code: i32) -> Result<i32> {
    match code {
        0.. => Ok(code),
        _ => Err(error(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("SPI failed with {code}"),
        )),
    }
}
