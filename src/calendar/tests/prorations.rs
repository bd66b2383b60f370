//! Prorations: documented examples, and parts that add up to their whole.

use bigdecimal::num_bigint::BigInt;

use super::*;
use crate::pricing::Dec;

/// docs.stripe.com/billing/subscriptions/prorations: from 10 to 20 half way through gives back 5 and charges 10.
#[test]
fn stripe_example_upgrade_half_way() {
    let (april, rest) = (range("2024-04-01", "2024-05-01"), range("2024-04-16", "2024-05-01"));
    assert_eq!(prorate(&Dec::from(-1000), rest.clone(), april.clone()), Ok(-500));
    assert_eq!(prorate(&Dec::from(2000), rest, april), Ok(1000));
}

/// Stripe's example of two changes in a month of 30 days: on day 20 the plan goes from 20 back to 10, −6.67 + 3.33.
#[test]
fn stripe_example_downgrade_on_day_twenty() {
    let (april, rest) = (range("2024-04-01", "2024-05-01"), range("2024-04-21", "2024-05-01"));
    assert_eq!(prorate(&Dec::from(-2000), rest.clone(), april.clone()), Ok(-667));
    assert_eq!(prorate(&Dec::from(1000), rest, april), Ok(333));
}

/// docs.stripe.com/billing/subscriptions/backdating: 15 February to 1 March is 14 of 28 days.
#[test]
fn stripe_example_backdating() {
    let (part, february) = (range("2023-02-15", "2023-03-01"), range("2023-02-01", "2023-03-01"));
    assert_eq!(
        fraction(part.clone(), february.clone()),
        Ok((14 * 86_400_000_000, 28 * 86_400_000_000))
    );
    assert_eq!(prorate(&Dec::from(999), part, february), Ok(500));
}

/// Four hours of a day at 3 are exactly a half. A sixth written as a decimal would be just less, and round to nothing.
#[test]
fn a_half_made_of_sixths_rounds_up() {
    let (hours, day) = (
        range("2024-04-01", "2024-04-01T04:00:00"),
        range("2024-04-01", "2024-04-02"),
    );
    assert_eq!(prorate(&Dec::from(3), hours.clone(), day.clone()), Ok(1));
    assert_eq!(prorate(&Dec::from(-3), hours, day), Ok(-1));
}

#[test]
fn only_what_lies_within_the_period_counts() {
    let day = || range("2024-04-02", "2024-04-03");
    let length = 86_400_000_000;
    assert_eq!(fraction(range("2024-04-01", "2024-05-01"), day()), Ok((length, length)));
    assert_eq!(
        fraction(range("2024-04-02T12:00:00", "2024-05-01"), day()),
        Ok((length / 2, length))
    );
    assert_eq!(fraction(range("2024-03-01", "2024-04-02"), day()), Ok((0, length)));
    assert_eq!(fraction(range("2024-05-01", "2024-03-01"), day()), Ok((0, length)));
}

#[test]
fn refuses_what_has_no_answer() {
    let day = range("2024-04-01", "2024-04-02");
    assert_eq!(
        fraction(day.clone(), range("2024-04-01", "2024-04-01")),
        Err(CalendarError::EmptyPeriod)
    );
    assert_eq!(
        fraction(day.clone(), range("2024-04-02", "2024-04-01")),
        Err(CalendarError::EmptyPeriod)
    );
    let ever = DateTime::<Utc>::MIN_UTC..DateTime::<Utc>::MAX_UTC;
    assert_eq!(fraction(day.clone(), ever), Err(CalendarError::TimeOutOfRange));
    let beyond = Dec::from(i64::MAX) + Dec::from(1);
    assert_eq!(
        prorate(&beyond, day.clone(), day.clone()),
        Err(CalendarError::AmountOutOfRange)
    );
    assert_eq!(prorate(&Dec::from(i64::MIN), day.clone(), day), Ok(i64::MIN));
}

proptest! {
    /// Cut a period anywhere: the parts follow each other without gap or overlap, and their fractions add to one.
    #[test]
    fn parts_of_a_period_add_to_one(
        anchor in moments(), (interval, count) in lengths(), at in moments(), cuts in prop::collection::vec(0.0..=1.0, 0..12),
    ) {
        let whole = period_containing(anchor, interval, count, at).unwrap();
        let (start, end) = (whole.start.timestamp_micros(), whole.end.timestamp_micros());
        let mut edges: Vec<i64> = cuts.iter().map(|cut| start + ((end - start) as f64 * cut) as i64).collect();
        edges.extend([start, end]);
        edges.sort_unstable();
        let mut sum = 0;
        for pair in edges.windows(2) {
            let (numerator, denominator) = fraction(micros(pair[0])..micros(pair[1]), whole.clone()).unwrap();
            prop_assert_eq!((numerator, denominator), (pair[1] - pair[0], end - start));
            sum += numerator;
        }
        prop_assert_eq!(sum, end - start);
    }

    /// A long period walked through in shorter ones of another anchor is covered once.
    #[test]
    fn shorter_periods_cover_a_longer_one(anchors in (moments(), moments()), at in moments(), days in 1..40_u32) {
        let whole = period_containing(anchors.0, Interval::Year, 1, at).unwrap();
        for (interval, count) in [(Interval::Day, days), (Interval::Week, 1), (Interval::Month, 1)] {
            let mut reached = whole.start;
            let mut sum = 0;
            while reached < whole.end {
                let part = period_containing(anchors.1, interval, count, reached).unwrap();
                prop_assert!(part.start <= reached && (part.start == reached || reached == whole.start));
                let (numerator, denominator) = fraction(part.clone(), whole.clone()).unwrap();
                sum += numerator;
                prop_assert!(sum <= denominator);
                reached = part.end;
            }
            prop_assert_eq!(sum, whole.end.timestamp_micros() - whole.start.timestamp_micros());
        }
    }

    /// Against a division of integers, and alike on both sides of zero.
    #[test]
    fn prorates_to_the_nearest_unit(amount in -1_000_000_000_000_000_i64..1_000_000_000_000_000, places in 0..12_i64, whole in 1..95_000_000_000_000_i64, part in 0.0..=1.0) {
        let part = (whole as f64 * part) as i64;
        let prorated = |amount: i64| {
            prorate(&Dec::new(BigInt::from(amount), places), micros(0)..micros(part), micros(0)..micros(whole)).unwrap()
        };
        let rounded = prorated(amount);
        prop_assert_eq!(prorated(-amount), -rounded);
        // rounded − amount × part / (whole × 10^places), times that divisor, is at most half of it.
        let divisor = BigInt::from(whole) * BigInt::from(10).pow(places as u32);
        let error = BigInt::from(rounded) * &divisor - BigInt::from(amount) * part;
        let twice = BigInt::from(error.magnitude().clone()) * 2;
        prop_assert!(twice <= divisor);
        prop_assert!(twice < divisor || error.sign() == BigInt::from(amount).sign());
    }
}
