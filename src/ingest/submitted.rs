//! An event as a client sent it, before anything is known of its customer. Texts and numbers are left where they lie.

use std::collections::BTreeMap;

use pgrx::pg_sys::Datum;

use super::rejection::{Code, Rejection, reject};
use crate::pg::jsonb::{Container, Item};
use crate::pg::numeric::{NumericRef, Read};
use crate::pg::text::TextRef;
use crate::pg::time::Micros;
use crate::pricing::{Dec, Quantity, parse_dec};

/// A dimension or another payload key, as text: `5` and `"5"` are one value, as in Stripe's payloads.
pub type Dimensions = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub enum SubmittedValue {
    Missing,
    /// And the `numeric` it came as, if it did.
    Number(Quantity, Option<Datum>),
    TooLong(Dec),
    /// What stood there instead.
    NotANumber(String),
}

#[derive(Debug, Clone)]
pub struct Submitted<'a> {
    pub customer: Option<TextRef<'a>>,
    pub value: SubmittedValue,
    pub identifier: Option<TextRef<'a>>,
    pub timestamp: Option<Micros>,
    pub dimensions: Dimensions,
}

/// A JSON object of scalars as texts. A null counts as absent.
pub fn dimensions(object: Container) -> Result<Dimensions, Rejection> {
    let mut dimensions = Ok(Dimensions::new());
    object.entries(|key, value| {
        if let Ok(so_far) = &mut dimensions
            && let Err(refused) = add_dimension(so_far, key, value)
        {
            dimensions = Err(refused);
        }
    });
    dimensions
}

pub fn add_dimension(dimensions: &mut Dimensions, key: &str, value: Item) -> Result<(), Rejection> {
    let text = match value {
        Item::Null => return Ok(()),
        Item::Text(text) => text.to_owned(),
        Item::Number(number) => number.to_text(),
        Item::Bool(flag) => flag.to_string(),
        Item::Array(_) | Item::Object(_) => {
            return reject(
                Code::InvalidDimensions,
                format!("dimension \"{key}\" is not a scalar: {value}"),
            );
        }
    };
    dimensions.insert(key.to_owned(), text);
    Ok(())
}

impl From<NumericRef> for SubmittedValue {
    fn from(number: NumericRef) -> SubmittedValue {
        match number.read() {
            Read::Quantity(quantity) => SubmittedValue::Number(quantity, Some(number.presentable().0)),
            Read::TooLong => text_value(&number.to_text()),
            Read::NotANumber => SubmittedValue::NotANumber(number.to_text()),
        }
    }
}

/// Plain or scientific decimal text within the bounds of PostgreSQL's `numeric`; nothing else is a number here.
pub fn text_value(text: &str) -> SubmittedValue {
    if let Some(quantity) = Quantity::from_plain_text(text) {
        return SubmittedValue::Number(quantity, None);
    }
    match parse_dec(text) {
        Some(value) => match Quantity::from_decimal(&value) {
            Some(quantity) => SubmittedValue::Number(quantity, None),
            None => SubmittedValue::TooLong(value),
        },
        None => SubmittedValue::NotANumber(text.chars().take(100).collect()),
    }
}
