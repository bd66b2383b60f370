//! The fields of a price that turn a quantity into an amount: `billing_scheme` and what depends on it.

use bigdecimal::ToPrimitive;
use serde_json::{Map, Number, Value, json};

use super::object::{Object, Shape, word};
use super::{Invalid, to_object};
use crate::pricing::{Dec, Model, Round, Tier, TiersMode, TransformQuantity, plain_string};

const TIER: Shape = Shape {
    fields: &[
        "flat_amount",
        "flat_amount_decimal",
        "unit_amount",
        "unit_amount_decimal",
        "up_to",
    ],
    accepted: &[],
    not_supported: &[],
};
const TRANSFORM_QUANTITY: Shape = Shape {
    fields: &["divide_by", "round"],
    accepted: &[],
    not_supported: &[],
};

const ROUNDS: &[(&str, Round)] = &[("up", Round::Up), ("down", Round::Down)];
const MODES: &[(&str, TiersMode)] = &[("graduated", TiersMode::Graduated), ("volume", TiersMode::Volume)];

/// Takes the model out of a price. `returned`: Stripe returned the price, so that an amount stands there in both forms.
pub(super) fn take(price: &mut Object, returned: bool) -> Result<Model, Invalid> {
    if price
        .choice("billing_scheme", &[("per_unit", false), ("tiered", true)])?
        .unwrap_or(false)
    {
        tiered(price, returned)
    } else {
        per_unit(price, returned)
    }
}

/// Takes the amounts of a currency option: the same model with other amounts.
pub(super) fn take_option(option: &mut Object, of: &Model, returned: bool) -> Result<Model, Invalid> {
    match of {
        Model::PerUnit { transform, .. } => {
            option.refuse("tiers", "must be absent: the price's billing_scheme is not \"tiered\"")?;
            Ok(Model::PerUnit {
                unit_amount: unit_amount(option, returned)?,
                transform: transform.clone(),
            })
        }
        Model::Tiered { mode, .. } => {
            refuse_when_tiered(option, &["unit_amount", "unit_amount_decimal"])?;
            Ok(Model::Tiered {
                mode: *mode,
                tiers: tiers(option, returned)?,
            })
        }
    }
}

/// The amounts of a currency option, in the form that [`take_option`] reads.
pub(super) fn print_option(model: &Model) -> (String, Value) {
    match model {
        Model::PerUnit { unit_amount, .. } => print_amount("unit_amount", unit_amount),
        Model::Tiered { tiers, .. } => ("tiers".to_owned(), tiers.iter().map(print_tier).collect()),
    }
}

/// The model's fields, in the form that [`take`] reads.
pub(super) fn print(model: &Model) -> Map<String, Value> {
    match model {
        Model::PerUnit { unit_amount, transform } => {
            let transform = transform.as_ref().map(|transform| {
                json!({
                    "divide_by": Number::from(transform.divide_by),
                    "round": word(ROUNDS, transform.round),
                })
            });
            let mut fields = to_object([
                ("billing_scheme", Some(json!("per_unit"))),
                ("transform_quantity", transform),
            ]);
            fields.extend([print_amount("unit_amount", unit_amount)]);
            fields
        }
        Model::Tiered { mode, tiers } => to_object([
            ("billing_scheme", Some(json!("tiered"))),
            ("tiers", Some(tiers.iter().map(print_tier).collect())),
            ("tiers_mode", Some(json!(word(MODES, *mode)))),
        ]),
    }
}

fn per_unit(price: &mut Object, returned: bool) -> Result<Model, Invalid> {
    if price.has("tiers") {
        return Err(price
            .missing("billing_scheme", "must be \"tiered\" when tiers are given")
            .with_hint("Add \"billing_scheme\": \"tiered\", or leave the tiers out."));
    }
    price.refuse("tiers_mode", "must be absent unless billing_scheme is \"tiered\"")?;
    let unit_amount = unit_amount(price, returned)?;
    let transform = match price.object("transform_quantity", &TRANSFORM_QUANTITY)? {
        Some(mut transform) => Some(TransformQuantity {
            divide_by: transform
                .integer("divide_by", 1..=i64::MAX)?
                .ok_or_else(|| transform.missing("divide_by", "is required"))?,
            round: transform
                .choice("round", ROUNDS)?
                .ok_or_else(|| transform.missing("round", "is required"))?,
        }),
        None => None,
    };
    Ok(Model::PerUnit { unit_amount, transform })
}

fn unit_amount(object: &mut Object, returned: bool) -> Result<Dec, Invalid> {
    amount(object, "unit_amount", returned)?
        .ok_or_else(|| object.missing("unit_amount", "is required, as unit_amount or unit_amount_decimal"))
}

fn refuse_when_tiered(object: &Object, fields: &[&str]) -> Result<(), Invalid> {
    fields
        .iter()
        .try_for_each(|field| object.refuse(field, "must be absent when billing_scheme is \"tiered\""))
}

fn tiered(price: &mut Object, returned: bool) -> Result<Model, Invalid> {
    refuse_when_tiered(price, &["unit_amount", "unit_amount_decimal", "transform_quantity"])?;
    let mode = price
        .choice("tiers_mode", MODES)?
        .ok_or_else(|| price.missing("tiers_mode", "is required when billing_scheme is \"tiered\""))?;
    let tiers = tiers(price, returned)?;
    Ok(Model::Tiered { mode, tiers })
}

fn tiers(object: &mut Object, returned: bool) -> Result<Vec<Tier>, Invalid> {
    let Some(values) = object.array("tiers")? else {
        return Err(object
            .missing("tiers", "is required when billing_scheme is \"tiered\"")
            .with_hint("Stripe returns the tiers of a price only when asked to: expand[]=tiers."));
    };
    let count = values.len();
    if count == 0 {
        return Err(object.error("tiers", Some(&json!([])), "must have at least one tier"));
    }
    let mut tiers = Vec::with_capacity(count);
    let mut previous = 0;
    for (index, value) in values.into_iter().enumerate() {
        let mut tier = object.element("tiers", index, value, &TIER)?;
        let up_to = up_to(&mut tier, index + 1 == count, previous)?;
        previous = up_to.unwrap_or(previous);
        let flat_amount = amount(&mut tier, "flat_amount", returned)?;
        let unit_amount = amount(&mut tier, "unit_amount", returned)?;
        if flat_amount.is_none() && unit_amount.is_none() {
            return Err(tier.missing("unit_amount", "is required, unless the tier has a flat_amount"));
        }
        tiers.push(Tier {
            up_to: up_to.map(Dec::from),
            unit_amount,
            flat_amount,
        });
    }
    Ok(tiers)
}

/// A tier's inclusive upper bound; `None` is infinity, which the last tier must have: `"inf"` in requests, null in
/// returned objects.
fn up_to(tier: &mut Object, is_last: bool, previous: i64) -> Result<Option<i64>, Invalid> {
    const FIELD: &str = "up_to";
    const ONLY_LAST: &str = "must be a number: only the last tier reaches to infinity";
    let given = tier.get(FIELD).cloned();
    match &given {
        None if !tier.names(FIELD) => Err(tier.missing(FIELD, "is required")),
        None if is_last => Ok(None),
        None => Err(tier.error(FIELD, Some(&Value::Null), ONLY_LAST)),
        Some(value) if value == "inf" && is_last => Ok(None),
        Some(value) if value == "inf" => Err(tier.error(FIELD, Some(value), ONLY_LAST)),
        Some(value) if is_last => Err(tier.error(
            FIELD,
            Some(value),
            "must be \"inf\": the last tier has to take every quantity",
        )),
        Some(value) => match tier.integer(FIELD, i64::MIN..=i64::MAX)? {
            Some(up_to) if up_to > previous => Ok(Some(up_to)),
            _ if previous == 0 => Err(tier.error(FIELD, Some(value), "must be greater than 0")),
            _ => {
                let rule = format!("must be greater than the previous tier's up_to ({previous})");
                Err(tier.error(FIELD, Some(value), rule))
            }
        },
    }
}

/// Takes an amount from `name` (an integer) or `name_decimal`. Stripe returns both where the amount is whole, but takes
/// only one.
fn amount(object: &mut Object, name: &str, returned: bool) -> Result<Option<Dec>, Invalid> {
    let decimal_name = format!("{name}_decimal");
    let given = object.get(&decimal_name).cloned();
    let whole = object.integer(name, 0..=i64::MAX)?;
    let decimal = object.decimal(&decimal_name)?;
    match (whole, decimal) {
        (Some(_), Some(_)) if !returned => Err(object.error(
            &decimal_name,
            given.as_ref(),
            format!("must not be given together with {name}"),
        )),
        // Compared by cmp: BigDecimal's == overflows on some pairs of different scale.
        (Some(whole), Some(decimal)) if decimal.cmp(&Dec::from(whole)).is_ne() => Err(object.error(
            &decimal_name,
            given.as_ref(),
            format!("must be equal to {name} ({whole})"),
        )),
        (Some(whole), _) => Ok(Some(crate::pricing::normalise(&Dec::from(whole)))),
        (None, decimal) => Ok(decimal),
    }
}

fn print_tier(tier: &Tier) -> Value {
    let up_to = tier
        .up_to
        .as_ref()
        .map_or(json!("inf"), |up_to| print_amount("up_to", up_to).1);
    let mut fields = to_object([("up_to", Some(up_to))]);
    fields.extend(tier.flat_amount.as_ref().map(|flat| print_amount("flat_amount", flat)));
    fields.extend(tier.unit_amount.as_ref().map(|unit| print_amount("unit_amount", unit)));
    Value::Object(fields)
}

/// A whole amount goes under its own name as a number, any other as a text under `name_decimal`, as Stripe has it.
fn print_amount(name: &str, amount: &Dec) -> (String, Value) {
    match amount.to_i64().filter(|_| amount.is_integer()) {
        Some(whole) => (name.to_owned(), Value::Number(Number::from(whole))),
        None => (format!("{name}_decimal"), Value::String(plain_string(amount))),
    }
}
