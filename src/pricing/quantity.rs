//! Quantities of single events, and exact totals of them: two machine words wherever these are enough, an exact decimal where not.
//!
//! A batch adds up a hundred thousand values; as decimals of any length that would cost more than to record them.

use std::cmp::Ordering;
use std::ops::Neg;

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, ToPrimitive};

/// Stripe's limit is 15 for fear of doubles; exact decimals need one only against abuse. Digits written out in full: those of
/// 1e30 are 31, those of 1e-30 are 30.
pub const MOST_DIGITS: u32 = 28;

/// A decimal of at most [`MOST_DIGITS`] digits: units / 10^scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    units: i128,
    scale: u32,
}

impl Quantity {
    pub const ONE: Quantity = Quantity { units: 1, scale: 0 };

    /// units × 10^exponent; `None` beyond [`MOST_DIGITS`] digits. Zeros at the end of a fraction do not count.
    pub fn new(units: i128, exponent: i32) -> Option<Quantity> {
        let mut quantity = match u32::try_from(exponent) {
            _ if units == 0 => Quantity { units, scale: 0 },
            Ok(zeros) => Quantity {
                units: units.checked_mul(power_of_ten(zeros)?)?,
                scale: 0,
            },
            Err(_) => Quantity {
                units,
                scale: exponent.unsigned_abs(),
            },
        };
        while !quantity.is_short() {
            if quantity.scale == 0 || quantity.units % 10 != 0 {
                return None;
            }
            quantity.units /= 10;
            quantity.scale -= 1;
        }
        Some(quantity)
    }

    fn is_short(&self) -> bool {
        const BEYOND: u128 = 10_u128.pow(MOST_DIGITS);
        self.scale <= MOST_DIGITS && self.units.unsigned_abs() < BEYOND
    }

    /// `None` beyond [`MOST_DIGITS`] digits.
    pub fn from_decimal(value: &BigDecimal) -> Option<Quantity> {
        let value = value.normalized();
        let (units, scale) = value.as_bigint_and_exponent();
        Quantity::new(units.to_i128()?, i32::try_from(scale.checked_neg()?).ok()?)
    }

    /// Plain decimal text (`-12.50`), the way nearly all values are written. `None`: anything else, or more than [`MOST_DIGITS`] digits.
    pub fn from_plain_text(text: &str) -> Option<Quantity> {
        let (negative, digits) = match text.as_bytes() {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        if digits.len() > MOST_DIGITS as usize + 1 {
            return None;
        }
        let (mut units, mut fraction, mut any) = (0_i128, None, false);
        for byte in digits {
            match byte {
                b'0'..=b'9' => {
                    units = units * 10 + i128::from(byte - b'0');
                    fraction = fraction.map(|places: i32| places + 1);
                    any = true;
                }
                b'.' if fraction.is_none() && any => fraction = Some(0),
                _ => return None,
            }
        }
        match fraction {
            _ if !any => None,
            Some(0) => None,
            places => Quantity::new(if negative { -units } else { units }, -places.unwrap_or(0)),
        }
    }

    pub fn to_decimal(self) -> BigDecimal {
        BigDecimal::new(BigInt::from(self.units), i64::from(self.scale))
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity {
            units: -self.units,
            scale: self.scale,
        }
    }
}

impl Quantity {
    /// By value: 1.5 and 1.50 are equal here, though not as they are written.
    pub fn compare(&self, other: &Quantity) -> Ordering {
        match aligned((self.units, self.scale), (other.units, other.scale)) {
            Some((a, b, _)) => a.cmp(&b),
            None => self.to_decimal().cmp(&other.to_decimal()),
        }
    }
}

/// An exact sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Total {
    Short { units: i128, scale: u32 },
    Long(BigDecimal),
}

impl Total {
    pub const ZERO: Total = Total::Short { units: 0, scale: 0 };

    pub fn add(&mut self, value: Quantity) {
        self.add_units(value.units, value.scale);
    }

    /// Adds value × factor.
    pub fn add_product(&mut self, value: Quantity, factor: i64) {
        match value.units.checked_mul(factor.into()) {
            Some(units) => self.add_units(units, value.scale),
            None => *self = Total::Long(self.to_decimal() + value.to_decimal() * BigDecimal::from(factor)),
        }
    }

    fn add_units(&mut self, units: i128, scale: u32) {
        let short = match self {
            Total::Short {
                units: so_far,
                scale: of,
            } => aligned((*so_far, *of), (units, scale))
                .and_then(|(a, b, scale)| a.checked_add(b).map(|units| Total::Short { units, scale })),
            Total::Long(_) => None,
        };
        *self = short
            .unwrap_or_else(|| Total::Long(self.to_decimal() + BigDecimal::new(BigInt::from(units), i64::from(scale))));
    }

    /// The units of 10^-scale, where 64 bits hold them.
    pub fn as_i64(&self) -> Option<(i64, u32)> {
        match self {
            Total::Short { units, scale } => i64::try_from(*units).ok().map(|units| (units, *scale)),
            Total::Long(_) => None,
        }
    }

    pub fn to_decimal(&self) -> BigDecimal {
        match self {
            Total::Short { units, scale } => BigDecimal::new(BigInt::from(*units), i64::from(*scale)),
            Total::Long(value) => value.clone(),
        }
    }
}

impl From<Quantity> for Total {
    fn from(value: Quantity) -> Total {
        Total::Short {
            units: value.units,
            scale: value.scale,
        }
    }
}

/// Both in units of the finer scale; `None` where they do not fit.
fn aligned(a: (i128, u32), b: (i128, u32)) -> Option<(i128, i128, u32)> {
    let scale = a.1.max(b.1);
    let raised = |(units, of): (i128, u32)| match scale - of {
        0 => Some(units),
        places => units.checked_mul(power_of_ten(places)?),
    };
    Some((raised(a)?, raised(b)?, scale))
}

fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> BigDecimal {
        BigDecimal::from_str(text).unwrap()
    }

    /// Digits written out in full, counted on the text.
    fn written(value: &BigDecimal) -> usize {
        let plain = value.normalized().to_plain_string();
        let (whole, fraction) = plain
            .trim_start_matches('-')
            .split_once('.')
            .unwrap_or((plain.trim_start_matches('-'), ""));
        let all = format!("{whole}{fraction}");
        all.trim_start_matches('0').len().max(fraction.len())
    }

    #[test]
    fn the_bounds_are_those_of_the_digits_written() {
        for (units, exponent, short) in [
            (1, 27, true),
            (1, 28, false),
            (1, -28, true),
            (1, -29, false),
            (10, -29, true),
            (10_i128.pow(28), -28, true),
            (10_i128.pow(28) - 1, 0, true),
            (10_i128.pow(28), 0, false),
            (0, 1000, true),
            (0, -1000, true),
            (i128::MAX, 0, false),
            (i128::MIN, -1, false),
            (1, i32::MAX, false),
            (1, i32::MIN, false),
        ] {
            assert_eq!(Quantity::new(units, exponent).is_some(), short, "{units}e{exponent}");
        }
    }

    #[test]
    fn plain_texts_are_read_and_others_left_to_the_full_parser() {
        for (text, value) in [
            ("0", "0"),
            ("-12.50", "-12.5"),
            ("007", "7"),
            ("1.0000", "1"),
            ("9999999999999999999999999999", "9999999999999999999999999999"),
        ] {
            assert_eq!(
                Quantity::from_plain_text(text).unwrap().to_decimal().normalized(),
                decimal(value).normalized()
            );
        }
        for text in [
            "",
            "-",
            ".",
            "1.",
            ".5",
            "--1",
            "+1",
            "1e3",
            "1_0",
            " 1",
            "1 ",
            "NaN",
            "1.2.3",
            "٣",
            "10000000000000000000000000000",
        ] {
            assert_eq!(Quantity::from_plain_text(text), None, "{text}");
        }
    }

    fn quantities() -> impl Strategy<Value = Quantity> {
        (any::<i128>(), 0..34_u32, -40..30_i32).prop_filter_map("too many digits", |(units, fewer, exponent)| {
            Quantity::new(units / 10_i128.pow(fewer), exponent)
        })
    }

    proptest! {
        #[test]
        fn accepted_if_and_only_if_short(units in any::<i128>(), fewer in 0..38_u32, exponent in -40..40_i32) {
            let units = units / 10_i128.pow(fewer);
            let value = BigDecimal::new(BigInt::from(units), i64::from(-exponent));
            match Quantity::new(units, exponent) {
                Some(quantity) => {
                    prop_assert_eq!(quantity.to_decimal(), value.clone());
                    prop_assert!(written(&value) <= MOST_DIGITS as usize);
                }
                None => prop_assert!(written(&value) > MOST_DIGITS as usize),
            }
            prop_assert_eq!(Quantity::from_decimal(&value).map(|q| q.to_decimal()), Quantity::new(units, exponent).map(|q| q.to_decimal()));
        }

        #[test]
        fn totals_are_exact(values in proptest::collection::vec((quantities(), any::<i64>()), 0..40)) {
            let (mut sum, mut products) = (Total::ZERO, Total::ZERO);
            let (mut expected_sum, mut expected_products) = (BigDecimal::from(0), BigDecimal::from(0));
            for (value, factor) in values {
                sum.add(value);
                products.add_product(value, factor);
                expected_sum += value.to_decimal();
                expected_products += value.to_decimal() * BigDecimal::from(factor);
            }
            prop_assert_eq!(sum.to_decimal(), expected_sum);
            prop_assert_eq!(products.to_decimal(), expected_products);
        }

        #[test]
        fn compared_by_value(a in quantities(), b in quantities()) {
            prop_assert_eq!(a.compare(&b), a.to_decimal().cmp(&b.to_decimal()));
        }

        #[test]
        fn plain_text_is_read_as_decimals_are(text in "-?[0-9]{1,16}(\\.[0-9]{1,14})?") {
            if let Some(quantity) = Quantity::from_plain_text(&text) {
                prop_assert_eq!(quantity.to_decimal(), decimal(&text));
            } else {
                prop_assert!(text.len() > MOST_DIGITS as usize);
            }
        }
    }
}
