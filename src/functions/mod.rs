//! The SQL face of the pure rooms: what `sql/types.sql` and `sql/functions.sql` declare.

mod adjustment;
mod calendar;
mod ids;
mod pricing;
mod types;
