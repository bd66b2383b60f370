//! Values too big for a page.

use super::{database, truth};

#[test]
fn hundreds_of_tiers_are_stored_out_of_line_and_come_back() {
    let (_database, mut client) = database();
    // 900 tiers whose amounts hardly compress
    let make =
        "SELECT jsonb_build_object('currency', 'usd', 'billing_scheme', 'tiered', 'tiers_mode', 'graduated', 'tiers',
                    jsonb_agg(jsonb_build_object('up_to', CASE WHEN n < 900 THEN to_jsonb(n * 10) ELSE '\"inf\"' END,
                        'unit_amount_decimal', (n * 7919 % 1000)::text || '.' || left(md5(n::text), 0)
                            || lpad((n::bigint * 982451653 % 1000000007)::text, 10, '0'))
                    ORDER BY n))::billing.price FROM generate_series(1, 900) n";
    for storage in ["EXTENDED", "EXTERNAL", "MAIN", "PLAIN"] {
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS big; CREATE TABLE big (p billing.price, n integer);
                 ALTER TABLE big ALTER p SET STORAGE {storage}"
            ))
            .unwrap();
        let inserted = client.execute(&format!("INSERT INTO big SELECT ({make}), 1"), &[]);
        if storage == "PLAIN" {
            // A page is too small for it; PostgreSQL says so.
            assert!(inserted.is_err());
            continue;
        }
        inserted.unwrap();
        client
            .batch_execute("CREATE INDEX ON big USING hash (p); SET enable_seqscan = off")
            .unwrap();
        assert!(
            truth(
                &mut client,
                &format!("SELECT p = ({make}) AND p::text = ({make})::text FROM big")
            ),
            "{storage}"
        );
        assert!(
            truth(&mut client, &format!("SELECT count(*) = 1 FROM big WHERE p = ({make})")),
            "{storage}"
        );
        assert!(
            truth(
                &mut client,
                "SELECT jsonb_array_length(p::jsonb -> 'tiers') = 900 FROM big"
            ),
            "{storage}"
        );
        // All tiers up to 8990, at their own price each, then one unit of the last.
        let expected =
            "SELECT billing.price_amount(p, 8991) = (SELECT sum(q.units * (t ->> 'unit_amount_decimal')::numeric)
                FROM jsonb_array_elements(p::jsonb -> 'tiers') WITH ORDINALITY e (t, n),
                     LATERAL (SELECT CASE WHEN n < 900 THEN 10 ELSE 1 END AS units) q
                WHERE t ? 'unit_amount_decimal')
            + coalesce((SELECT sum(10 * (t ->> 'unit_amount')::numeric)
                FROM jsonb_array_elements(p::jsonb -> 'tiers') t WHERE t ? 'unit_amount'), 0) FROM big";
        assert!(truth(&mut client, expected), "{storage}");
    }
    let stored: i64 = client
        .query_one(
            "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'big'",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(stored, 0, "PLAIN has no TOAST");
}
