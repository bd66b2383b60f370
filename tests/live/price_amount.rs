//! The pure functions against PostgreSQL itself: amounts against its `numeric`, periods against its calendar.

use harness::Database;
use postgres::Client;
use serde_json::{Value, json};

use crate::refusal::Refusal;

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

/// Asserts that the query finds no row; shows the first ones if it does.
fn none(client: &mut Client, sql: &str) {
    let wrong: Vec<String> = client
        .query(&format!("SELECT to_jsonb(wrong)::text FROM ({sql}) wrong LIMIT 5"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

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
const PER_UNIT: &str = r#"
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

#[test]
fn amounts_are_immutable_strict_and_parallel() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"CREATE TABLE sold (p billing.price, q numeric, anchor timestamptz,
                                  a numeric GENERATED ALWAYS AS (billing.price_amount(p, q)) STORED);
               CREATE INDEX sold_line ON sold (billing.price_line_amount(p, q));
               CREATE INDEX sold_period ON sold (lower(billing.period_containing('2024-01-31 00:00+00', 'month', 1, anchor)));
               INSERT INTO sold SELECT format('{"currency":"usd","unit_amount_decimal":"0.%s"}', lpad((n % 1000)::text, 3, '0'))
                   ::billing.price, n, '2024-01-01 00:00+00'::timestamptz + n * interval '1 hour' FROM generate_series(1, 20000) n;
               INSERT INTO sold VALUES (NULL, 1, now()), ('{"currency":"usd","unit_amount":1}', NULL, NULL);
               ANALYZE sold;
               SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
               SET max_parallel_workers_per_gather = 2;"#,
        )
        .unwrap();
    let total = "SELECT count(*), count(a), trim_scale(sum(billing.price_amount(p, q)))::text,
                        max(lower(billing.period_containing('2024-01-31 00:00+00', 'month', 1, anchor)))::text
                 FROM sold WHERE billing.price_line_amount(p, q) IS DISTINCT FROM -1";
    let plan: String = client
        .query(
            &format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {total}"),
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get::<_, String>(0) + "\n")
        .collect();
    assert!(
        plan.contains("Gather") && !plan.contains("Workers Launched: 0"),
        "{plan}"
    );
    let in_parallel = client.query_one(total, &[]).unwrap();
    assert_eq!((in_parallel.get(0), in_parallel.get(1)), (20_002_i64, 20_000_i64));
    let expected: String = client
        .query_one(
            "SELECT trim_scale(sum((n % 1000) * n) / 1000.0)::text FROM generate_series(1, 20000) n",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(in_parallel.get::<_, &str>(2), expected);
    client.batch_execute("SET max_parallel_workers_per_gather = 0").unwrap();
    let alone = client.query_one(total, &[]).unwrap();
    assert_eq!(alone.get::<_, &str>(2), expected);
    assert_eq!(alone.get::<_, &str>(3), in_parallel.get::<_, &str>(3));
    let plan: String = client
        .query_one(
            "EXPLAIN (FORMAT JSON) SELECT * FROM sold
             WHERE billing.price_line_amount(p, q) = 7",
            &[],
        )
        .unwrap()
        .get::<_, Value>(0)
        .to_string();
    assert!(plan.contains("sold_line"), "{plan}");
    none(
        &mut client,
        "SELECT oid::regprocedure::text, provolatile, proisstrict, proparallel FROM pg_proc
         WHERE pronamespace = 'billing'::regnamespace
           AND proname IN ('price_amount', 'price_line_amount', 'prorated_amount', 'period_containing')
           AND (provolatile, proisstrict, proparallel) <> ('i', true, 's')",
    );
}

/// Anchors over three centuries, half of them on the 28th to 31st, some at midnight, most to the microsecond; times up to
/// centuries away from them on both sides, and, which is where mistakes are made, at a boundary and a microsecond before.
const PERIODS: &str = r#"
    SELECT setseed(0.777);
    CREATE TABLE asked AS
    SELECT n, i.interval, i.count, (a.anchor AT TIME ZONE 'UTC') AS anchor, (t.at AT TIME ZONE 'UTC') AS at
    FROM generate_series(1, 6000) n,
         LATERAL (SELECT (ARRAY['day', 'week', 'month', 'year'])[1 + n % 4] AS interval,
                         CASE WHEN random() < 0.5 THEN 1 ELSE 1 + floor(random() * 36)::int END AS count) i,
         LATERAL (SELECT timestamp '1900-01-01' + floor(random() * 3600) * interval '1 month'
                         + CASE WHEN random() < 0.5 THEN (27 + floor(random() * 4)) * interval '1 day'
                                ELSE floor(random() * 28) * interval '1 day' END
                         + CASE WHEN random() < 0.3 THEN interval '0'
                                ELSE floor(random() * 86400e6) * interval '1 microsecond' END AS anchor) a,
         LATERAL (SELECT CASE n % 3
                         WHEN 0 THEN a.anchor + floor((random() - 0.5) * 10 ^ (3 + n % 13)) * interval '1 microsecond'
                         WHEN 1 THEN a.anchor + make_interval(months => floor((random() - 0.5) * 2400)::int)
                         ELSE a.anchor + make_interval(months => floor((random() - 0.5) * 2400)::int) - interval '1 microsecond'
                         END AS at) t;
    -- The definition, by PostgreSQL's own arithmetic on timestamps without time zone: the greatest k-th boundary, counted
    -- from the anchor itself, that is not after "at", and the next.
    CREATE TABLE answers AS
    SELECT a.*, b.boundary AS starts, make_timestamptz(1, 1, 1, 0, 0, 0, 'UTC') AS ends, b.k
    FROM asked a,
         LATERAL (SELECT floor(CASE interval
                     WHEN 'day' THEN extract(epoch FROM at - anchor) / 86400
                     WHEN 'week' THEN extract(epoch FROM at - anchor) / 604800
                     WHEN 'month' THEN extract(epoch FROM at - anchor) / 2629746
                     ELSE extract(epoch FROM at - anchor) / 31556952 END / count)::int AS about) g,
         LATERAL (SELECT k, ((anchor AT TIME ZONE 'UTC') + CASE interval
                             WHEN 'day' THEN make_interval(days => k * count) WHEN 'week' THEN make_interval(days => 7 * k * count)
                             WHEN 'month' THEN make_interval(months => k * count) ELSE make_interval(years => k * count) END)
                         AT TIME ZONE 'UTC' AS boundary
                  FROM generate_series(about - 2, about + 2) k) b
    WHERE b.boundary <= at;
    DELETE FROM answers x USING answers y WHERE x.n = y.n AND x.k < y.k;
    UPDATE answers SET ends = ((anchor AT TIME ZONE 'UTC') + CASE interval
               WHEN 'day' THEN make_interval(days => (k + 1) * count) WHEN 'week' THEN make_interval(days => 7 * (k + 1) * count)
               WHEN 'month' THEN make_interval(months => (k + 1) * count) ELSE make_interval(years => (k + 1) * count) END)
           AT TIME ZONE 'UTC';"#;

#[test]
fn periods_equal_postgresqls_calendar_in_every_session() {
    let (_database, mut client) = database();
    client.batch_execute(PERIODS).unwrap();
    for session in [
        "SELECT 1",
        "SET TimeZone = 'America/New_York'; SET DateStyle = 'SQL, DMY'",
        "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'",
        "SET TimeZone = 'Pacific/Apia'; SET DateStyle = 'Postgres, MDY'",
        "SET TimeZone = 'Australia/Lord_Howe'",
    ] {
        client.batch_execute(session).unwrap();
        none(
            &mut client,
            "SELECT *, billing.period_containing(anchor, interval, count, at) AS got FROM answers
             WHERE billing.period_containing(anchor, interval, count, at) IS DISTINCT FROM tstzrange(starts, ends, '[)')
                OR NOT billing.period_containing(anchor, interval, count, at) @> at",
        );
        let rows: i64 = client.query_one("SELECT count(*) FROM answers", &[]).unwrap().get(0);
        assert_eq!(rows, 6000, "the oracle has no answer for some");
    }
}

#[test]
fn month_ends_clamp_and_come_back() {
    let (_database, mut client) = database();
    let cases = [
        ("2023-01-31", "month", 1, "2023-02-15", "2023-01-31", "2023-02-28"),
        ("2023-01-31", "month", 1, "2023-02-28", "2023-02-28", "2023-03-31"),
        ("2024-01-31", "month", 1, "2024-02-29", "2024-02-29", "2024-03-31"),
        ("2024-01-30", "month", 1, "2024-04-29", "2024-03-30", "2024-04-30"),
        ("2024-01-31", "month", 3, "2024-05-01", "2024-04-30", "2024-07-31"),
        ("2024-02-29", "year", 1, "2025-02-28", "2025-02-28", "2026-02-28"),
        ("2024-02-29", "year", 1, "2028-02-28", "2027-02-28", "2028-02-29"),
        ("2024-02-29", "year", 1, "2028-02-29", "2028-02-29", "2029-02-28"),
        // 1900 and 2100 are no leap years, 2000 is one
        ("1896-02-29", "year", 1, "1900-02-28", "1900-02-28", "1901-02-28"),
        ("1996-02-29", "year", 1, "2000-02-29", "2000-02-29", "2001-02-28"),
        ("2096-02-29", "year", 3, "2099-03-01", "2099-02-28", "2102-02-28"),
        // before the anchor
        ("2024-03-31", "month", 1, "2024-02-29", "2024-02-29", "2024-03-31"),
        ("2024-03-31", "month", 1, "2024-02-28", "2024-01-31", "2024-02-29"),
        ("2024-01-01", "week", 2, "2023-12-31", "2023-12-18", "2024-01-01"),
        ("2024-03-01", "day", 1, "2024-02-29", "2024-02-29", "2024-03-01"),
    ];
    for (anchor, interval, count, at, start, end) in cases {
        let row = client
            .query_one(
                "SELECT billing.period_containing(($1::text || 'Z')::timestamptz, $2, $3, ($4::text || 'Z')::timestamptz)
                        = tstzrange(($5::text || 'Z')::timestamptz, ($6::text || 'Z')::timestamptz)",
                &[&anchor, &interval, &count, &at, &start, &end],
            )
            .unwrap();
        assert!(row.get::<_, bool>(0), "{anchor} every {count} {interval} at {at}");
    }
}

#[test]
fn periods_follow_each_other_without_gap_or_overlap() {
    let (_database, mut client) = database();
    none(
        &mut client,
        "WITH RECURSIVE walk AS (
             SELECT i, c, 0 AS step, billing.period_containing('2000-01-31 23:59:59.999999Z', i, c, '1890-05-05Z') AS p
             FROM unnest(ARRAY['day', 'week', 'month', 'year']) i, unnest(ARRAY[1, 2, 7]) c
             UNION ALL
             SELECT i, c, step + 1, billing.period_containing('2000-01-31 23:59:59.999999Z', i, c, upper(p)) FROM walk WHERE step < 1500
         )
         SELECT * FROM walk a JOIN walk b ON (a.i, a.c, a.step + 1) = (b.i, b.c, b.step)
         WHERE upper(a.p) <> lower(b.p) OR isempty(a.p)
            OR billing.period_containing('2000-01-31 23:59:59.999999Z', a.i, a.c, upper(a.p) - interval '1 microsecond') <> a.p",
    );
}

#[test]
fn periods_refuse_what_they_cannot_answer() {
    let (_database, mut client) = database();
    let ask = "SELECT billing.period_containing($1::text::timestamptz, $2, $3, $4::text::timestamptz)::text";
    let day = "2024-01-01Z";
    let refused: &[(&str, &str, i32, &str, &str, &[&str])] = &[
        ("infinity", "month", 1, day, "22023", &["\"anchor\"", "infinity"]),
        ("-infinity", "month", 1, day, "22023", &["\"anchor\"", "-infinity"]),
        (day, "month", 1, "infinity", "22023", &["\"at\"", "infinity"]),
        (day, "month", 1, "-infinity", "22023", &["\"at\"", "-infinity"]),
        (day, "month", 0, day, "22023", &["interval_count", "not 0"]),
        (day, "month", -3, day, "22023", &["interval_count", "not -3"]),
        (
            day,
            "fortnight",
            1,
            day,
            "22023",
            &["\"fortnight\"", "day, week, month or year"],
        ),
        (day, "Month", 1, day, "22023", &["\"Month\""]),
        (day, "", 1, day, "22023", &["\"\""]),
        (
            day,
            "month'; DROP TABLE billing.prices --",
            1,
            day,
            "22023",
            &["DROP TABLE"],
        ),
        (day, "month", 1, "262142-12-31Z", "22008", &["out of range"]),
        (day, "year", 1, "4714-12-01Z BC", "22008", &["out of range"]),
        (day, "year", i32::MAX, day, "22008", &["out of range"]),
        (day, "week", i32::MAX, "1999-01-01Z", "22008", &["out of range"]),
    ];
    for (anchor, interval, count, at, code, words) in refused {
        Refusal::of(&mut client, ask, &[anchor, interval, count, at]).says(code, words);
    }
    let nulls: i64 = client
        .query_one(
            "SELECT count(*) FROM (VALUES (billing.period_containing(NULL, 'month', 1, now())), (billing.period_containing(now(), NULL, 1, now())),
                 (billing.period_containing(now(), 'month', NULL, now())), (billing.period_containing(now(), 'month', 1, NULL))) v (p)
             WHERE p IS NULL",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(nulls, 4);
}

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
