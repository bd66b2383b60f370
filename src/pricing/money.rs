//! Exact decimals: the form they are read, kept and printed in.

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, One, Pow, Signed, ToPrimitive, Zero};

/// An exact decimal of any length. Amounts are in the currency's minor unit.
pub type Dec = BigDecimal;

/// Digits that PostgreSQL's `numeric` holds before the decimal point.
const INTEGER_DIGITS: i64 = 131_072;
/// Digits that PostgreSQL's `numeric` holds after the decimal point.
const FRACTION_DIGITS: i64 = 16_383;
/// Room for all of them, a sign, a point and an exponent. Reading digits takes time in the square of their number.
const TEXT_BYTES: usize = 150_000;

/// Reads a plain or scientific decimal (`-12.50`, `1e3`), normalised. `None` when the text is no finite decimal, or is
/// beyond what PostgreSQL's `numeric` holds (131,072 digits before and 16,383 after the point). The bound is what makes
/// every later computation safe: the eleven characters `1e999999999` would otherwise unfold into a gigabyte of zeros.
pub fn parse_dec(text: &str) -> Option<Dec> {
    // BigDecimal's own parser also takes underscores.
    if text.len() > TEXT_BYTES || text.contains('_') {
        return None;
    }
    let value = text.parse::<Dec>().ok()?;
    if value.is_zero() {
        return Some(Dec::zero());
    }
    if integer_digits(&value) > INTEGER_DIGITS {
        return None;
    }
    let value = value.normalized();
    (value.fractional_digit_count() <= FRACTION_DIGITS).then_some(value)
}

/// How many digits stand before the decimal point; zero and less for a value below 1: |value| is less than ten to this
/// power and not less than a tenth of that. The value is not zero.
fn integer_digits(value: &Dec) -> i64 {
    i64::try_from(value.digits())
        .unwrap_or(i64::MAX)
        .saturating_sub(value.fractional_digit_count())
}

/// The same value without trailing zeros after the decimal point.
pub fn normalise(value: &Dec) -> Dec {
    value.normalized()
}

/// The value in plain digits, never in scientific notation, without trailing zeros after the decimal point.
pub fn plain_string(value: &Dec) -> String {
    value.normalized().to_plain_string()
}

/// Rounds an amount to whole minor units, half away from zero, as an invoice line is rounded (once). `None` beyond `bigint`
/// (SQLSTATE 22003).
pub fn round_minor(amount: &Dec) -> Option<i64> {
    if amount.is_zero() {
        return Some(0);
    }
    // Decided without unfolding the exponent: ten to the 19th is beyond bigint, less than a tenth rounds to nothing.
    match integer_digits(amount) {
        20.. => None,
        ..0 => Some(0),
        _ => {
            let (numerator, denominator) = as_ratio(amount);
            round_ratio(&numerator, &denominator)
        }
    }
}

/// The value as a fraction of two integers, the lower one positive. Not reduced.
pub(crate) fn as_ratio(value: &Dec) -> (BigInt, BigInt) {
    let (digits, scale) = value.as_bigint_and_scale();
    let power = Pow::pow(BigInt::from(10), scale.unsigned_abs());
    if scale > 0 {
        (digits.into_owned(), power)
    } else {
        (digits.as_ref() * power, BigInt::one())
    }
}

/// `numerator / denominator` rounded half away from zero, the denominator being positive. `None` beyond `bigint`.
pub(crate) fn round_ratio(numerator: &BigInt, denominator: &BigInt) -> Option<i64> {
    let twice = numerator.abs() * 2;
    let rounded: BigInt = (twice + denominator) / (denominator * 2);
    if numerator.is_negative() {
        (-rounded).to_i64()
    } else {
        rounded.to_i64()
    }
}

/// serde form of a decimal: its plain normalised text. BigDecimal's own form asks the format what comes next, which a
/// compact binary format cannot say, and it reads exponents without bound.
pub(super) mod plain {
    use super::{Dec, parse_dec, plain_string};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Dec, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&plain_string(value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dec, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_dec(&text).ok_or_else(|| D::Error::custom("not a decimal that numeric can hold"))
    }
}

/// [`plain`] for a decimal that may be absent.
pub(super) mod plain_option {
    use super::{Dec, parse_dec, plain_string};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Option<Dec>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(plain_string).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Dec>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        parse_dec(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom("not a decimal that numeric can hold"))
    }
}
