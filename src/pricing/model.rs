//! A price's model: how a quantity becomes an amount.

use bigdecimal::{Signed, Zero};
use serde::{Deserialize, Serialize};

use super::money::plain;
use super::tiers;
use super::{Dec, Tier, TiersMode, TransformQuantity};

/// The pricing half of a Stripe price (`billing_scheme` and its fields), already validated.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub enum Model {
    PerUnit {
        /// Minor units per unit, or per package where there is a `transform`.
        #[serde(with = "plain")]
        unit_amount: Dec,
        transform: Option<TransformQuantity>,
    },
    Tiered {
        mode: TiersMode,
        /// In ascending order of `up_to`; the last has none.
        tiers: Vec<Tier>,
    },
}

// By hand for the reason given at [`Tier`].
impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Model::PerUnit { unit_amount, transform },
                Model::PerUnit {
                    unit_amount: other_amount,
                    transform: other_transform,
                },
            ) => unit_amount.cmp(other_amount).is_eq() && transform == other_transform,
            (
                Model::Tiered { mode, tiers },
                Model::Tiered {
                    mode: other_mode,
                    tiers: other_tiers,
                },
            ) => mode == other_mode && tiers == other_tiers,
            _ => false,
        }
    }
}

/// What a quantity costs: exact, unrounded, in minor units. A negative quantity counts as zero. The quantity is within
/// the bounds of PostgreSQL's `numeric`, as everything from [`parse_dec`](super::parse_dec) is; work grows with its digits.
pub fn amount(model: &Model, quantity: &Dec) -> Dec {
    let zero = Dec::zero();
    let quantity = if quantity.is_negative() { &zero } else { quantity };
    match model {
        Model::PerUnit {
            unit_amount,
            transform: None,
        } => unit_amount * quantity,
        Model::PerUnit {
            unit_amount,
            transform: Some(transform),
        } => unit_amount * transform.packages(quantity),
        Model::Tiered { mode, tiers } => tiers::amount(*mode, tiers, quantity),
    }
}
