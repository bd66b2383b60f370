//! A price's `currency_options`: what it costs in other currencies than its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, json};

use super::object::{Object, Shape, is_blank, shortened, word};
use super::price::{TAX_BEHAVIORS, TaxBehavior};
use super::{Invalid, currency, model, to_object};
use crate::pricing::{Bounds, Model};

/// What a price says once for each of its currencies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrencyOption {
    /// Like the price's own but for the amounts: packages and the mode of tiers are the price's.
    pub model: Model,
    pub bounds: Bounds,
    pub tax_behavior: TaxBehavior,
}

/// What the price says that an option is read by.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Stripe returned the price, so that an amount stands there in both forms.
    pub returned: bool,
    /// There are periods for a minimum and a maximum to be of.
    pub recurring: bool,
}

const FIELD: &str = "currency_options";

const OPTION: Shape = Shape {
    fields: &[
        "maximum_amount",
        "minimum_amount",
        "tax_behavior",
        "tiers",
        "unit_amount",
        "unit_amount_decimal",
    ],
    accepted: &[],
    not_supported: &["custom_unit_amount"],
};

/// Takes `currency_options` of a price in `currency` whose own terms are `own`. The option of its own currency, which
/// Stripe returns too, may repeat them; it is not kept.
pub(super) fn take(
    price: &mut Object,
    currency: &str,
    own: &CurrencyOption,
    form: Form,
) -> Result<BTreeMap<String, CurrencyOption>, Invalid> {
    let mut options = BTreeMap::new();
    let mut seen_own = false;
    for (code, value) in price.map(FIELD)?.unwrap_or_default() {
        let path = format!("{FIELD}.{}", shortened(&code));
        let known = currency::known(&code).ok_or_else(|| currency::unknown(price, FIELD, Some(&json!(code))))?;
        let is_own = known == currency;
        // The published fixtures have fields of another object here, all null.
        if is_own && is_blank(&value) {
            continue;
        }
        let twice = || price.error(&path, None, "is given twice, in different case");
        let mut option = price.entry(FIELD, &known, value, &OPTION)?;
        option.refuse_unsupported(&OPTION)?;
        if is_own {
            if std::mem::replace(&mut seen_own, true) {
                return Err(twice());
            }
            must_repeat(&mut option, own, form)?;
        } else if options.insert(known, read(&mut option, own, form)?).is_some() {
            return Err(twice());
        }
    }
    Ok(options)
}

fn read(option: &mut Object, own: &CurrencyOption, form: Form) -> Result<CurrencyOption, Invalid> {
    let model = model::take_option(option, &own.model, form.returned)?;
    let bounds = bounds(option, form)?;
    // A bound in one currency says nothing in another, and a price must not lose it there.
    for (field, of_price, of_option) in [
        ("minimum_amount", own.bounds.minimum, bounds.minimum),
        ("maximum_amount", own.bounds.maximum, bounds.maximum),
    ] {
        if of_price.is_some() && of_option.is_none() {
            return Err(option.missing(field, "is required: the price has one in its own currency"));
        }
    }
    Ok(CurrencyOption {
        model,
        bounds,
        tax_behavior: tax_behavior(option)?.unwrap_or(TaxBehavior::Unspecified),
    })
}

/// Whatever the option of the price's own currency says must be what the price says.
fn must_repeat(option: &mut Object, own: &CurrencyOption, form: Form) -> Result<(), Invalid> {
    let contradicts =
        |option: &Object, field| option.missing(field, "must repeat what the price says in its own currency");
    let amounts = ["tiers", "unit_amount", "unit_amount_decimal"];
    if let Some(field) = amounts.into_iter().find(|field| option.has(field))
        && model::take_option(option, &own.model, form.returned)? != own.model
    {
        return Err(contradicts(option, field));
    }
    let bounds = bounds(option, form)?;
    if bounds.minimum.is_some() && bounds.minimum != own.bounds.minimum {
        return Err(contradicts(option, "minimum_amount"));
    }
    if bounds.maximum.is_some() && bounds.maximum != own.bounds.maximum {
        return Err(contradicts(option, "maximum_amount"));
    }
    match tax_behavior(option)? {
        Some(given) if given != own.tax_behavior => Err(contradicts(option, "tax_behavior")),
        _ => Ok(()),
    }
}

fn tax_behavior(object: &mut Object) -> Result<Option<TaxBehavior>, Invalid> {
    object.choice("tax_behavior", TAX_BEHAVIORS)
}

/// Takes `minimum_amount` and `maximum_amount`.
pub(super) fn bounds(object: &mut Object, form: Form) -> Result<Bounds, Invalid> {
    if !form.recurring {
        for field in ["maximum_amount", "minimum_amount"] {
            object.refuse(
                field,
                "must be absent unless the price is recurring: it is an amount per period",
            )?;
        }
    }
    let given = object.get("maximum_amount").cloned();
    let minimum = object.integer("minimum_amount", 0..=i64::MAX)?;
    let maximum = object.integer("maximum_amount", 0..=i64::MAX)?;
    match (minimum, maximum) {
        (Some(least), Some(most)) if most < least => {
            let rule = format!("must not be less than minimum_amount ({least})");
            Err(object.error("maximum_amount", given.as_ref(), rule))
        }
        _ => Ok(Bounds { minimum, maximum }),
    }
}

/// The JSON form; `None` when there is no other currency.
pub(super) fn print(options: &BTreeMap<String, CurrencyOption>) -> Option<Value> {
    let option = |option: &CurrencyOption| {
        let mut fields = to_object(print_bounds(&option.bounds));
        fields.insert(
            "tax_behavior".to_owned(),
            json!(word(TAX_BEHAVIORS, option.tax_behavior)),
        );
        fields.extend([model::print_option(&option.model)]);
        Value::Object(fields)
    };
    let fields = options.iter().map(|(code, terms)| (code.clone(), option(terms)));
    (!options.is_empty()).then(|| Value::Object(fields.collect()))
}

pub(super) fn print_bounds(bounds: &Bounds) -> [(&'static str, Option<Value>); 2] {
    let amount = |amount: i64| Value::Number(Number::from(amount));
    [
        ("maximum_amount", bounds.maximum.map(amount)),
        ("minimum_amount", bounds.minimum.map(amount)),
    ]
}
