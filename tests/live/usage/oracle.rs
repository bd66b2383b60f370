//! What summaries must say, computed from the list of events alone: no bucket, no state that merges, no SQL.

use std::collections::{BTreeMap, HashSet};

use bigdecimal::num_bigint::{BigInt, Sign};
use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, Datelike, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// Microseconds since 1970 in UTC.
pub type Micros = i64;
pub const SECOND: Micros = 1_000_000;
pub const MINUTE: Micros = 60 * SECOND;
pub const HOUR: Micros = 60 * MINUTE;
pub const DAY: Micros = 24 * HOUR;
/// Clocks change, and offsets differ from UTC, by multiples of this in all zones used here.
const QUARTER: Micros = 15 * MINUTE;

#[derive(Debug, Clone)]
pub struct Event {
    pub meter: usize,
    pub customer: &'static str,
    pub identifier: String,
    pub value: BigDecimal,
    pub at: Micros,
    /// Place in the order of receipt.
    pub received: usize,
    pub dimensions: BTreeMap<String, String>,
}

pub fn instant(at: Micros) -> DateTime<Utc> {
    Utc.timestamp_micros(at).unwrap()
}

/// The value of `formula` over `[start, end)`; `events` are those of the meter and customer that pass the filter.
pub fn value(formula: &str, events: &[&Event], start: Micros, end: Micros) -> Option<BigDecimal> {
    let within: Vec<_> = events.iter().filter(|e| start <= e.at && e.at < end).collect();
    match formula {
        "sum" => Some(within.iter().map(|e| &e.value).sum()),
        "count" => Some(BigDecimal::from(within.len() as u64)),
        "unique_count" => {
            let seats: HashSet<_> = within.iter().map(|e| &e.dimensions["seat"]).collect();
            Some(BigDecimal::from(seats.len() as u64))
        }
        "max" => within.iter().map(|e| e.value.clone()).max(),
        "min" => within.iter().map(|e| e.value.clone()).min(),
        "last" => within
            .iter()
            .max_by_key(|e| (e.at, e.received))
            .map(|e| e.value.clone()),
        "weighted_sum" => level(events, start, end),
        other => panic!("{other}"),
    }
}

/// The average of a level over time: every change before the end counts from its moment, or from the start, to the end.
fn level(events: &[&Event], start: Micros, end: Micros) -> Option<BigDecimal> {
    let changes: Vec<_> = events.iter().filter(|e| e.at < end).collect();
    if changes.is_empty() {
        return None;
    }
    let integral: BigDecimal = changes
        .iter()
        .map(|e| &e.value * BigDecimal::from(end - e.at.max(start)))
        .sum();
    Some(quotient(&integral, end - start))
}

/// `dividend / divisor` to 20 places, half away from zero, in integers.
fn quotient(dividend: &BigDecimal, divisor: i64) -> BigDecimal {
    let (digits, scale) = dividend.as_bigint_and_exponent();
    let negative = digits.sign() == Sign::Minus;
    let ten = BigInt::from(10);
    let up = u32::try_from((20 - scale).max(0)).unwrap();
    let down = u32::try_from((scale - 20).max(0)).unwrap();
    let dividend = BigInt::from(digits.magnitude().clone()) * ten.pow(up) * 2;
    let divisor = BigInt::from(divisor) * ten.pow(down);
    let rounded: BigInt = (dividend + &divisor) / (divisor * 2);
    BigDecimal::new(if negative { -rounded } else { rounded }, 20)
}

/// Every window of `[start, end)`: a new one begins with each full hour, or each date or month not seen before, on the
/// clocks of `zone`.
pub fn windows(start: Micros, end: Micros, window: Option<&str>, zone: Tz) -> Vec<(Micros, Micros)> {
    let local = |at: Micros| instant(at).with_timezone(&zone);
    let mut bounds = vec![start];
    if let Some(window) = window {
        let unit = |at: Micros| match window {
            "day" => local(at).date_naive(),
            "month" => local(at).date_naive().with_day(1).unwrap(),
            _ => panic!("{window}"),
        };
        let mut seen = (window != "hour").then(|| unit(start));
        let mut at = (start.div_euclid(QUARTER) + 1) * QUARTER;
        while at < end {
            let begins = match seen {
                None => local(at).minute() == 0,
                Some(before) => unit(at) > before,
            };
            if begins {
                bounds.push(at);
                seen = seen.map(|_| unit(at));
            }
            at += QUARTER;
        }
    }
    bounds.push(end);
    bounds.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// The oracle itself, on cases counted by hand.
#[test]
fn quotients_round_half_away_from_zero() {
    let places = |text: &str| text.parse::<BigDecimal>().unwrap();
    assert_eq!(quotient(&places("-2"), 3), places("-0.66666666666666666667"));
    assert_eq!(
        quotient(&places("0.0000000000000000001"), 8),
        places("0.00000000000000000001")
    );
    assert_eq!(quotient(&places("1e3"), 4), places("250"));
    assert!(quotient(&places("0"), 7).is_zero());
}
