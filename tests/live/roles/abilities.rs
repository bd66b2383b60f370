//! What each role gets done, and where it is stopped.

use super::matrix::{ONLY_READ, VIEWS, WRITTEN_BY_ADMIN};
use super::{CATALOG, database, denied, login, strings};
use crate::refusal::Refusal;

#[test]
fn a_stranger_may_only_calculate() {
    let (database, mut owner) = database();
    owner.batch_execute(CATALOG).unwrap();
    let mut client = database.connect_as(&login(&database, "stranger", "")).unwrap();
    client
        .batch_execute(
            r#"SELECT billing.price_amount('{"currency":"usd","unit_amount":3}', 5), billing.generate_id('x'),
                      billing.period_containing(now(), 'month', 1, now()), billing.setting_interval('max_event_age');
               CREATE TEMP TABLE mine (p billing.price, s billing.subscription, m billing.meter);
               INSERT INTO mine (p) VALUES ('{"currency":"usd","unit_amount":3}');
               SELECT p, p::jsonb FROM mine GROUP BY p;"#,
        )
        .unwrap();
    denied(
        &mut client,
        &[
            "SELECT FROM billing.customers",
            "SELECT FROM billing.meter_events",
            "INSERT INTO billing.customers (id) VALUES ('d')",
            "SELECT billing.record_meter_event('calls', 'c', 1)",
            "SELECT * FROM billing.record_meter_events('[]'::jsonb)",
            "SELECT billing.cancel_meter_event('calls', 'c', 'first')",
            "SELECT * FROM billing.meter_event_summaries('calls', 'c', now() - interval '1 day', now())",
            "SELECT billing.create_customer('d')",
            "SELECT billing.generate_invoices()",
            "SELECT billing.roll_up()",
            "SELECT billing.start_worker()",
            "CREATE TABLE billing.mine ()",
            "SET billing.max_event_age = -1",
        ],
    );
    Refusal::of(&mut client, "DROP TABLE billing.customers", &[]).says("42501", &["must be owner"]);
    Refusal::of(&mut client, "DROP EXTENSION pg_billing", &[]).says("42501", &["must be owner"]);
}

#[test]
fn a_recorder_records_and_cancels_and_reads_nothing() {
    let (database, mut owner) = database();
    owner.batch_execute(CATALOG).unwrap();
    let mut client = database
        .connect_as(&login(&database, "recorder", "billing_recorder"))
        .unwrap();
    let mut recorded = |sql: &str| -> bool { client.query_one(sql, &[]).unwrap().get(0) };
    assert!(recorded("SELECT billing.record_meter_event('calls', 'c', 7, 'second')"));
    assert!(!recorded(
        "SELECT billing.record_meter_event('calls', 'c', 7, 'second')"
    ));
    assert!(recorded(
        r#"SELECT (recorded, duplicate, rejected) = (1, 1, 1) FROM billing.record_meter_events('[
           {"event_name":"calls","payload":{"customer":"c","value":"1"},"identifier":"third"},
           {"event_name":"calls","payload":{"customer":"c","value":"1"},"identifier":"second"},
           {"event_name":"none","payload":{"customer":"c","value":"1"}}]'::jsonb)"#
    ));
    assert!(recorded(
        "SELECT (recorded, duplicate, rejected) = (1, 0, 1) FROM billing.record_meter_events(ARRAY['calls','calls'], ARRAY['c','x'], ARRAY[1, 2])"
    ));
    assert!(recorded("SELECT billing.cancel_meter_event('calls', 'c', 'third')"));
    denied(
        &mut client,
        &[
            "SELECT FROM billing.meters",
            "SELECT FROM billing.meter_events",
            "SELECT FROM billing.usage_pending",
            "SELECT FROM billing.meter_event_rejections",
            "INSERT INTO billing.meter_events DEFAULT VALUES",
            "DELETE FROM billing.meter_events",
            "INSERT INTO billing.usage_pending DEFAULT VALUES",
            "SELECT * FROM billing.meter_event_summaries('calls', 'c', now() - interval '1 day', now())",
            "SELECT * FROM billing.preview_invoice('sub')",
            "SELECT billing.usage_quantity('calls', 'c', now() - interval '1 day', now())",
            "SELECT billing.create_customer('d')",
            "SELECT billing.deactivate_meter('calls')",
            "SELECT billing.roll_up()",
            "SELECT billing.run_job('roll_up')",
            "SELECT billing.generate_invoices()",
            "SELECT billing.cancel_subscription('sub')",
            "SELECT nextval('billing.meter_event_rejections_id_seq')",
            "CREATE TRIGGER t BEFORE INSERT ON billing.usage_pending EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ],
    );
    let total: String = owner
        .query_one(
            "SELECT sum(value)::text FROM billing.meter_events WHERE cancelled_at IS NULL",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(total, "13");
}

#[test]
fn a_reader_reads_everything_and_writes_nothing() {
    let (database, mut owner) = database();
    owner.batch_execute(CATALOG).unwrap();
    let mut client = database
        .connect_as(&login(&database, "reader", "billing_reader"))
        .unwrap();
    let used =
        "SELECT aggregated_value::text FROM billing.meter_event_summaries('calls', 'c', now() - interval '1 day',
                now() + interval '1 day', dimensions => '{\"region\":\"eu\"}')";
    // Pending and rolled up, and the lines with the price that they are rated by.
    assert_eq!(strings(&mut client, used), ["5"]);
    owner.batch_execute("SELECT billing.roll_up()").unwrap();
    assert_eq!(strings(&mut client, used), ["5"]);
    let lines =
        "SELECT quantity::text || ' ' || amount FROM billing.preview_invoice('sub', now() + interval '1 minute')";
    assert_eq!(strings(&mut client, lines), ["5 15"]);
    assert_eq!(
        strings(
            &mut client,
            "SELECT billing.usage_quantity('calls', 'c', NULL, now() + interval '1 day')::text"
        ),
        ["5"]
    );
    for view in VIEWS {
        client.batch_execute(&format!("SELECT * FROM billing.{view}")).unwrap();
    }
    for table in WRITTEN_BY_ADMIN.iter().chain(ONLY_READ) {
        client.batch_execute(&format!("SELECT * FROM billing.{table}")).unwrap();
        denied(
            &mut client,
            &[
                &format!("DELETE FROM billing.{table}"),
                &format!("INSERT INTO billing.{table} DEFAULT VALUES"),
                &format!("TRUNCATE billing.{table}"),
            ],
        );
    }
    denied(
        &mut client,
        &[
            "UPDATE billing.invoices SET status = 'paid'",
            "SELECT FROM billing.customers FOR UPDATE",
            "SELECT billing.record_meter_event('calls', 'c', 1)",
            "SELECT billing.cancel_meter_event('calls', 'c', 'first')",
            "SELECT billing.create_customer('d')",
            "SELECT billing.create_alert('calls', 5)",
            "SELECT billing.roll_up()",
            "SELECT billing.generate_invoices()",
            "SELECT billing.cancel_subscription('sub')",
            "SELECT billing.finalize_invoice('x')",
            "SELECT nextval('billing.alert_events_id_seq')",
        ],
    );
}

#[test]
fn an_admin_runs_the_whole_business() {
    let (database, _owner) = database();
    let mut client = database
        .connect_as(&login(&database, "admin", "billing_admin"))
        .unwrap();
    client.batch_execute(CATALOG).unwrap();
    client
        .batch_execute(
            r#"UPDATE billing.customers SET name = 'Ann';
               INSERT INTO billing.products (name) VALUES ('Second');
               INSERT INTO billing.prices (price) VALUES ('{"currency":"usd","unit_amount":3}');
               INSERT INTO billing.meters (meter) VALUES ('{"event_name":"two","default_aggregation":{"formula":"count"}}');
               UPDATE billing.meters SET status = 'inactive' WHERE event_name = 'two';
               SELECT billing.create_alert('calls', 5, 'c');
               INSERT INTO billing.alerts (event_name, gte) VALUES ('calls', 6);
               UPDATE billing.alerts SET status = 'inactive' WHERE gte = 6;
               SELECT billing.create_subscription('{"customer":"c","items":[{"price":"p"}],"start_date":"2024-01-01T00:00:00Z"}', 'past', '2024-01-01Z');
               SET billing.max_event_age = -1;
               SELECT billing.record_meter_event('calls', 'c', 9, 'old', '2024-01-05Z');
               SELECT billing.roll_up();"#,
        )
        .unwrap();
    assert_eq!(
        strings(
            &mut client,
            "SELECT billing.generate_invoices('2024-02-01 02:00Z')::text"
        ),
        ["1"]
    );
    let invoice = strings(
        &mut client,
        "SELECT id FROM billing.invoices WHERE subscription = 'past' AND status = 'open' AND total = 27",
    );
    assert_eq!(invoice.len(), 1);
    client
        .batch_execute(&format!(
            "SELECT billing.mark_invoice_paid('{}'); SELECT billing.cancel_subscription('past', as_of => '2024-02-02Z');
             SELECT * FROM billing.preview_invoice('sub')",
            invoice[0]
        ))
        .unwrap();
    denied(
        &mut client,
        &[
            "DELETE FROM billing.meter_events",
            "UPDATE billing.meter_events SET value = 1",
            "DELETE FROM billing.invoices",
            "UPDATE billing.invoices SET total = 0",
            "UPDATE billing.invoice_numbers SET last_number = 0",
            "INSERT INTO billing.invoice_lines DEFAULT VALUES",
            "DELETE FROM billing.customers",
            "TRUNCATE billing.usage_pending",
            "CREATE TABLE billing.mine ()",
        ],
    );
    Refusal::of(&mut client, "ALTER TABLE billing.invoices DISABLE TRIGGER ALL", &[]).says("42501", &["must be owner"]);
}
