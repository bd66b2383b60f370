//! Worked examples of Stripe's documentation, and properties that hold for every price.

mod bounds;
mod decimals;
mod examples;
mod explaining;
mod properties;

use super::{
    Bounds, Dec, Model, Round, Tier, TiersMode, TransformQuantity, amount, normalise, parse_dec, plain_string,
    round_minor,
};

fn dec(text: &str) -> Dec {
    parse_dec(text).unwrap()
}

fn per_unit(unit_amount: &str) -> Model {
    Model::PerUnit {
        unit_amount: dec(unit_amount),
        transform: None,
    }
}

fn package(unit_amount: &str, divide_by: i64, round: Round) -> Model {
    Model::PerUnit {
        unit_amount: dec(unit_amount),
        transform: Some(TransformQuantity { divide_by, round }),
    }
}

/// Tiers from (up_to, unit_amount, flat_amount); an empty text is an absent value, and for up_to the end `inf`.
fn tiered(mode: TiersMode, tiers: &[(&str, &str, &str)]) -> Model {
    let optional = |text: &str| (!text.is_empty()).then(|| dec(text));
    let tiers = tiers
        .iter()
        .map(|(up_to, unit_amount, flat_amount)| Tier {
            up_to: optional(up_to),
            unit_amount: optional(unit_amount),
            flat_amount: optional(flat_amount),
        })
        .collect();
    Model::Tiered { mode, tiers }
}

#[track_caller]
fn bills(model: &Model, quantity: &str, expected: &str) {
    assert_eq!(
        plain_string(&amount(model, &dec(quantity))),
        expected,
        "quantity {quantity}"
    );
}
