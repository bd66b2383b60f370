//! Stripe's worked examples, the Gregorian calendar over centuries, and properties that hold for every anchor.

mod periods;
mod prorations;

use std::ops::Range;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::{CalendarError, Interval, fraction, period_containing, prorate};

const INTERVALS: [Interval; 4] = [Interval::Day, Interval::Week, Interval::Month, Interval::Year];

/// `2024-01-31`, or with a time of day.
fn time(text: &str) -> DateTime<Utc> {
    let text = if text.contains('T') {
        format!("{text}Z")
    } else {
        format!("{text}T00:00:00Z")
    };
    text.parse().unwrap()
}

fn micros(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap()
}

fn range(start: &str, end: &str) -> Range<DateTime<Utc>> {
    time(start)..time(end)
}

/// From the beginning of PostgreSQL's timestamptz, 4713 BC, to the year 260,000, near the end of what chrono can hold.
fn moments() -> impl Strategy<Value = DateTime<Utc>> {
    let (oldest, newest) = (-210_866_803_200_000_000_i64, 8_210_000_000_000_000_000_i64);
    // Mostly the centuries that matter, and now and then anything.
    prop_oneof![4 => -11_676_096_000_000_000..20_000_000_000_000_000_i64, 1 => oldest..newest].prop_map(micros)
}

/// An interval with a count within Stripe's three years.
fn lengths() -> impl Strategy<Value = (Interval, u32)> {
    prop::sample::select(INTERVALS.to_vec()).prop_flat_map(|interval| (Just(interval), 1..=interval.max_count()))
}
