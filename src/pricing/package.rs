//! Packages: a quantity is counted in blocks before it is priced (Stripe `transform_quantity`).

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{One, Zero};
use serde::{Deserialize, Serialize};

use super::Dec;
use super::money::as_ratio;

/// What becomes of a package that is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Round {
    /// It is billed whole.
    Up,
    /// It is not billed.
    Down,
}

/// Divides the quantity by the package size and rounds to whole packages. Per-unit prices only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformQuantity {
    /// Units in a package, at least 1.
    pub divide_by: i64,
    pub round: Round,
}

impl TransformQuantity {
    /// The packages to bill for a quantity, which is not negative.
    pub(super) fn packages(&self, quantity: &Dec) -> Dec {
        let (units, denominator) = as_ratio(quantity);
        let package = denominator * self.divide_by.max(1);
        let full: BigInt = &units / &package;
        let rest: BigInt = units % package;
        let packages = if self.round == Round::Up && !rest.is_zero() {
            full + BigInt::one()
        } else {
            full
        };
        Dec::from(packages)
    }
}
