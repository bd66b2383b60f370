//! The filters of sealed partitions: made once nobody writes there any more, and kept by each backend that searches often.
//!
//! A filter rules out nearly every identity that is new, without a look at the partition's index. Where there is none, or it is not worth
//! reading, the index is searched.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::prelude::*;

use super::partitions::Partition;
use crate::filter::{Filter, fingerprint};
use crate::pg::catalog::{self, Kept};
use crate::pg::error::Result;
use crate::pg::leaf::Leaf;
use crate::pg::owner::as_owner;
use crate::pg::prefetch::prefetch;
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::pg::time::Micros;
use crate::settings;

/// Bytes of a row, so that one fills a page, and of how many events they tell.
const BYTES_OF_PART: usize = 8000;
const EVENTS_OF_PART: u64 = 5000;

/// By the beginning of the partition.
#[derive(Default)]
struct Filters(BTreeMap<Place, Known>);

type Place = (Micros, u32);

#[derive(Clone)]
enum Known {
    /// That often the partition was searched without.
    Searched(u64),
    /// `None`: there is none, or no room for it.
    Read(Option<Rc<Filter>>),
}

impl Filters {
    /// Makes room for a filter at the expense of older partitions' ones: fewer events ask for those. `false`: in vain.
    fn make_room(&mut self, needed: usize, place: Place) -> bool {
        let Some(mut room) = settings::filter_memory().checked_sub(needed) else {
            return false;
        };
        for (other, known) in self.0.iter_mut().rev() {
            let Known::Read(Some(filter)) = known else { continue };
            match room.checked_sub(filter.bytes().len()) {
                Some(left) => room = left,
                None if *other > place => return false,
                None => *known = Known::Read(None),
            }
        }
        true
    }
}

thread_local! {
    static FILTERS: Kept<Filters> = Kept::of_rows();
    /// The partition whose filter is now worth reading.
    static WANTED: Cell<Option<Partition>> = const { Cell::new(None) };
}

/// The filter of the partition, if this backend has read it. Otherwise counts the searches that do without, and does not read it: it is
/// asked for in the midst of recording.
pub fn of(partition: &Partition, searches: usize) -> Option<Rc<Filter>> {
    let sealed = partition.sealed.as_ref()?;
    let known = FILTERS.with(|kept| kept.with(|filters| filters.0.get(&place(partition)).cloned()));
    let before = match known {
        Some(Known::Read(filter)) => return filter,
        Some(Known::Searched(times)) => times,
        None => 0,
    };
    let searched = before.saturating_add(searches as u64);
    // Reading a page of it costs about as much as a search.
    if searched.saturating_mul(EVENTS_OF_PART) > sealed.events {
        WANTED.set(Some(*partition));
    }
    keep(partition, Known::Searched(searched));
    None
}

/// That the latest partitions' filters will be asked for this soon.
pub fn anticipate(fingerprint: u64) {
    const LATEST: usize = 2;
    FILTERS.with(|kept| {
        kept.with(|filters| {
            for known in filters.0.values().rev().take(LATEST) {
                if let Known::Read(Some(filter)) = known {
                    prefetch(&filter.block_of(fingerprint)[0]);
                }
            }
        })
    });
}

/// The filter for many searches that are about to begin: reads it if they are worth it.
pub fn for_many(partition: &Partition, searches: usize) -> Result<Option<Rc<Filter>>> {
    match of(partition, searches) {
        Some(filter) => Ok(Some(filter)),
        None => {
            read_wanted()?;
            Ok(of(partition, 0))
        }
    }
}

/// Reads the filter that searches have asked for.
pub fn read_wanted() -> Result<()> {
    WANTED.take().map_or(Ok(()), |partition| read(&partition))
}

/// Reads the filter of a sealed partition, unless it was read before.
fn read(partition: &Partition) -> Result<()> {
    const READ: Statement = Statement {
        sql: "SELECT f.part, f.parts, f.bits FROM billing.meter_event_filters f
              WHERE f.partition = (SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.oid = $1) ORDER BY f.part",
        types: &[PgBuiltInOids::OIDOID],
    };
    let known = FILTERS.with(|kept| kept.with(|filters| filters.0.get(&place(partition)).cloned()));
    let Some(sealed) = &partition.sealed else {
        return Ok(());
    };
    if matches!(known, Some(Known::Read(..))) {
        return Ok(());
    }
    let since = catalog::watch_rows(c"meter_event_filters")?;
    let mut has_room = false;
    let needed = Filter::bytes_for(sealed.events);
    FILTERS.with(|kept| kept.keep(since, |filters| has_room = filters.make_room(needed, place(partition))));
    let filter = match has_room {
        true => {
            let read = |row: &spi::Row| Ok((row.required::<i32>(1)?, row.required::<i32>(2)?, row.required(3)?));
            whole(as_owner(|| {
                spi::fetch(&READ, &[arg(partition.oid)], Sees::Latest, read)
            })?)
        }
        false => None,
    };
    if catalog::changes_of_rows() == since {
        keep(partition, Known::Read(filter.map(Rc::new)));
    }
    Ok(())
}

/// `None`: not all of its parts are there.
fn whole(parts: Vec<(i32, i32, Vec<u8>)>) -> Option<Filter> {
    let count = parts.len() as i32;
    let complete = (0..)
        .zip(&parts)
        .all(|(nth, (part, parts, _))| (nth, count) == (*part, *parts));
    let bytes: Vec<u8> = parts.into_iter().flat_map(|(_, _, bits)| bits).collect();
    complete.then(|| Filter::of_bytes(bytes)).flatten()
}

fn place(partition: &Partition) -> Place {
    (partition.lower, partition.oid.into())
}

fn keep(partition: &Partition, known: Known) {
    FILTERS.with(|kept| {
        kept.keep(catalog::changes_of_rows(), |filters| {
            filters.0.insert(place(partition), known);
        })
    });
}

/// The filter of all identities in a partition that was sealed with so many events, in parts. None if it holds fewer, as in
/// the midst of a restore.
#[pg_extern(sql = false)]
fn identity_filter(partition: pg_sys::Oid, events: i64) -> Result<SetOfIterator<'static, Vec<u8>>> {
    let events = u64::try_from(events).unwrap_or(0);
    let mut filter = Filter::with_room_for(events);
    let mut added = 0;
    if let Some(leaf) = Leaf::open(partition)? {
        leaf.each_identity(|identity| {
            filter.add(fingerprint(identity));
            added += 1;
        })?;
        leaf.close();
    }
    let whole = if added < events { &[] } else { filter.bytes() };
    let parts: Vec<Vec<u8>> = whole.chunks(BYTES_OF_PART).map(<[u8]>::to_vec).collect();
    Ok(SetOfIterator::new(parts))
}
