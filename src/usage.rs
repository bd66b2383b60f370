//! Usage read from the events themselves, partition by partition.

use pgrx::prelude::*;

use crate::ingest::partitions;
use crate::pg::array::times;
use crate::pg::catalog;
use crate::pg::error::Result;
use crate::pg::event_query::{Query, Returned, arguments, in_parallel, reads_all_rows};
use crate::pg::owner::as_owner;
use crate::pg::spi::Arg;
use crate::pg::time::Micros;

/// Where the bounds of the ranges stand among the arguments, as arrays; the query has one range at a time there.
const FROM: usize = 5;
const TO: usize = 6;

const STATES: Query<10> = Query {
    sql: r#"
        SELECT width_bucket(e."timestamp", $5), count(*), sum(e.value),
               CASE $3 WHEN 'weighted_sum' THEN sum(e.value * extract(epoch FROM e."timestamp") * 1000000) END,
               max(e.value), min(e.value),
               billing.latest_usage_event(
                   (e."timestamp", e.received_at, e.identifier, e.value)::billing.usage_last_event)
                   FILTER (WHERE $3 = 'last'),
               CASE $3 WHEN 'unique_count' THEN e.dimensions ->> $4 END
        FROM {events} e
        WHERE e.customer = $2 AND e.event_name = $1 AND e."timestamp" >= $6 AND e."timestamp" < $7
          AND (e.cancelled_at IS NULL OR e.cancelled_at >= $10) AND ($10 IS NULL OR e.received_at < $10)
          AND ($8 IS NULL OR date_trunc('hour', e."timestamp", 'UTC') = ANY ($8))
          AND ($9 IS NULL OR NOT EXISTS (
                  SELECT FROM jsonb_each($9) f WHERE (f.value @> to_jsonb(e.dimensions ->> f.key)) IS NOT TRUE))
        GROUP BY 1, 8"#,
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

/// `billing.usage_event_states()`: the arguments stand in the order of the query's parameters.
#[pg_extern(sql = false)]
fn usage_event_states(fcinfo: pg_sys::FunctionCallInfo) -> Result<()> {
    let args: [Arg; 10] = arguments(fcinfo);
    let returned = Returned::by(fcinfo);
    let ranges = ranges(args[FROM], args[TO]);
    let states = |table, from: Micros, to: Micros| {
        let mut args = args;
        args[FROM] = Some(from.datum());
        args[TO] = Some(to.datum());
        STATES.run(table, &args, &returned)
    };
    // Of partitions that others attached meanwhile: whose events the snapshot has, of those the message has come.
    catalog::take_in_changes();
    let all = catalog::relation(c"meter_events")?;
    if !reads_all_rows(all) || in_parallel() {
        return ranges.into_iter().try_for_each(|(from, to)| states(all, from, to));
    }
    // The list may be newer than the snapshot. Sealing loses nothing: its range holds every event that any snapshot can see. And
    // it must be newer, for this transaction's own events in a partition that was made after the snapshot.
    let partitions = partitions::list()?;
    as_owner(|| {
        for partition in partitions.iter() {
            for (from, to) in &ranges {
                let may_hold = partition
                    .sealed
                    .is_none_or(|held| held.least < *to && *from <= held.greatest);
                if may_hold {
                    states(partition.oid, *from, *to)?;
                }
            }
        }
        Ok(())
    })
}

fn ranges(from: Arg, to: Arg) -> Vec<(Micros, Micros)> {
    let (Some(from), Some(to)) = (times(from), times(to)) else {
        return Vec::new();
    };
    (0..from.len())
        .filter_map(|i| Some((from.get(i)?, to.get(i)?)))
        .collect()
}
