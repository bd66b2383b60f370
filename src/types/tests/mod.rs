//! Tests of the value types. The objects follow the shape of Stripe's published fixtures (github.com/stripe/openapi) and
//! of its create parameters; ids and values are our own.

mod bill;
mod change;
mod currency;
mod meter;
mod price;
mod reductions;
mod robustness;
mod schedule;
mod subscription;

use std::fmt::Debug;

use serde_json::{Value, json};

use super::{Invalid, Kind, StripeObject};

fn valid<T: StripeObject + Debug>(object: &Value) -> T {
    let value = match T::parse(&object.to_string()) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {object}"),
    };
    assert_eq!(T::parse(&value.to_json()).as_ref(), Ok(&value), "text form of {object}");
    let bytes = value.to_bytes().unwrap();
    assert_eq!(T::from_bytes(&bytes).as_ref(), Ok(&value), "stored form of {object}");
    value
}

fn refusal<T: StripeObject + Debug>(object: &Value) -> Invalid {
    T::parse(&object.to_string()).expect_err(&object.to_string())
}

/// `object` with the fields of `changes` put in; null takes a field out.
fn with(object: &Value, changes: Value) -> Value {
    let mut object = object.clone();
    for (field, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(field);
        } else {
            object[field] = value.clone();
        }
    }
    object
}

#[test]
fn what_is_no_json_object_is_malformed() {
    for (text, message) in [
        (
            "",
            "invalid meter: not valid JSON: EOF while parsing a value at line 1 column 0",
        ),
        (
            "{",
            "invalid meter: not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        ("[]", "invalid meter, value []: must be a JSON object"),
        ("null", "invalid meter, value null: must be a JSON object"),
        ("\"meter\"", "invalid meter, value \"meter\": must be a JSON object"),
        (
            r#"{"event_name": "\ud800"}"#,
            "invalid meter: not valid JSON: unexpected end of hex escape at line 1 column 23",
        ),
        (
            "{\"event_name\": NaN}",
            "invalid meter: not valid JSON: expected value at line 1 column 16",
        ),
    ] {
        let error = super::Meter::parse(text).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.kind),
            (message, Kind::Malformed),
            "{text}"
        );
    }
}

#[test]
fn deep_nesting_is_an_error_not_an_overflow() {
    for open in ["[", "{\"a\":"] {
        let error = super::Price::parse(&open.repeat(1_000_000)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("invalid price: not valid JSON: recursion limit exceeded"),
            "{error}"
        );
    }
}

#[test]
fn a_field_given_twice_and_a_nul_are_refused_at_any_depth() {
    for (text, message) in [
        (
            r#"{"currency":"usd","currency":"eur"}"#,
            "field \"currency\" is given twice",
        ),
        (r#"{"tiers":[{"up_to":1,"up_to":2}]}"#, "field \"up_to\" is given twice"),
        (r#"{"nickname":"a\u0000b"}"#, "a string must not contain \\u0000"),
        (r#"{"metadata":{"\u0000":"b"}}"#, "a string must not contain \\u0000"),
    ] {
        let error = super::Price::parse(text).unwrap_err();
        let (what, _column) = error.rule.split_once(" at line 1 column ").unwrap();
        assert_eq!((what, error.kind), (message, Kind::Invalid), "{text}");
    }
}

#[test]
fn a_long_value_is_shortened_in_the_message() {
    let error = refusal::<super::Price>(&json!({ "currency": "é".repeat(1000) }));
    assert_eq!(error.value, Some(format!("\"{}…", "é".repeat(99))));
}
