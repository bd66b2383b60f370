//! Decimals: exact at any length, bounded on the way in, canonical on the way out, rounded once.

use std::cmp::Ordering;

use bigdecimal::Zero;
use bigdecimal::num_bigint::BigInt;
use proptest::prelude::*;

use super::examples::{FLAT_TIERS, TIERS};
use super::*;

/// Products past the 28 digits where rust_decimal begins to round: (10^15 − 1)(10^15 + 1) = 10^30 − 1, at twelve decimal
/// places on both sides.
#[test]
fn long_products_are_exact() {
    bills(
        &per_unit("999.999999999999"),
        "1000.000000000001",
        "999999.999999999999999999999999",
    );
}

/// (10^n − 1) × 2 = 10^n + (10^n − 2), and 10^n over 3 is n threes and a rest.
#[test]
fn quantities_of_a_hundred_thousand_digits() {
    let nines = "9".repeat(100_000);
    bills(&per_unit("2"), &nines, &format!("1{}8", "9".repeat(99_999)));
    bills(
        &tiered(TiersMode::Graduated, &[("1", "5", ""), ("", "1", "")]),
        &nines,
        &format!("1{}3", "0".repeat(99_999)),
    );
    bills(
        &package("1", 3, Round::Up),
        "1e100000",
        &format!("{}4", "3".repeat(99_999)),
    );
    bills(&package("1", 3, Round::Down), "1e100000", &"3".repeat(100_000));
    bills(&per_unit("1e-12"), "1e-16383", &format!("0.{}1", "0".repeat(16_394)));
}

#[test]
fn rounds_half_away_from_zero() {
    let expected = [
        ("0", 0),
        ("0.4999999999999999999999999999999", 0),
        ("0.5", 1),
        ("1.5", 2),
        ("2.5", 3),
        ("2.49", 2),
        ("99.9", 100),
        ("0.05", 0),
        ("-0.5", -1),
        ("-2.5", -3),
        ("-2.4999", -2),
        ("12e2", 1200),
    ];
    for (text, rounded) in expected {
        assert_eq!(round_minor(&dec(text)), Some(rounded), "{text}");
    }
}

#[test]
fn rounding_ends_where_bigint_ends() {
    assert_eq!(round_minor(&dec("9223372036854775807.49")), Some(i64::MAX));
    assert_eq!(round_minor(&dec("9223372036854775807.5")), None);
    assert_eq!(round_minor(&dec("-9223372036854775808.49")), Some(i64::MIN));
    assert_eq!(round_minor(&dec("-9223372036854775808.5")), None);
    for scale in [i64::MIN, i64::MIN + 1, -1_000_000_000_000] {
        assert_eq!(round_minor(&Dec::new(BigInt::from(-7), scale)), None);
    }
    for scale in [i64::MAX, 1_000_000_000_000] {
        assert_eq!(round_minor(&Dec::new(BigInt::from(-7), scale)), Some(0));
    }
}

#[test]
fn reads_decimals() {
    let texts = [
        ("12.50", "12.5"),
        ("-0.0", "0"),
        ("0e999999999999", "0"),
        ("+7", "7"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1e3", "1000"),
        ("1.20E-2", "0.012"),
        ("100", "100"),
    ];
    for (text, plain) in texts {
        assert_eq!(
            parse_dec(text).as_ref().map(plain_string).as_deref(),
            Some(plain),
            "{text}"
        );
    }
    let refused = [
        "", " 1", "1 ", "-", ".", "1_000", "1,5", "NaN", "inf", "0x10", "1e", "1e1.5", "--1", "1.2.3", "١", "e5",
    ];
    for text in refused {
        assert_eq!(parse_dec(text), None, "{text}");
    }
}

/// PostgreSQL's documentation of numeric: up to 131,072 digits before the decimal point, up to 16,383 after it.
#[test]
fn decimals_are_bounded_as_numeric_is() {
    for text in ["1e131071", "-9.99e131071", "1e-16383", "10e-16384"] {
        assert!(parse_dec(text).is_some(), "{text}");
    }
    let refused = [
        "1e131072",
        "10e131071",
        "1e-16384",
        "1e999999999",
        "1e-999999999",
        "100e9223372036854775807",
        "1e-9223372036854775807",
    ];
    for text in refused {
        assert_eq!(parse_dec(text), None, "{text}");
    }
    assert_eq!(parse_dec(&"1".repeat(131_073)), None);
    assert_eq!(parse_dec(&"1".repeat(10_000_000)), None);
    assert_eq!(
        parse_dec(&"1".repeat(131_072)).map(|value| value.digits()),
        Some(131_072)
    );
}

/// The same number at two scales, on which BigDecimal's own `==` overflows: the carry of the lower word is too much for
/// the upper one.
#[test]
fn equality_never_overflows() {
    let digits = BigInt::from((1_844_674_407_u64 << 32) | 1_844_674_407);
    let scaled = Dec::new(&digits * 10_000_000_000_u64, 10);
    let [left, right] = [Dec::new(digits, 0), scaled].map(|unit_amount| Model::PerUnit {
        unit_amount,
        transform: None,
    });
    assert_eq!(left, right);
    assert_ne!(left, per_unit("1"));
    assert_eq!(
        tiered(TiersMode::Volume, &[("1.50", "2.0", ""), ("", "1", "")]),
        tiered(TiersMode::Volume, &[("1.5", "2", ""), ("", "1", "")])
    );
    assert_ne!(tiered(TiersMode::Volume, &TIERS), tiered(TiersMode::Graduated, &TIERS));
    assert_ne!(package("1", 5, Round::Up), package("1", 5, Round::Down));
}

#[test]
fn serialises_decimals_as_plain_text() {
    let json = serde_json::to_string(&package("5e-2", 60, Round::Up)).unwrap();
    assert_eq!(
        json,
        r#"{"PerUnit":{"unit_amount":"0.05","transform":{"divide_by":60,"round":"up"}}}"#
    );
    let json = serde_json::to_string(&tiered(TiersMode::Graduated, &[("1e3", "0.40", "")])).unwrap();
    let tier = r#"{"up_to":"1000","unit_amount":"0.4","flat_amount":null}"#;
    assert_eq!(json, format!(r#"{{"Tiered":{{"mode":"graduated","tiers":[{tier}]}}}}"#));
}

#[test]
fn survives_compact_binary() {
    for model in [
        per_unit("0.000000000001"),
        package("12.50", 100, Round::Down),
        tiered(TiersMode::Volume, &FLAT_TIERS),
        tiered(TiersMode::Graduated, &TIERS),
    ] {
        let bytes = postcard::to_stdvec(&model).unwrap();
        assert_eq!(postcard::from_bytes::<Model>(&bytes).unwrap(), model);
    }
}

#[test]
fn refuses_unbounded_decimals_from_outside() {
    for text in ["1e999999999", "NaN", ""] {
        let json = format!(r#"{{"PerUnit":{{"unit_amount":"{text}","transform":null}}}}"#);
        assert!(serde_json::from_str::<Model>(&json).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn rounding_is_nearest_and_symmetric(picos in any::<i64>()) {
        let rounded = round_minor(&Dec::new(BigInt::from(picos), 12)).unwrap();
        prop_assert_eq!(round_minor(&-Dec::new(BigInt::from(picos), 12)), Some(-rounded));
        let error = i128::from(rounded) * 1_000_000_000_000 - i128::from(picos);
        prop_assert!(error.abs() <= 500_000_000_000);
        // A half goes away from zero.
        prop_assert!(error.abs() < 500_000_000_000 || error.signum() == i128::from(picos.signum()));
    }

    #[test]
    fn halves_round_away_from_zero(whole in 0..i64::MAX / 10) {
        prop_assert_eq!(round_minor(&Dec::new(BigInt::from(whole) * 10 + 5, 1)), Some(whole + 1));
        prop_assert_eq!(round_minor(&Dec::new(BigInt::from(whole) * -10 - 5, 1)), Some(-whole - 1));
    }

    #[test]
    fn plain_text_is_canonical(digits in any::<i128>(), scale in -20..40_i64, zeros in 0..10_u32) {
        let value = Dec::new(BigInt::from(digits), scale);
        let padded = Dec::new(BigInt::from(digits) * BigInt::from(10).pow(zeros), scale + i64::from(zeros));
        let text = plain_string(&value);
        prop_assert_eq!(&text, &plain_string(&padded));
        prop_assert_eq!(&text, &plain_string(&normalise(&padded)));
        prop_assert!(!text.contains(['e', 'E', '+']));
        prop_assert!(!text.contains('.') || !text.ends_with(['0', '.']));
        prop_assert_eq!(parse_dec(&text).unwrap().cmp(&value), Ordering::Equal);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-+.eE_0-9 ]{0,24}|\\PC{0,12}") {
        if let Some(value) = parse_dec(&text) {
            prop_assert!(value.is_zero() || plain_string(&value).len() < 150_000);
        }
    }
}
