//! The ids of the customers that a backend knows of.
//!
//! One is looked for with each event. Of ten thousand in eight backends no processor's cache holds the most, so what counts is how often
//! memory is waited for: once here, or not at all when the place was told in advance, where a general set waits twice.

use std::collections::HashSet;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// Two to a cache line.
#[repr(align(32))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place([u8; 32]);

const LONGEST: usize = 31;
const EMPTY: Place = Place([0; 32]);

impl Place {
    /// The bytes of an id, and behind them how many they are. `None`: it is too long, or empty.
    fn of(id: &str) -> Option<Place> {
        let mut place = EMPTY;
        place.0[..LONGEST].get_mut(..id.len())?.copy_from_slice(id.as_bytes());
        place.0[LONGEST] = id.len() as u8;
        (!id.is_empty()).then_some(place)
    }
}

#[derive(Default)]
pub struct CustomerIds {
    /// As many as a power of two, or none. An id stands at the first place from its own on that was free.
    places: Vec<Place>,
    taken: usize,
    others: HashSet<String>,
    state: RandomState,
}

impl CustomerIds {
    pub fn contains(&self, id: &str) -> bool {
        match Place::of(id) {
            Some(wanted) => self.find(&wanted).is_some_and(|nth| self.places[nth] == wanted),
            None => self.others.contains(id),
        }
    }

    /// Where `contains` looks first.
    pub fn place_of(&self, id: &str) -> Option<&Place> {
        self.places.get(self.first(&Place::of(id)?))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.taken + self.others.len()
    }

    fn first(&self, wanted: &Place) -> usize {
        self.state.hash_one(wanted.0) as usize & self.places.len().wrapping_sub(1)
    }

    /// Where it stands, or could stand. `None`: there are no places.
    fn find(&self, wanted: &Place) -> Option<usize> {
        let count = self.places.len();
        let first = self.first(wanted).min(count);
        (first..count)
            .chain(0..first)
            .find(|nth| self.places[*nth] == *wanted || self.places[*nth] == EMPTY)
    }

    fn insert(&mut self, id: String) {
        let Some(new) = Place::of(&id) else {
            self.others.insert(id);
            return;
        };
        if (self.taken + 1) * 4 > self.places.len() * 3 {
            let larger = vec![EMPTY; (self.places.len() * 2).max(64)];
            for place in std::mem::replace(&mut self.places, larger) {
                if place != EMPTY
                    && let Some(nth) = self.find(&place)
                {
                    self.places[nth] = place;
                }
            }
        }
        if let Some(nth) = self.find(&new) {
            self.taken += usize::from(self.places[nth] == EMPTY);
            self.places[nth] = new;
        }
    }
}

impl Extend<String> for CustomerIds {
    fn extend<T: IntoIterator<Item = String>>(&mut self, ids: T) {
        ids.into_iter().for_each(|id| self.insert(id));
    }
}

impl FromIterator<String> for CustomerIds {
    fn from_iter<T: IntoIterator<Item = String>>(ids: T) -> CustomerIds {
        let mut set = CustomerIds::default();
        set.extend(ids);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_what_was_put_there_and_nothing_else() {
        let id = |n: usize| match n % 3 {
            0 => format!("cus_{n}"),
            1 => format!("{n}{}", "x".repeat(31 - n.to_string().len())),
            _ => format!("{n}-{}", "long".repeat(n % 20)),
        };
        let mut ids = CustomerIds::default();
        assert!(!ids.contains("cus_0") && !ids.contains(""));
        assert!(ids.place_of("cus_0").is_none());
        for n in 0..5000 {
            assert!(!ids.contains(&id(n)), "{n}");
            // Again: nothing is there twice.
            ids.extend([id(n), id(n)]);
            assert_eq!(ids.len(), n + 1);
            assert!(ids.contains(&id(n)));
        }
        let all: CustomerIds = (0..5000).map(id).collect();
        for n in 0..10_000 {
            assert_eq!(all.place_of(&id(n)).is_some(), id(n).len() <= LONGEST, "{n}");
            assert_eq!(
                (ids.contains(&id(n)), all.contains(&id(n))),
                (n < 5000, n < 5000),
                "{n}"
            );
        }
        ids.extend([String::new()]);
        assert!(ids.contains(""));
        assert!(!all.contains(""));
    }

    #[test]
    fn long_ids_alone_are_no_reason_to_know_a_short_one() {
        let long = "c".repeat(LONGEST + 1);
        let mut ids: CustomerIds = [long.clone()].into_iter().collect();
        assert!(ids.contains(&long) && !ids.contains("short"));
        assert!(ids.place_of("short").is_none() && ids.place_of(&long).is_none());
        ids.extend(["short".to_owned()]);
        assert!(ids.contains(&long) && ids.contains("short"));
        assert_eq!(ids.len(), 2);
    }
}
