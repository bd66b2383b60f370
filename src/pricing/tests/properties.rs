//! What holds for every price and quantity. The expected amounts are computed on integers, without any decimal type:
//! prices are whole numbers of 10^-12 and quantities of 10^-6.

use std::cmp::Ordering;

use bigdecimal::Signed;
use bigdecimal::num_bigint::BigInt;
use proptest::prelude::*;

use super::*;

fn price_dec(picos: i64) -> Dec {
    Dec::new(BigInt::from(picos), 12)
}

fn quantity_dec(micros: i64) -> Dec {
    Dec::new(BigInt::from(micros), 6)
}

/// One tier in integers: width in `unit` steps, price and flat amount in 10^-12.
type Step = (i64, i64, i64);

fn steps(width: impl Strategy<Value = i64> + Clone) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((width, 0..5_000_000_000_000_i64, 0..9_000_000_000_000_i64), 1..7)
}

fn model_of(mode: TiersMode, steps: &[Step], edge: impl Fn(i64) -> Dec) -> Model {
    let ends = ends_of(steps);
    let tiers = std::iter::zip(steps, ends)
        .enumerate()
        .map(|(index, ((_, unit, flat), end))| Tier {
            up_to: (index + 1 < steps.len()).then(|| edge(end)),
            unit_amount: Some(price_dec(*unit)),
            flat_amount: Some(price_dec(*flat)),
        })
        .collect();
    Model::Tiered { mode, tiers }
}

fn ends_of(steps: &[Step]) -> Vec<i64> {
    steps
        .iter()
        .scan(0, |end, (width, ..)| {
            *end += width;
            Some(*end)
        })
        .collect()
}

/// The tier of a quantity given in the steps' unit: the first whose end is not before it, else the last.
fn tier_of(steps: &[Step], quantity: i64) -> usize {
    ends_of(&steps[..steps.len() - 1])
        .iter()
        .position(|end| quantity <= *end)
        .unwrap_or(steps.len() - 1)
}

proptest! {
    /// Unit by unit: each at the price of the tier that it falls in, and the flat amount of every tier reached.
    #[test]
    fn graduated_is_the_sum_over_units(steps in steps(1..40_i64), quantity in 0..300_i64) {
        let units: i128 = (1..=quantity).map(|unit| i128::from(steps[tier_of(&steps, unit)].1)).sum();
        let flats: i128 = steps[..=tier_of(&steps, quantity)].iter().map(|step| i128::from(step.2)).sum();
        let billed = amount(&model_of(TiersMode::Graduated, &steps, Dec::from), &Dec::from(quantity));
        prop_assert_eq!(billed.cmp(&Dec::new(BigInt::from(units + flats), 12)), Ordering::Equal);
    }

    #[test]
    fn volume_is_the_price_of_one_tier(steps in steps(1..40_000_000_i64), quantity in 0..300_000_000_i64) {
        let (_, unit, flat) = steps[tier_of(&steps, quantity)];
        let expected = i128::from(unit) * i128::from(quantity) + i128::from(flat) * 1_000_000;
        let billed = amount(&model_of(TiersMode::Volume, &steps, quantity_dec), &quantity_dec(quantity));
        prop_assert_eq!(billed.cmp(&Dec::new(BigInt::from(expected), 18)), Ordering::Equal);
    }

    #[test]
    fn graduated_never_falls(steps in steps(1..40_000_000_i64), a in 0..300_000_000_i64, b in 0..300_000_000_i64) {
        let model = model_of(TiersMode::Graduated, &steps, quantity_dec);
        prop_assert!(amount(&model, &quantity_dec(a.min(b))) <= amount(&model, &quantity_dec(a.max(b))));
    }

    /// Past the end of a tier the amount goes on from where it was, plus only the flat amount of the tier entered.
    #[test]
    fn graduated_is_continuous_up_to_flat_amounts(steps in steps(1..40_000_000_i64), step in 1..1_000_i64) {
        let model = model_of(TiersMode::Graduated, &steps, quantity_dec);
        for (index, end) in ends_of(&steps[..steps.len() - 1]).into_iter().enumerate() {
            // Smaller than any tier is wide: thousandths of the quantities' last place.
            let beyond = Dec::new(BigInt::from(step), 9);
            let (_, unit, flat) = steps[index + 1];
            let risen = amount(&model, &(quantity_dec(end) + &beyond)) - amount(&model, &quantity_dec(end));
            prop_assert_eq!(risen.cmp(&(price_dec(flat) + price_dec(unit) * beyond)), Ordering::Equal);
            let before = Dec::new(BigInt::from(step), 9);
            let left = amount(&model, &quantity_dec(end)) - amount(&model, &(quantity_dec(end) - &before));
            prop_assert_eq!(left.cmp(&(price_dec(steps[index].1) * before)), Ordering::Equal);
        }
    }

    /// Tiers marked by flat amounts of 1, 10, 100…: volume shows the one that a quantity falls in, graduated all up to it.
    #[test]
    fn a_quantity_falls_in_exactly_one_tier(
        widths in prop::collection::vec(1..3_000_000_i64, 1..9), near in 0..9_usize, shift in -2..3_i64, any in 0..20_000_000_i64,
    ) {
        let marked: Vec<Step> =
            widths.iter().enumerate().map(|(index, width)| (*width, 0, 10_i64.pow(index as u32))).collect();
        // Right at an edge, just before and after it, and anywhere.
        let edge = ends_of(&marked)[near % marked.len()];
        for quantity in [(edge + shift).max(0), any] {
            let tier = tier_of(&marked, quantity);
            let volume = amount(&model_of(TiersMode::Volume, &marked, quantity_dec), &quantity_dec(quantity));
            prop_assert_eq!(volume.cmp(&price_dec(10_i64.pow(tier as u32))), Ordering::Equal);
            let graduated = amount(&model_of(TiersMode::Graduated, &marked, quantity_dec), &quantity_dec(quantity));
            let ones = "1".repeat(tier + 1).parse().unwrap();
            prop_assert_eq!(graduated.cmp(&price_dec(ones)), Ordering::Equal);
        }
    }

    #[test]
    fn packages_cover_the_quantity(quantity in 0..i64::MAX, divide_by in 1..i64::MAX, small in 1..100_000_i64) {
        for divide_by in [divide_by, small] {
            let bill = |round| {
                let transform = Some(TransformQuantity { divide_by, round });
                amount(&Model::PerUnit { unit_amount: Dec::from(1), transform }, &quantity_dec(quantity))
            };
            let package = i128::from(divide_by) * 1_000_000;
            let full = i128::from(quantity) / package;
            let started = full + i128::from(i128::from(quantity) % package != 0);
            prop_assert_eq!(bill(Round::Down).cmp(&Dec::from(full)), Ordering::Equal);
            prop_assert_eq!(bill(Round::Up).cmp(&Dec::from(started)), Ordering::Equal);
        }
    }

    #[test]
    fn per_unit_multiplies_exactly(a in any::<i128>(), b in any::<i128>(), places in (0..40_i64, 0..40_i64)) {
        let (quantity, unit_amount) = (Dec::new(BigInt::from(a).abs(), places.0), Dec::new(BigInt::from(b), places.1));
        let expected = Dec::new(BigInt::from(a).abs() * BigInt::from(b), places.0 + places.1);
        let billed = amount(&Model::PerUnit { unit_amount, transform: None }, &quantity);
        prop_assert_eq!(billed.cmp(&expected), Ordering::Equal);
    }
}
