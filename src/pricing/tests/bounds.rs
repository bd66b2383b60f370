//! Minimum and maximum of a period: each model by hand, and the laws of a clamp.

use proptest::prelude::*;

use super::examples::{FLAT_TIERS, TIERS};
use super::*;

fn between(minimum: Option<i64>, maximum: Option<i64>) -> Bounds {
    Bounds { minimum, maximum }
}

/// Each model's amounts are those of the examples; what is below the minimum or above the maximum becomes it.
#[test]
fn every_model_is_bounded() {
    let bounds = between(Some(40), Some(120));
    for (model, cases) in [
        // 5 → 35, 6 → 39, 20 → 120, 25 → 150.
        (
            tiered(TiersMode::Volume, &TIERS),
            [("0", "40"), ("6", "40"), ("20", "120"), ("25", "120")],
        ),
        // 6 → 41.5, 20 → 127.5; 6 units are 41.5, which is not rounded here.
        (
            tiered(TiersMode::Graduated, &TIERS),
            [("5", "40"), ("6", "41.5"), ("20", "120"), ("1e100", "120")],
        ),
        // A first flat amount of 10; 12 → 111.
        (
            tiered(TiersMode::Graduated, &FLAT_TIERS),
            [("0", "40"), ("-5", "40"), ("12", "111"), ("16", "120")],
        ),
        (
            per_unit("7"),
            [("0", "40"), ("5.714285714285", "40"), ("5.8", "40.6"), ("18", "120")],
        ),
        (
            package("30", 10, Round::Up),
            [("10", "40"), ("11", "60"), ("40", "120"), ("41", "120")],
        ),
        (
            package("30", 10, Round::Down),
            [("19", "40"), ("20", "60"), ("49", "120"), ("50", "120")],
        ),
    ] {
        for (quantity, expected) in cases {
            let billed = bounds.clamp(amount(&model, &dec(quantity)));
            assert_eq!(plain_string(&billed), expected, "{quantity} of {model:?}");
        }
    }
}

/// Yen have no smaller unit: 3 units at 33.5 yen are 100.5 yen, a line of 101; with a minimum of 500 yen, 500.
#[test]
fn yen() {
    let units = amount(&per_unit("33.5"), &dec("3"));
    assert_eq!(round_minor(&units), Some(101));
    assert_eq!(round_minor(&between(Some(500), None).clamp(units.clone())), Some(500));
    assert_eq!(round_minor(&between(None, Some(100)).clamp(units)), Some(100));
}

/// Dinars have thousandths: 3 units at 1.2345 fils are 3.7035, a line of 4 fils, not of 0 or 10; 2.5 KWD (2,500 fils) at least.
#[test]
fn dinars() {
    let units = amount(&per_unit("1.2345"), &dec("3"));
    assert_eq!(round_minor(&units), Some(4));
    assert_eq!(round_minor(&between(Some(2500), Some(9999)).clamp(units)), Some(2500));
    let tiers = tiered(TiersMode::Graduated, &[("100", "12.5", ""), ("", "9.25", "")]);
    // 100 × 12.5 + 51 × 9.25 = 1,721.75 fils.
    assert_eq!(round_minor(&amount(&tiers, &dec("151"))), Some(1722));
}

fn any_bounds() -> impl Strategy<Value = Bounds> {
    let amount = || prop::option::of(prop_oneof![0..1_000_000_i64, 0..=i64::MAX]);
    (amount(), amount()).prop_map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => between(Some(a.min(b)), Some(a.max(b))),
        _ => between(a, b),
    })
}

fn any_amount() -> impl Strategy<Value = Dec> {
    (0..=i64::MAX, 0..13_i64).prop_map(|(units, places)| Dec::new(units.into(), places))
}

proptest! {
    #[test]
    fn a_clamped_amount_is_itself_or_the_bound_it_is_beyond(bounds in any_bounds(), amount in any_amount()) {
        let clamped = bounds.clamp(amount.clone());
        let above = bounds.minimum.is_none_or(|least| clamped >= least);
        let below = bounds.maximum.is_none_or(|most| clamped <= most);
        prop_assert!(above && below, "{clamped}");
        let beyond = bounds.minimum.is_some_and(|least| amount < least) || bounds.maximum.is_some_and(|most| amount > most);
        prop_assert_eq!(clamped.cmp(&amount).is_ne(), beyond);
        prop_assert!(bounds.clamp(clamped.clone()).cmp(&clamped).is_eq(), "again changes nothing");
    }

    #[test]
    fn clamping_keeps_the_order_and_commutes_with_rounding(bounds in any_bounds(), a in any_amount(), b in any_amount()) {
        let (less, more) = if a <= b { (a, b) } else { (b, a) };
        prop_assert!(bounds.clamp(less.clone()) <= bounds.clamp(more));
        // A line is never rounded out of its bounds: rounding first and clamping then is the same.
        let rounded = round_minor(&bounds.clamp(less.clone())).unwrap();
        let clamped = bounds.clamp(Dec::from(round_minor(&less).unwrap()));
        prop_assert!(clamped.cmp(&Dec::from(rounded)).is_eq());
    }
}
