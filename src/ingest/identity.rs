//! Each (customer, meter, identifier) is recorded once, whatever partition, session or transaction a retry falls in.
//!
//! Within a partition the unique index decides. Across partitions: insert first, then search the others with a dirty snapshot,
//! while the inserted row can still be taken back. Of two sessions that do so at once in different partitions, each inserts
//! before it searches, so at least one meets the other. Where both do, the one in the newer partition takes its row back and
//! waits; the other waits for that decision alone. So no two wait for each other, and exactly one stays.
//!
//! Many events at once, well within a partition's time, go the shorter way of [`Identity::record_together`].

use std::cell::Cell;
use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, pg_sys};

use super::check::{Event, Identifier};
use super::filters;
use super::partitions::{Partition, list, list_with, window};
use super::pending::jsonb;
use crate::filter::{Filter, fingerprint};
use crate::pg::error::{Result, error};
use crate::pg::heap::{self, Heap, Undecided};
use crate::pg::leaf::{COLUMN_COUNT, COLUMNS, KEY_COLUMNS, Key, Leaf, Rival, Tuple, arbiter, wait_for};
use crate::pg::numeric::from_quantity;
use crate::pg::shape::Shapes;
use crate::pg::subtransaction::attempt;
use crate::pg::table::Table;
use crate::pg::time::{MICROS_PER_SECOND, Micros};

/// Nearer than this to a bound of the partition, another session's clock may put a retry in the neighbour.
const MARGIN: i64 = 10 * MICROS_PER_SECOND;

/// The partition that events go to now, and the others, opened when first searched.
pub struct Identity {
    current: Partition,
    /// Open for one row after the other; `None`: rows need more than to be entered, or could not be taken back.
    heap: Option<Heap<COLUMN_COUNT>>,
    /// Opened at once if that is not, or else when first needed.
    table: Option<Table<COLUMN_COUNT>>,
    /// Opened when first searched.
    leaf: Option<Leaf>,
    others: Others,
}

/// All partitions, of which those other than the current one are searched.
struct Others {
    partitions: Rc<[Partition]>,
    current: pg_sys::Oid,
    window: i64,
    /// Opened when first searched. `None`: it was dropped meanwhile.
    opened: Vec<(pg_sys::Oid, Option<Leaf>)>,
}

thread_local! {
    /// Whether the latest event or batch of this backend was a retry. Where they come in rows, searching first spares the dead rows
    /// that inserting first leaves; where they do not, it would cost every event a search.
    static RETRIES: Cell<bool> = const { Cell::new(false) };
}

/// An event, and its place in what the client sent.
pub type Numbered<'a> = (usize, Event<'a>);

enum Verdict {
    Recorded,
    Duplicate,
    /// The partition's time is over: go to the next one.
    Closed,
}

impl Event<'_> {
    fn key(&self) -> Key {
        [
            self.customer.datum(),
            self.meter.event_name.datum(),
            self.identifier.datum(),
        ]
    }

    fn tuple(&self, [customer, event_name, identifier]: Key, received_at: Micros) -> Result<Tuple> {
        let value = match self.given_value {
            Some(given) => given,
            None => from_quantity(self.value)?,
        };
        Ok([
            Some(customer),
            Some(event_name),
            Some(identifier),
            Some(value),
            Some(self.timestamp.datum()),
            Some(received_at.datum()),
            (!self.dimensions.is_empty()).then(|| jsonb(&self.dimensions)),
        ])
    }

    /// As a retry would search for it.
    fn given_timestamp(&self) -> Option<Micros> {
        self.timestamp_given.then_some(self.timestamp)
    }

    fn fingerprint(&self) -> u64 {
        fingerprint([
            self.customer.text.as_bytes(),
            self.meter.event_name.as_str().as_bytes(),
            self.identifier.as_str().as_bytes(),
        ])
    }

    /// That other partitions will be searched for it soon.
    pub fn anticipate(&self) {
        if self.may_be_a_retry() {
            filters::anticipate(self.fingerprint());
        }
    }

    fn same_identity(&self, other: &Event) -> bool {
        self.may_be_a_retry()
            && self.identifier.as_str() == other.identifier.as_str()
            && self.customer.text == other.customer.text
            && self.meter.event_name.as_str() == other.meter.event_name.as_str()
    }

    fn may_be_a_retry(&self) -> bool {
        matches!(self.identifier, Identifier::Given(_))
    }
}

impl Others {
    /// Those in which `concerned` says a first try can be.
    fn among<F: Fn(&Partition) -> bool>(&self, concerned: F) -> impl Iterator<Item = Partition> + use<F> {
        let (partitions, current) = (Rc::clone(&self.partitions), self.current);
        (0..partitions.len())
            .map(move |nth| partitions[nth])
            .filter(move |partition| partition.oid != current && concerned(partition))
    }

    /// `None`: it was dropped meanwhile.
    fn open(&mut self, partition: &Partition) -> Result<Option<&Leaf>> {
        let known = self.opened.iter().position(|(oid, _)| *oid == partition.oid);
        let nth = match known {
            Some(nth) => nth,
            None => {
                self.opened.push((partition.oid, Leaf::open(partition.oid)?));
                self.opened.len() - 1
            }
        };
        Ok(self.opened[nth].1.as_ref())
    }
}

impl Identity {
    /// `now` may be some time ago: whatever is decided by the clock is looked at again.
    pub fn open(mut now: Micros) -> Result<Identity> {
        filters::read_wanted()?;
        let mut partitions = list()?;
        loop {
            let current = partitions.iter().copied().find(|p| p.holds(now));
            if let Some(current) = current
                && let Some((heap, table)) = open(current.oid)?
            {
                return Ok(Identity {
                    current,
                    heap,
                    table,
                    leaf: None,
                    others: Others {
                        partitions,
                        current: current.oid,
                        window: window(),
                        opened: Vec::new(),
                    },
                });
            }
            partitions = list_with(Micros::now)?;
            now = Micros::now();
        }
    }

    /// Records the event: when it was received, or `None` if its identity was recorded before. `received_at` is what the caller
    /// would have it be; it is moved into the bounds of the partition that the clock chooses.
    pub fn record(&mut self, event: &Event, received_at: Micros) -> Result<Option<Micros>> {
        loop {
            let at = self.within(received_at);
            let key = event.key();
            let tuple = event.tuple(key, at)?;
            let verdict = match event.may_be_a_retry() {
                true => self.try_record(event, &key, &tuple)?,
                false if !self.current.holds(Micros::now()) => Verdict::Closed,
                false => match &mut self.heap {
                    Some(heap) => {
                        heap.insert(&tuple)?;
                        Verdict::Recorded
                    }
                    None => {
                        self.table()?.insert(&tuple);
                        Verdict::Recorded
                    }
                },
            };
            match verdict {
                Verdict::Recorded => return Ok(Some(at)),
                Verdict::Duplicate => return Ok(None),
                Verdict::Closed => std::mem::replace(self, Identity::open(Micros::now())?).close(),
            }
        }
    }

    fn own_leaf(&mut self) -> Result<&Leaf> {
        match &mut self.leaf {
            Some(leaf) => Ok(leaf),
            none => Ok(none.insert(Leaf::open(self.current.oid)?.ok_or_else(|| dropped(&self.current))?)),
        }
    }

    fn table(&mut self) -> Result<&mut Table<COLUMN_COUNT>> {
        match &mut self.table {
            Some(table) => Ok(table),
            none => Ok(none.insert(Table::open(self.current.oid, &COLUMNS)?.ok_or_else(|| dropped(&self.current))?)),
        }
    }

    fn within(&self, received_at: Micros) -> Micros {
        received_at.clamp(self.current.lower, self.current.upper.saturating_add(-1))
    }

    fn try_record(&mut self, event: &Event, key: &Key, tuple: &Tuple) -> Result<Verdict> {
        // A table that is entered otherwise may have a unique index that is not ours, which would refuse a retry as an error.
        let mut search_first = RETRIES.get() || self.heap.is_none() && heap::takes_back();
        if !search_first && self.heap.is_some() {
            if let Some(verdict) = self.record_outright(event, key, tuple)? {
                return Ok(verdict);
            }
            search_first = true;
        }
        loop {
            pgrx::check_for_interrupts!();
            if search_first {
                match self.own_leaf()?.find_rival(key) {
                    Rival::None => {}
                    Rival::Recorded => {
                        RETRIES.set(true);
                        return Ok(Verdict::Duplicate);
                    }
                    Rival::Pending { xid, token, .. } => {
                        wait_for(xid, token);
                        continue;
                    }
                }
            }
            let table = self.table()?;
            let token = match table.insert_speculatively(tuple, arbiter(table)?) {
                Ok(token) => token,
                Err(token) => {
                    table.decide(token, false);
                    search_first = true;
                    continue;
                }
            };
            RETRIES.set(false);
            // A session that goes to the next partition does so later than this, and will search here after inserting there.
            // Past the boundary that is no longer certain: a partition not yet committed could not be seen from here.
            let now = Micros::now();
            if !self.current.holds(now) {
                self.table()?.decide(token, false);
                return Ok(Verdict::Closed);
            }
            match self.search_others(now, event, key)? {
                Rival::None => {
                    self.table()?.decide(token, true);
                    return Ok(Verdict::Recorded);
                }
                Rival::Pending { xid, token: others, .. } => {
                    self.table()?.decide(token, false);
                    wait_for(xid, others);
                }
                Rival::Recorded => {
                    self.table()?.decide(token, false);
                    return Ok(Verdict::Duplicate);
                }
            }
        }
    }

    /// Records the event without a speculative row: searches the other partitions first, which far from the partition's bounds is as safe
    /// as the other order (see [`Identity::record_together`]). `None`: nothing was recorded, because the partition has the identity, or
    /// may have, or its bound is near.
    ///
    /// The row is as any other from the beginning, and only what becomes of a race takes it back. Until that is settled nothing is waited
    /// for, so that those who meet the row can wait for the decision, whatever they hold.
    fn record_outright(&mut self, event: &Event, key: &Key, tuple: &Tuple) -> Result<Option<Verdict>> {
        let current = self.current;
        loop {
            pgrx::check_for_interrupts!();
            let now = Micros::now();
            if !far_from_bounds(&current, now) {
                return Ok(None);
            }
            match self.search_others(now, event, key)? {
                Rival::None => break,
                Rival::Recorded => return Ok(Some(Verdict::Duplicate)),
                Rival::Pending { xid, token, .. } => wait_for(xid, token),
            }
        }
        let Some(heap) = &mut self.heap else {
            return Ok(None);
        };
        let undecided = Undecided::of_extension()?;
        let stays = heap.insert_if(tuple, undecided, || far_from_bounds(&current, Micros::now()))?;
        Ok(stays.then_some(Verdict::Recorded))
    }

    /// The first rival in another partition that waiting alone does not settle.
    fn search_others(&mut self, now: Micros, event: &Event, key: &Key) -> Result<Rival> {
        let (window, at) = (self.others.window, event.given_timestamp());
        for partition in self.others.among(|p| p.may_hold_first_try(now, window, at)) {
            if filters::of(&partition, 1).is_some_and(|filter| !filter.may_hold(event.fingerprint())) {
                continue;
            }
            let newer = partition.lower > self.current.lower;
            let Some(leaf) = self.others.open(&partition)? else {
                continue;
            };
            loop {
                match leaf.find_rival(key) {
                    Rival::None => break,
                    // Undecided in a newer partition: ours has precedence and stays; the other takes its own back.
                    Rival::Pending { xid, token, .. } if token != 0 && newer => wait_for(xid, token),
                    rival => return Ok(rival),
                }
            }
        }
        Ok(Rival::None)
    }

    /// Records many events, sorted as the index is, in one pass without a decision on each: which of them were recorded, when.
    /// `None`: nothing was, and each must go through [`Identity::record`].
    ///
    /// The other partitions are searched first, then all are inserted in a subtransaction. Far from the partition's bounds that is as
    /// safe as the other order: whoever wrote to an older partition had its row standing while the clock was still there, and
    /// whoever writes to a newer one will search here. A retry within the partition is met by the unique index, and the
    /// subtransaction takes all back, for others as if it had never been; then this partition is searched too.
    pub fn record_together(
        &mut self,
        events: &[&Numbered],
        received_at: Micros,
    ) -> Result<Option<Vec<Option<Micros>>>> {
        let now = Micros::now();
        let current = self.current;
        let in_time = |at: Micros| far_from_bounds(&current, at);
        if !in_time(now) {
            return Ok(None);
        }
        let mut recorded: Vec<Option<Micros>> = events
            .iter()
            // "The latest received" of a batch is the last of the array.
            .map(|(i, _)| Some(self.within(received_at.saturating_add(*i as i64))))
            .collect();
        for i in 1..events.len() {
            if events[i - 1].1.same_identity(&events[i].1) {
                recorded[i] = None;
            }
        }
        let keys = keys(events);
        let span = given_timestamps(events);
        let window = self.others.window;
        for partition in self.others.among(|p| p.may_hold_first_tries(now, window, span)) {
            let concerns = |event: &Event| partition.may_hold_first_try(now, window, event.given_timestamp());
            let filter = filters::for_many(&partition, events.len())?;
            if let Some(leaf) = self.others.open(&partition)? {
                pass_over_recorded(leaf, filter.as_deref(), events, &keys, &mut recorded, concerns);
            }
        }
        let insert = |recorded: &[Option<Micros>]| {
            attempt(|| {
                let rows = events
                    .iter()
                    .zip(&keys)
                    .zip(recorded)
                    .filter_map(|(((_, event), key), at)| at.map(|at| event.tuple(*key, at)));
                // Opened anew, because what an insertion pins must be let go of in the subtransaction that pinned it.
                let Some(mut table) = Table::open(current.oid, &COLUMNS)? else {
                    return Ok(None);
                };
                let unique = table.insert_many(rows, Some(arbiter(&table)?))?;
                table.close();
                Ok((unique && in_time(Micros::now())).then_some(()))
            })
        };
        if !RETRIES.get() && insert(&recorded)?.is_some() {
            return Ok(Some(recorded));
        }
        let before = count(&recorded);
        pass_over_recorded(self.own_leaf()?, None, events, &keys, &mut recorded, |_| true);
        RETRIES.set(count(&recorded) < before);
        if count(&recorded) == 0 {
            return Ok(Some(recorded));
        }
        Ok(insert(&recorded)?.map(|()| recorded))
    }

    pub fn close(self) {
        for leaf in self.others.opened.into_iter().filter_map(|(_, leaf)| leaf) {
            leaf.close();
        }
        if let Some(leaf) = self.leaf {
            leaf.close();
        }
        if let Some(table) = self.table {
            table.close();
        }
        if let Some(heap) = self.heap {
            heap.close();
        }
    }
}

/// `None`: the partition was dropped meanwhile.
fn open(partition: pg_sys::Oid) -> Result<Option<(Option<Heap<COLUMN_COUNT>>, Option<Table<COLUMN_COUNT>>)>> {
    thread_local!(static SHAPES: Shapes<COLUMN_COUNT> = Shapes::default());
    if heap::takes_back()
        && let Some(heap) = Heap::open(partition, &SHAPES, &COLUMNS, KEY_COLUMNS)
    {
        return Ok(Some((Some(heap), None)));
    }
    Ok(Table::open(partition, &COLUMNS)?.map(|table| (None, Some(table))))
}

/// What cannot be as long as the partition is open.
fn dropped(partition: &Partition) -> ErrorReport {
    error(
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
        format!("the partition from {} was dropped", partition.lower.to_iso()),
    )
}

/// Whether no other session's clock can be in another partition now.
fn far_from_bounds(partition: &Partition, now: Micros) -> bool {
    partition.holds(now.saturating_add(-MARGIN)) && partition.holds(now.saturating_add(MARGIN))
}

fn count(recorded: &[Option<Micros>]) -> usize {
    recorded.iter().flatten().count()
}

fn keys(events: &[&Numbered]) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::with_capacity(events.len());
    let mut before: Option<&Event> = None;
    for (_, event) in events {
        keys.push(match (before, keys.last()) {
            // Neighbours are mostly of one meter, and its name need not be made again.
            (Some(before), Some(key)) if Rc::ptr_eq(&before.meter, &event.meter) => {
                [event.customer.datum(), key[1], event.identifier.datum()]
            }
            _ => event.key(),
        });
        before = Some(event);
    }
    keys
}

/// Takes out those that are recorded in a partition already. Waits for whoever is about to record one.
fn pass_over_recorded(
    leaf: &Leaf,
    filter: Option<&Filter>,
    events: &[&Numbered],
    keys: &[Key],
    recorded: &mut [Option<Micros>],
    concerns: impl Fn(&Event) -> bool,
) {
    let mut search = leaf.search();
    for (((_, event), key), at) in events.iter().zip(keys).zip(recorded) {
        if at.is_none() || !event.may_be_a_retry() || !concerns(event) {
            continue;
        }
        if filter.is_some_and(|filter| !filter.may_hold(event.fingerprint())) {
            continue;
        }
        loop {
            pgrx::check_for_interrupts!();
            match search.find_rival(key) {
                Rival::None => break,
                Rival::Recorded => {
                    *at = None;
                    break;
                }
                Rival::Pending { .. } => {
                    search.end();
                    // Once more, with patience for rows that are being decided on.
                    if let Rival::Pending { xid, token, .. } = leaf.find_rival(key) {
                        wait_for(xid, token);
                    }
                    search = leaf.search();
                }
            }
        }
    }
    search.end();
}

/// Least and greatest of the timestamps that came with the events.
fn given_timestamps(events: &[&Numbered]) -> Option<(Micros, Micros)> {
    let given = || events.iter().filter_map(|(_, event)| event.given_timestamp());
    Some((given().min()?, given().max()?))
}
