//! Percentages of at most four places.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Number;

use crate::pricing::{Dec, parse_dec};

/// From 0 to 100 per cent, in millionths of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// The whole, in millionths.
    pub const WHOLE: i128 = 1_000_000;

    /// `None` beyond 100 per cent.
    pub fn from_millionths(millionths: u32) -> Option<Percent> {
        (i128::from(millionths) <= Self::WHOLE).then_some(Percent(millionths))
    }

    pub fn millionths(self) -> i128 {
        i128::from(self.0)
    }
}

/// The text is no percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPercentage;

impl fmt::Display for NotAPercentage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("must be from 0 to 100, with at most 4 decimal places")
    }
}

impl std::error::Error for NotAPercentage {}

impl FromStr for Percent {
    type Err = NotAPercentage;

    fn from_str(text: &str) -> Result<Percent, NotAPercentage> {
        let percent = parse_dec(text).ok_or(NotAPercentage)?;
        if percent.fractional_digit_count() > 4 {
            return Err(NotAPercentage);
        }
        let millionths = (percent * Dec::from(10_000)).normalized().to_plain_string();
        let millionths = millionths.parse().map_err(|_| NotAPercentage)?;
        Percent::from_millionths(millionths).ok_or(NotAPercentage)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Percent, D::Error> {
        let number = Number::deserialize(deserializer)?.to_string();
        number
            .parse()
            .map_err(|rule| D::Error::custom(format!("percentage {number} {rule}")))
    }
}
