//! Which partition an event belongs in, and in which others its first try can be.

use std::rc::Rc;

use pgrx::prelude::*;

use crate::pg::catalog::{self, Kept};
use crate::pg::error::{Result, error};
use crate::pg::owner::as_owner;
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::pg::time::{MICROS_PER_SECOND, Micros};
use crate::{settings, worker};

/// How far the wall clock may be set back without an identity being missed.
const CLOCK_SLACK: i64 = 3600 * MICROS_PER_SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub oid: pg_sys::Oid,
    /// Received at or after.
    pub lower: Micros,
    /// Received before.
    pub upper: Micros,
    /// What is known once no more events can come.
    pub sealed: Option<Sealed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Least and greatest timestamp of its events; of none `MAX` and `MIN`.
    pub least: Micros,
    pub greatest: Micros,
    pub events: u64,
}

impl Partition {
    pub fn holds(&self, at: Micros) -> bool {
        self.lower <= at && at < self.upper
    }

    /// Whether an event received at `now` may have been recorded here before, or may be being recorded; `window` as [`window`] has it.
    pub fn may_hold_first_try(&self, now: Micros, window: i64, timestamp: Option<Micros>) -> bool {
        self.may_hold_first_tries(now, window, timestamp.map(|at| (at, at)))
    }

    /// The same for any of several events, whose timestamps lie between these two, both inclusive.
    pub fn may_hold_first_tries(&self, now: Micros, window: i64, timestamps: Option<(Micros, Micros)>) -> bool {
        if self.lower > now {
            return self.lower <= now.saturating_add(CLOCK_SLACK);
        }
        if self.upper.saturating_add(window) > now {
            return true;
        }
        // A retry carries the timestamp of the first try.
        timestamps.is_some_and(|(first, last)| {
            self.sealed
                .is_none_or(|sealed| sealed.least <= last && first <= sealed.greatest)
        })
    }
}

/// How long an identifier is remembered whatever the event's timestamp.
pub fn window() -> i64 {
    settings::micros(&settings::IDENTIFIER_WINDOW).unwrap_or(0)
}

/// All partitions, oldest first, as committed now. Kept until their list changes.
pub fn list() -> Result<Rc<[Partition]>> {
    thread_local!(static KNOWN: Kept<Option<Rc<[Partition]>>> = Kept::default());
    if let Some(known) = KNOWN.with(|kept| kept.with(Option::clone)) {
        return Ok(known);
    }
    catalog::relation(c"meter_event_partitions")?;
    let since = catalog::changes();
    let list: Rc<[Partition]> = as_owner(load)?.into();
    KNOWN.with(|kept| kept.keep(since, |kept| *kept = Some(Rc::clone(&list))));
    Ok(list)
}

fn load() -> Result<Vec<Partition>> {
    const LIST: Statement = Statement {
        sql: "SELECT pg_catalog.to_regclass('billing.' || pg_catalog.quote_ident(p.name))::oid, p.lower_bound, p.upper_bound,
                     p.sealed_at IS NOT NULL, p.min_timestamp, p.max_timestamp, p.event_count
              FROM billing.meter_event_partitions p ORDER BY p.lower_bound",
        types: &[],
    };
    let rows = spi::fetch(&LIST, &[], Sees::Latest, |row| {
        let Some(oid) = row.get(1) else { return Ok(None) };
        let sealed = row.required::<bool>(4)?.then(|| Sealed {
            least: row.get(5).map_or(Micros(i64::MAX), Micros::from_pg),
            greatest: row.get(6).map_or(Micros(i64::MIN), Micros::from_pg),
            events: row.get::<i64>(7).map_or(0, i64::unsigned_abs),
        });
        Ok(Some(Partition {
            oid,
            lower: Micros::from_pg(row.required(2)?),
            upper: Micros::from_pg(row.required(3)?),
            sealed,
        }))
    })?;
    Ok(rows.into_iter().flatten().collect())
}

/// All partitions, one of which holds `at()`: made if missing. Asked anew after each wait, so that whoever has waited past a bound
/// does not make a partition of the past.
pub fn list_with(at: impl Fn() -> Micros) -> Result<Rc<[Partition]>> {
    let find = || -> Result<Option<Rc<[Partition]>>> {
        let partitions = list()?;
        let at = at();
        Ok(partitions
            .iter()
            .any(|partition| partition.holds(at))
            .then_some(partitions))
    };
    if let Some(partitions) = find()? {
        return Ok(partitions);
    }
    worker::make_partition_apart();
    catalog::take_in_changes();
    if let Some(partitions) = find()? {
        return Ok(partitions);
    }
    // Self-conflicting, but no conflict with readers and writers. Whoever waited here finds the partition made.
    const LOCK: Statement = Statement {
        sql: "LOCK TABLE ONLY billing.meter_events IN SHARE UPDATE EXCLUSIVE MODE",
        types: &[],
    };
    as_owner(|| spi::execute(&LOCK, &[]))?;
    catalog::take_in_changes();
    if let Some(partitions) = find()? {
        return Ok(partitions);
    }
    as_owner(|| make(at(), &list()?))?;
    list()
}

/// Makes the partition that holds `at`. The caller holds the lock of [`list_with`].
fn make(at: Micros, partitions: &[Partition]) -> Result<()> {
    const MAKE: Statement = Statement {
        sql: "SELECT billing.make_partition($1, $2)",
        types: &[PgBuiltInOids::TIMESTAMPTZOID, PgBuiltInOids::TIMESTAMPTZOID],
    };
    let width = i64::from(settings::PARTITION_WIDTH.get()) * MICROS_PER_SECOND;
    // Aligned to the Unix epoch, so days are UTC days; cut where partitions of another width stand.
    let aligned = at.0 - at.unix_micros().rem_euclid(width);
    let lower = partitions
        .iter()
        .map(|p| p.upper.0)
        .filter(|upper| *upper <= at.0)
        .fold(aligned, i64::max);
    let upper = partitions
        .iter()
        .map(|p| p.lower.0)
        .filter(|lower| *lower > at.0)
        .fold(aligned.saturating_add(width), i64::min);
    let bound = |at: i64| {
        Micros(at).to_pg().ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
                "the clock is out of range",
            )
        })
    };
    spi::fetch(&MAKE, &[arg(bound(lower)?), arg(bound(upper)?)], Sees::Own, |_| Ok(()))?;
    Ok(())
}

/// Makes the partition that will hold what is received next, ahead of time. Returns whether one was missing.
#[pg_extern(sql = false)]
fn make_next_partition() -> Result<bool> {
    let now = Micros::now();
    let partitions = list_with(|| now)?;
    let current = partitions.iter().find(|partition| partition.holds(now));
    let next = current.map_or(now, |partition| partition.upper);
    let missing = !partitions.iter().any(|partition| partition.holds(next));
    if missing {
        list_with(|| next)?;
    }
    Ok(missing)
}
