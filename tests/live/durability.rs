//! Crashes, restores and reinstallation: what was acknowledged is there once, and everything goes on from where it stood.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Cluster, Database, Options, cluster_under_test, shared_cluster};
use postgres::Client;
use serde_json::{Value, json};

use crate::recording::{
    FORMULAS, await_next_partition, await_that, catalog, narrow_database, number, record, recorded_twice, text, usage,
};

const WRITERS: usize = 6;

/// What one writer sent, in order, and how many of them were acknowledged.
struct Sent {
    identifiers: Vec<String>,
    acknowledged: usize,
}

fn write_until_it_breaks(cluster: &Cluster, database: &str, writer: usize, total: &AtomicUsize) -> Sent {
    let mut sent = Sent {
        identifiers: Vec::new(),
        acknowledged: 0,
    };
    let Ok(mut client) = cluster.connect(database) else {
        return sent;
    };
    let sql = "SELECT recorded FROM billing.record_meter_events(array_fill('sum'::text, ARRAY[cardinality($1::text[])]),
                   array_fill('acme'::text, ARRAY[cardinality($1)]), array_fill(1::numeric, ARRAY[cardinality($1)]), $1)";
    for n in 0.. {
        let fresh: Vec<String> = (0..1 + n % 4).map(|k| format!("{writer}-{n}-{k}")).collect();
        sent.identifiers.extend(fresh.iter().cloned());
        // Every third is open for longer, so that the crash meets transactions in every state.
        let outcome = if n % 3 == 0 {
            client
                .batch_execute("BEGIN")
                .and_then(|()| client.query_one(sql, &[&fresh]))
                .and_then(|row| client.batch_execute("COMMIT").map(|()| row))
        } else {
            client.query_one(sql, &[&fresh])
        };
        match outcome {
            Ok(row) => assert_eq!(row.get::<_, i64>(0), fresh.len() as i64),
            Err(error) => {
                assert!(
                    error.as_db_error().is_none_or(|db| db.code().code().starts_with("57P")),
                    "{error:?}"
                );
                return sent;
            }
        }
        sent.acknowledged = sent.identifiers.len();
        total.fetch_add(fresh.len(), Ordering::Relaxed);
    }
    sent
}

#[test]
fn a_killed_server_has_every_acknowledged_event_once() {
    let options = Options::default()
        .durable()
        .preload("pg_billing")
        .set("billing.partition_width", "1s")
        .set("billing.roll_up_interval", "50ms");
    let cluster = cluster_under_test(&options).unwrap();
    let database = Database::with_extension(&cluster).unwrap();
    catalog(&mut database.connect().unwrap());
    let name = database.name();
    let total = AtomicUsize::new(0);
    let sent: Vec<Sent> = std::thread::scope(|scope| {
        let (cluster, total) = (&cluster, &total);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write_until_it_breaks(cluster, name, writer, total)))
            .collect();
        let mut client = database.connect().unwrap();
        // In full swing: beyond a boundary, and with some rolled up already.
        await_that("events are recorded and rolled up", || {
            total.load(Ordering::Relaxed) > 2000
                && number(&mut client, "SELECT count(*) FROM billing.meter_event_partitions") > 2
                && number(&mut client, "SELECT count(*) FROM billing.usage_buckets") > 0
        });
        cluster.kill().unwrap();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    cluster.launch().unwrap();
    let mut client = database.connect().unwrap();
    let rows: BTreeMap<String, i64> = client
        .query("SELECT identifier, count(*) FROM billing.meter_events GROUP BY 1", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let lost: Vec<_> = sent
        .iter()
        .flat_map(|s| &s.identifiers[..s.acknowledged])
        .filter(|id| !rows.contains_key(*id))
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(rows.values().all(|times| *times == 1));
    assert_eq!(usage(&mut client, "sum"), rows.len().to_string());
    // Nobody has recorded since: the worker came back by itself.
    await_that("the worker rolls up after the restart", || {
        number(&mut client, "SELECT count(*) FROM billing.usage_pending") == 0
    });
    assert_eq!(usage(&mut client, "sum"), rows.len().to_string());
    // The senders cannot know which of their last were recorded, and send them again.
    for s in &sent {
        for identifier in &s.identifiers[s.acknowledged.saturating_sub(5)..] {
            let recorded = record(&mut client, identifier).unwrap();
            assert_eq!(recorded, !rows.contains_key(identifier), "{identifier}");
        }
    }
    let all: usize = sent.iter().map(|s| s.identifiers.len()).sum();
    assert_eq!(usage(&mut client, "sum"), all.to_string());
    assert_eq!(recorded_twice(&mut client), []);
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert!(
        client
            .query("SELECT * FROM billing.verify('sum', 'acme', NULL, NULL)", &[])
            .unwrap()
            .is_empty()
    );
}

/// A database in the middle of everything: partitions sealed and open, usage folded and pending, cancelled and refused
/// events, invoices paid, open and in draft, alerts that have triggered and alerts that have not.
fn in_full_use() -> Database<'static> {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    client.batch_execute("SET billing.max_event_age = -1").unwrap();
    client
        .execute(
            "SELECT billing.create_customer('other', 'Ünï \"quoted\"', NULL, '{\"a\": [1]}')",
            &[],
        )
        .unwrap();
    crate::recording::meter(&mut client, "split", "sum", r#", "dimension_payload_keys": ["region"]"#);
    let prices = [
        (
            "licensed",
            json!({"currency": "usd", "unit_amount": 1000, "recurring": {"interval": "month"}}),
        ),
        (
            "metered",
            json!({"currency": "usd", "billing_scheme": "tiered", "tiers_mode": "graduated",
            "tiers": [{"up_to": 10, "unit_amount_decimal": "2.5"}, {"up_to": "inf", "unit_amount": 1}],
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "sum"}}),
        ),
    ];
    client
        .execute("SELECT billing.create_product('product', 'Product')", &[])
        .unwrap();
    for (id, price) in prices {
        client
            .execute("SELECT billing.create_price($1::jsonb, 'product', $2)", &[&price, &id])
            .unwrap();
    }
    client
        .batch_execute(
            r#"SELECT billing.create_price('{"currency": "usd", "unit_amount": 1, "minimum_amount": 5, "lookup_key": "k",
                   "currency_options": {"eur": {"unit_amount_decimal": "0.9", "minimum_amount": 4}},
                   "dimension_filters": {"region": ["r1", "r2"]}, "product_data": {"name": "Matrix", "id": "matrix"},
                   "recurring": {"interval": "month", "usage_type": "metered", "meter": "split"}}', id => 'matrix');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 2, "lookup_key": "k", "transfer_lookup_key": true}');
               SELECT billing.update_product('matrix', '{"default_price": "matrix", "tax_code": "txcd_10000000", "url": "https://a.b",
                   "statement_descriptor": "MATRIX"}');"#,
        )
        .unwrap();
    for customer in ["acme", "other"] {
        let subscription =
            json!({"customer": customer, "items": [{"price": "licensed", "quantity": 2}, {"price": "metered"}]});
        client
            .execute(
                "SELECT billing.create_subscription($1::jsonb, 'sub_' || $2, '2026-01-01 00:00Z')",
                &[&subscription, &customer],
            )
            .unwrap();
    }
    client
        .batch_execute(
            r#"SELECT billing.create_coupon('{"percent_off": 12.5, "duration": "forever"}', 'eighth');
               SELECT billing.apply_discount('eighth', 'subscription', 'sub_acme', '2026-01-01Z');
               SELECT billing.create_tax_rate('{"display_name": "VAT", "percentage": 19, "inclusive": true}', 'vat');
               UPDATE billing.subscriptions SET default_tax_rates = '{vat}' WHERE id = 'sub_other';
               SELECT billing.create_credit_grant('{"customer": "acme", "amount": {"type": "monetary", "monetary": {"currency": "usd",
                   "value": 40}}, "applicability_config": {"scope": {"price_type": "metered"}}}', 'credit', '2026-01-01Z')"#,
        )
        .unwrap();
    client
        .execute(
            "SELECT billing.create_alert('sum', 20, recurrence => 'per_period', title => 'twenty')",
            &[],
        )
        .unwrap();
    client
        .execute("SELECT billing.create_alert('sum', 100000, 'acme')", &[])
        .unwrap();
    record_month(&mut client, "2026-01");
    client.batch_execute("SELECT billing.roll_up()").unwrap();
    await_next_partition(&mut client);
    record_month(&mut client, "2026-02");
    await_next_partition(&mut client);
    // Two months invoiced and final, the third in draft.
    for as_of in ["2026-02-01 02:00Z", "2026-03-01 02:00Z", "2026-04-01 00:30Z"] {
        client
            .execute("SELECT billing.generate_invoices($1::text::timestamptz)", &[&as_of])
            .unwrap();
    }
    client
        .batch_execute(
            "SELECT billing.mark_invoice_paid(id, '2026-03-02Z') FROM billing.invoices WHERE number = 'INV-000001'",
        )
        .unwrap();
    bill_by_hand(&mut client);
    // Sealing tries again, so that the former partitions are sealed and the next is not.
    await_that("a partition is sealed", || {
        client.execute("SELECT billing.maintain_partitions()", &[]).unwrap();
        number(
            &mut client,
            "SELECT count(*) FROM billing.meter_event_partitions WHERE event_count > 0",
        ) > 0
    });
    record_month(&mut client, "2026-04");
    client.batch_execute("SELECT billing.cancel_meter_event('sum', 'acme', '2026-04-3'), billing.cancel_meter_event('max', 'acme', '2026-01-9')").unwrap();
    client
        .batch_execute("SELECT billing.record_meter_events('{sum,nothing}', '{nobody,acme}', '{1,1}')")
        .unwrap();
    assert!(number(&mut client, "SELECT count(*) FROM billing.usage_pending") > 0);
    for state in ["paid", "open", "draft"] {
        let there = number(
            &mut client,
            &format!("SELECT count(*) FROM billing.invoices WHERE status = '{state}'"),
        );
        assert!(there > 0, "no invoice is {state}");
    }
    assert!(number(&mut client, "SELECT count(*) FROM billing.alert_events") > 0);
    assert!(number(&mut client, "SELECT count(*) FROM billing.credit_balance_transactions") > 1);
    database
}

/// Items that wait and that are taken, credit notes of all kinds, balances, a minimum charge, an invoice made anew.
fn bill_by_hand(client: &mut Client) {
    client
        .batch_execute(
            r#"INSERT INTO billing.currencies VALUES ('usd', 50);
               SELECT billing.adjust_customer_balance('acme', -20, 'usd', 'Goodwill', '2026-03-02Z');
               SELECT billing.create_invoice_item('{"customer": "acme", "currency": "usd", "amount": 11}', 'ii_waits', '2026-04-02Z');
               SELECT billing.create_invoice('{"customer": "acme", "currency": "usd", "lines": [{"amount": 100}, {"amount": -30}]}', 'in_hand', '2026-03-02Z');
               SELECT billing.create_invoice('{"customer": "other", "currency": "usd", "lines": [{"amount": 20}]}', 'in_small', '2026-03-02Z');
               SELECT billing.create_invoice('{"customer": "other", "currency": "usd", "lines": [{"amount": 200}]}', 'in_anew', '2026-03-02Z');
               SELECT billing.finalize_invoice(id, '2026-03-02Z') FROM unnest('{in_hand,in_small,in_anew}'::text[]) id;
               SELECT billing.create_credit_note('{"invoice": "in_hand", "amount": 15}', 'cn_open', '2026-03-03Z'),
                      billing.create_credit_note('{"invoice": "in_hand", "amount": 5}', 'cn_void', '2026-03-03Z'),
                      billing.void_credit_note('cn_void', '2026-03-03Z'),
                      billing.regenerate_invoice('in_anew', '2026-03-03Z');
               SELECT billing.create_credit_note(jsonb_build_object('invoice', id, 'amount', 15, 'credit_amount', 15), 'cn_paid', '2026-03-03Z')
               FROM billing.invoices WHERE number = 'INV-000001'"#,
        )
        .unwrap();
}

/// Thirty events of every meter.
fn record_month(client: &mut Client, month: &str) {
    let sql = "SELECT sum(c.rejected)::bigint FROM billing.meters m, billing.customers s, LATERAL (
            SELECT array_fill(m.event_name, '{30}') AS names, array_fill(s.id, '{30}') AS customers, array_agg((n * 7 % 11)::numeric) AS quantities,
                   array_agg($1 || '-' || n) AS ids, array_agg(($1 || '-01')::timestamptz + n * interval '17 hours') AS times,
                   array_agg(jsonb_build_object('region', 'r' || n % 3, 'value', 'v' || n % 5)) AS dimensions
            FROM generate_series(1, 30) n) a,
        billing.record_meter_events(names, customers, quantities, ids, times, dimensions) c";
    assert_eq!(client.query_one(sql, &[&month]).unwrap().get::<_, i64>(0), 0);
}

/// Every row of every table of ours, partitions and sequences included, in a form that can be compared.
fn contents(client: &mut Client) -> BTreeMap<String, Vec<String>> {
    let tables = "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'billing'::regnamespace AND c.relkind IN ('r', 'S')";
    let tables: Vec<String> = client
        .query(tables, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(tables.iter().filter(|name| name.starts_with("meter_events_p")).count() > 2);
    tables
        .into_iter()
        // What the worker did is not carried over to a worker elsewhere, and filters are made anew; how far a sequence has logged is
        // no content.
        .filter(|table| {
            !["worker_jobs", "roll_up_minutes", "usage_folds", "meter_event_filters"].contains(&table.as_str())
        })
        .map(|table| {
            let sql =
                format!("SELECT (to_jsonb(t) - 'log_cnt')::text FROM (SELECT * FROM billing.{table}) t ORDER BY 1");
            let rows = client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
            (table, rows)
        })
        .collect()
}

/// Summaries of every meter over ranges that cut hours and days.
fn summaries(client: &mut Client) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', m.event_name, c.id, s.start_time, coalesce(s.aggregated_value::text, 'NULL'))
        FROM billing.meters m, billing.customers c,
             (VALUES ('2026-01-01 00:00Z'::timestamptz, '2026-06-01 00:00Z'::timestamptz, NULL),
                     ('2026-01-02 03:04:05Z', '2026-04-20 21:22:23.456Z', NULL), ('2026-01-01', '2026-05-01', 'month'),
                     ('2026-04-01', '2026-04-20', 'day')) AS r (lo, hi, width),
             LATERAL billing.meter_event_summaries(m.event_name, c.id, r.lo, r.hi, r.width) s
        ORDER BY m.event_name, c.id, r.lo, r.hi, s.start_time";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// What happens next must happen alike in the original and in every copy of it.
fn go_on(client: &mut Client) -> Vec<Value> {
    let mut outcome = Vec::new();
    let mut note = |what: &str, value: Value| outcome.push(json!({ what: value }));
    client
        .batch_execute("SET billing.max_event_age = -1; SET billing.identifier_window = 0")
        .unwrap();
    for identifier in [
        "2026-01-1",
        "2026-01-30",
        "2026-02-15",
        "2026-04-30",
        "2026-04-3",
        "unheard of",
    ] {
        // Retries with their timestamps, which lie in partitions both sealed and open.
        let (month, n) = identifier.rsplit_once('-').unwrap_or(("2026-04", "1"));
        let n: f64 = n.parse().unwrap_or(1.0);
        let sql = "SELECT billing.record_meter_event('sum', 'acme', 1, $1, ($2 || '-01')::timestamptz + $3 * interval '17 hours')";
        let recorded: bool = client.query_one(sql, &[&identifier, &month, &n]).unwrap().get(0);
        assert_eq!(recorded, identifier == "unheard of", "{identifier}");
    }
    record_month(client, "2026-05");
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(number(client, "SELECT count(*) FROM billing.usage_pending"), 0);
    note("summaries", json!(summaries(client)));
    for as_of in [
        "2026-04-01 00:30Z",
        "2026-04-01 02:00Z",
        "2026-06-01 02:00Z",
        "2026-06-01 02:00Z",
    ] {
        let made: i64 = client
            .query_one("SELECT billing.generate_invoices($1::text::timestamptz)", &[&as_of])
            .unwrap()
            .get(0);
        note(as_of, json!(made));
    }
    let invoices = "SELECT to_jsonb(i) - 'id' || jsonb_build_object('lines', (SELECT jsonb_agg(jsonb_build_object('description',
            l.description, 'price', l.price, 'quantity', l.quantity, 'amount', l.amount) ORDER BY l.price, l.period_start)
            FROM billing.invoice_lines l WHERE l.invoice = i.id))
        FROM billing.invoices i ORDER BY i.number, i.customer, i.period_start";
    for row in client.query(invoices, &[]).unwrap() {
        note("invoice", row.get(0));
    }
    let gaps = "SELECT count(*) FROM (SELECT number, row_number() OVER (ORDER BY number) AS n FROM billing.invoices
                WHERE number IS NOT NULL) i WHERE number <> 'INV-' || to_char(n, 'FM000000')";
    assert_eq!(number(client, gaps), 0);
    // Without their values, which are those of the fold that crossed: a worker may have folded earlier than the call above.
    let alerts = "SELECT jsonb_build_object('gte', gte, 'customer', customer, 'period', period_start)
                  FROM billing.alert_events ORDER BY customer, gte, period_start";
    for row in client.query(alerts, &[]).unwrap() {
        note("alert", row.get(0));
    }
    for formula in FORMULAS {
        let wrong = client
            .query("SELECT * FROM billing.verify($1, 'acme', NULL, NULL)", &[&formula])
            .unwrap();
        assert!(wrong.is_empty(), "{formula}: {wrong:?}");
    }
    let of_acme = client.query(
        "SELECT 1 FROM billing.meter_events GROUP BY customer, event_name, identifier HAVING count(*) > 1",
        &[],
    );
    assert!(of_acme.unwrap().is_empty());
    outcome
}

fn restore(cluster: &Cluster, dump: &Path, name: &str) {
    cluster
        .connect("postgres")
        .unwrap()
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
        .unwrap();
    match dump.extension() {
        Some(sql) if sql == "sql" => {
            let file = dump.display().to_string();
            cluster.psql(name, &["--file", &file], "").unwrap();
        }
        _ => cluster.pg_restore(name, &[], dump).unwrap(),
    }
}

#[test]
fn a_dump_restored_into_a_fresh_cluster_goes_on_exactly() {
    let original = in_full_use();
    let folder = tempfile_dir("forms");
    let forms: [(&str, &[&str]); 4] = [
        ("plain.sql", &[]),
        ("inserts.sql", &["--inserts", "--rows-per-insert=7"]),
        ("custom", &["--format=custom"]),
        ("through_root", &["--format=custom", "--load-via-partition-root"]),
    ];
    for (file, arguments) in forms {
        original
            .cluster()
            .pg_dump(original.name(), arguments, &folder.join(file))
            .unwrap();
    }
    let mut client = original.connect().unwrap();
    let (before, summaries_before) = (contents(&mut client), summaries(&mut client));
    let continued = go_on(&mut client);
    assert!(continued.len() > 10);
    // Its workers are on, as anywhere.
    let fresh = cluster_under_test(&Options::default().set("billing.partition_width", "1s")).unwrap();
    for (file, _) in forms {
        let name = format!("restored_{}", file.replace('.', "_"));
        restore(&fresh, &folder.join(file), &name);
        let mut client = fresh.connect(&name).unwrap();
        for (table, rows) in contents(&mut client) {
            assert_eq!(before.get(&table), Some(&rows), "{file}: {table}");
        }
        assert_eq!(summaries(&mut client), summaries_before, "{file}");
        let copied = go_on(&mut client);
        for (copied, original) in copied.iter().zip(&continued) {
            assert_eq!(copied, original, "{file}");
        }
        assert_eq!(copied.len(), continued.len(), "{file}");
        client.batch_execute("SELECT billing.maintain_partitions()").unwrap();
        let unfiltered = "SELECT count(*) FROM billing.meter_event_partitions p WHERE p.sealed_at IS NOT NULL
            AND p.dropped_at IS NULL AND NOT EXISTS (SELECT FROM billing.meter_event_filters f WHERE f.partition = p.name)";
        assert_eq!(number(&mut client, unfiltered), 0, "{file}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A restore takes its time, and finds the tables as it left them: with the day's partition, which a worker would make too, with
/// partitions that look empty, and with pending usage before its buckets.
#[test]
fn no_worker_meddles_with_a_restore() {
    let cluster = shared_cluster().unwrap();
    let original = crate::recording::database();
    let mut client = original.connect().unwrap();
    for identifier in ["a", "b"] {
        record(&mut client, identifier).unwrap();
    }
    client.batch_execute("SELECT billing.roll_up()").unwrap();
    record(&mut client, "c").unwrap();
    let file = tempfile_dir("slow");
    let dump = file.join("dump");
    cluster.pg_dump(original.name(), &["--format=custom"], &dump).unwrap();
    let copy = Database::empty(cluster).unwrap();
    cluster.pg_restore(copy.name(), &["--section=pre-data"], &dump).unwrap();
    let mut client = copy.connect().unwrap();
    // Longer than a worker needs to start and do its rounds.
    std::thread::sleep(std::time::Duration::from_secs(2));
    cluster
        .pg_restore(copy.name(), &["--section=data", "--section=post-data"], &dump)
        .unwrap();
    assert_eq!(usage(&mut client, "sum"), "3");
    assert!(!record(&mut client, "a").unwrap());
    assert!(record(&mut client, "d").unwrap());
    await_that("a worker has come with the event", || {
        number(&mut client, "SELECT count(*) FROM billing.usage_pending") == 0
    });
    assert_eq!(usage(&mut client, "sum"), "4");
    assert!(
        client
            .query("SELECT * FROM billing.verify('sum', 'acme', NULL, NULL)", &[])
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM billing.worker_jobs WHERE failing"),
        0
    );
    std::fs::remove_dir_all(file).unwrap();
}

fn tempfile_dir(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("pg_billing-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_extension_can_be_dropped_and_made_again() {
    // A worker that never rests: DROP EXTENSION locks the tables that it works on.
    let options = Options::default()
        .set("billing.roll_up_interval", "10ms")
        .set("billing.partition_width", "1s");
    let cluster = cluster_under_test(&options).unwrap();
    let database = Database::with_extension(&cluster).unwrap();
    let (mut client, mut other) = (database.connect().unwrap(), database.connect().unwrap());
    for _ in 0..8 {
        catalog(&mut client);
        assert!(record(&mut client, "a").unwrap());
        assert!(!record(&mut other, "a").unwrap(), "a session that knew the former one");
        assert_eq!(usage(&mut other, "sum"), "1");
        client.batch_execute("DROP EXTENSION pg_billing CASCADE").unwrap();
        let left =
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'billing'";
        assert_eq!(number(&mut client, left), 0);
        client.batch_execute("CREATE EXTENSION pg_billing").unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM billing.meter_events"), 0);
    }
    assert_eq!(
        text(&mut client, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^billing_'"),
        "3"
    );
    crate::recording::assert_never_crashed(&cluster);
}
