//! What is folded: day buckets for whole days, hour buckets for the other whole hours.

use std::collections::BTreeSet;
use std::ffi::CStr;

use pgrx::prelude::*;

use super::Asked;
use super::state::{STATE, Windows, with_state};
use crate::pg::catalog;
use crate::pg::error::Result;
use crate::pg::owner::looking_up;
use crate::pg::query::Query;
use crate::pg::rows::{Condition, Index, Rows, may_read_all};
use crate::pg::spi::{Arg, value};
use crate::pg::text::TextRef;
use crate::pg::time::{MICROS_PER_DAY, Micros};

const STATES: Table<{ STATE + 2 }> = Table {
    name: c"usage_buckets",
    key: c"usage_buckets_pkey",
    columns: with_state([c"start", c"dimensions"]),
    statement: Query {
        sql: "SELECT b.start, b.dimensions, b.event_count, b.value_sum, b.value_time_sum, b.value_max, b.value_min, b.last_value,
                     b.last_timestamp, b.last_received_at, b.last_identifier
              FROM {table} b
              WHERE b.customer = $1 AND b.event_name = $2 AND b.width = $3 AND b.start >= $4 AND b.start < $5",
        types: TYPES,
    },
};

const TEXTS: Table<3> = Table {
    name: c"usage_distinct_values",
    key: c"usage_distinct_values_pkey",
    columns: [c"start", c"dimensions", c"value"],
    statement: Query {
        sql: "SELECT v.start, v.dimensions, v.value
              FROM {table} v
              WHERE v.customer = $1 AND v.event_name = $2 AND v.width = $3 AND v.start >= $4 AND v.start < $5",
        types: TYPES,
    },
};

/// Customer, meter, width, and the range of starts.
const TYPES: [PgBuiltInOids; 5] = [
    PgBuiltInOids::TEXTOID,
    PgBuiltInOids::TEXTOID,
    PgBuiltInOids::TEXTOID,
    PgBuiltInOids::TIMESTAMPTZOID,
    PgBuiltInOids::TIMESTAMPTZOID,
];

/// A table whose primary key begins with those columns.
struct Table<const N: usize> {
    name: &'static CStr,
    key: &'static CStr,
    columns: [&'static CStr; N],
    statement: Query<5, N>,
}

/// Adds the buckets of the windows but for the hours that are read from the events.
pub fn read(asked: &Asked, windows: &mut Windows, cut: &BTreeSet<Micros>) -> Result<()> {
    if windows.count_texts() {
        return TEXTS.read(asked, windows, cut, |windows, window, columns| {
            if let Some(text) = columns[2] {
                windows.add_text(window, text);
            }
            Ok(())
        });
    }
    STATES.read(asked, windows, cut, |windows, window, columns| {
        windows.add(window, &columns[2..])
    })
}

/// How a table is read.
enum Way<'a, const N: usize> {
    Index(Index<'a, N>),
    Statement(pg_sys::Oid),
}

impl<const N: usize> Table<N> {
    fn read(
        &self,
        asked: &Asked,
        windows: &mut Windows,
        cut: &BTreeSet<Micros>,
        add: fn(&mut Windows, usize, &[Arg; N]) -> Result<()>,
    ) -> Result<()> {
        let table = catalog::relation(self.name)?;
        if !may_read_all(table) {
            return looking_up(|| self.read_by(&Way::Statement(table), asked, windows, cut, add));
        }
        let rows = Rows::open(table, &self.columns)?;
        match rows.index(self.key, TYPES.len())? {
            Some(index) => {
                let way = Way::Index(index);
                self.read_by(&way, asked, windows, cut, add)?;
                if let Way::Index(index) = way {
                    index.close();
                }
            }
            None => looking_up(|| self.read_by(&Way::Statement(table), asked, windows, cut, add))?,
        }
        rows.close();
        Ok(())
    }

    fn read_by(
        &self,
        way: &Way<N>,
        asked: &Asked,
        windows: &mut Windows,
        cut: &BTreeSet<Micros>,
        add: fn(&mut Windows, usize, &[Arg; N]) -> Result<()>,
    ) -> Result<()> {
        let bounds = windows.bounds().iter().filter(|bound| **bound != bound.day());
        let days: BTreeSet<Micros> = bounds.chain(cut).map(|at| at.day()).collect();
        let (start, end) = (windows.start(), windows.end());
        let mut range = |width: &str, from: Micros, to: Micros, except: &BTreeSet<Micros>| {
            let mut each = |columns: &[Arg; N]| match value::<Micros>(columns[0]) {
                Some(start) if !except.contains(&start) && asked.admits(columns[1]) => {
                    let window = windows.of(start);
                    add(windows, window, columns)
                }
                _ => Ok(()),
            };
            let (customer, event_name, width) = (asked.customer, asked.event_name, TextRef::of(width).datum());
            match way {
                Way::Index(index) => index.look_up(
                    [
                        (0, Condition::Is(customer)),
                        (1, Condition::Is(event_name)),
                        (2, Condition::Is(width)),
                        (3, Condition::AtLeast(from.datum())),
                        (3, Condition::Before(to.datum())),
                    ],
                    each,
                ),
                Way::Statement(table) => {
                    let key = [customer, event_name, width, from.datum(), to.datum()];
                    self.statement.run(*table, &key.map(Some), &mut each)
                }
            }
        };
        range("day", start, end, &days)?;
        for day in &days {
            range(
                "hour",
                *day.max(&start),
                day.saturating_add(MICROS_PER_DAY).min(end),
                cut,
            )?;
        }
        Ok(())
    }
}
