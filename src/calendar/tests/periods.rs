//! Periods: documented month ends, leap years over centuries, and the row that periods form.

use chrono::{Datelike, Timelike};

use super::*;

#[track_caller]
fn holds(anchor: &str, interval: Interval, count: u32, at: &str, expected: Range<DateTime<Utc>>) {
    assert_eq!(period_containing(time(anchor), interval, count, time(at)), Ok(expected));
}

/// docs.stripe.com/billing/subscriptions/billing-cycle: a subscription of 31 January bills on 28 (29) February, 31 March,
/// 30 April.
#[test]
fn stripe_example_month_end() {
    holds(
        "2023-01-31",
        Interval::Month,
        1,
        "2023-02-10",
        range("2023-01-31", "2023-02-28"),
    );
    holds(
        "2024-01-31",
        Interval::Month,
        1,
        "2024-02-10",
        range("2024-01-31", "2024-02-29"),
    );
    holds(
        "2024-01-31",
        Interval::Month,
        1,
        "2024-02-29",
        range("2024-02-29", "2024-03-31"),
    );
    holds(
        "2024-01-31",
        Interval::Month,
        1,
        "2024-03-31",
        range("2024-03-31", "2024-04-30"),
    );
    holds(
        "2024-01-31",
        Interval::Month,
        1,
        "2024-05-30",
        range("2024-04-30", "2024-05-31"),
    );
}

#[test]
fn months_before_the_anchor_clamp_alike() {
    holds(
        "2024-03-31",
        Interval::Month,
        1,
        "2024-03-30",
        range("2024-02-29", "2024-03-31"),
    );
    holds(
        "2024-03-31",
        Interval::Month,
        1,
        "2024-02-28",
        range("2024-01-31", "2024-02-29"),
    );
    holds(
        "2024-03-31",
        Interval::Month,
        3,
        "1970-01-01",
        range("1969-12-31", "1970-03-31"),
    );
}

#[test]
fn longer_months_count_from_the_anchor() {
    holds(
        "2023-11-30",
        Interval::Month,
        3,
        "2024-01-15",
        range("2023-11-30", "2024-02-29"),
    );
    holds(
        "2023-11-30",
        Interval::Month,
        3,
        "2024-02-29",
        range("2024-02-29", "2024-05-30"),
    );
}

#[test]
fn leap_day_anchor_clamps_and_comes_back() {
    holds(
        "2024-02-29",
        Interval::Year,
        1,
        "2024-12-31",
        range("2024-02-29", "2025-02-28"),
    );
    holds(
        "2024-02-29",
        Interval::Year,
        1,
        "2027-06-01",
        range("2027-02-28", "2028-02-29"),
    );
    holds(
        "2024-02-29",
        Interval::Year,
        3,
        "2031-01-01",
        range("2030-02-28", "2033-02-28"),
    );
}

#[test]
fn days_and_weeks_keep_their_length() {
    holds(
        "2024-02-28T18:30:00",
        Interval::Day,
        1,
        "2024-02-29T18:29:59",
        range("2024-02-28T18:30:00", "2024-02-29T18:30:00"),
    );
    holds(
        "2024-02-26",
        Interval::Week,
        2,
        "2024-03-11",
        range("2024-03-11", "2024-03-25"),
    );
    holds(
        "2024-02-26",
        Interval::Week,
        1,
        "2024-02-25T23:59:59.999999",
        range("2024-02-19", "2024-02-26"),
    );
    holds(
        "1600-01-01",
        Interval::Day,
        1,
        "2600-01-01T12:00:00",
        range("2600-01-01", "2600-01-02"),
    );
}

#[test]
fn the_time_of_day_decides_on_the_boundary_day() {
    let anchor = "2024-01-31T09:00:00.000001";
    let before = range(anchor, "2024-02-29T09:00:00.000001");
    holds(anchor, Interval::Month, 1, "2024-02-29T09:00:00", before.clone());
    holds(anchor, Interval::Month, 1, anchor, before);
    let after = range("2024-02-29T09:00:00.000001", "2024-03-31T09:00:00.000001");
    holds(anchor, Interval::Month, 1, "2024-02-29T09:00:00.000001", after);
}

/// The Gregorian rule, written down anew.
fn month_length(year: i32, month: u32) -> u32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A thousand years of months, for every day of the month that a short month can clamp, from anchors in the middle.
#[test]
fn month_ends_over_centuries() {
    for day in 28..=31 {
        let anchor = time(&format!("2000-01-{day}T10:20:30"));
        let mut expected_start = time(&format!("1600-01-{day}T10:20:30"));
        for month in 1..=12_000_u32 {
            let (year, month) = (1600 + (month / 12) as i32, month % 12 + 1);
            let end_day = day.min(month_length(year, month));
            let expected_end = time(&format!("{year:04}-{month:02}-{end_day:02}T10:20:30"));
            let period = period_containing(anchor, Interval::Month, 1, expected_start);
            assert_eq!(period, Ok(expected_start..expected_end));
            expected_start = expected_end;
        }
    }
}

#[test]
fn leap_years_over_centuries() {
    for year in 1600..2600 {
        let boundary = |year: i32| time(&format!("{year}-02-{}", month_length(year, 2)));
        let period = period_containing(time("2000-02-29"), Interval::Year, 1, boundary(year));
        assert_eq!(period, Ok(boundary(year)..boundary(year + 1)), "{year}");
    }
}

/// At the ends of what chrono can hold: an answer where the whole period fits, else an error.
#[test]
fn out_of_range_is_an_error() {
    let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
    for interval in INTERVALS {
        for count in [1, u32::MAX] {
            for (anchor, at) in [
                (time("2024-01-31"), last),
                (time("2024-01-31T00:00:01"), first),
                (first, last),
            ] {
                if let Ok(period) = period_containing(anchor, interval, count, at) {
                    assert!(period.contains(&at));
                }
            }
            assert_eq!(
                period_containing(last, interval, count, last),
                Err(CalendarError::TimeOutOfRange)
            );
        }
        let far = period_containing(time("2024-01-31"), interval, u32::MAX, time("2024-01-31"));
        assert_eq!(far, Err(CalendarError::TimeOutOfRange), "{interval}");
    }
}

#[test]
fn a_count_of_zero_is_an_error() {
    for interval in INTERVALS {
        let period = period_containing(time("2024-01-31"), interval, 0, time("2024-01-31"));
        assert_eq!(period, Err(CalendarError::ZeroCount));
    }
}

/// Three years, as Stripe's API says of `recurring.interval_count`: 36 months, 156 weeks.
#[test]
fn intervals_read_and_print() {
    for (interval, text, max_count) in [
        (Interval::Day, "day", 1095),
        (Interval::Week, "week", 156),
        (Interval::Month, "month", 36),
        (Interval::Year, "year", 3),
    ] {
        assert_eq!((interval.to_string().as_str(), interval.max_count()), (text, max_count));
        assert_eq!(text.parse(), Ok(interval));
        assert_eq!(serde_json::to_string(&interval).unwrap(), format!("{text:?}"));
    }
    let unknown = "Month".parse::<Interval>();
    assert_eq!(unknown, Err(CalendarError::UnknownInterval("Month".to_owned())));
}

proptest! {
    #[test]
    fn the_period_holds_its_moment(anchor in moments(), (interval, count) in lengths(), at in moments()) {
        let period = period_containing(anchor, interval, count, at).unwrap();
        prop_assert!(period.contains(&at));
    }

    /// Consecutive periods meet: every moment of one, its last microsecond too, names that one, and its end the next.
    #[test]
    fn periods_tile_the_line(anchor in moments(), (interval, count) in lengths(), at in moments(), within in 0.0..1.0) {
        let period = period_containing(anchor, interval, count, at).unwrap();
        let (start, end) = (period.start.timestamp_micros(), period.end.timestamp_micros());
        let inside = start + ((end - start) as f64 * within) as i64;
        for moment in [start, inside.min(end - 1), end - 1] {
            prop_assert_eq!(&period_containing(anchor, interval, count, micros(moment)).unwrap(), &period);
        }
        prop_assert_eq!(period_containing(anchor, interval, count, period.end).unwrap().start, period.end);
        prop_assert_eq!(period_containing(anchor, interval, count, micros(start - 1)).unwrap().end, period.start);
    }

    /// Boundaries are whole multiples of the interval from the anchor, on its day or on the last of a shorter month.
    #[test]
    fn boundaries_count_from_the_anchor(anchor in moments(), (interval, count) in lengths(), at in moments()) {
        let period = period_containing(anchor, interval, count, at).unwrap();
        let months = |time: DateTime<Utc>| i64::from(time.year()) * 12 + i64::from(time.month());
        let count = i64::from(count);
        for boundary in [period.start, period.end] {
            match interval {
                Interval::Day | Interval::Week => {
                    let days = if interval == Interval::Week { 7 * count } else { count };
                    let since = i128::from(boundary.timestamp_micros()) - i128::from(anchor.timestamp_micros());
                    prop_assert_eq!(since % (i128::from(days) * 86_400_000_000), 0);
                }
                Interval::Month | Interval::Year => {
                    let step = if interval == Interval::Year { 12 * count } else { count };
                    prop_assert_eq!((months(boundary) - months(anchor)) % step, 0);
                    let last_day = month_length(boundary.year(), boundary.month());
                    prop_assert_eq!(boundary.day(), anchor.day().min(last_day));
                    prop_assert_eq!(boundary.num_seconds_from_midnight(), anchor.num_seconds_from_midnight());
                    prop_assert_eq!(boundary.timestamp_subsec_micros(), anchor.timestamp_subsec_micros());
                }
            }
        }
    }

    /// Any two moments at all, and any count: an answer that holds the moment, or an error; never a panic.
    #[test]
    fn never_panics(
        anchor in -8_334_000_000_000_000_000..8_210_000_000_000_000_000_i64, at in -8_334_000_000_000_000_000..8_210_000_000_000_000_000_i64,
        interval in prop::sample::select(INTERVALS.to_vec()), count in any::<u32>(),
    ) {
        match period_containing(micros(anchor), interval, count, micros(at)) {
            Ok(period) => prop_assert!(period.contains(&micros(at))),
            Err(error) => prop_assert_eq!(error, CalendarError::TimeOutOfRange),
        }
    }
}
