//! What the planner may do with the pure functions: indexes, generated columns, parallel workers.

use serde_json::Value;

use super::{database, none};

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
