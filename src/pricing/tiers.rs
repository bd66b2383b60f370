//! Tiered prices: the unit price depends on how many units there are.

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
