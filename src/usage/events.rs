//! Usage read from the events themselves, partition by partition.

use std::collections::BTreeSet;

use pgrx::prelude::*;

use super::Asked;
use super::state::{STATE, Windows};
use crate::ingest::partitions;
use crate::pg::catalog;
use crate::pg::error::Result;
use crate::pg::owner::{as_owner, looking_up};
use crate::pg::query::{Query, in_parallel};
use crate::pg::rows::{has_policies, require_select};
use crate::pg::spi::{arg, value};
use crate::pg::time::Micros;

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
    let mut states = |table, (from, to): (Micros, Micros)| {
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
        return looking_up(|| ranges.iter().try_for_each(|range| states(all, *range)));
    }
    // The list may be newer than the snapshot. Sealing loses nothing: its range holds every event that any snapshot can see. And
    // it must be newer, for this transaction's own events in a partition that was made after the snapshot.
    let partitions = partitions::list()?;
    as_owner(|| {
        looking_up(|| {
            for partition in partitions.iter() {
                for (from, to) in ranges {
                    let may_hold = partition
                        .sealed
                        .is_none_or(|held| held.least < *to && *from <= held.greatest);
                    if may_hold {
                        states(partition.oid, (*from, *to))?;
                    }
                }
            }
            Ok(())
        })
    })
}
