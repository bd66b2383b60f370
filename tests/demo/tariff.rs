//! Independent price arithmetic: what a whole quantity costs, in integers, read from the price's JSON.

use harness::{Context, Error, Result};
use serde_json::Value;

/// Amounts are counted in billionths of a thousandth of a cent, so that 12 decimals are whole numbers.
const CENT: i128 = 1_000_000_000_000;

/// The amount in cents of `quantity` (not negative), rounded half up, which is away from zero.
pub fn amount(price: &Value, quantity: i64) -> Result<i64> {
    let quantity = i128::from(quantity);
    let exact = match price["tiers_mode"].as_str() {
        Some("graduated") => graduated(price, quantity)?,
        Some(_) => volume(price, quantity)?,
        None => unit_amount(price)? * packages(price, quantity)?,
    };
    i64::try_from((exact + CENT / 2) / CENT).context(|| format!("{exact} is too much"))
}

fn packages(price: &Value, quantity: i128) -> Result<i128> {
    let transform = &price["transform_quantity"];
    match (
        transform["divide_by"].as_i64().map(i128::from),
        transform["round"].as_str(),
    ) {
        (None, _) => Ok(quantity),
        (Some(size), Some("up")) => Ok((quantity + size - 1) / size),
        _ => Err(Error::new(format!("the demo only rounds packages up: {transform}"))),
    }
}

/// Each unit at the price of the tier that it lies in; a tier's flat amount once something lies in it.
fn graduated(price: &Value, quantity: i128) -> Result<i128> {
    let mut sum = 0;
    let mut below = 0;
    for (index, tier) in tiers(price)?.iter().enumerate() {
        if index == 0 || quantity > below {
            let end = last_unit(tier).map_or(quantity, |last| last.min(quantity));
            sum += (end - below) * unit_amount(tier)? + flat_amount(tier);
        }
        below = last_unit(tier).unwrap_or(quantity);
    }
    Ok(sum)
}

/// Every unit at the price of the tier that the last one lies in.
fn volume(price: &Value, quantity: i128) -> Result<i128> {
    let tiers = tiers(price)?.iter();
    let reached = tiers
        .into_iter()
        .find(|tier| last_unit(tier).is_none_or(|last| quantity <= last));
    let tier = reached.ok_or_else(|| Error::new(format!("no tier for {quantity}: {price}")))?;
    Ok(quantity * unit_amount(tier)? + flat_amount(tier))
}

fn tiers(price: &Value) -> Result<&Vec<Value>> {
    price["tiers"]
        .as_array()
        .ok_or_else(|| Error::new(format!("no tiers: {price}")))
}

/// `None`: the tier has no end.
fn last_unit(tier: &Value) -> Option<i128> {
    tier["up_to"].as_i64().map(i128::from)
}

fn flat_amount(tier: &Value) -> i128 {
    CENT * i128::from(tier["flat_amount"].as_i64().unwrap_or(0))
}

fn unit_amount(of: &Value) -> Result<i128> {
    if let Some(cents) = of["unit_amount"].as_i64() {
        return Ok(CENT * i128::from(cents));
    }
    let decimal = of["unit_amount_decimal"].as_str().unwrap_or_default();
    let (cents, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    format!("{cents}{fraction:0<12}")
        .parse()
        .context(|| format!("no unit amount: {of}"))
}
