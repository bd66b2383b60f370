//! Money, tiers, packages and bounds: the one place where a quantity becomes an amount. Everything here is exact; amounts are
//! rounded once, at the very end, by whoever writes an invoice line.

mod bounds;
mod explain;
mod model;
mod money;
mod package;
mod quantity;
mod tiers;

pub use bounds::Bounds;
pub use explain::{Part, Step, explain};
pub use model::{Model, amount};
pub use money::{Dec, normalise, parse_dec, plain_string, round_minor};
pub(crate) use money::{as_ratio, round_ratio};
pub use package::{Round, TransformQuantity};
pub use quantity::{MOST_DIGITS, Quantity, Total};
pub use tiers::{Tier, TiersMode};

#[cfg(test)]
mod tests;
