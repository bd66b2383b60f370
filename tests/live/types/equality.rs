//! Equality and hashing: operators, sets, joins, indexes, partitions, arrays.

use serde_json::{Value, json};

use super::{OBJECTS, database};
use crate::refusal::Refusal;

#[test]
fn equal_is_equal_in_every_field_that_has_a_meaning() {
    let (_database, mut client) = database();
    let base = json!({
        "currency": "usd", "unit_amount": 100, "nickname": "n", "product": "prod",
        "recurring": {"interval": "month", "interval_count": 1}
    });
    let same = [
        r#"{"unit_amount_decimal":"100.000","product":{"id":"prod"},"nickname":"n","currency":"USD","active":true,
            "recurring":{"usage_type":"licensed","interval":"month"},"type":"recurring","billing_scheme":"per_unit"}"#,
        r#"{"object":"price","id":"price_x","livemode":true,"metadata":{"a":"b"},"unit_amount":100,"unit_amount_decimal":"100",
            "nickname":"n","product":"prod","currency":"usd","recurring":{"interval":"month"}}"#,
    ];
    let compare = "SELECT $1::jsonb::billing.price = $2::text::billing.price, $1::jsonb::billing.price <> $2::text::billing.price,
                          billing.price_hash($1::jsonb) = billing.price_hash($2::text::billing.price),
                          billing.price_hash_extended($1::jsonb, 7) = billing.price_hash_extended($2::text::billing.price, 7)";
    for other in same {
        let row = client.query_one(compare, &[&base, &other]).unwrap();
        let answers: Vec<bool> = (0..4).map(|column| row.get(column)).collect();
        assert_eq!(answers, [true, false, true, true], "{other}");
    }
    let changes = [
        json!({"currency": "eur"}),
        json!({"unit_amount": 101}),
        json!({"nickname": "m"}),
        json!({"nickname": null}),
        json!({"product": "other"}),
        json!({"active": false}),
        json!({"lookup_key": "k"}),
        json!({"tax_behavior": "inclusive"}),
        json!({"recurring": null}),
        json!({"recurring": {"interval": "year"}}),
        json!({"recurring": {"interval": "month", "interval_count": 2}}),
        json!({"recurring": {"interval": "month", "usage_type": "metered", "meter": "m"}}),
        json!({"transform_quantity": {"divide_by": 1, "round": "up"}}),
        json!({"minimum_amount": 0}),
        json!({"maximum_amount": 5}),
        json!({"currency_options": {"eur": {"unit_amount": 1}}}),
        json!({"unit_amount": null, "unit_amount_decimal": "100.000000000001"}),
    ];
    for change in changes {
        let mut other = base.clone();
        let (Value::Object(fields), Value::Object(changed)) = (&mut other, &change) else {
            panic!("objects")
        };
        fields.extend(changed.clone());
        let row = client.query_one(compare, &[&base, &other.to_string()]).unwrap();
        assert_eq!((row.get(0), row.get(1)), (false, true), "{change}");
    }
}

#[test]
fn sets_joins_indexes_and_partitions_go_by_hash() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"CREATE TABLE listed (n integer, p billing.price);
               -- 300 prices, each written in two ways, and two rows without one
               INSERT INTO listed SELECT n, format('{"currency":"usd","unit_amount":%s}', n)::billing.price
               FROM generate_series(1, 300) n;
               INSERT INTO listed SELECT n, format('{"unit_amount_decimal":"%s.0","currency":"USD"}', n)::billing.price
               FROM generate_series(1, 300) n;
               INSERT INTO listed VALUES (0, NULL), (0, NULL);
               CREATE INDEX listed_p ON listed USING hash (p);
               CREATE TABLE parted (p billing.price) PARTITION BY HASH (p);
               CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 0);
               CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 1);
               CREATE TABLE parted_2 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 2);
               INSERT INTO parted SELECT p FROM listed;
               ANALYZE listed;"#,
        )
        .unwrap();
    let mut count = |sql: &str| -> i64 { client.query_one(sql, &[]).unwrap().get(0) };
    assert_eq!(count("SELECT count(*) FROM (SELECT DISTINCT p FROM listed) d"), 301);
    assert_eq!(
        count("SELECT count(*) FROM (SELECT min(n) FROM listed GROUP BY p HAVING count(*) = 2) g"),
        301
    );
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM listed UNION SELECT p FROM listed) u"),
        301
    );
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM listed INTERSECT SELECT p FROM listed WHERE n = 7) i"),
        1
    );
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM listed EXCEPT SELECT p FROM listed WHERE n < 300) e"),
        1
    );
    assert_eq!(count("SELECT count(*) FROM listed a JOIN listed b ON a.p = b.p"), 1200);
    assert_eq!(
        count("SELECT count(*) FROM listed a WHERE p NOT IN (SELECT p FROM listed WHERE p IS NOT NULL)"),
        0
    );
    assert_eq!(
        count("SELECT count(*) FROM listed a WHERE p = ANY (SELECT p FROM listed WHERE n IN (1, 2))"),
        4
    );
    assert_eq!(count("SELECT count(*) FROM listed WHERE p IS DISTINCT FROM NULL"), 600);
    assert_eq!(count("SELECT count(*) FROM listed WHERE (p = NULL) IS NULL"), 602);
    assert_eq!(count("SELECT count(*) FROM parted"), 602);
    assert_eq!(count("SELECT count(DISTINCT tableoid) FROM parted"), 3);
    // Equal values lie in one partition.
    assert_eq!(
        count("SELECT count(*) FROM (SELECT p FROM parted GROUP BY p HAVING min(tableoid) <> max(tableoid)) x"),
        0
    );

    let mut plan = |sql: &str| -> String {
        let rows = client.query(&format!("EXPLAIN (COSTS OFF) {sql}"), &[]).unwrap();
        rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
    };
    let join = plan("SELECT * FROM listed a JOIN listed b ON a.p = b.p");
    assert!(join.contains("Hash Join") || join.contains("Index Scan"), "{join}");
    let grouped = plan("SELECT p FROM listed GROUP BY p");
    assert!(grouped.contains("HashAggregate"), "{grouped}");
    let found = plan(r#"SELECT * FROM listed WHERE p = '{"currency":"usd","unit_amount":5}'"#);
    assert!(found.contains("listed_p"), "{found}");
    let pruned = plan(r#"SELECT * FROM parted WHERE p = '{"currency":"usd","unit_amount":5}'"#);
    assert_eq!(pruned.matches("Seq Scan").count(), 1, "{pruned}");
    client
        .batch_execute("SET enable_indexscan = off; SET enable_nestloop = off; SET enable_bitmapscan = off")
        .unwrap();
    let joined: i64 = client
        .query_one("SELECT count(*) FROM listed a JOIN listed b ON a.p = b.p", &[])
        .unwrap()
        .get(0);
    assert_eq!(joined, 1200);

    Refusal::of(&mut client, "SELECT p FROM listed ORDER BY p", &[]).says("42883", &["ordering operator"]);
}

#[test]
fn equality_is_found_whatever_the_search_path() {
    let (_database, mut client) = database();
    let [meter, price, _, subscription] = OBJECTS else {
        panic!("four objects")
    };
    for path in ["''", "pg_catalog", "billing", "public", "pg_temp, billing"] {
        client.batch_execute(&format!("SET search_path = {path}")).unwrap();
        for (name, input, _) in [meter, price, subscription] {
            let sql = format!(
                "SELECT x = x AND NOT x <> x AND x IN (x) AND count(*) = 1 FROM (SELECT $1::text::billing.{name} x) v GROUP BY x"
            );
            assert!(
                client.query_one(&sql, &[input]).unwrap().get::<_, bool>(0),
                "{path} {name}"
            );
        }
    }
}

#[test]
fn arrays_and_composites_of_values_work() {
    let (_database, mut client) = database();
    let price = |amount: i32| json!({"currency": "usd", "unit_amount": amount});
    let row = client
        .query_one(
            "SELECT a[2]::jsonb ->> 'unit_amount', a = b, a::text::billing.price[] = a, array_position(a, $2::jsonb::billing.price),
                    $1::jsonb::billing.price = ANY (a), cardinality(array_remove(a, $1::jsonb::billing.price)),
                    (SELECT count(*) FROM (SELECT DISTINCT x FROM unnest(a || b) x) d), ROW(a, 1) = ROW(b, 1)
             FROM (SELECT ARRAY[$1::jsonb, $2::jsonb]::billing.price[] a,
                          ARRAY[$1::jsonb::billing.price, $2::jsonb::billing.price] b) v",
            &[&price(1), &price(2)],
        )
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "2");
    assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2) && row.get::<_, bool>(4) && row.get::<_, bool>(7));
    assert_eq!((row.get(3), row.get(5), row.get(6)), (2, 1, 2_i64));
}
