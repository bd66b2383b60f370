//! An event as a client sent it, before anything is known of its meter or customer.

use std::collections::BTreeMap;

use bigdecimal::BigDecimal;
use serde_json::{Map, Value};

use super::rejection::{Code, Rejection, reject};
use crate::pg::time::Micros;

/// A dimension or another payload key, as text: `5` and `"5"` are one value, as in Stripe's payloads.
pub type Dimensions = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub enum SubmittedValue {
    Missing,
    Number(BigDecimal),
    /// What stood there instead.
    NotANumber(String),
}

#[derive(Debug, Clone)]
pub struct Submitted {
    pub event_name: String,
    pub customer: Option<String>,
    pub value: SubmittedValue,
    pub identifier: Option<String>,
    pub timestamp: Option<Micros>,
    pub dimensions: Dimensions,
}

/// A JSON object of scalars as texts. A null counts as absent.
pub fn dimensions(object: Map<String, Value>) -> Result<Dimensions, Rejection> {
    let mut dimensions = Dimensions::new();
    for (key, value) in object {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return reject(Code::InvalidDimensions, format!("dimension \"{key}\" is not a scalar: {value}"));
            }
        };
        dimensions.insert(key, text);
    }
    Ok(dimensions)
}

/// Strict decimal text: an optional sign, digits, at most one point, an optional short exponent. Nothing else is a number here,
/// so "NaN", "1_000" and "0x10" are not, and "1e1000000000" cannot fill the memory.
pub fn number(text: &str) -> SubmittedValue {
    const LONGEST: usize = 400;
    let exponent = text.find(['e', 'E']).map(|at| &text[at + 1..]);
    let short_exponent =
        exponent.is_none_or(|digits| digits.parse::<i16>().is_ok_and(|power| (-400..=400).contains(&power)));
    let starts_as_number =
        text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit() || c == '.') && !text.contains('_');
    match text.parse() {
        Ok(value) if short_exponent && starts_as_number && text.len() <= LONGEST => SubmittedValue::Number(value),
        _ => SubmittedValue::NotANumber(text.chars().take(100).collect()),
    }
}
