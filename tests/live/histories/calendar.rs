//! Period boundaries, by the rule itself: whole periods away from the anchor, in UTC; the anchor's day of the month, or the last one of
//! a shorter month.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate};

use super::prices::Interval;
use super::story::{DAY, Micros};

/// The boundary that lies n periods after the anchor.
fn boundary(anchor: Micros, interval: Interval, n: i64) -> Micros {
    match interval {
        Interval::Week => anchor + n * 7 * DAY,
        Interval::TenDays => anchor + n * 10 * DAY,
        Interval::Month => {
            let time = anchor.rem_euclid(DAY);
            let day = DateTime::from_timestamp_micros(anchor).unwrap().date_naive();
            let month = i64::from(day.year()) * 12 + i64::from(day.month0()) + n;
            let year = i32::try_from(month.div_euclid(12)).unwrap();
            let first = NaiveDate::from_ymd_opt(year, u32::try_from(month.rem_euclid(12)).unwrap() + 1, 1).unwrap();
            let last = first + Months::new(1) - Days::new(1);
            let date = first.with_day(day.day().min(last.day())).unwrap();
            let midnight = date.signed_duration_since(NaiveDate::default()).num_days() * DAY;
            midnight + time
        }
    }
}

/// The whole period that holds a time.
pub fn period(anchor: Micros, interval: Interval, at: Micros) -> (Micros, Micros) {
    // A few years around the anchor: more than any history has.
    let mut n = -150;
    while boundary(anchor, interval, n + 1) <= at {
        n += 1;
    }
    (boundary(anchor, interval, n), boundary(anchor, interval, n + 1))
}
