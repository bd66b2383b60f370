//! Each model's amounts: Stripe's examples, and thousands of random prices and quantities.

use postgres::Client;
use serde_json::{Value, json};

use super::{database, none};

fn amount(client: &mut Client, price: &Value, quantity: &str) -> String {
    client
        .query_one(
            "SELECT trim_scale(billing.price_amount($1::jsonb, $2::text::numeric))::text",
            &[price, &quantity],
        )
        .unwrap()
        .get(0)
}

fn tiered(mode: &str, tiers: Value) -> Value {
    json!({"currency": "usd", "billing_scheme": "tiered", "tiers_mode": mode, "tiers": tiers})
}

/// Stripe's own worked examples.
#[test]
fn stripes_examples_come_out_as_stripe_says() {
    let (_database, mut client) = database();
    let plain = json!([{"up_to": 5, "unit_amount": 7}, {"up_to": 10, "unit_amount_decimal": "6.5"}, {"up_to": "inf", "unit_amount": 6}]);
    let flats = json!([
        {"up_to": 5, "unit_amount": 5, "flat_amount": 10}, {"up_to": 10, "unit_amount": 4, "flat_amount": 20},
        {"up_to": 15, "unit_amount": 3, "flat_amount": 30}, {"up_to": 20, "unit_amount": 2, "flat_amount": 40},
        {"up_to": "inf", "unit_amount": 1, "flat_amount": 50}
    ]);
    let drop = json!([{"up_to": 10_000, "unit_amount_decimal": "0.5"}, {"up_to": "inf", "unit_amount_decimal": "0.4"}]);
    let package = |unit: i32, divide_by: i32, round: &str| json!({"currency": "usd", "unit_amount": unit, "transform_quantity": {"divide_by": divide_by, "round": round}});
    let examples = [
        (
            tiered("volume", plain.clone()),
            vec![("5", "35"), ("6", "39"), ("20", "120"), ("25", "150")],
        ),
        (
            tiered("graduated", plain),
            vec![("5", "35"), ("6", "41.5"), ("20", "127.5"), ("25", "157.5")],
        ),
        (
            tiered("volume", flats.clone()),
            vec![("12", "66"), ("0", "10"), ("-3", "10")],
        ),
        (
            tiered("graduated", flats),
            vec![("12", "111"), ("0", "10"), ("-3", "10")],
        ),
        (tiered("volume", drop), vec![("10000", "5000"), ("10001", "4000.4")]),
        (
            package(1000, 60, "up"),
            vec![
                ("150", "3000"),
                ("0", "0"),
                ("0.001", "1000"),
                ("60", "1000"),
                ("-60", "0"),
            ],
        ),
        (package(1, 5, "up"), vec![("6", "2")]),
        (package(1, 5, "down"), vec![("6", "1"), ("4.999", "0")]),
        (
            json!({"currency": "usd", "unit_amount_decimal": "0.05"}),
            vec![("30", "1.5"), ("-1", "0")],
        ),
    ];
    for (price, pairs) in examples {
        for (quantity, expected) in pairs {
            assert_eq!(amount(&mut client, &price, quantity), expected, "{quantity} of {price}");
        }
    }
}

/// Random decimals of up to 12 places and quantities of every size, down to fractions, from one seed.
pub(super) const PER_UNIT: &str = r#"
    SELECT setseed(0.123);
    CREATE TABLE per_unit AS
    SELECT n, u.unit, q.quantity, d.divide_by, r.round,
           format('{"currency":"usd","unit_amount_decimal":"%s"%s}', u.unit,
               ', "transform_quantity":{"divide_by":' || d.divide_by || ',"round":"' || r.round || '"}')::text AS package,
           format('{"currency":"usd","unit_amount_decimal":"%s"}', u.unit) AS plain
    FROM generate_series(1, 5000) n,
         LATERAL (SELECT trim_scale(round(floor(random() * 10 ^ (n % 7))::numeric
                                  + floor(random() * 1e12)::numeric / 1000000000000, n % 13)) AS unit) u,
         LATERAL (SELECT CASE n % 10 WHEN 0 THEN floor(random() * 1000)::numeric
                                     WHEN 1 THEN -random()::numeric
                                     WHEN 2 THEN (floor(random() * 1e15) * 1e15 + floor(random() * 1e15))::numeric
                                     ELSE round(floor(random() * 10 ^ (n % 16))::numeric
                                        + floor(random() * 1e15)::numeric / 1000000000000000, n % 16) END AS quantity) q,
         LATERAL (SELECT (1 + floor(random() * 10 ^ (n % 10)))::bigint AS divide_by) d,
         LATERAL (SELECT CASE WHEN random() < 0.5 THEN 'up' ELSE 'down' END AS round) r;"#;

#[test]
fn per_unit_and_package_prices_equal_numeric() {
    let (_database, mut client) = database();
    client.batch_execute(PER_UNIT).unwrap();
    none(
        &mut client,
        "SELECT *, billing.price_amount(plain::billing.price, quantity) AS amount, unit * greatest(quantity, 0) AS expected
         FROM per_unit
         WHERE billing.price_amount(plain::billing.price, quantity) IS DISTINCT FROM unit * greatest(quantity, 0)",
    );
    none(
        &mut client,
        "SELECT * FROM (
             SELECT *, billing.price_amount(package::billing.price, quantity) AS amount,
                    unit * (div(greatest(quantity, 0), divide_by)
                            + CASE WHEN round = 'up' AND mod(greatest(quantity, 0), divide_by) > 0 THEN 1 ELSE 0 END) AS expected
             FROM per_unit) compared
         WHERE amount IS DISTINCT FROM expected",
    );
}

/// 400 tier lists of 1 to 12 tiers with 24 quantities each: at random, at 0, at every edge and a hair beside it.
const TIERS: &str = r#"
    SELECT setseed(0.321);
    CREATE TABLE tiers AS
    SELECT list, tier, tier = tiers AS is_last, unit, flat,
           sum(step) OVER (PARTITION BY list ORDER BY tier) AS upper,
           sum(step) OVER (PARTITION BY list ORDER BY tier) - step AS lower
    FROM (SELECT list, 1 + list % 12 AS tiers FROM generate_series(1, 400) list) l,
         LATERAL generate_series(1, tiers) tier,
         LATERAL (SELECT trim_scale(round((random() * 10 ^ (tier % 5))::numeric, (list + tier) % 13)) AS unit,
                         CASE WHEN random() < 0.5 THEN trim_scale(round((random() * 1000)::numeric, (list * tier) % 13)) END AS flat,
                         (1 + floor(random() * 10 ^ (list % 7)))::bigint AS step) r;
    CREATE TABLE quantities AS
    SELECT list, q AS quantity FROM (
        SELECT list, round((random() * 1.2)::numeric * max(upper), n) AS q
        FROM tiers, generate_series(0, 11) n GROUP BY list, n
        UNION ALL SELECT DISTINCT list, 0 FROM tiers
        UNION ALL SELECT list, upper + beside FROM tiers, unnest(ARRAY[0, 0.000000000001, -0.000000000001, 1]) beside
    ) all_of_them;
    CREATE TABLE lists AS
    SELECT list, mode, (SELECT jsonb_build_object('currency', 'usd', 'billing_scheme', 'tiered', 'tiers_mode', mode, 'tiers', jsonb_agg(
               jsonb_build_object('up_to', CASE WHEN is_last THEN '"inf"' ELSE to_jsonb(upper) END,
                                  'unit_amount_decimal', unit::text, 'flat_amount_decimal', flat::text) ORDER BY tier))
               FROM tiers t WHERE t.list = g.list)::billing.price AS price
    FROM generate_series(1, 400) g (list), unnest(ARRAY['graduated', 'volume']) mode;"#;

#[test]
fn tiered_prices_equal_numeric() {
    let (_database, mut client) = database();
    client.batch_execute(TIERS).unwrap();
    // A tier takes what lies above its lower and up to its upper bound, the last one all the rest; the first is reached
    // by 0 already.
    let reached = "(t.tier = 1 OR q.quantity > t.lower)";
    let expected = format!(
        "SELECT q.list, q.quantity, l.mode, billing.price_amount(l.price, q.quantity) AS amount, e.expected
         FROM quantities q JOIN lists l USING (list), LATERAL (
             SELECT sum(coalesce(t.flat, 0) + t.unit * CASE l.mode
                        WHEN 'volume' THEN q.quantity
                        ELSE CASE WHEN t.is_last THEN q.quantity ELSE least(q.quantity, t.upper) END - t.lower END) AS expected
             FROM tiers t WHERE t.list = q.list AND {reached}
               AND (l.mode = 'graduated' OR t.is_last OR q.quantity <= t.upper)) e"
    );
    none(
        &mut client,
        &format!("SELECT * FROM ({expected}) c WHERE amount IS DISTINCT FROM expected"),
    );
    let compared: i64 = client
        .query_one(&format!("SELECT count(*) FROM ({expected}) c"), &[])
        .unwrap()
        .get(0);
    assert!(compared > 15_000, "only {compared}");
}
