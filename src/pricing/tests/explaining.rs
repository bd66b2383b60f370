//! The steps of every price: worked out by hand for each model, and adding up to the amount for all quantities.

use std::cmp::Ordering;

use bigdecimal::Zero;
use bigdecimal::num_bigint::BigInt;
use proptest::prelude::*;

use super::*;
use crate::pricing::{Part, Step, explain};

const TIERS: [(&str, &str, &str); 3] = [("10", "5", "100"), ("20.5", "", "7"), ("", "0.25", "")];

/// part, quantity, from, up_to, unit_amount, flat_amount, amount; "-" where there is none.
fn told(step: &Step) -> String {
    let optional = |value: &Option<Dec>| value.as_ref().map_or_else(|| "-".to_owned(), plain_string);
    let part = match step.part {
        Part::Unit => "unit".to_owned(),
        Part::Package { divide_by, round } => format!("package {divide_by} {round:?}"),
        Part::Tier { place, mode } => format!("tier {place} {mode:?}"),
        Part::Minimum => "minimum".to_owned(),
        Part::Maximum => "maximum".to_owned(),
    };
    [
        part,
        plain_string(&step.quantity),
        optional(&step.from),
        optional(&step.up_to),
        optional(&step.unit_amount),
        optional(&step.flat_amount),
        plain_string(&step.amount),
    ]
    .join(" | ")
}

#[track_caller]
fn explains(model: &Model, bounds: Bounds, quantity: &str, expected: &[&str]) {
    let steps: Vec<String> = explain(model, &bounds, &dec(quantity)).iter().map(told).collect();
    assert_eq!(steps, expected, "quantity {quantity}");
}

#[test]
fn per_unit_and_packages_are_one_step() {
    let none = Bounds::default();
    explains(&per_unit("2.5"), none, "3", &["unit | 3 | - | - | 2.5 | - | 7.5"]);
    explains(&per_unit("2.5"), none, "-3", &["unit | 0 | - | - | 2.5 | - | 0"]);
    explains(
        &package("40", 4, Round::Up),
        none,
        "9",
        &["package 4 Up | 3 | - | - | 40 | - | 120"],
    );
    explains(
        &package("40", 4, Round::Down),
        none,
        "9",
        &["package 4 Down | 2 | - | - | 40 | - | 80"],
    );
}

/// Stripe: graduated charges each tier up to the quantity, volume the one that it falls in; a flat amount once a tier is reached.
#[test]
fn tiers_reached_are_steps() {
    let none = Bounds::default();
    let graduated = tiered(TiersMode::Graduated, &TIERS);
    explains(
        &graduated,
        none,
        "0",
        &["tier 1 Graduated | 0 | 0 | 10 | 5 | 100 | 100"],
    );
    explains(
        &graduated,
        none,
        "10",
        &["tier 1 Graduated | 10 | 0 | 10 | 5 | 100 | 150"],
    );
    explains(
        &graduated,
        none,
        "22.5",
        &[
            "tier 1 Graduated | 10 | 0 | 10 | 5 | 100 | 150",
            "tier 2 Graduated | 10.5 | 10 | 20.5 | - | 7 | 7",
            "tier 3 Graduated | 2 | 20.5 | - | 0.25 | - | 0.5",
        ],
    );
    let volume = tiered(TiersMode::Volume, &TIERS);
    explains(&volume, none, "10", &["tier 1 Volume | 10 | 0 | 10 | 5 | 100 | 150"]);
    explains(&volume, none, "20.5", &["tier 2 Volume | 20.5 | 10 | 20.5 | - | 7 | 7"]);
    explains(&volume, none, "22", &["tier 3 Volume | 22 | 20.5 | - | 0.25 | - | 5.5"]);
}

#[test]
fn bounds_are_a_step_of_what_they_change() {
    let bounds = Bounds {
        minimum: Some(20),
        maximum: Some(30),
    };
    let unit = |quantity: &str, amount: &str| format!("unit | {quantity} | - | - | 2.5 | - | {amount}");
    let model = per_unit("2.5");
    explains(
        &model,
        bounds,
        "3",
        &[&unit("3", "7.5"), "minimum | 3 | - | - | - | 20 | 12.5"],
    );
    for (quantity, amount) in [("8", "20"), ("10", "25"), ("12", "30")] {
        explains(&model, bounds, quantity, &[&unit(quantity, amount)]);
    }
    explains(
        &model,
        bounds,
        "13",
        &[&unit("13", "32.5"), "maximum | 13 | - | - | - | 30 | -2.5"],
    );
}

fn decimals(digits: i64) -> impl Strategy<Value = Dec> + Clone {
    (0..digits, 0..13_i64).prop_map(|(units, places)| Dec::new(BigInt::from(units), places))
}

fn models() -> impl Strategy<Value = Model> {
    let unit = decimals(9_000_000);
    let transform = prop::option::of(
        (1..50_i64, any::<bool>()).prop_map(|(divide_by, up)| TransformQuantity {
            divide_by,
            round: if up { Round::Up } else { Round::Down },
        }),
    );
    let tier = (
        decimals(50_000),
        prop::option::of(unit.clone()),
        prop::option::of(unit.clone()),
    );
    let tiers = (any::<bool>(), prop::collection::vec(tier, 1..6));
    prop_oneof![
        (unit, transform).prop_map(|(unit_amount, transform)| Model::PerUnit { unit_amount, transform }),
        tiers.prop_map(|(graduated, widths)| {
            let last = widths.len() - 1;
            let mut end = Dec::zero();
            let tiers = widths
                .into_iter()
                .enumerate()
                .map(|(index, (width, unit_amount, flat_amount))| {
                    end += width + Dec::new(BigInt::from(1), 6);
                    Tier {
                        up_to: (index < last).then(|| end.clone()),
                        unit_amount,
                        flat_amount,
                    }
                });
            let mode = if graduated {
                TiersMode::Graduated
            } else {
                TiersMode::Volume
            };
            Model::Tiered {
                mode,
                tiers: tiers.collect(),
            }
        }),
    ]
}

/// The end of a tier, if the model has any, where an off-by-one would show.
fn edge(model: &Model, near: usize) -> Option<Dec> {
    match model {
        Model::Tiered { tiers, .. } => tiers[near % tiers.len()].up_to.clone(),
        Model::PerUnit { .. } => None,
    }
}

proptest! {
    #[test]
    fn steps_add_up_to_the_amount(
        model in models(), any in decimals(400_000), near in 0..6_usize, negative in any::<bool>(),
        minimum in prop::option::of(0..100_000_i64), above in prop::option::of(0..100_000_i64),
    ) {
        let maximum = above.map(|above| minimum.unwrap_or(0) + above);
        let quantity = edge(&model, near).unwrap_or(any.clone());
        for bounds in [Bounds::default(), Bounds { minimum, maximum }] {
            for quantity in [&any, &quantity, &(if negative { -&any } else { &quantity + &any })] {
                let steps = explain(&model, &bounds, quantity);
                let sum = steps.iter().fold(Dec::zero(), |sum, step| sum + &step.amount);
                prop_assert_eq!(sum.cmp(&bounds.clamp(amount(&model, quantity))), Ordering::Equal);
                // Units in graduated tiers add up to the quantity, and each step is its price times them.
                let units = steps.iter().filter(|step| matches!(step.part, Part::Tier { .. } | Part::Unit))
                    .fold(Dec::zero(), |sum, step| sum + &step.quantity);
                if !steps.iter().any(|step| matches!(step.part, Part::Package { .. })) {
                    prop_assert_eq!(units.cmp(quantity.max(&Dec::zero())), Ordering::Equal);
                }
                for step in steps.iter().filter(|step| !matches!(step.part, Part::Minimum | Part::Maximum)) {
                    let zero = Dec::zero();
                    let told = step.unit_amount.as_ref().unwrap_or(&zero) * &step.quantity
                        + step.flat_amount.as_ref().unwrap_or(&zero);
                    prop_assert_eq!(step.amount.cmp(&told), Ordering::Equal);
                }
            }
        }
    }
}
