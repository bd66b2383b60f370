//! Set-returning functions that take their arguments as they are and return rows of datums.

use pgrx::prelude::*;

use super::spi::Arg;

/// The arguments of a call as they are.
pub fn arguments<const N: usize>(fcinfo: pg_sys::FunctionCallInfo) -> [Arg; N] {
    // SAFETY: the function is declared with that many arguments.
    let given = unsafe { (*fcinfo).args.as_slice(N) };
    std::array::from_fn(|i| (!given[i].isnull).then_some(given[i].value))
}

/// The rows that a set-returning function returns, gathered in a tuplestore, which leaves memory when they are many.
pub struct Returned(*mut pg_sys::ReturnSetInfo);

impl Returned {
    /// Of a function that is declared RETURNS TABLE.
    pub fn by(fcinfo: pg_sys::FunctionCallInfo) -> Returned {
        // SAFETY: the call is under way; a caller that takes no set is an ERROR.
        unsafe {
            pg_sys::InitMaterializedSRF(fcinfo, pg_sys::MAT_SRF_USE_EXPECTED_DESC);
            Returned((*fcinfo).resultinfo.cast())
        }
    }

    /// Adds a row of the columns that the function is declared to return.
    pub fn put<const N: usize>(&self, row: [Arg; N]) {
        let mut values = row.map(|value| value.unwrap_or(pg_sys::Datum::null()));
        let mut nulls = row.map(|value| value.is_none());
        // SAFETY: the tuplestore copies what it is given.
        unsafe {
            pg_sys::tuplestore_putvalues(
                (*self.0).setResult,
                (*self.0).setDesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }

    /// A value for the `nth` column, from 1, which is declared of a composite type of these columns.
    pub fn composite<const N: usize>(&self, nth: i32, columns: [Arg; N]) -> pg_sys::Datum {
        let mut values = columns.map(|value| value.unwrap_or(pg_sys::Datum::null()));
        let mut nulls = columns.map(|value| value.is_none());
        // SAFETY: the row type is looked up and let go of; the datum is a copy in the current memory context.
        unsafe {
            let of_type = pg_sys::SPI_gettypeid((*self.0).setDesc, nth);
            let row_type = pg_sys::lookup_rowtype_tupdesc(of_type, -1);
            let tuple = pg_sys::heap_form_tuple(row_type, values.as_mut_ptr(), nulls.as_mut_ptr());
            let datum = pg_sys::heap_copy_tuple_as_datum(tuple, row_type);
            pg_sys::DecrTupleDescRefCount(row_type);
            datum
        }
    }
}
