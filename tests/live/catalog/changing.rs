//! What may change later, and what never does.

use super::{database, text, truth};
use crate::refusal::Refusal;

#[test]
fn definitions_never_change() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_product('prod', 'P'), billing.create_product('other', 'O');
               SELECT billing.create_customer('c');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,"nickname":"n"}', 'prod', 'p');"#,
        )
        .unwrap();
    for change in [
        r#"price = '{"currency":"usd","unit_amount":2,"nickname":"n"}'"#,
        r#"price = '{"currency":"eur","unit_amount":1,"nickname":"n"}'"#,
        r#"price = '{"currency":"usd","unit_amount":1,"nickname":"m"}'"#,
        r#"price = '{"currency":"usd","unit_amount":1,"nickname":"n","recurring":{"interval":"month"}}'"#,
        "product = 'other'",
        "product = NULL",
        "id = 'q'",
        "created = created - interval '1 day'",
        "currency = 'eur'",
        "type = 'recurring'",
        "usage_type = 'licensed'",
        "meter = 'calls'",
        "\"interval\" = 'day'",
        "interval_count = 2",
    ] {
        Refusal::of(&mut client, &format!("UPDATE billing.prices SET {change}"), &[])
            .says("23001", &["price \"p\""])
            .hints();
    }
    for change in [
        r#"meter = '{"event_name":"calls","default_aggregation":{"formula":"max"}}'"#,
        r#"meter = '{"event_name":"other","default_aggregation":{"formula":"sum"}}'"#,
        "id = 'mtr_other'",
    ] {
        Refusal::of(&mut client, &format!("UPDATE billing.meters SET {change}"), &[])
            .says("23001", &["meter \"calls\""])
            .hints();
    }
    Refusal::of(&mut client, "UPDATE billing.customers SET id = 'd'", &[])
        .says("23001", &["customer \"c\""])
        .hints();
    // What may change.
    client
        .batch_execute(
            r#"UPDATE billing.meters SET meter = '{"event_name":"calls","display_name":"Calls","default_aggregation":{"formula":"sum"}}';
               UPDATE billing.meters SET aggregation = 'max', value_key = 'x', dimension_keys = '{x}', customer_key = 'x';
               UPDATE billing.customers SET id = 'c', name = 'Ann', email = 'a@b', metadata = '{"a":1}';
               UPDATE billing.products SET name = 'Q', description = 'd', unit_label = 'u', metadata = '{"a":1}' WHERE id = 'prod';
               UPDATE billing.prices SET lookup_key = 'k', active = false;"#,
        )
        .unwrap();
    assert!(truth(
        &mut client,
        "SELECT aggregation = 'sum' AND value_key = 'value' AND dimension_keys = '{}' AND customer_key IS NULL
            AND meter::jsonb ->> 'display_name' = 'Calls' FROM billing.meters"
    ));
    assert!(truth(
        &mut client,
        "SELECT NOT active AND archived_at IS NOT NULL AND price::jsonb @> '{\"active\":false,\"lookup_key\":\"k\"}' FROM billing.prices"
    ));
    // These two stand in the definition too; whichever is written, the other follows.
    for (write, active, key) in [
        (
            "UPDATE billing.prices SET price = price::jsonb || '{\"active\":true,\"lookup_key\":\"l\"}'",
            true,
            Some("l"),
        ),
        (
            "UPDATE billing.prices SET active = false, price = price::jsonb - 'lookup_key'",
            false,
            None,
        ),
        (
            "UPDATE billing.prices SET active = true, lookup_key = 'm'",
            true,
            Some("m"),
        ),
        (
            "INSERT INTO billing.prices (price, active, lookup_key) VALUES ('{\"currency\":\"usd\",\"unit_amount\":1}', false, 'o')",
            false,
            Some("o"),
        ),
        (
            "INSERT INTO billing.prices (price, lookup_key) VALUES ('{\"currency\":\"usd\",\"unit_amount\":1,\"lookup_key\":\"x\"}', 'p')",
            true,
            Some("p"),
        ),
    ] {
        let both = format!(
            "{write} RETURNING active, lookup_key, price::jsonb -> 'active' = to_jsonb(active), price::jsonb ->> 'lookup_key'"
        );
        let row = client.query_one(&both, &[]).unwrap();
        assert_eq!(
            (row.get(0), row.get(1), row.get(2), row.get(3)),
            (active, key, true, key),
            "{write}"
        );
    }
    // Neither counts when the same price is made again.
    let again = text(
        &mut client,
        r#"SELECT billing.create_price('{"currency":"usd","unit_amount":1,"nickname":"n"}', 'prod', 'p')"#,
        &[],
    );
    assert_eq!(again, "p");
}

#[test]
fn what_is_used_cannot_be_deleted() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_meter('{"event_name":"watched","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,
                   "recurring":{"interval":"month","usage_type":"metered","meter":"calls"}}', 'prod', 'p');
               SELECT billing.create_subscription('{"customer":"c","items":[{"price":"p"}]}');
               SELECT billing.create_alert('watched', 5, 'c');"#,
        )
        .unwrap();
    for (table, code) in [("customers", "23503"), ("products", "23503"), ("prices", "23001")] {
        Refusal::of(&mut client, &format!("DELETE FROM billing.{table}"), &[]).says(code, &[table]);
        Refusal::of(&mut client, &format!("TRUNCATE billing.{table}"), &[]).says("0A000", &["foreign key"]);
    }
    for meter in ["calls", "watched"] {
        Refusal::of(
            &mut client,
            "DELETE FROM billing.meters WHERE event_name = $1",
            &[&meter],
        )
        .says("23503", &["meters"]);
    }
    // The roles may not delete even what is unused.
    client
        .batch_execute("SELECT billing.create_customer('unused'); SET ROLE billing_admin")
        .unwrap();
    for table in ["customers", "products", "prices", "meters"] {
        Refusal::of(
            &mut client,
            &format!("DELETE FROM billing.{table} WHERE id = 'unused'"),
            &[],
        )
        .says("42501", &[table]);
    }
    client
        .batch_execute("RESET ROLE; DELETE FROM billing.customers WHERE id = 'unused'")
        .unwrap();
}
