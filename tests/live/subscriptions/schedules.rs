//! Phases that cannot begin, and schedules in the middle of other things.

use postgres::error::SqlState;

use super::open_shop;
use crate::recording::{number, text};

/// A phase whose tax rate was archived meanwhile says so in its schedule, stops nobody else's invoices, and begins once it can.
#[test]
fn a_phase_that_cannot_begin_stops_nobody() {
    let (_database, mut client) = open_shop();
    let client = &mut client;
    client
        .batch_execute(
            r#"SELECT billing.create_tax_rate('{"display_name": "VAT", "percentage": 10, "inclusive": false}', 'vat', '2024-01-01');
               SELECT billing.create_customer('other');
               SELECT billing.create_subscription_schedule('{"customer": "other", "start_date": "now", "phases": [
                   {"items": [{"price": "seat"}], "end_date": "2024-02-01T00:00:00Z"},
                   {"items": [{"price": "pro"}], "default_tax_rates": ["vat"], "end_date": "2024-04-01T00:00:00Z"}]}', 'sched', '2024-01-01');
               SELECT billing.archive_tax_rate('vat')"#,
        )
        .unwrap();
    assert_eq!(
        number(client, "SELECT billing.generate_invoices('2024-02-01 01:00')"),
        2
    );
    let state =
        "SELECT concat_ws(' | ', h.status, h.current_phase, h.error, i.price) FROM billing.subscription_schedules h
                 JOIN billing.subscription_items i ON i.subscription = h.subscription AND i.ended_at IS NULL";
    assert_eq!(text(client, state), "active | 0 | tax rate \"vat\" is archived | seat");
    client.batch_execute("SELECT billing.activate_tax_rate('vat')").unwrap();
    // In the period that runs now, from its start on: what was invoiced meanwhile was by the terms of then.
    client
        .batch_execute("SELECT billing.generate_invoices('2024-02-10')")
        .unwrap();
    assert_eq!(text(client, state), "active | 1 | pro");
    assert_eq!(
        text(
            client,
            "SELECT string_agg(x.amount || ' ' || x.period_start::date, ', ' ORDER BY x.id) FROM billing.invoice_items x"
        ),
        "-500 2024-02-01, 1500 2024-02-01"
    );
}

/// A run that gives up on a lock has found nothing wrong with a phase, which would else begin late, by the next run.
#[test]
fn a_lock_timeout_is_no_fault_of_the_phase() {
    let (database, mut client) = open_shop();
    let mut holder = database.connect().unwrap();
    client
        .batch_execute(
            r#"SELECT billing.create_coupon('{"percent_off": 50}', 'half');
               SELECT billing.create_subscription_schedule('{"customer": "acme", "start_date": "2024-02-01T00:00:00Z", "phases": [
                   {"items": [{"price": "seat"}], "discounts": [{"coupon": "half"}]}]}', 'sched', '2024-01-01');
               SET lock_timeout = '100ms'"#,
        )
        .unwrap();
    holder
        .batch_execute("BEGIN; SELECT FROM billing.coupons FOR UPDATE")
        .unwrap();
    let error = client
        .query("SELECT billing.generate_invoices('2024-02-01')", &[])
        .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "{error}");
    holder.batch_execute("COMMIT").unwrap();
    client
        .batch_execute("SELECT billing.generate_invoices('2024-02-01')")
        .unwrap();
    let state =
        "SELECT concat_ws(' | ', status, current_phase, error) FROM billing.subscription_schedules WHERE id = 'sched'";
    assert_eq!(text(&mut client, state), "active | 0");
}

/// A run that comes late does what runs on time would have done, phases included.
#[test]
fn late_runs_equal_runs_on_time() {
    let bills = |client: &mut postgres::Client| {
        text(
            client,
            "SELECT string_agg(concat_ws(' ', i.number, i.billing_reason, i.created, i.total, l.price, l.amount, l.period_start,
                                         l.period_end), E'\\n' ORDER BY i.number, l.id)
             FROM billing.invoices i JOIN billing.invoice_lines l ON l.invoice = i.id",
        )
    };
    let run = |days: &[&str]| {
        let (_database, mut client) = open_shop();
        client
            .batch_execute(
                r#"SELECT billing.create_subscription_schedule('{"customer": "acme", "start_date": "2024-01-10T00:00:00Z", "phases": [
                       {"items": [{"price": "seat"}, {"price": "package"}], "iterations": 2},
                       {"items": [{"price": "pro"}, {"price": "package"}], "end_date": "2024-04-01T00:00:00Z"},
                       {"items": [{"price": "pro", "quantity": 2}], "duration": {"interval": "month"}}], "end_behavior": "cancel"}', 'sched', '2024-01-01')"#,
            )
            .unwrap();
        for day in days {
            client
                .batch_execute(&format!("SELECT billing.generate_invoices('{day}')"))
                .unwrap();
        }
        bills(&mut client)
    };
    let on_time: Vec<String> = (1..=5)
        .flat_map(|month| (1..=28).map(move |day| format!("2024-{month:02}-{day:02} 02:00")))
        .collect();
    let on_time: Vec<&str> = on_time.iter().map(String::as_str).collect();
    assert_eq!(run(&on_time), run(&["2024-05-28 02:00"]));
}
