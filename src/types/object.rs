//! Taking a JSON object apart field by field, with errors that name the field, its value and the rule.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::{Invalid, Kind};
use crate::pricing::{Dec, normalise};

/// Longest value that an error message repeats, in characters.
const SHOWN: usize = 100;
/// Decimal places of an amount (Stripe's limit for `unit_amount_decimal`).
const PLACES: usize = 12;
/// Digits of the greatest bigint.
const DIGITS: usize = 19;

/// The fields that an object may have.
pub(super) struct Shape {
    /// Those that mean something here.
    pub fields: &'static [&'static str],
    /// Those that Stripe returns or takes and that mean nothing here.
    pub accepted: &'static [&'static str],
    /// Those that mean money and are not built yet; accepted as long as they say nothing (see [`is_blank`]).
    pub not_supported: &'static [&'static str],
}

/// Two lists of fields as one, which has `N`.
pub(super) const fn join<const N: usize>(left: &[&'static str], right: &[&'static str]) -> [&'static str; N] {
    assert!(left.len() + right.len() == N, "N is the number of fields");
    let mut all = [""; N];
    let mut place = 0;
    while place < N {
        all[place] = if place < left.len() {
            left[place]
        } else {
            right[place - left.len()]
        };
        place += 1;
    }
    all
}

/// A JSON object whose fields are taken one by one. A null counts as absent.
pub(super) struct Object {
    name: &'static str,
    path: String,
    fields: Map<String, Value>,
}

impl Object {
    /// Opens the object at `path` and refuses fields that `shape` does not know.
    pub fn open(name: &'static str, path: &str, value: Value, shape: &Shape) -> Result<Self, Invalid> {
        let fields = match value {
            Value::Object(fields) => fields,
            other => {
                let kind = if path.is_empty() {
                    Kind::Malformed
                } else {
                    Kind::Invalid
                };
                let value = Some(shown(&other));
                let rule = "must be a JSON object".to_owned();
                return Err(Invalid {
                    kind,
                    object: name,
                    field: path.to_owned(),
                    value,
                    rule,
                    hint: None,
                });
            }
        };
        let opened = Self {
            name,
            path: path.to_owned(),
            fields,
        };
        let known = [shape.fields, shape.accepted, shape.not_supported];
        for (field, value) in &opened.fields {
            if !known.iter().any(|names| names.contains(&field.as_str())) {
                let what = if path.is_empty() {
                    format!("the {name}")
                } else {
                    format!("\"{path}\"")
                };
                // The name is the caller's own and may be of any length.
                return Err(opened
                    .error(&shortened(field), Some(value), format!("is not a field of {what}"))
                    .with_hint(format!("Fields that have a meaning here: {}.", shape.fields.join(", "))));
            }
        }
        Ok(opened)
    }

    fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    /// An error of [`Kind::Invalid`] at a field of this object.
    pub fn error(&self, field: &str, value: Option<&Value>, rule: impl Into<String>) -> Invalid {
        Invalid {
            kind: Kind::Invalid,
            object: self.name,
            field: self.path_of(field),
            value: value.map(shown),
            rule: rule.into(),
            hint: None,
        }
    }

    /// An error of [`Kind::NotSupported`] at a field of this object.
    pub fn unsupported(&self, field: &str, value: &Value) -> Invalid {
        Invalid {
            kind: Kind::NotSupported,
            hint: Some(Invalid::instead_of(field).to_owned()),
            ..self.error(field, Some(value), "is not supported yet")
        }
    }

    pub fn missing(&self, field: &str, rule: impl Into<String>) -> Invalid {
        self.error(field, None, rule)
    }

    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// The field, null or not, was given.
    pub fn names(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    pub fn put(&mut self, field: &str, value: Value) {
        self.fields.insert(field.to_owned(), value);
    }

    /// Refuses the field when it is given; `rule` says why.
    pub fn refuse(&self, field: &str, rule: &str) -> Result<(), Invalid> {
        self.get(field)
            .map_or(Ok(()), |value| Err(self.error(field, Some(value), rule)))
    }

    /// The first field that asks for something that is not built yet.
    pub fn refuse_unsupported(&self, shape: &Shape) -> Result<(), Invalid> {
        for field in shape.not_supported {
            if let Some(value) = self.get(field).filter(|value| !is_blank(value)) {
                return Err(self.unsupported(field, value));
            }
        }
        Ok(())
    }

    /// [`Object::refuse_unsupported`] for requests. What a returned object has of such fields is taken, as JSON.
    pub fn take_unsupported(&mut self, shape: &Shape, returned: bool) -> Result<BTreeMap<String, String>, Invalid> {
        if !returned {
            self.refuse_unsupported(shape)?;
        }
        let taken = shape.not_supported.iter().filter_map(|field| {
            let value = self.take(field).filter(|value| !is_blank(value))?;
            Some(((*field).to_owned(), value.to_string()))
        });
        Ok(taken.collect())
    }

    /// Whether Stripe returned this object, rather than being about to create it: only then does it say what it is.
    pub fn is_returned(&mut self, object: &str) -> Result<bool, Invalid> {
        match self.take("object") {
            None => Ok(false),
            Some(value) if value == object => Ok(true),
            Some(value) => Err(self.error("object", Some(&value), format!("must be \"{object}\""))),
        }
    }

    /// A text of at most `max` characters; the empty text counts as absent, as in Stripe's requests.
    pub fn text(&mut self, field: &str, max: usize) -> Result<Option<String>, Invalid> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= max => Ok(Some(text)),
            Some(value @ Value::String(_)) => {
                Err(self.error(field, Some(&value), format!("must have at most {max} characters")))
            }
            Some(value) => Err(self.error(field, Some(&value), "must be a string")),
        }
    }

    pub fn required_text(&mut self, field: &str, max: usize) -> Result<String, Invalid> {
        self.text(field, max)?.ok_or_else(|| self.missing(field, "is required"))
    }

    /// An id, or the `id` of the object that Stripe put in its place (`expand`).
    pub fn id(&mut self, field: &str, max: usize) -> Result<Option<String>, Invalid> {
        if let Some(Value::Object(expanded)) = self.fields.get_mut(field) {
            let Some(id) = expanded.remove("id") else {
                let value = self.fields.get(field).cloned();
                return Err(self.error(field, value.as_ref(), "must be an id, or an object with an id"));
            };
            self.fields.insert(field.to_owned(), id);
        }
        self.text(field, max)
    }

    pub fn boolean(&mut self, field: &str) -> Result<Option<bool>, Invalid> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(value) => Err(self.error(field, Some(&value), "must be true or false")),
        }
    }

    pub fn integer(&mut self, field: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Invalid> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let text = match &value {
            Value::Number(number) => number.to_string(),
            _ => return Err(self.error(field, Some(&value), "must be an integer")),
        };
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.error(field, Some(&value), "must be an integer"));
        }
        if text.starts_with('-') && *range.start() == 0 {
            return Err(self.error(field, Some(&value), "must not be negative"));
        }
        match text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let rule = format!("must be from {} to {}", range.start(), range.end());
                Err(self.error(field, Some(&value), rule))
            }
        }
    }

    /// A decimal amount, as a string or a number: plain digits, not negative, at most 12 places, within bigint.
    pub fn decimal(&mut self, field: &str) -> Result<Option<Dec>, Invalid> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(self.error(field, Some(&value), "must be a decimal number")),
        };
        decimal(&text)
            .map(Some)
            .map_err(|rule| self.error(field, Some(&value), rule))
    }

    /// Takes the minus sign off a decimal, for a field that may be negative.
    pub fn drop_sign(&mut self, field: &str) {
        if let Some(value) = self.fields.get_mut(field) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            *value = Value::String(text.strip_prefix('-').unwrap_or(&text).to_owned());
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, field: &str, options: &[(&str, T)]) -> Result<Option<T>, Invalid> {
        let Some(value) = self.take(field) else { return Ok(None) };
        if let Some((_, option)) = options.iter().find(|(word, _)| value == *word) {
            return Ok(Some(*option));
        }
        let words: Vec<String> = options.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let rule = match words.as_slice() {
            [only] => format!("must be {only}"),
            _ => format!("must be one of {}", words.join(", ")),
        };
        Err(self.error(field, Some(&value), rule))
    }

    pub fn array(&mut self, field: &str) -> Result<Option<Vec<Value>>, Invalid> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(value) => Err(self.error(field, Some(&value), "must be an array")),
        }
    }

    pub fn object(&mut self, field: &str, shape: &Shape) -> Result<Option<Object>, Invalid> {
        self.take(field)
            .map(|value| Object::open(self.name, &self.path_of(field), value, shape))
            .transpose()
    }

    /// A field whose keys are the caller's own, such as a map by currency.
    pub fn map(&mut self, field: &str) -> Result<Option<Map<String, Value>>, Invalid> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(fields)),
            Some(value) => Err(self.error(field, Some(&value), "must be a JSON object")),
        }
    }

    /// The object under a key of a [`Object::map`].
    pub fn entry(&self, field: &str, key: &str, value: Value, shape: &Shape) -> Result<Object, Invalid> {
        Object::open(self.name, &format!("{}.{key}", self.path_of(field)), value, shape)
    }

    pub fn element(&self, field: &str, index: usize, value: Value, shape: &Shape) -> Result<Object, Invalid> {
        Object::open(self.name, &format!("{}[{index}]", self.path_of(field)), value, shape)
    }
}

/// Whether a value says nothing: null, false, an empty text or list, or an object of nothing but those. Stripe fills
/// the fields of some returned objects with nulls instead of leaving the object out.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.values().all(is_blank),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The word that stands for an option.
pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], option: T) -> Option<&'static str> {
    words.iter().find(|(_, other)| *other == option).map(|(word, _)| *word)
}

fn decimal(text: &str) -> Result<Dec, String> {
    let not_decimal = || "must be a decimal number in plain digits, such as 0.05".to_owned();
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, places) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    if [whole, places]
        .iter()
        .any(|part| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(not_decimal());
    }
    if text.starts_with('-') {
        return Err("must not be negative".to_owned());
    }
    if places.trim_end_matches('0').len() > PLACES {
        return Err(format!("must have at most {PLACES} decimal places"));
    }
    let beyond = || format!("must be at most {}", i64::MAX);
    if whole.trim_start_matches('0').len() > DIGITS {
        return Err(beyond());
    }
    let value = unsigned.parse::<Dec>().map_err(|_| not_decimal())?;
    if value > i64::MAX {
        Err(beyond())
    } else {
        Ok(normalise(&value))
    }
}

/// A value as a message repeats it.
pub(super) fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

/// A text as a message repeats it.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
