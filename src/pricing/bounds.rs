//! The least and the most that a price bills in a period.

use serde::{Deserialize, Serialize};

use super::Dec;

/// `minimum_amount` and `maximum_amount` of a price, in minor units, not negative, the minimum not above the maximum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub minimum: Option<i64>,
    pub maximum: Option<i64>,
}

impl Bounds {
    /// The amount itself, or the bound that it is beyond. Both bounds are whole, so rounding afterwards cannot leave them.
    pub fn clamp(&self, amount: Dec) -> Dec {
        let least = self.minimum.map(Dec::from).filter(|least| amount < *least);
        let most = self.maximum.map(Dec::from).filter(|most| amount > *most);
        most.or(least).unwrap_or(amount)
    }
}
