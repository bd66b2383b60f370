//! A price in its currencies, its bounds, and how many decimals a currency has.

use serde_json::json;

use super::{database, none};
use crate::refusal::Refusal;

#[test]
fn a_price_has_the_amounts_of_the_currency_asked_for() {
    let (_database, mut client) = database();
    let price = json!({
        "currency": "usd", "unit_amount": 1000, "minimum_amount": 1500, "recurring": {"interval": "month"},
        "currency_options": {
            "eur": {"unit_amount": 900, "minimum_amount": 1300, "tax_behavior": "inclusive"},
            "jpy": {"unit_amount_decimal": "1500.5", "minimum_amount": 0, "maximum_amount": 4000}
        }
    });
    let line = "SELECT billing.price_line_amount(billing.price_in_currency($1::jsonb, $2), $3::text::numeric)";
    for (currency, quantity, expected) in [
        ("usd", "1", 1500_i64),
        ("usd", "2", 2000),
        ("eur", "1", 1300),
        ("EUR", "2", 1800),
        ("jpy", "1", 1501), // 1500.5, half away from zero
        ("jpy", "2", 3001),
        ("jpy", "3", 4000), // 4501.5, above the maximum
        ("jpy", "0", 0),
    ] {
        let got: i64 = client.query_one(line, &[&price, &currency, &quantity]).unwrap().get(0);
        assert_eq!(got, expected, "{quantity} in {currency}");
    }
    // Without asking, and of a price that stands alone, it is the price's own.
    none(
        &mut client,
        &format!(
            "SELECT * FROM (SELECT '{price}'::jsonb::billing.price AS p) v
             WHERE billing.price_amount(p, 2) <> 2000 OR billing.price_in_currency(p, 'usd')::jsonb <> p::jsonb - 'currency_options'
                OR billing.price_in_currency(p, 'eur')::jsonb ->> 'tax_behavior' <> 'inclusive'
                OR billing.price_in_currency(billing.price_in_currency(p, 'eur'), 'eur') <> billing.price_in_currency(p, 'eur')
                OR billing.price_in_currency(p, NULL) IS NOT NULL OR billing.price_in_currency(NULL, 'eur') IS NOT NULL"
        ),
    );
    for currency in ["gbp", "", "usx", "x'; --"] {
        Refusal::of(
            &mut client,
            "SELECT billing.price_in_currency($1::jsonb, $2)::text",
            &[&price, &currency],
        )
        .says("22023", &[&format!("\"{currency}\""), "usd, eur, jpy"])
        .hints();
    }
}

/// Per unit and at random: the amount by numeric, and greatest and least of it.
#[test]
fn bounds_equal_greatest_and_least() {
    let (_database, mut client) = database();
    client.batch_execute("SELECT setseed(0.25)").unwrap();
    none(
        &mut client,
        r#"SELECT * FROM (
             SELECT unit, quantity, low, high,
                    billing.price_amount(format('{"currency":"kwd","unit_amount_decimal":"%s","recurring":{"interval":"month"}%s%s}', unit,
                        ',"minimum_amount":' || low, ',"maximum_amount":' || high)::billing.price, quantity) AS got
             FROM (SELECT round((random() * 1000)::numeric, n % 13) AS unit, round((random() * 1000 - 100)::numeric, n % 7) AS quantity,
                          CASE WHEN n % 3 > 0 THEN floor(random() * 300000)::bigint END AS low,
                          CASE WHEN n % 5 > 0 THEN 300000 + floor(random() * 300000)::bigint END AS high
                   FROM generate_series(1, 5000) n) made) compared
           WHERE got IS DISTINCT FROM least(greatest(unit * greatest(quantity, 0), low), high)"#,
    );
}

/// docs.stripe.com/currencies: zero-decimal, three-decimal, and the two that are written with two decimals all the same.
#[test]
fn exponents_are_stripes() {
    let (_database, mut client) = database();
    for (currency, expected) in [
        ("jpy", 0),
        ("KRW", 0),
        ("usd", 2),
        ("isk", 2),
        ("ugx", 2),
        ("kwd", 3),
        ("Bhd", 3),
    ] {
        let got: i32 = client
            .query_one("SELECT billing.currency_exponent($1)", &[&currency])
            .unwrap()
            .get(0);
        assert_eq!(got, expected, "{currency}");
    }
    none(
        &mut client,
        "SELECT 1 WHERE billing.currency_exponent(NULL) IS NOT NULL",
    );
    for currency in ["usx", "", "dollar"] {
        Refusal::of(&mut client, "SELECT billing.currency_exponent($1)", &[&currency])
            .says("22023", &[&format!("\"{currency}\"")])
            .hints();
    }
}
