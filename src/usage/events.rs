//! Usage read from the events themselves, partition by partition.

use std::collections::BTreeSet;
use std::ffi::CStr;

use pgrx::prelude::*;

use super::Asked;
use super::state::{STATE, Windows};
use crate::ingest::partitions::{self, Partition};
use crate::pg::catalog;
use crate::pg::error::Result;
use crate::pg::index;
use crate::pg::numeric::NumericRef;
use crate::pg::owner::{as_owner, looking_up};
use crate::pg::query::{Query, in_parallel};
use crate::pg::rows::{Condition, Rows, has_policies, require_select};
use crate::pg::spi::{Arg, arg, value};
use crate::pg::text::TextRef;
use crate::pg::time::Micros;
use crate::types::Formula;

const STATES: Query<10, { STATE + 2 }> = Query {
    sql: r#"
        SELECT s.window_no, s.text, s.event_count, s.value_sum, s.value_time_sum, s.value_max, s.value_min,
               (s.last).value, (s.last)."timestamp", (s.last).received_at, (s.last).identifier
        FROM (
            SELECT width_bucket(e."timestamp", $5) AS window_no,
                   CASE $3 WHEN 'unique_count' THEN e.dimensions ->> $4 END AS text,
                   count(*) AS event_count, sum(e.value) AS value_sum,
                   CASE $3 WHEN 'weighted_sum' THEN sum(e.value * extract(epoch FROM e."timestamp") * 1000000) END
                       AS value_time_sum,
                   max(e.value) AS value_max, min(e.value) AS value_min,
                   billing.latest_usage_event(
                       (e."timestamp", e.received_at, e.identifier, e.value)::billing.usage_last_event)
                       FILTER (WHERE $3 = 'last') AS last
            FROM {table} e
            WHERE e.customer = $2 AND e.event_name = $1 AND e."timestamp" >= $6 AND e."timestamp" < $7
              AND (e.cancelled_at IS NULL OR e.cancelled_at >= $10) AND ($10 IS NULL OR e.received_at < $10)
              AND ($8 IS NULL OR date_trunc('hour', e."timestamp", 'UTC') = ANY ($8))
              AND ($9 IS NULL OR NOT EXISTS (
                      SELECT FROM jsonb_each($9) f WHERE (f.value @> to_jsonb(e.dimensions ->> f.key)) IS NOT TRUE))
            GROUP BY 1, 2
        ) s"#,
    types: [
        PgBuiltInOids::TEXTOID,
        PgBuiltInOids::TEXTOID,
        PgBuiltInOids::TEXTOID,
        PgBuiltInOids::TEXTOID,
        PgBuiltInOids::TIMESTAMPTZARRAYOID,
        PgBuiltInOids::TIMESTAMPTZOID,
        PgBuiltInOids::TIMESTAMPTZOID,
        PgBuiltInOids::TIMESTAMPTZARRAYOID,
        PgBuiltInOids::JSONBOID,
        PgBuiltInOids::TIMESTAMPTZOID,
    ],
};

/// What can be told of an event by itself, in the columns of a state.
fn state(formula: Formula, [timestamp, _, number, received_at, identifier]: &[Arg; EVENT.len()]) -> [Arg; STATE] {
    let of = |wanted: Formula, column: &Arg| column.filter(|_| formula == wanted);
    [
        arg(1_i64),
        of(Formula::Sum, number),
        None,
        of(Formula::Max, number),
        of(Formula::Min, number),
        of(Formula::Last, number),
        of(Formula::Last, timestamp),
        of(Formula::Last, received_at),
        of(Formula::Last, identifier),
    ]
}

/// Whether an event by itself tells all that is asked of it.
fn is_plain(asked: &Asked) -> bool {
    let formula = matches!(
        asked.formula,
        Formula::Sum | Formula::Count | Formula::Max | Formula::Min | Formula::Last
    );
    formula && asked.filter.is_none() && asked.received_before.is_none()
}

/// What is read of an event by an index.
const EVENT: [&CStr; 5] = [c"timestamp", c"cancelled_at", c"value", c"received_at", c"identifier"];
/// What a sealed partition has.
const TIMESTAMP_INDEX: [&CStr; 3] = [c"customer", c"event_name", c"timestamp"];
/// What every partition has.
const IDENTITY_INDEX: [&CStr; 3] = [c"customer", c"event_name", c"identifier"];
/// So many events are looked at before a statement is asked, which needs no memory for each, and may know a better way.
const MOST_LOOKED_AT: usize = 1000;
/// The same of all of a customer's events, of which an hour's are picked out.
const MOST_LOOKED_THROUGH: usize = 200;

/// Adds the events of the ranges from one partition without a statement, which would take several times as long as finding the few
/// events of an hour. `false`: nothing was added, as only a statement can.
fn look_up(asked: &Asked, windows: &mut Windows, partition: &Partition, ranges: &[(Micros, Micros)]) -> Result<bool> {
    let Some(rows) = Rows::open_if_there(partition.oid, &EVENT)? else {
        return Ok(true);
    };
    let mut search = Search {
        asked,
        windows,
        rows: &rows,
        ranges,
        found: Vec::new(),
    };
    let all = rows.is_empty()
        || match partition.sealed {
            Some(_) => search.by_time()?,
            None => search.among_all()?,
        };
    let found = search.found;
    rows.close();
    if all {
        for (window, state) in &found {
            windows.add(*window, state)?;
        }
    }
    Ok(all)
}

/// A search of a partition for the events of a customer and meter in some ranges.
struct Search<'a> {
    asked: &'a Asked<'a>,
    windows: &'a Windows,
    rows: &'a Rows<{ EVENT.len() }>,
    ranges: &'a [(Micros, Micros)],
    /// With the window that each is in.
    found: Vec<(usize, [Arg; STATE])>,
}

impl Search<'_> {
    /// `false`: there are too many, or no such index.
    fn by_time(&mut self) -> Result<bool> {
        thread_local!(static KNOWN: index::Known = index::Known::default());
        let Some(index) = self.rows.index_on(&KNOWN, &TIMESTAMP_INDEX, TIMESTAMP_INDEX.len() + 1) else {
            return Ok(false);
        };
        let [customer, event_name] = self.of_customer();
        let mut all = true;
        for (from, to) in self.ranges {
            let of_range = [
                customer,
                event_name,
                (2, Condition::AtLeast(from.datum())),
                (2, Condition::Before(to.datum())),
            ];
            all = all
                && index.look_up_while(of_range, |columns| {
                    self.keep(columns);
                    Ok(self.found.len() < MOST_LOOKED_AT)
                })?;
        }
        index.close();
        Ok(all)
    }

    /// The same.
    fn among_all(&mut self) -> Result<bool> {
        thread_local!(static KNOWN: index::Known = index::Known::default());
        let Some(index) = self.rows.index_on(&KNOWN, &IDENTITY_INDEX, 2) else {
            return Ok(false);
        };
        let mut looked_at = 0;
        let all = index.look_up_while(self.of_customer(), |columns| {
            self.keep(columns);
            looked_at += 1;
            Ok(looked_at < MOST_LOOKED_THROUGH)
        })?;
        index.close();
        Ok(all)
    }

    /// Of the first columns of either index.
    fn of_customer(&self) -> [(usize, Condition); 2] {
        [
            (0, Condition::Is(self.asked.customer)),
            (1, Condition::Is(self.asked.event_name)),
        ]
    }

    /// Keeps an event of the ranges unless it is cancelled.
    fn keep(&mut self, columns: &[Arg; EVENT.len()]) {
        if let [timestamp, None, ..] = *columns
            && let Some(at) = value::<Micros>(timestamp)
            && self.ranges.iter().any(|(from, to)| *from <= at && at < *to)
        {
            self.found
                .push((self.windows.of(at), kept(state(self.asked.formula, columns))));
        }
    }
}

/// A copy of what lies in the row.
fn kept(state: [Arg; STATE]) -> [Arg; STATE] {
    let [count, sum, time_sum, max, min, last, timestamp, received_at, identifier] = state;
    let number = |value: Arg| value.map(|value| NumericRef(value).copied().0);
    let identifier = value::<TextRef>(identifier).map(|identifier| TextRef::kept(identifier.text).datum());
    [
        count,
        number(sum),
        time_sum,
        number(max),
        number(min),
        number(last),
        timestamp,
        received_at,
        identifier,
    ]
}

/// Adds the events of the ranges, and of these only those of the hours, if any are given.
pub fn read(
    asked: &Asked,
    windows: &mut Windows,
    ranges: &[(Micros, Micros)],
    hours: Option<&BTreeSet<Micros>>,
) -> Result<()> {
    if ranges.is_empty() {
        return Ok(());
    }
    let hours = hours.and_then(|hours| arg(hours.iter().map(|hour| hour.to_pg()).collect::<Vec<_>>()));
    let states = |windows: &mut Windows, table, (from, to): (Micros, Micros)| {
        let args = [
            Some(asked.event_name),
            Some(asked.customer),
            asked.aggregation,
            asked.value_key,
            asked.bounds,
            Some(from.datum()),
            Some(to.datum()),
            hours,
            asked.given_filter,
            asked.received_before,
        ];
        STATES.run(table, &args, &mut |columns| {
            let [window, text, state @ ..] = columns;
            let window = value::<i32>(*window).map_or(0, i32::unsigned_abs) as usize;
            match text {
                _ if !windows.count_texts() => windows.add(window, state)?,
                Some(text) => windows.add_text(window, *text),
                None => {}
            }
            Ok(())
        })
    };
    let all = catalog::relation(c"meter_events")?;
    require_select(all);
    if has_policies(all) || in_parallel() {
        return looking_up(|| ranges.iter().try_for_each(|range| states(windows, all, *range)));
    }
    // The list may be newer than the snapshot. Sealing loses nothing: its range holds every event that any snapshot can see. And
    // it must be newer, for this transaction's own events in a partition that was made after the snapshot.
    let partitions = partitions::list()?;
    let mut for_statements = Vec::new();
    for partition in partitions.iter() {
        let held: Vec<(Micros, Micros)> = ranges
            .iter()
            .copied()
            .filter(|(from, to)| {
                partition
                    .sealed
                    .is_none_or(|held| held.least < *to && *from <= held.greatest)
            })
            .collect();
        let found = held.is_empty() || hours.is_none() && is_plain(asked) && look_up(asked, windows, partition, &held)?;
        if !found {
            for_statements.push((partition.oid, held));
        }
    }
    if for_statements.is_empty() {
        return Ok(());
    }
    as_owner(|| {
        looking_up(|| {
            for (partition, held) in &for_statements {
                held.iter().try_for_each(|range| states(windows, *partition, *range))?;
            }
            Ok(())
        })
    })
}
