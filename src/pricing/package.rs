//! Packages: a quantity is counted in blocks before it is priced (Stripe `transform_quantity`).

use serde::{Deserialize, Serialize};

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
