//! How an amount came about: the parts of a price that a quantity reaches, one step each. Their amounts add up to the amount.

use std::cmp::Ordering;

use bigdecimal::{Signed, Zero};

use super::tiers::tiers_with_ends;
use super::{Bounds, Dec, Model, Round, Tier, TiersMode, amount};

/// Which part of a price a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every unit at one price.
    Unit,
    /// Packages of units at one price, and what becomes of the one that is not full.
    Package { divide_by: i64, round: Round },
    /// One tier, by its place from 1.
    Tier { place: usize, mode: TiersMode },
    /// What is added to reach the minimum.
    Minimum,
    /// What is left off beyond the maximum.
    Maximum,
}

/// One step from a quantity to its amount, in minor units.
#[derive(Debug, Clone)]
pub struct Step {
    pub part: Part,
    /// Units, or packages.
    pub quantity: Dec,
    /// Where a tier begins, exclusive but for the first.
    pub from: Option<Dec>,
    /// The last quantity of a tier; `None`: it has no end.
    pub up_to: Option<Dec>,
    pub unit_amount: Option<Dec>,
    /// Of a tier; of a bound the bound itself.
    pub flat_amount: Option<Dec>,
    pub amount: Dec,
}

impl Step {
    /// `quantity` units at a price, without more to say.
    fn of(part: Part, quantity: Dec, unit_amount: &Dec) -> Self {
        Self {
            part,
            amount: unit_amount * &quantity,
            quantity,
            from: None,
            up_to: None,
            unit_amount: Some(unit_amount.clone()),
            flat_amount: None,
        }
    }
}

/// The steps from a quantity to what it costs within the bounds: at least one, whose amounts add up to exactly that.
pub fn explain(model: &Model, bounds: &Bounds, quantity: &Dec) -> Vec<Step> {
    let zero = Dec::zero();
    let quantity = if quantity.is_negative() { &zero } else { quantity };
    let mut steps = match model {
        Model::PerUnit {
            unit_amount,
            transform: None,
        } => vec![Step::of(Part::Unit, quantity.clone(), unit_amount)],
        Model::PerUnit {
            unit_amount,
            transform: Some(transform),
        } => {
            let part = Part::Package {
                divide_by: transform.divide_by,
                round: transform.round,
            };
            vec![Step::of(part, transform.packages(quantity), unit_amount)]
        }
        Model::Tiered { mode, tiers } => reached(*mode, tiers, quantity),
    };
    let unbounded = amount(model, quantity);
    let bounded = bounds.clamp(unbounded.clone());
    let part = match bounded.cmp(&unbounded) {
        Ordering::Less => Part::Maximum,
        Ordering::Equal => return steps,
        Ordering::Greater => Part::Minimum,
    };
    steps.push(Step {
        part,
        quantity: quantity.clone(),
        from: None,
        up_to: None,
        unit_amount: None,
        amount: &bounded - unbounded,
        flat_amount: Some(bounded),
    });
    steps
}

/// Graduated: every tier up to the one that the quantity falls in; volume: that one.
fn reached(mode: TiersMode, tiers: &[Tier], quantity: &Dec) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut from = Dec::zero();
    for (index, (tier, end)) in tiers_with_ends(tiers).enumerate() {
        let beyond = end.filter(|end| quantity > *end);
        let units = match mode {
            TiersMode::Graduated => beyond.unwrap_or(quantity) - &from,
            TiersMode::Volume => quantity.clone(),
        };
        if mode == TiersMode::Graduated || beyond.is_none() {
            let part = Part::Tier { place: index + 1, mode };
            steps.push(Step {
                from: Some(from.clone()),
                up_to: end.cloned(),
                unit_amount: tier.unit_amount.clone(),
                flat_amount: tier.flat_amount.clone(),
                amount: tier.amount(&units),
                part,
                quantity: units,
            });
        }
        match beyond {
            Some(end) => from = end.clone(),
            None => break,
        }
    }
    steps
}
