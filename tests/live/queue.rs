//! What is pending counts at once, however its rows look and whoever sees them: a summary looks the queue through by itself, and in a
//! serializable transaction as any scan does.

use harness::Database;
use postgres::Client;

use crate::outright::quiet_database;
use crate::recording::number;

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// Ids of which the bytes have a header of one byte, or of four; of 188 and 252 the first of these is 0, as padding is.
fn customers() -> Vec<String> {
    let lengths = [1, 2, 3, 7, 8, 9, 125, 126, 127, 128, 129, 188, 252, 254, 255];
    lengths
        .iter()
        .map(|length| "é".repeat(length / 2) + &"x".repeat(length % 2))
        .collect()
}

fn with_customers(database: &Database) -> (Client, Vec<String>) {
    let mut client = database.connect().unwrap();
    let customers = customers();
    let sql = "SELECT billing.create_customer(c) FROM unnest($1::text[]) c";
    client.execute(sql, &[&customers]).unwrap();
    (client, customers)
}

/// The n-th customer has used n and 2n: by a single event, and in a batch.
fn record_both(client: &mut Client, customers: &[String]) {
    let sql = "SELECT count(*) FILTER (WHERE billing.record_meter_event(m, c, n, 'single')) FROM unnest($1::text[]) WITH ORDINALITY u (c, n),
                   unnest(ARRAY['sum', 'max', 'min', 'last']) m";
    assert_eq!(
        client.query_one(sql, &[&customers]).unwrap().get::<_, i64>(0),
        4 * customers.len() as i64
    );
    let sql = "SELECT r.recorded FROM (
                   SELECT array_agg(m) AS meters, array_agg(c) AS customers, array_agg(2 * n::numeric) AS amounts,
                          array_agg('batch ' || n) AS identifiers
                   FROM unnest($1::text[]) WITH ORDINALITY u (c, n), unnest(ARRAY['sum', 'max', 'min', 'last']) m) e,
               billing.record_meter_events(meters, customers, amounts, identifiers) r";
    assert_eq!(
        client.query_one(sql, &[&customers]).unwrap().get::<_, i64>(0),
        4 * customers.len() as i64
    );
}

/// In the current transaction, customer by customer: sum, greatest, least and last.
fn used(client: &mut Client, customers: &[String]) -> Vec<[i64; 4]> {
    let of = |event_name| {
        format!(
            "(SELECT aggregated_value::bigint
              FROM billing.meter_event_summaries('{event_name}', $1, now() - interval '2 days', now() + interval '2 days'))"
        )
    };
    let sql = format!("SELECT ARRAY[{}]", ["sum", "max", "min", "last"].map(of).join(", "));
    let sql = client.prepare(&sql).unwrap();
    let used = |customer: &String| {
        <[i64; 4]>::try_from(client.query_one(&sql, &[customer]).unwrap().get::<_, Vec<i64>>(0)).unwrap()
    };
    customers.iter().map(used).collect()
}

#[test]
fn what_is_pending_counts_at_every_level_and_in_every_row() {
    let database = quiet_database();
    let (mut client, customers) = with_customers(&database);
    record_both(&mut client, &customers);
    // Of other customers there is more.
    client
        .batch_execute("SELECT billing.record_meter_event('sum', 'acme', n) FROM generate_series(1, 1000) n")
        .unwrap();
    let expected: Vec<_> = (1..=customers.len() as i64).map(|n| [3 * n, 2 * n, n, 2 * n]).collect();
    assert_levels(&database, &customers, &expected);

    // Rewritten, rows are stored with all of their columns.
    for part in parts(&mut client) {
        client.batch_execute(&format!("VACUUM FULL {part}")).unwrap();
    }
    assert_levels(&database, &customers, &expected);

    // What is not committed counts for its own transaction, as far as it is not rolled back.
    let more = "SELECT count(*) FILTER (WHERE billing.record_meter_event('sum', c, 10)) FROM unnest($1::text[]) c";
    let with = |more: i64| {
        expected
            .iter()
            .map(|[sum, rest @ ..]| [sum + more, rest[0], rest[1], rest[2]])
            .collect::<Vec<_>>()
    };
    for level in LEVELS {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
        client.execute(more, &[&customers]).unwrap();
        client.batch_execute("SAVEPOINT s").unwrap();
        client.execute(more, &[&customers]).unwrap();
        assert_eq!(used(&mut client, &customers), with(20), "{level}");
        assert_levels(&database, &customers, &expected);
        client.batch_execute("ROLLBACK TO s").unwrap();
        assert_eq!(used(&mut client, &customers), with(10), "{level}");
        client.batch_execute("ROLLBACK").unwrap();
    }

    // A snapshot sees what has been folded since, and nothing twice.
    for (nth, level) in (1..).zip(LEVELS) {
        client.execute(more, &[&customers]).unwrap();
        let expected = with(10 * nth);
        let mut reader = database.connect().unwrap();
        reader
            .batch_execute(&format!(
                "BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM billing.customers"
            ))
            .unwrap();
        assert_eq!(used(&mut reader, &customers), expected, "{level}");
        client.batch_execute("SELECT billing.roll_up()").unwrap();
        assert_eq!(used(&mut reader, &customers), expected, "{level}, folded");
        // Truncating would wait for the reader.
        client
            .batch_execute("VACUUM (TRUNCATE off) billing.usage_pending")
            .unwrap();
        assert_eq!(used(&mut reader, &customers), expected, "{level}, and vacuumed");
        reader.batch_execute("COMMIT").unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM billing.usage_pending"), 0);
    }
}

fn parts(client: &mut Client) -> Vec<String> {
    let sql = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'billing.usage_pending'::regclass";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A restore may order columns differently, so a customer may stand anywhere in a row: behind what is one byte wide, may be NULL, or is of
/// any width, and too far back for the first byte of the NULLs.
#[test]
fn a_part_whose_columns_stand_elsewhere_is_read_all_the_same() {
    let database = quiet_database();
    let (mut client, customers) = with_customers(&database);
    let orders = [
        "customer",
        "rebuild, customer",
        "value_max, customer",
        "event_name, customer",
        "hour, event_count, last_timestamp, value_max, value_min, value_sum, rebuild, event_name, customer",
    ];
    let expected: Vec<_> = (1..=customers.len() as i64).map(|n| [3 * n, 2 * n, n, 2 * n]).collect();
    for (nth, first) in (0..).zip(orders) {
        for part in parts(&mut client) {
            // The same columns, those of `first` before all others.
            let sql = "SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
                                  CASE a.attcollation WHEN 'pg_catalog.\"C\"'::regcollation THEN 'COLLATE \"C\"' END, 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),
                                  CASE WHEN a.attnotnull THEN 'NOT NULL' END),
                                  ', ' ORDER BY array_position(string_to_array($2, ', '), a.attname::text), a.attnum)
                       FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                       WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped";
            let columns: String = client.query_one(sql, &[&part, &first]).unwrap().get(0);
            let sql = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1::text::regclass";
            let bound: String = client.query_one(sql, &[&part]).unwrap().get(0);
            client
                .batch_execute(&format!(
                    "BEGIN;
                     ALTER TABLE billing.usage_pending DETACH PARTITION {part};
                     ALTER TABLE {part} RENAME TO old_{nth}_{};
                     CREATE TABLE {part} ({columns});
                     ALTER TABLE billing.usage_pending ATTACH PARTITION {part} {bound};
                     COMMIT",
                    part.trim_start_matches("billing.")
                ))
                .unwrap();
        }
        record_both(&mut client, &customers);
        assert_levels(&database, &customers, &expected);
        client.batch_execute("SELECT billing.roll_up()").unwrap();
        assert_levels(&database, &customers, &expected);
        client
            .batch_execute("TRUNCATE billing.meter_events, billing.usage_buckets")
            .unwrap();
    }
}

fn assert_levels(database: &Database, customers: &[String], expected: &[[i64; 4]]) {
    for level in LEVELS {
        let mut reader = database.connect().unwrap();
        reader.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
        assert_eq!(used(&mut reader, customers), expected, "{level}");
        let marked = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_inherits i ON i.inhrelid = l.relation
                      WHERE i.inhparent = 'billing.usage_pending'::regclass AND l.mode = 'SIReadLock' AND l.pid = pg_backend_pid()";
        let marked: bool = reader.query_one(marked, &[]).unwrap().get(0);
        assert_eq!(marked, level == "SERIALIZABLE", "{level}");
        reader.batch_execute("COMMIT").unwrap();
    }
}
