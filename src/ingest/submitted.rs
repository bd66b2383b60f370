//! An event as a client sent it, before anything is known of its meter or customer.

use std::collections::BTreeMap;

use bigdecimal::BigDecimal;
use serde_json::{Map, Value};

use super::rejection::{Code, Rejection, reject};
use crate::pg::time::Micros;
use crate::pricing::parse_dec;

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
                return reject(
                    Code::InvalidDimensions,
                    format!("dimension \"{key}\" is not a scalar: {value}"),
                );
            }
        };
        dimensions.insert(key, text);
    }
    Ok(dimensions)
}

/// Plain or scientific decimal text within the bounds of PostgreSQL's `numeric`; nothing else is a number here.
pub fn number(text: &str) -> SubmittedValue {
    match parse_dec(text) {
        Some(value) => SubmittedValue::Number(value),
        None => SubmittedValue::NotANumber(text.chars().take(100).collect()),
    }
}
