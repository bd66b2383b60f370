//! Each (customer, meter, identifier) is recorded once, whatever partition, session or transaction a retry falls in.
//!
//! Within a partition the unique index decides. Across partitions: insert first, then search the others with a dirty snapshot,
//! while the inserted row can still be taken back. Of two sessions that do so at once in different partitions, each inserts
//! before it searches, so at least one meets the other. Where both do, the one in the newer partition takes its row back and
//! waits; the other waits for that decision alone. So no two wait for each other, and exactly one stays.

use super::check::Event;
use super::partitions::{Partition, list_with_current};
use crate::pg::error::Result;
use crate::pg::leaf::{Leaf, Rival, Tuple, Writer};
use crate::pg::time::Micros;

/// The partition that events go to now, and the others, opened when first searched.
pub struct Identity {
    current: Partition,
    writer: Writer,
    others: Vec<Other>,
}

struct Other {
    partition: Partition,
    leaf: Option<Leaf>,
    gone: bool,
}

enum Verdict {
    Recorded,
    Duplicate,
    /// The partition's time is over: go to the next one.
    Closed,
}

impl Identity {
    pub fn open() -> Result<Identity> {
        loop {
            let now = Micros::now();
            let partitions = list_with_current(now)?;
            let Some(current) = partitions.iter().copied().find(|p| p.holds(now)) else {
                continue;
            };
            let Some(writer) = Writer::open(current.oid)? else {
                continue;
            };
            let others = partitions
                .into_iter()
                .filter(|partition| *partition != current)
                .map(|partition| Other {
                    partition,
                    leaf: None,
                    gone: false,
                })
                .collect();
            return Ok(Identity {
                current,
                writer,
                others,
            });
        }
    }

    /// Records the event: when it was received, or `None` if its identity was recorded before. `received_at` is what the caller
    /// would have it be; it is moved into the bounds of the partition that the clock chooses.
    pub fn record(
        &mut self,
        event: &Event,
        received_at: Micros,
        tuple: impl Fn(Micros) -> Tuple,
    ) -> Result<Option<Micros>> {
        loop {
            if self.current.holds(Micros::now()) {
                let received_at = received_at.clamp(self.current.lower, self.current.upper.saturating_add(-1));
                match self.try_record(event, &tuple(received_at))? {
                    Verdict::Recorded => return Ok(Some(received_at)),
                    Verdict::Duplicate => return Ok(None),
                    Verdict::Closed => {}
                }
            }
            std::mem::replace(self, Identity::open()?).close();
        }
    }

    fn try_record(&mut self, event: &Event, tuple: &Tuple) -> Result<Verdict> {
        let timestamp = event.timestamp_given.then_some(event.timestamp);
        loop {
            pgrx::check_for_interrupts!();
            match self.writer.leaf.find_rival(tuple) {
                Rival::None => {}
                Rival::Recorded => return Ok(Verdict::Duplicate),
                Rival::Pending { xid, token } => {
                    self.writer.leaf.wait_for(xid, token);
                    continue;
                }
            }
            let speculative = self.writer.insert(tuple);
            if speculative.conflict {
                self.writer.decide(speculative, false);
                continue;
            }
            // A session that goes to the next partition does so later than this, and will search here after inserting there.
            // Past the boundary that is no longer certain: a partition not yet committed could not be seen from here.
            let now = Micros::now();
            if !self.current.holds(now) {
                self.writer.decide(speculative, false);
                return Ok(Verdict::Closed);
            }
            match self.search_others(now, timestamp, tuple)? {
                None => {
                    self.writer.decide(speculative, true);
                    return Ok(Verdict::Recorded);
                }
                Some((_, Rival::Pending { xid, token })) => {
                    self.writer.decide(speculative, false);
                    self.writer.leaf.wait_for(xid, token);
                }
                Some(_) => {
                    self.writer.decide(speculative, false);
                    return Ok(Verdict::Duplicate);
                }
            }
        }
    }

    /// The first rival in another partition that waiting alone does not settle.
    fn search_others(
        &mut self,
        now: Micros,
        timestamp: Option<Micros>,
        tuple: &Tuple,
    ) -> Result<Option<(Partition, Rival)>> {
        for other in &mut self.others {
            if other.gone || !other.partition.may_hold_first_try(now, timestamp) {
                continue;
            }
            let leaf = match &other.leaf {
                Some(leaf) => leaf,
                None => match Leaf::open(other.partition.oid, false)? {
                    Some(leaf) => other.leaf.insert(leaf),
                    None => {
                        other.gone = true;
                        continue;
                    }
                },
            };
            loop {
                match leaf.find_rival(tuple) {
                    Rival::None => break,
                    // Undecided in a newer partition: ours has precedence and stays; the other takes its own back.
                    Rival::Pending { xid, token } if token != 0 && other.partition.lower > self.current.lower => {
                        leaf.wait_for(xid, token);
                    }
                    rival => return Ok(Some((other.partition, rival))),
                }
            }
        }
        Ok(None)
    }

    pub fn close(self) {
        for leaf in self.others.into_iter().filter_map(|other| other.leaf) {
            leaf.close();
        }
        self.writer.close();
    }
}
