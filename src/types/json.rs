//! Reading JSON text without the ways in which JSON can be read in two ways.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::object::shortened;
use super::{Invalid, Kind};

/// Parses a text, refusing what serde_json would let pass: a field given twice (it keeps the last), and NUL characters
/// (PostgreSQL has no text with them).
pub(super) fn parse(object: &'static str, text: &str) -> Result<Value, Invalid> {
    let broken = |kind, rule| Invalid {
        kind,
        object,
        field: String::new(),
        value: None,
        rule,
        hint: None,
    };
    let malformed = |error: serde_json::Error| broken(Kind::Malformed, format!("not valid JSON: {error}"));
    let value: Value = serde_json::from_str(text).map_err(malformed)?;
    serde_json::from_str::<Unambiguous>(text).map_err(|error| broken(Kind::Invalid, error.to_string()))?;
    Ok(value)
}

/// Any JSON in which no object names a field twice and no text holds a NUL.
#[derive(Clone, Copy)]
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unambiguous)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self, E> {
        if text.contains('\0') {
            Err(E::custom("a string must not contain \\u0000"))
        } else {
            Ok(self)
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self, A::Error> {
        while values.next_element::<Unambiguous>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(field) = fields.next_key::<String>()? {
            self.visit_str(&field)?;
            fields.next_value::<Unambiguous>()?;
            if let Some(twice) = seen.replace(field) {
                return Err(A::Error::custom(format!(
                    "field {:?} is given twice",
                    shortened(&twice)
                )));
            }
        }
        Ok(self)
    }
}
