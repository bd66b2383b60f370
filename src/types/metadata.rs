//! Stripe's `metadata`: a few short texts that mean nothing to billing and are kept for the application.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Invalid;
use super::object::Object;

const KEYS: usize = 50;
const KEY_LENGTH: usize = 40;
const VALUE_LENGTH: usize = 500;

/// Takes `metadata`: at most 50 keys of at most 40 characters, with texts of at most 500 (Stripe's limits).
pub(super) fn take(object: &mut Object) -> Result<BTreeMap<String, String>, Invalid> {
    const FIELD: &str = "metadata";
    let fields = match object.take(FIELD) {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(fields)) => fields,
        Some(value) => return Err(object.error(FIELD, Some(&value), "must be an object of strings")),
    };
    if fields.len() > KEYS {
        return Err(object.missing(FIELD, format!("must have at most {KEYS} keys")));
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in fields {
        if key.chars().count() > KEY_LENGTH {
            let rule = format!("must have keys of at most {KEY_LENGTH} characters");
            return Err(object.error(FIELD, Some(&Value::String(key)), rule));
        }
        match value {
            Value::String(text) if text.chars().count() <= VALUE_LENGTH => metadata.insert(key, text),
            Value::String(_) => {
                let rule = format!("must have at most {VALUE_LENGTH} characters");
                return Err(object.error(&format!("{FIELD}.{key}"), Some(&value), rule));
            }
            _ => return Err(object.error(&format!("{FIELD}.{key}"), Some(&value), "must be a string")),
        };
    }
    Ok(metadata)
}

/// Takes what is to change of `metadata`: a key that is null or empty there is to go. `None`: all keys are.
pub(super) fn changes(object: &mut Object) -> Result<Option<Value>, Invalid> {
    const FIELD: &str = "metadata";
    let Some(Value::Object(mut fields)) = object.get(FIELD).cloned() else {
        return Ok(print(&take(object)?));
    };
    let gone: Vec<String> = fields
        .iter()
        .filter(|(_, value)| value.is_null() || *value == "")
        .map(|(key, _)| key.clone())
        .collect();
    for key in &gone {
        fields.remove(key);
    }
    object.put(FIELD, Value::Object(fields));
    let mut changed: serde_json::Map<String, Value> = take(object)?
        .into_iter()
        .map(|(key, text)| (key, Value::String(text)))
        .collect();
    changed.extend(gone.into_iter().map(|key| (key, Value::Null)));
    Ok(Some(Value::Object(changed)))
}

/// The JSON form; `None` when there is nothing in it.
pub(super) fn print(metadata: &BTreeMap<String, String>) -> Option<Value> {
    let fields = metadata
        .iter()
        .map(|(key, text)| (key.clone(), Value::String(text.clone())));
    (!metadata.is_empty()).then(|| Value::Object(fields.collect()))
}
