//! A price's `dimension_filters`: which of its meter's usage it bills (beyond Stripe).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Invalid;
use super::object::{Object, shortened};

/// Longest dimension key, in characters, as a meter has them.
const KEY_LENGTH: usize = 100;

/// By dimension key the values that are billed, at least one each.
pub type DimensionFilters = BTreeMap<String, BTreeSet<String>>;

/// Takes `dimension_filters`: an object of texts or arrays of texts.
pub(super) fn take(price: &mut Object) -> Result<DimensionFilters, Invalid> {
    const FIELD: &str = "dimension_filters";
    let mut filters = DimensionFilters::new();
    for (key, value) in price.map(FIELD)?.unwrap_or_default() {
        if key.is_empty() || key.chars().count() > KEY_LENGTH {
            let rule = format!("must have keys of 1 to {KEY_LENGTH} characters");
            return Err(price.error(FIELD, Some(&Value::String(key)), rule));
        }
        let wrong = |value: &Value, rule: &str| price.error(&format!("{FIELD}.{}", shortened(&key)), Some(value), rule);
        let given = match value {
            Value::Array(values) if values.is_empty() => {
                return Err(wrong(&Value::Array(values), "must have at least one value"));
            }
            Value::Array(values) => values,
            one => vec![one],
        };
        let mut values = BTreeSet::new();
        for value in given {
            match value {
                Value::String(text) => values.insert(text),
                other => return Err(wrong(&other, "must be a string or an array of strings")),
            };
        }
        filters.insert(key, values);
    }
    Ok(filters)
}

/// The JSON form; `None` when there is no filter.
pub(super) fn print(filters: &DimensionFilters) -> Option<Value> {
    (!filters.is_empty()).then(|| json!(filters))
}
