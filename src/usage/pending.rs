//! What is recorded but not folded yet.

use std::collections::BTreeSet;
use std::ffi::CStr;

use pgrx::prelude::*;

use super::Asked;
use super::state::{STATE, Windows, with_state};
use crate::ingest::pending::part_with;
use crate::pg::array::Elements;
use crate::pg::catalog;
use crate::pg::error::Result;
use crate::pg::owner::looking_up;
use crate::pg::query::Query;
use crate::pg::rows::{Rows, may_read_all};
use crate::pg::spi::{Arg, value};
use crate::pg::text::TextRef;
use crate::pg::time::Micros;

const ROW: usize = STATE + 6;

/// What is looked for comes first, then what is read.
const ROWS: [&CStr; ROW] = with_state([
    c"customer",
    c"event_name",
    c"hour",
    c"dimensions",
    c"rebuild",
    c"distinct_values",
]);

const STATEMENT: Query<2, ROW> = Query {
    sql: "SELECT p.customer, p.event_name, p.hour, p.dimensions, p.rebuild, p.distinct_values, p.event_count, p.value_sum,
                 p.value_time_sum, p.value_max, p.value_min, p.last_value, p.last_timestamp, p.last_received_at, p.last_identifier
          FROM {table} p WHERE p.customer = $1 AND p.event_name = $2",
    types: [PgBuiltInOids::TEXTOID, PgBuiltInOids::TEXTOID],
};

struct Row<'a> {
    hour: Micros,
    dimensions: Arg,
    rebuild: bool,
    distinct_values: Option<Elements<'a, TextRef<'a>>>,
    state: &'a [Arg],
}

/// Adds what is pending for the hours that are not read from the events.
pub fn read(asked: &Asked, windows: &mut Windows, cut: &BTreeSet<Micros>) -> Result<()> {
    each(asked, |row| {
        let within = windows.start() <= row.hour && row.hour < windows.end();
        if !within || cut.contains(&row.hour) || !asked.admits(row.dimensions) {
            return Ok(());
        }
        let window = windows.of(row.hour);
        if !windows.count_texts() {
            return windows.add(window, row.state);
        }
        if let Some(texts) = row.distinct_values {
            texts.iter().for_each(|text| windows.add_text(window, text.datum()));
        }
        Ok(())
    })
}

/// Adds the hours of which a cancelled event cannot be subtracted: until `roll_up()` rebuilds them, their events count.
pub fn rebuilds(asked: &Asked, windows: &Windows, hours: &mut BTreeSet<Micros>) -> Result<()> {
    each(asked, |row| {
        if row.rebuild && windows.start().hour() <= row.hour && row.hour < windows.end() {
            hours.insert(row.hour);
        }
        Ok(())
    })
}

fn each(asked: &Asked, mut read: impl FnMut(Row) -> Result<()>) -> Result<()> {
    let mut read = |columns: &[Arg; ROW]| {
        let [_, _, hour, dimensions, rebuild, distinct_values, state @ ..] = columns;
        let Some(hour) = value(*hour) else { return Ok(()) };
        read(Row {
            hour,
            dimensions: *dimensions,
            rebuild: value(*rebuild).unwrap_or(false),
            distinct_values: value(*distinct_values),
            state,
        })
    };
    let queue = catalog::relation(c"usage_pending")?;
    if !may_read_all(queue) {
        return looking_up(|| STATEMENT.run(queue, &[Some(asked.customer), Some(asked.event_name)], &mut read));
    }
    let rows = Rows::open(part_with(asked.customer)?, &ROWS)?;
    // The customer first: it tells nearly all rows apart.
    rows.look_through([(0, asked.customer), (1, asked.event_name)], read)?;
    rows.close();
    Ok(())
}
