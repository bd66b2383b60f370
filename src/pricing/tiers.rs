//! Tiered prices: the unit price depends on how many units there are.

use bigdecimal::Zero;
use serde::{Deserialize, Serialize};

use super::Dec;
use super::money::plain_option;

/// Which units a tier's price applies to (Stripe `tiers_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TiersMode {
    /// Each unit at the price of the tier that it falls in.
    Graduated,
    /// Every unit at the price of the tier that the whole quantity falls in.
    Volume,
}

/// One step of a tiered price. It begins where the tier before it ends (the first at zero), exclusive.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Last quantity of the tier, inclusive, possibly fractional; `None` is Stripe's `inf`.
    #[serde(with = "plain_option")]
    pub up_to: Option<Dec>,
    /// Minor units per unit; `None` counts as zero.
    #[serde(with = "plain_option")]
    pub unit_amount: Option<Dec>,
    /// Minor units billed once when the tier is reached; `None` counts as zero.
    #[serde(with = "plain_option")]
    pub flat_amount: Option<Dec>,
}

// By `cmp`: BigDecimal's `==` overflows on some values of different scale (bigdecimal 0.4.11, impl_cmp.rs).
impl PartialEq for Tier {
    fn eq(&self, other: &Self) -> bool {
        self.up_to.cmp(&other.up_to).is_eq()
            && self.unit_amount.cmp(&other.unit_amount).is_eq()
            && self.flat_amount.cmp(&other.flat_amount).is_eq()
    }
}

impl Tier {
    /// `units` at this tier's unit price, and its flat amount.
    pub(super) fn amount(&self, units: &Dec) -> Dec {
        let variable = self
            .unit_amount
            .as_ref()
            .map_or_else(Dec::zero, |unit_amount| unit_amount * units);
        match &self.flat_amount {
            Some(flat_amount) => variable + flat_amount,
            None => variable,
        }
    }
}

/// The exact amount of a quantity, which is not negative. The first tier is reached at zero, so that a flat amount in it
/// is billed even without usage. Whatever its `up_to` says, the last tier has no end.
pub(super) fn amount(mode: TiersMode, tiers: &[Tier], quantity: &Dec) -> Dec {
    match mode {
        TiersMode::Graduated => graduated(tiers, quantity),
        TiersMode::Volume => volume(tiers, quantity),
    }
}

fn graduated(tiers: &[Tier], quantity: &Dec) -> Dec {
    let mut total = Dec::zero();
    let mut start = Dec::zero();
    for tier in tiers_with_ends(tiers) {
        match tier {
            (tier, Some(end)) if quantity > end => {
                total += tier.amount(&(end - &start));
                start = end.clone();
            }
            (tier, _) => return total + tier.amount(&(quantity - start)),
        }
    }
    total
}

fn volume(tiers: &[Tier], quantity: &Dec) -> Dec {
    tiers_with_ends(tiers)
        .find(|(_, end)| end.is_none_or(|end| quantity <= end))
        .map_or_else(Dec::zero, |(tier, _)| tier.amount(quantity))
}

/// Each tier with its inclusive end; the last has none.
pub(super) fn tiers_with_ends(tiers: &[Tier]) -> impl Iterator<Item = (&Tier, Option<&Dec>)> {
    let last = tiers.len().saturating_sub(1);
    tiers
        .iter()
        .enumerate()
        .map(move |(index, tier)| (tier, tier.up_to.as_ref().filter(|_| index < last)))
}
