//! Parts of an amount by time.

use super::{database, none};
use crate::refusal::Refusal;

#[test]
fn prorations_are_exact_and_rounded_once() {
    let (_database, mut client) = database();
    // The definition in numeric: whole microseconds, and one division with more places than any tie here has.
    client.batch_execute("SELECT setseed(0.5)").unwrap();
    none(
        &mut client,
        "SELECT * FROM (
             SELECT amount, part, whole, billing.prorated_amount(amount, part, whole) AS got,
                    round(amount * extract(epoch FROM upper(part) - lower(part)) / extract(epoch FROM upper(whole) - lower(whole)))
                        AS expected
             FROM (SELECT round((random() * 100000 - 50000)::numeric, n % 13) AS amount, tstzrange(start, start + length) AS whole,
                          tstzrange(start + length * a / 1000, start + length * b / 1000) AS part
                   FROM generate_series(1, 4000) n,
                        LATERAL (SELECT timestamptz '2024-01-01Z' + floor(random() * 1e9) * interval '1 second' AS start,
                                        (1 + floor(random() * 366)) * interval '24 hours' AS length,
                                        floor(random() * 500) AS a, 500 + floor(random() * 500) AS b) r
                  ) made) compared
         WHERE got IS DISTINCT FROM expected",
    );
    let sql = "SELECT billing.prorated_amount($1::text::numeric, $2::text::tstzrange, $3::text::tstzrange)";
    let january = "[2024-01-01Z,2024-02-01Z)";
    let half = "[2024-01-01Z,2024-01-16 12:00Z)";
    for (amount, expected) in [("5", 3_i64), ("-5", -3), ("1", 1), ("-1", -1), ("0.9", 0), ("4", 2)] {
        let got: i64 = client.query_one(sql, &[&amount, &half, &january]).unwrap().get(0);
        assert_eq!(got, expected, "half of {amount}");
    }
    for (amount, part, whole, code) in [
        ("NaN", half, january, "22023"),
        ("Infinity", half, january, "22023"),
        ("1", "(,)", january, "22023"),
        ("1", half, "[2024-01-01Z,)", "22023"),
        ("1", half, "empty", "22023"),
        ("1", half, "(2024-01-01Z,2024-02-01Z]", "22023"),
        ("1", "[-infinity,2024-02-01Z)", january, "22023"),
        ("1e30", half, january, "22003"),
    ] {
        Refusal::of(&mut client, sql, &[&amount, &part, &whole]).says(code, &[]);
    }
}

/// Three seats at 1.00 are 3.00, below the minimum of 5.00, which half a period has half of.
#[test]
fn the_bounded_amount_is_prorated() {
    let (_database, mut client) = database();
    let sql = r#"SELECT billing.prorated_amount(billing.price_amount('{"currency":"usd","unit_amount":100,"minimum_amount":500,
                        "recurring":{"interval":"month"}}', 3), '[2024-02-01Z,2024-02-15 12:00Z)', '[2024-02-01Z,2024-03-01Z)')"#;
    let got: i64 = client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(got, 250);
}
