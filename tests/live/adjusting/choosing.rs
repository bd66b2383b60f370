//! Which drafts are adjusted at all, and what a change of mind leaves behind.

use super::{grant, market};
use crate::invoices::assert_books_balance;
use crate::recording::{number, text};

/// Drafts without discounts, credit and tax are looked at and not touched, beside others that have them.
#[test]
fn drafts_without_anything_to_adjust_are_left_alone() {
    let (_database, mut client) = market();
    client
        .batch_execute(
            r#"SELECT billing.create_customer('plain');
               SELECT billing.create_subscription('{"customer": "plain", "items": [{"price": "package"}]}', 'plain', '2024-01-01');
               SELECT billing.record_meter_event('calls', 'acme', 1, 'a', '2024-01-10');
               SELECT billing.record_meter_event('calls', 'plain', 1, 'b', '2024-01-10')"#,
        )
        .unwrap();
    client.batch_execute(&grant("g", 15, "")).unwrap();
    client
        .batch_execute("SELECT billing.generate_invoices('2024-02-01')")
        .unwrap();
    let states = "SELECT string_agg(xmin::text || ctid, ' ' ORDER BY id) FROM billing.invoice_lines
                  WHERE subscription_item IN (SELECT id FROM billing.subscription_items WHERE subscription = 'plain')";
    let before = text(&mut client, states);
    client
        .batch_execute("SELECT billing.adjust_drafts(ARRAY(SELECT id FROM billing.invoices))")
        .unwrap();
    assert_eq!(text(&mut client, states), before);
    let lines =
        "SELECT string_agg(concat_ws(' ', s.subscription, l.amount, l.credit_amount), ', ' ORDER BY s.subscription)
                 FROM billing.invoice_lines l JOIN billing.subscription_items s ON s.id = l.subscription_item";
    assert_eq!(text(&mut client, lines), "plain 40 0, sub 40 15");
}

/// What is given back goes by the draft that charges it, whose own returns go by the draft before, and so on; but a year of drafts that wait
/// for a person takes no longer for that. Each once asked for all before it, ten times as long with every month.
#[test]
fn drafts_that_wait_do_not_ask_for_all_before_them() {
    let (_database, mut client) = market();
    client
        .batch_execute(
            r#"SELECT billing.create_price('{"currency": "usd", "unit_amount": 700, "recurring": {"interval": "month"}}', id => 'desk');
               SELECT billing.apply_discount('five', 'customer', 'acme', '2024-01-01');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}, {"price": "desk"}]}', 'kept', '2024-01-01');
               SELECT billing.update_subscription('kept', '{"pause_collection": {"behavior": "keep_as_draft"}}', '2024-01-02');
               SET statement_timeout = '60s'"#,
        )
        .unwrap();
    for month in 2..=12 {
        client
            .batch_execute(&format!(
                "SELECT billing.generate_invoices('2024-{month:02}-01 01:00');
                 SELECT billing.update_subscription('kept', jsonb_build_object('items',
                     jsonb_agg(jsonb_build_object('id', id, 'quantity', {month}) ORDER BY id)), '2024-{month:02}-11')
                 FROM billing.subscription_items WHERE subscription = 'kept'"
            ))
            .unwrap();
    }
    let waiting = "SELECT count(*) FROM billing.invoices WHERE status = 'draft' AND subscription = 'kept'";
    assert_eq!(number(&mut client, waiting), 11);
    assert_books_balance(&mut client);
}

/// A draft that had all of it goes without when none of it holds any more, and so does its total.
#[test]
fn what_a_draft_showed_goes_when_it_is_gone() {
    let (_database, mut client) = market();
    client.batch_execute(&grant("g", 15, "")).unwrap();
    client
        .batch_execute(
            "SELECT billing.apply_discount('half', 'customer', 'acme', '2024-01-01');
             UPDATE billing.subscriptions SET default_tax_rates = '{vat}';
             SELECT billing.record_meter_event('calls', 'acme', 1, 'a', '2024-01-10');
             SELECT billing.generate_invoices('2024-02-01')",
        )
        .unwrap();
    let totals = "SELECT concat_ws(' ', subtotal, total_discount_amount, total_credit_amount, total_tax_amount, total)
                  FROM billing.invoices WHERE status = 'draft'";
    // 40 - 20 - 15 = 5, and 10 % of that: 0.5 → 1.
    assert_eq!(text(&mut client, totals), "40 20 15 1 6");
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', 'seats', '2024-02-01');
               SELECT billing.expire_credit_grant('g', '2024-02-01 00:30');
               UPDATE billing.subscriptions SET default_tax_rates = NULL;
               SELECT billing.generate_invoices('2024-02-01 00:45')"#,
        )
        .unwrap();
    // The seats used the coupon up when they were invoiced, at once.
    client
        .batch_execute("SELECT billing.rate_drafts(ARRAY(SELECT id FROM billing.invoices WHERE status = 'draft'))")
        .unwrap();
    assert_eq!(text(&mut client, totals), "40 0 0 0 40");
    let left = "SELECT count(*) FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
                WHERE i.status = 'draft' AND num_nonnulls(discount_amounts, credit_amounts, taxes) > 0";
    assert_eq!(number(&mut client, left), 0);
    client
        .batch_execute("SELECT billing.generate_invoices('2024-02-01 01:00')")
        .unwrap();
    assert_books_balance(&mut client);
}

/// More drafts than one part holds, each with its own discount, credit and tax.
#[test]
fn many_drafts_are_adjusted_each_by_its_own() {
    let (_database, mut client) = market();
    client
        .batch_execute(
            r#"UPDATE billing.subscriptions SET default_tax_rates = '{vat}';
               SELECT billing.create_customer('c' || n) FROM generate_series(1, 1050) n;
               SELECT billing.create_subscription(format('{"customer": "c%s", "items": [{"price": "package"}]}', n)::jsonb, 's' || n, '2024-01-01')
               FROM generate_series(1, 1050) n;
               UPDATE billing.subscriptions SET default_tax_rates = '{vat}' WHERE right(id, 1) = '7';
               SELECT count(billing.apply_discount('five', 'customer', 'c' || n, '2024-01-01')) FROM generate_series(1, 1050) n WHERE n % 2 = 0;
               SELECT count(billing.record_meter_event('calls', 'c' || n, 4 * (1 + n % 3), n::text, '2024-01-10')) FROM generate_series(1, 1050) n;
               SELECT billing.generate_invoices('2024-02-01 01:00')"#,
        )
        .unwrap();
    let wrong = "SELECT count(*) FROM billing.invoices i
         CROSS JOIN LATERAL (SELECT substr(i.customer, 2)::integer) c (n)
         CROSS JOIN LATERAL (SELECT 40 * (1 + n % 3), CASE n % 2 WHEN 0 THEN 5 ELSE 0 END) a (amount, off)
         WHERE i.customer <> 'acme'
           AND (i.subtotal, i.total_discount_amount, i.total_tax_amount) <>
               (amount, off, CASE n % 10 WHEN 7 THEN round((amount - off) / 10.0) ELSE 0 END)";
    assert_eq!(number(&mut client, wrong), 0);
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.invoices"), 1051);
    assert_books_balance(&mut client);
}

/// Lines that stand in no table come to what they come to on the draft made of them.
#[test]
fn a_preview_is_adjusted_as_the_draft_will_be() {
    let (_database, mut client) = market();
    client.batch_execute(&grant("g", 25, "")).unwrap();
    client
        .batch_execute(
            r#"UPDATE billing.subscriptions SET default_tax_rates = '{vat}';
               SELECT billing.set_discounts('subscription', 'sub', '[{"coupon": "half"}, {"coupon": "five"}]', '2024-01-01');
               SELECT billing.record_meter_event('calls', 'acme', 9, 'a', '2024-01-10')"#,
        )
        .unwrap();
    let shown = "concat_ws(' ', price, amount, discount_amount, discount_amounts, credit_amounts, tax_amount, taxes)";
    let preview = format!(
        "SELECT string_agg({shown}, '; ') FROM billing.subscriptions s
         CROSS JOIN LATERAL billing.adjusted_preview(s, s.current_period_end,
             ARRAY(SELECT p FROM billing.preview_invoice('sub', '2024-02-01') p)) l WHERE s.id = 'sub'"
    );
    let previewed = text(&mut client, &preview);
    // Three packages are 120: 60 off, then 5; 25 of credit; 10 % of 30.
    assert!(previewed.starts_with("package 120 65 "), "{previewed}");
    client
        .batch_execute("SELECT billing.generate_invoices('2024-02-01')")
        .unwrap();
    let draft = format!("SELECT string_agg({shown}, '; ') FROM billing.invoice_lines l");
    assert_eq!(text(&mut client, &draft), previewed);
    assert_eq!(
        text(
            &mut client,
            "SELECT concat_ws(' ', total_credit_amount, total_tax_amount, total) FROM billing.invoices"
        ),
        "25 3 33"
    );
}
