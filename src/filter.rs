//! A set of identities that answers "certainly not" or "maybe": a Bloom filter in blocks of a cache line each.
//!
//! It is stored, so what [`fingerprint`] and [`Filter`] make of an identity may never change, on no machine.

/// Bits for each identity. Together with [`PROBES`]: of the identities that are not there, one in 150 may be.
const BITS_PER_ENTRY: u64 = 12;
const PROBES: u32 = 7;
const BLOCK: usize = 64;
const BITS_OF_BLOCK: u64 = BLOCK as u64 * 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    bytes: Vec<u8>,
}

impl Filter {
    /// For about so many identities. More are kept too, at the price of more "maybe".
    pub fn with_room_for(entries: u64) -> Filter {
        Filter {
            bytes: vec![0; Filter::bytes_for(entries)],
        }
    }

    pub fn bytes_for(entries: u64) -> usize {
        let blocks = entries.saturating_mul(BITS_PER_ENTRY).div_ceil(BITS_OF_BLOCK);
        blocks.clamp(1, u32::MAX.into()) as usize * BLOCK
    }

    /// `None`: not the bytes of a filter.
    pub fn of_bytes(bytes: Vec<u8>) -> Option<Filter> {
        (!bytes.is_empty() && bytes.len().is_multiple_of(BLOCK)).then_some(Filter { bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn add(&mut self, fingerprint: u64) {
        let block = self.block(fingerprint);
        for bit in bits(fingerprint) {
            self.bytes[block + bit / 8] |= 1 << (bit % 8);
        }
    }

    /// `false`: it was certainly never added.
    pub fn may_hold(&self, fingerprint: u64) -> bool {
        let block = self.block_of(fingerprint);
        bits(fingerprint).all(|bit| block[bit / 8] & 1 << (bit % 8) != 0)
    }

    /// All that is read for the fingerprint.
    pub fn block_of(&self, fingerprint: u64) -> &[u8] {
        &self.bytes[self.block(fingerprint)..][..BLOCK]
    }

    /// Where the fingerprint's block begins.
    fn block(&self, fingerprint: u64) -> usize {
        let blocks = (self.bytes.len() / BLOCK) as u128;
        ((u128::from(fingerprint) * blocks) >> 64) as usize * BLOCK
    }
}

/// Its bits within the block; from other bits of the fingerprint than the block.
fn bits(fingerprint: u64) -> impl Iterator<Item = usize> {
    let mixed = mix(fingerprint, 0x9E37_79B9_7F4A_7C15);
    (0..PROBES).map(move |probe| (mixed >> (9 * probe)) as usize % (BLOCK * 8))
}

/// 64 bits of an identity.
pub fn fingerprint(identity: [&[u8]; 3]) -> u64 {
    let mut state = 0x243F_6A88_85A3_08D3;
    for part in identity {
        state = mix(state, part.len() as u64);
        for word in part.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            state = mix(state, u64::from_le_bytes(padded));
        }
    }
    mix(state, 0x1319_8A2E_0370_7344)
}

fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word ^ 0xA409_3822_299F_31D0) * 0xE703_7ED1_A0B4_28DB;
    (product as u64 ^ (product >> 64) as u64).wrapping_add(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(n: u32) -> u64 {
        fingerprint([
            format!("cus_{}", n % 100).as_bytes(),
            b"api_calls",
            n.to_string().as_bytes(),
        ])
    }

    #[test]
    fn what_was_not_added_is_mostly_ruled_out() {
        for entries in [1, 10, 1_000, 100_000] {
            let mut filter = Filter::with_room_for(entries.into());
            (0..entries).for_each(|n| filter.add(identity(n)));
            let maybe = (entries..entries + 100_000)
                .filter(|n| filter.may_hold(identity(*n)))
                .count();
            assert!(maybe < 1_500, "{entries}: {maybe} of 100000");
        }
    }

    #[test]
    fn all_blocks_are_used_alike() {
        let mut filter = Filter::with_room_for(100_000);
        (0..100_000).for_each(|n| filter.add(identity(n)));
        let set = |block: &[u8]| block.iter().map(|byte| byte.count_ones()).sum::<u32>();
        let counts: Vec<u32> = filter.bytes().chunks(BLOCK).map(set).collect();
        // 43 identities of 7 bits each, 223 of 512 bits on average.
        assert!(counts.iter().all(|set| (60..420).contains(set)), "{counts:?}");
    }

    /// Stored filters are read by other builds, and on other machines.
    #[test]
    fn fingerprints_stay_what_they_are() {
        assert_eq!(fingerprint([b"", b"", b""]), GOLDEN[0]);
        assert_eq!(fingerprint([b"acme", b"api_calls", b"0123456789abcdef"]), GOLDEN[1]);
        let mut filter = Filter::with_room_for(1);
        filter.add(GOLDEN[1]);
        let set: Vec<usize> = (0..512)
            .filter(|bit| filter.bytes()[bit / 8] & 1 << (bit % 8) != 0)
            .collect();
        assert_eq!(set, SET);
    }

    const GOLDEN: [u64; 2] = [0x6ABD_A397_E144_28EC, 0x1975_F287_DC1C_CF33];
    const SET: [usize; 7] = [149, 267, 323, 355, 432, 455, 498];

    proptest! {
        #[test]
        fn what_was_added_is_never_ruled_out(
            entries in prop::collection::vec(("\\PC{0,20}", "\\PC{0,9}", "\\PC{0,40}"), 1..200),
            room in 0_u64..300,
        ) {
            let mut filter = Filter::with_room_for(room);
            let of = |(a, b, c): &(String, String, String)| fingerprint([a.as_bytes(), b.as_bytes(), c.as_bytes()]);
            entries.iter().for_each(|entry| filter.add(of(entry)));
            let filter = Filter::of_bytes(filter.bytes().to_vec()).unwrap();
            for entry in &entries {
                prop_assert!(filter.may_hold(of(entry)));
            }
        }

        #[test]
        fn parts_do_not_run_into_each_other(a in "[a-z]{1,9}", b in "[a-z]{1,9}", c in "[a-z]{0,9}") {
            let moved = format!("{}{}", a, &b[..1]);
            prop_assert_ne!(
                fingerprint([a.as_bytes(), b.as_bytes(), c.as_bytes()]),
                fingerprint([moved.as_bytes(), &b.as_bytes()[1..], c.as_bytes()])
            );
        }
    }
}
