//! Billing periods against PostgreSQL's calendar.

use super::{database, none};
use crate::refusal::Refusal;

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
    for (anchor, interval, count, at, code, words) in [
        ("infinity", "month", 1, day, "22023", ["\"anchor\"", "infinity"]),
        ("-infinity", "month", 1, day, "22023", ["\"anchor\"", "-infinity"]),
        (day, "month", 1, "infinity", "22023", ["\"at\"", "infinity"]),
        (day, "month", 1, "-infinity", "22023", ["\"at\"", "-infinity"]),
        (day, "month", 0, day, "22023", ["interval_count", "not 0"]),
        (day, "month", -3, day, "22023", ["interval_count", "not -3"]),
        (
            day,
            "fortnight",
            1,
            day,
            "22023",
            ["\"fortnight\"", "day, week, month or year"],
        ),
        (day, "Month", 1, day, "22023", ["interval", "\"Month\""]),
        (day, "", 1, day, "22023", ["interval", "\"\""]),
        (
            day,
            "month'; DROP TABLE billing.prices --",
            1,
            day,
            "22023",
            ["interval", "DROP TABLE"],
        ),
        (day, "month", 1, "262142-12-31Z", "22008", ["period", "out of range"]),
        (day, "year", 1, "4714-12-01Z BC", "22008", ["period", "out of range"]),
        (day, "year", i32::MAX, day, "22008", ["period", "out of range"]),
        (
            day,
            "week",
            i32::MAX,
            "1999-01-01Z",
            "22008",
            ["period", "out of range"],
        ),
    ] {
        Refusal::of(&mut client, ask, &[&anchor, &interval, &count, &at]).says(code, &words);
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
