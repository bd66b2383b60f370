//! Amounts rounded to a line, and quantities that have none.

use serde_json::json;

use super::models::PER_UNIT;
use super::{database, none};
use crate::refusal::Refusal;

#[test]
fn a_line_is_rounded_half_away_from_zero_and_fits_bigint() {
    let (_database, mut client) = database();
    let price = |unit: &str| json!({"currency": "usd", "unit_amount_decimal": unit});
    let line = "SELECT billing.price_line_amount($1::jsonb, $2::text::numeric)";
    for (unit, quantity, expected) in [
        ("0.05", "30", 2_i64), // 1.5, as Stripe's documentation has it
        ("0.5", "1", 1),
        ("0.5", "3", 2),
        ("0.5", "5", 3),
        ("0.499999999999", "1", 0),
        ("0.1", "5", 1),
        ("1", "0.4999999999999999999999999", 0),
        ("1", "-7", 0),
        ("9223372036854775807", "1", i64::MAX),
        ("9223372036854775807", "1.00000000000000000005", i64::MAX),
        ("1", "9223372036854775807.4999999999", i64::MAX),
    ] {
        let got: i64 = client.query_one(line, &[&price(unit), &quantity]).unwrap().get(0);
        assert_eq!(got, expected, "{quantity} at {unit}");
    }
    for (unit, quantity) in [
        ("1", "9223372036854775807.5"),
        ("9223372036854775807", "2"),
        ("1", "1e100"),
    ] {
        Refusal::of(&mut client, line, &[&price(unit), &quantity])
            .says("22003", &["out of range for bigint"])
            .hints();
    }
    // numeric's own round() breaks ties away from zero too.
    client.batch_execute(PER_UNIT).unwrap();
    none(
        &mut client,
        "SELECT * FROM per_unit
         WHERE unit * greatest(quantity, 0) < 9223372036854775807
           AND billing.price_line_amount(plain::billing.price, quantity) IS DISTINCT FROM round(unit * greatest(quantity, 0))",
    );
}

#[test]
fn only_finite_quantities_have_an_amount() {
    let (_database, mut client) = database();
    let price = json!({"currency": "usd", "unit_amount_decimal": "0.000000000001"});
    for function in ["price_amount", "price_line_amount"] {
        let sql = format!("SELECT billing.{function}($1::jsonb, $2::text::numeric)::text");
        for quantity in ["NaN", "Infinity", "-Infinity"] {
            Refusal::of(&mut client, &sql, &[&price, &quantity]).says("22023", &["\"quantity\"", quantity]);
        }
    }
    let sql = "SELECT billing.price_amount($1::jsonb, $2::text::numeric) = $2::text::numeric * $3::text::numeric";
    // The greatest numeric there is, and the finest.
    for (unit, quantity) in [
        ("1", "9".repeat(131_072)),
        ("0.5", format!("0.{}1", "0".repeat(16_000))),
    ] {
        let price = json!({"currency": "usd", "unit_amount_decimal": unit});
        assert!(
            client
                .query_one(sql, &[&price, &quantity, &unit])
                .unwrap()
                .get::<_, bool>(0)
        );
    }
    let price = json!({"currency": "usd", "unit_amount": 20});
    Refusal::of(&mut client, sql, &[&price, &"9".repeat(131_072), &"0"]).says("22003", &["out of range"]);
}
