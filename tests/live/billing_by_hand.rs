//! What is billed by hand: refusals that change nothing, what waits and what is taken, credit notes under attack, and many drafts
//! finalized at once.

use std::sync::Barrier;

use harness::{Cluster, Database, Dice, Options, cluster_under_test};
use postgres::Client;
use postgres::error::SqlState;

use crate::invoices::{assert_books_balance, shop};
use crate::recording::{assert_refused, number, refusal, text};

/// `in_open` of 100 and 200, `in_paid` of 100, `in_draft` of 5, and subscription `sub` with a proration that waits.
fn office() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    client
        .batch_execute(
            r#"SELECT billing.create_customer('other');
               SELECT billing.create_tax_rate('{"display_name": "VAT", "percentage": 10, "inclusive": false}', 'vat');
               SELECT billing.create_tax_rate('{"display_name": "VAT", "percentage": 9, "inclusive": false}', 'old vat');
               SELECT billing.archive_tax_rate('old vat');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 70}', id => 'fee');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 70}', id => 'old fee'), billing.archive_price('old fee');
               SELECT billing.create_price('{"currency": "eur", "unit_amount": 70}', id => 'euro fee');
               SELECT billing.create_invoice('{"customer": "acme", "currency": "usd", "lines": [{"amount": 100}, {"amount": 200}]}', 'in_open', '2024-01-01');
               SELECT billing.create_invoice('{"customer": "acme", "currency": "usd", "lines": [{"amount": 100}]}', 'in_paid', '2024-01-01');
               SELECT billing.create_invoice('{"customer": "acme", "currency": "usd", "lines": [{"amount": 5}]}', 'in_draft', '2024-01-01');
               SELECT billing.finalize_invoice('in_open', '2024-01-01'), billing.finalize_invoice('in_paid', '2024-01-01');
               SELECT billing.mark_invoice_paid('in_paid', '2024-01-02');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat", "quantity": 2}]}', 'sub', '2024-01-01');
               SELECT billing.update_subscription('sub', jsonb_build_object('items', jsonb_build_array(
                   jsonb_build_object('id', id, 'quantity', 1))), '2024-01-11') FROM billing.subscription_items;
               SELECT billing.create_invoice_item('{"customer": "acme", "currency": "usd", "amount": 9}', 'ii_waits', '2024-01-12')"#,
        )
        .unwrap();
    (database, client)
}

const EVERYTHING: [&str; 6] = [
    "invoices",
    "invoice_lines",
    "invoice_items",
    "credit_notes",
    "credit_note_lines",
    "customer_balance_transactions",
];

fn everything(client: &mut Client) -> String {
    let sums = EVERYTHING
        .map(|table| format!("(SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM billing.{table} t)"));
    text(client, &format!("SELECT concat_ws(' ', {})", sums.join(", ")))
}

#[test]
fn bad_requests_change_nothing() {
    let (_database, mut client) = office();
    let before = everything(&mut client);
    let item = |json: &str| format!("SELECT billing.create_invoice_item('{json}', as_of => '2024-01-15')");
    let invoice = |json: &str| format!("SELECT billing.create_invoice('{json}', as_of => '2024-01-15')");
    let note = |json: &str| format!("SELECT billing.create_credit_note('{json}', as_of => '2024-01-15')");
    let wrong = &SqlState::INVALID_PARAMETER_VALUE;
    let state = &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    let unknown = &SqlState::UNDEFINED_OBJECT;
    let foreign = &SqlState::FOREIGN_KEY_VIOLATION;
    let cases: Vec<(String, &SqlState, &[&str])> = vec![
        (item(r#"{"currency": "usd", "amount": 1}"#), wrong, &["customer"]),
        (item(r#"{"customer": "acme", "currency": "usd"}"#), wrong, &["amount"]),
        (item(r#"{"customer": "acme", "amount": 1}"#), wrong, &["currency"]),
        (item(r#"{"customer": "nobody", "currency": "usd", "amount": 1}"#), foreign, &["nobody"]),
        (item(r#"{"customer": "acme", "currency": "xyz", "amount": 1}"#), wrong, &["xyz"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1.5}"#), wrong, &["amount", "1.5"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 9223372036854775808}"#), wrong, &["9223372036854775808"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "unit_amount": 1}"#), wrong, &["unit_amount", "amount"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "quantity": 2}"#), wrong, &["quantity"]),
        (item(r#"{"customer": "acme", "currency": "usd", "unit_amount": 1, "quantity": -2}"#), wrong, &["quantity", "-2"]),
        (item(r#"{"customer": "acme", "currency": "usd", "unit_amount_decimal": "0.0000000000001"}"#), wrong, &["12"]),
        (
            item(r#"{"customer": "acme", "currency": "usd", "unit_amount": 9223372036854775807, "quantity": 2}"#),
            &SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            &["18446744073709551614"],
        ),
        (item(r#"{"customer": "acme", "price": "fee", "quantity": 200000000000000000}"#), &SqlState::NUMERIC_VALUE_OUT_OF_RANGE, &["range"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "colour": "red"}"#), wrong, &["colour"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "discounts": [{"coupon": "x"}]}"#), &SqlState::FEATURE_NOT_SUPPORTED, &["discounts"]),
        (item(r#"{"customer": "acme", "price": "none"}"#), foreign, &["none"]),
        (item(r#"{"customer": "acme", "price": "seat"}"#), wrong, &["seat", "recurring"]),
        (item(r#"{"customer": "acme", "price": "old fee"}"#), state, &["old fee", "archived"]),
        (item(r#"{"customer": "acme", "currency": "usd", "price": "euro fee"}"#), wrong, &["euro fee", "eur", "usd"]),
        (item(r#"{"customer": "acme", "subscription": "sub", "currency": "eur", "amount": 1}"#), wrong, &["eur", "sub", "usd"]),
        (item(r#"{"customer": "other", "subscription": "sub", "amount": 1}"#), wrong, &["sub", "acme", "other"]),
        (item(r#"{"customer": "other", "invoice": "in_draft", "amount": 1}"#), wrong, &["in_draft", "acme", "other"]),
        (item(r#"{"customer": "acme", "invoice": "in_draft", "currency": "eur", "amount": 1}"#), wrong, &["eur", "in_draft", "usd"]),
        (item(r#"{"customer": "acme", "invoice": "in_draft", "subscription": "sub", "amount": 1}"#), wrong, &["in_draft", "sub"]),
        (item(r#"{"customer": "acme", "invoice": "in_open", "amount": 1}"#), state, &["in_open", "open", "draft"]),
        (item(r#"{"customer": "acme", "invoice": "in_none", "amount": 1}"#), unknown, &["in_none"]),
        (item(r#"{"customer": "acme", "subscription": "none", "amount": 1}"#), unknown, &["none"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "period": {"start": 10, "end": 9}}"#), wrong, &["period.end"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "period": {"start": "tomorrow", "end": 9}}"#), wrong, &["tomorrow"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "tax_rates": ["a", 7]}"#), wrong, &["tax_rates", "7"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "tax_rates": ["none"]}"#), foreign, &["tax rate", "none"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "tax_rates": ["vat", "vat"]}"#), wrong, &["vat", "twice"]),
        (item(r#"{"customer": "acme", "currency": "usd", "amount": 1, "tax_rates": ["old vat"]}"#), state, &["old vat", "archived"]),
        (item("[]"), &SqlState::INVALID_TEXT_REPRESENTATION, &["object"]),
        ("SELECT billing.create_invoice_item(NULL)".into(), &SqlState::NULL_VALUE_NOT_ALLOWED, &["item"]),
        (
            r#"SELECT billing.create_invoice_item('{"customer": "acme", "currency": "usd", "amount": 1}', as_of => 'infinity')"#.into(),
            wrong,
            &["as_of"],
        ),
        (
            r#"SELECT billing.create_invoice_item('{"customer": "acme", "currency": "usd", "amount": 1}', 'ii_waits', '2024-01-15')"#.into(),
            &SqlState::UNIQUE_VIOLATION,
            &["ii_waits"],
        ),
        ("SELECT billing.update_invoice_item('ii_none', '{}')".into(), unknown, &["ii_none"]),
        ("SELECT billing.delete_invoice_item('ii_none')".into(), unknown, &["ii_none"]),
        (r#"SELECT billing.update_invoice_item('ii_waits', '{"customer": "other"}')"#.into(), wrong, &["customer"]),
        (r#"SELECT billing.update_invoice_item('ii_waits', '{"quantity": 3}')"#.into(), wrong, &["3", "ii_waits"]),
        (r#"SELECT billing.update_invoice_item('ii_waits', '{"price": "euro fee"}')"#.into(), wrong, &["eur", "usd"]),
        (r#"SELECT billing.update_invoice_item('ii_waits', '{"tax_rates": ["vat", "none"]}')"#.into(), foreign, &["none"]),
        (
            "SELECT billing.delete_invoice_item(id) FROM billing.invoice_items WHERE kind = 'unused_time'".into(),
            state,
            &["proration", "sub"],
        ),
        (
            r#"SELECT billing.update_invoice_item(id, '{"amount": 1}') FROM billing.invoice_items WHERE kind = 'unused_time'"#.into(),
            state,
            &["proration", "sub"],
        ),
        (invoice(r#"{"currency": "usd"}"#), wrong, &["customer"]),
        (invoice(r#"{"customer": "nobody"}"#), foreign, &["nobody"]),
        (invoice(r#"{"customer": "acme", "subscription": "sub"}"#), &SqlState::FEATURE_NOT_SUPPORTED, &["subscription"]),
        (invoice(r#"{"customer": "acme", "lines": [{"amount": 1}, {}], "currency": "usd"}"#), wrong, &["lines[1]", "amount"]),
        (invoice(r#"{"customer": "acme", "lines": [{"price": "seat"}], "currency": "usd"}"#), wrong, &["seat", "recurring"]),
        (invoice(r#"{"customer": "acme", "lines": [{"price": "fee"}, {"price": "euro fee"}]}"#), wrong, &["eur", "usd"]),
        (invoice(r#"{"customer": "acme", "days_until_due": -1}"#), wrong, &["days_until_due", "-1"]),
        (invoice(r#"{"customer": "acme", "days_until_due": 3651}"#), wrong, &["days_until_due", "3651"]),
        (invoice(r#"{"customer": "acme", "currency": "usd", "default_tax_rates": ["none"]}"#), foreign, &["tax rate", "none"]),
        (invoice(r#"{"customer": "acme", "currency": "usd", "lines": [{"amount": 1, "tax_rates": ["none"]}]}"#), foreign, &["none"]),
        (invoice(r#"{"customer": "acme", "collection_method": "by_dog"}"#), wrong, &["by_dog"]),
        (
            r#"SELECT billing.create_invoice('{"customer": "acme"}', 'in_draft', '2024-01-15')"#.into(),
            &SqlState::UNIQUE_VIOLATION,
            &["in_draft"],
        ),
        (
            "SELECT billing.adjust_customer_balance('acme', -1, 'uds', as_of => '2024-01-15')".into(),
            wrong,
            &["uds"],
        ),
        ("SELECT billing.delete_draft_invoice('in_open')".into(), state, &["in_open", "open", "draft"]),
        ("SELECT billing.delete_draft_invoice('in_none')".into(), unknown, &["in_none"]),
        (note(r#"{"amount": 1}"#), wrong, &["invoice"]),
        (note(r#"{"invoice": "in_open"}"#), wrong, &["lines", "amount"]),
        (note(r#"{"invoice": "in_open", "amount": 1, "lines": []}"#), wrong, &["amount", "lines"]),
        (note(r#"{"invoice": "in_open", "lines": []}"#), wrong, &["lines"]),
        (note(r#"{"invoice": "in_open", "amount": -1}"#), wrong, &["amount", "-1"]),
        (note(r#"{"invoice": "in_open", "amount": 1, "reason": "weather"}"#), wrong, &["weather"]),
        (note(r#"{"invoice": "in_open", "amount": 1, "refund_amount": 1}"#), wrong, &["1", "0"]),
        (note(r#"{"invoice": "in_draft", "amount": 1}"#), state, &["in_draft", "draft"]),
        (
            note(r#"{"invoice": "in_open", "lines": [{"type": "custom_line_item", "amount": 1, "invoice_line_item": "x"}]}"#),
            wrong,
            &["custom_line_item"],
        ),
        (
            r#"SELECT billing.create_credit_note('{"invoice": "in_open", "amount": 1}', as_of => '2023-12-31')"#.into(),
            wrong,
            &["2023-12-31", "in_open"],
        ),
        (
            "SELECT billing.create_credit_note(jsonb_build_object('invoice', 'in_open', 'lines', jsonb_build_array(l, l)), as_of => '2024-01-15')
             FROM (SELECT jsonb_build_object('invoice_line_item', id, 'amount', 1) FROM billing.invoice_lines WHERE amount = 200) l (l)".into(),
            wrong,
            &["more than once"],
        ),
        (
            "SELECT billing.create_credit_note(jsonb_build_object('invoice', 'in_open', 'lines', jsonb_build_array(
                 jsonb_build_object('invoice_line_item', id, 'amount', 1))), as_of => '2024-01-15')
             FROM billing.invoice_lines WHERE invoice = 'in_paid'".into(),
            unknown,
            &["in_open"],
        ),
    ];
    for (sql, code, words) in cases {
        assert_refused(&mut client, &sql, &[], code, words);
    }
    assert_eq!(everything(&mut client), before);
    assert_books_balance(&mut client);
}

#[test]
fn an_invoice_takes_250_items_and_no_more() {
    let (_database, mut client) = office();
    client
        .batch_execute(
            r#"SELECT billing.create_invoice_item('{"customer": "acme", "currency": "usd", "amount": 1}', as_of => '2024-01-13')
               FROM generate_series(1, 249)"#,
        )
        .unwrap();
    let one_more = r#"SELECT billing.create_invoice_item('{"customer": "acme", "currency": "usd", "amount": 1}', as_of => '2024-01-13')"#;
    assert_refused(&mut client, one_more, &[], &SqlState::PROGRAM_LIMIT_EXCEEDED, &["250"]);
    client
        .batch_execute(r#"SELECT billing.create_invoice('{"customer": "acme"}', 'in_full', '2024-01-14')"#)
        .unwrap();
    let total = "SELECT total || ' ' || line_count FROM billing.invoices WHERE id = 'in_full'";
    assert_eq!(text(&mut client, total), "258 250");
    assert_refused(
        &mut client,
        r#"SELECT billing.create_invoice_item('{"customer": "acme", "invoice": "in_full", "amount": 1}', as_of => '2024-01-14')"#,
        &[],
        &SqlState::PROGRAM_LIMIT_EXCEEDED,
        &["in_full", "251"],
    );
    assert_eq!(text(&mut client, total), "258 250");
    client.batch_execute(one_more).unwrap();
}

/// Not even a superuser's SQL makes a credit note that the invoice and its lines do not account for.
#[test]
fn credit_notes_cannot_be_forged() {
    let (_database, mut client) = office();
    client
        .batch_execute(
            r#"SELECT billing.create_credit_note('{"invoice": "in_open", "amount": 30}', 'cn_1', '2024-01-15');
               SELECT billing.create_credit_note('{"invoice": "in_paid", "amount": 40, "refund_amount": 40}', 'cn_2', '2024-01-15')"#,
        )
        .unwrap();
    let before = everything(&mut client);
    let note = |id: &str, invoice: &str, amount: i32, refund: i32| {
        let pre = amount - refund;
        format!(
            "INSERT INTO billing.credit_notes (id, invoice, number, amount, subtotal, discount_amount, credit_grant_amount, tax_amount,
                 exclusive_tax_amount, pre_payment_amount, post_payment_amount, refund_amount, credit_amount, out_of_band_amount,
                 line_count, created)
             VALUES ('{id}', '{invoice}', '{id}', {amount}, {amount}, 0, 0, 0, 0, {pre}, {refund}, {refund}, 0, 0, 1, '2024-01-16')"
        )
    };
    let line = |note: &str, invoice: &str, amount: i32| {
        format!(
            "INSERT INTO billing.credit_note_lines (credit_note, invoice_line, description, amount, discount_amount,
                 credit_grant_amount, tax_amount, exclusive_tax_amount)
             SELECT '{note}', min(id), 'forged', {amount}, 0, 0, 0, 0 FROM billing.invoice_lines WHERE invoice = '{invoice}'"
        )
    };
    let raised = |invoice: &str, column: &str, by: i32| {
        format!("UPDATE billing.invoices SET {column} = {column} + {by} WHERE id = '{invoice}'")
    };
    let (pre, post) = ("pre_payment_credit_notes_amount", "post_payment_credit_notes_amount");
    for sql in [
        // The invoice says nothing of it; the invoice says it and there is none.
        note("forged", "in_open", 5, 0),
        raised("in_open", pre, 5),
        raised("in_open", pre, -5),
        raised("in_paid", post, 5),
        // More than was paid; more lines than it says; a line of another invoice; more than a line has.
        format!(
            "WITH u AS ({}) {}",
            raised("in_paid", post, 61),
            note("forged", "in_paid", 61, 61)
        ),
        line("cn_2", "in_paid", 1),
        format!(
            "WITH u AS ({}), n AS ({}) {}",
            raised("in_open", pre, 5),
            note("forged", "in_open", 5, 0),
            line("forged", "in_paid", 5)
        ),
        format!(
            "WITH u AS ({}), n AS ({}) {}",
            raised("in_open", pre, 120),
            note("forged", "in_open", 120, 0),
            line("forged", "in_open", 120)
        ),
        format!(
            "WITH u AS ({}), n AS ({}) {}",
            raised("in_open", pre, 5),
            note("forged", "in_open", 5, 0),
            line("forged", "in_open", 6)
        ),
        "UPDATE billing.credit_notes SET status = 'void', voided_at = '2024-01-16' WHERE id = 'cn_2'".into(),
    ] {
        let refused = refusal(&mut client, &sql, &[]);
        assert!(
            [
                SqlState::CHECK_VIOLATION,
                SqlState::RESTRICT_VIOLATION,
                SqlState::UNIQUE_VIOLATION
            ]
            .contains(refused.code()),
            "{sql}: {} {refused}",
            refused.code().code()
        );
    }
    assert_eq!(everything(&mut client), before);
    assert_books_balance(&mut client);
}

/// What waits, and what an invoice has taken, moves only to a draft and back.
#[test]
fn items_stay_where_they_are() {
    let (_database, mut client) = office();
    client
        .batch_execute(
            r#"SELECT billing.create_invoice_item('{"customer": "acme", "invoice": "in_draft", "amount": 1}', 'ii_draft', '2024-01-15')"#,
        )
        .unwrap();
    let before = everything(&mut client);
    for sql in [
        "UPDATE billing.invoice_items SET amount = amount + 1 WHERE kind = 'unused_time'",
        "UPDATE billing.invoice_items SET description = 'x' WHERE kind = 'licensed'",
        "DELETE FROM billing.invoice_items WHERE kind = 'unused_time'",
        "UPDATE billing.invoice_items SET invoice = 'in_open' WHERE id = 'ii_waits'",
        "UPDATE billing.invoice_items SET invoice = 'in_draft', amount = 0 WHERE id = 'ii_waits'",
        "UPDATE billing.invoice_items SET invoice = NULL WHERE invoice = 'in_open'",
        "UPDATE billing.invoice_items SET invoice = 'in_draft' WHERE invoice = 'in_open'",
        "UPDATE billing.invoice_items SET amount = amount + 1 WHERE invoice = 'in_open'",
        "UPDATE billing.invoice_items SET customer = 'other' WHERE id = 'ii_waits'",
        "UPDATE billing.invoice_items SET kind = 'licensed', subscription = 'sub', price = 'seat', subscription_item =
             (SELECT id FROM billing.subscription_items) WHERE id = 'ii_waits'",
        "UPDATE billing.invoice_items SET id = 'ii_other' WHERE id = 'ii_waits'",
    ] {
        let refused = refusal(&mut client, sql, &[]);
        assert!(
            [SqlState::RESTRICT_VIOLATION, SqlState::CHECK_VIOLATION].contains(refused.code()),
            "{sql}: {} {refused}",
            refused.code().code()
        );
    }
    assert_eq!(everything(&mut client), before);
}

/// The ledger of balances has no holes, no second row in a place, and no row that starts elsewhere than the one before ends.
#[test]
fn a_balance_is_a_chain() {
    let (_database, mut client) = office();
    client
        .batch_execute(
            "SELECT billing.adjust_customer_balance('acme', -50, 'usd', as_of => '2024-01-15');
             SELECT billing.adjust_customer_balance('acme', 20, 'usd', as_of => '2024-01-16')",
        )
        .unwrap();
    let row = |place: i32, starting: i32, amount: i32, ending: i32| {
        format!(
            "INSERT INTO billing.customer_balance_transactions
                 (customer, currency, amount, type, created, place, starting_balance, ending_balance)
             VALUES ('acme', 'usd', {amount}, 'adjustment', '2024-01-17', {place}, {starting}, {ending})"
        )
    };
    for (sql, code) in [
        (row(2, -50, 5, -45), SqlState::UNIQUE_VIOLATION),
        (row(4, -30, 5, -25), SqlState::FOREIGN_KEY_VIOLATION),
        (row(3, -50, 5, -45), SqlState::FOREIGN_KEY_VIOLATION),
        (row(3, -30, 5, -20), SqlState::CHECK_VIOLATION),
        (row(3, -30, 0, -30), SqlState::CHECK_VIOLATION),
    ] {
        let refused = refusal(&mut client, &sql, &[]);
        assert_eq!(refused.code(), &code, "{sql}: {refused}");
    }
    client.batch_execute(&row(3, -30, 5, -25)).unwrap();
    assert_eq!(
        text(&mut client, "SELECT billing.customer_balance('acme', 'usd')"),
        "-25"
    );
}

/// Finalizing thousands of drafts calls no trigger function by row.
#[test]
fn many_drafts_are_finalized_in_few_statements() {
    let cluster = cluster_under_test(
        &Options::default()
            .set("billing.worker", "off")
            .set("track_functions", "all"),
    )
    .unwrap();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    client
        .batch_execute(
            "SELECT billing.adjust_customer_balance('acme', -1000000, 'usd', as_of => '2024-01-01');
             WITH made AS (
                 INSERT INTO billing.invoices (id, customer, currency, period_start, period_end, created, billing_reason, subtotal, total,
                     amount_due, line_count)
                 SELECT 'in_' || n, 'acme', 'usd', '2024-01-01', '2024-01-01', timestamptz '2024-01-01' + n * interval '1 s', 'manual',
                        1000, 1000, 1000, 1
                 FROM generate_series(1, 5000) n RETURNING id)
             INSERT INTO billing.invoice_lines (invoice, description, quantity, amount, period_start, period_end, kind)
             SELECT id, 'x', 1, 1000, '2024-01-01', '2024-01-01', 'item' FROM made;
             SELECT pg_stat_reset()",
        )
        .unwrap();
    client
        .batch_execute(
            "SELECT billing.finalize_drafts(ARRAY(SELECT id FROM billing.invoices)); SELECT pg_stat_force_next_flush()",
        )
        .unwrap();
    // In the order of their times: 1,000,000 of credit pays the first thousand.
    let sums = "SELECT concat_ws(' ', count(*) FILTER (WHERE status = 'paid'), sum(amount_due), max(number), min(ending_balance),
                    bool_and((status = 'paid') = (number <= 'INV-001000')))
                FROM billing.invoices";
    assert_eq!(text(&mut client, sums), "1000 4000000 INV-005000 -999000 t");
    assert_books_balance(&mut client);
    let calls = "SELECT coalesce(max(calls), 0) FROM pg_stat_user_functions
                 WHERE schemaname = 'billing' AND (funcname LIKE '%check%' OR funcname LIKE 'append%')";
    assert!(
        number(&mut client, calls) < 10,
        "{}",
        text(
            &mut client,
            "SELECT string_agg(funcname || ' ' || calls, ', ') FROM pg_stat_user_functions"
        )
    );
}

fn quiet_cluster() -> Cluster {
    cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap()
}

/// An invoice of 100 has room for three credit notes of 30, whoever comes first, and its payment for two refunds of 40.
#[test]
fn credit_notes_at_once_take_off_no_more_than_there_is() {
    let cluster = quiet_cluster();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        for (kind, note, fits) in [
            ("open", r#"{"amount": 30}"#, 3),
            ("paid", r#"{"amount": 40, "refund_amount": 40}"#, 2),
        ] {
            let id = format!("in_{kind}_{}", &isolation[..4]);
            client
                .batch_execute(&format!(
                    r#"SELECT billing.create_invoice('{{"customer": "acme", "currency": "usd", "lines": [{{"amount": 60}}, {{"amount": 40}}]}}',
                           '{id}', '2024-01-01');
                       SELECT billing.finalize_invoice('{id}', '2024-01-01');
                       SELECT billing.mark_invoice_paid('{id}', '2024-01-01') WHERE '{kind}' = 'paid'"#
                ))
                .unwrap();
            let barrier = Barrier::new(6);
            let credited: usize = std::thread::scope(|scope| {
                let sessions: Vec<_> = (0..6)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut client = database.connect().unwrap();
                            client
                                .batch_execute(&format!("SET default_transaction_isolation = '{isolation}'"))
                                .unwrap();
                            let sql = format!(
                                r#"SELECT billing.create_credit_note('{note}' || jsonb_build_object('invoice', '{id}'), as_of => '2024-01-02')"#
                            );
                            barrier.wait();
                            loop {
                                let code = match client.query(&sql, &[]) {
                                    Ok(_) => return 1,
                                    Err(error) => error.code().cloned().unwrap(),
                                };
                                if code == SqlState::INVALID_PARAMETER_VALUE {
                                    return 0;
                                }
                                assert_eq!(code, SqlState::T_R_SERIALIZATION_FAILURE, "{isolation}");
                                assert_ne!(isolation, "READ COMMITTED");
                            }
                        })
                    })
                    .collect();
                sessions.into_iter().map(|session| session.join().unwrap()).sum()
            });
            assert_eq!(credited, fits, "{isolation} {kind}");
        }
    }
    let numbers = "SELECT string_agg(right(number, 5), ' ' ORDER BY invoice, number) FROM billing.credit_notes WHERE invoice LIKE 'in_open%'";
    assert_eq!(text(&mut client, numbers), "CN-01 CN-02 CN-03 CN-01 CN-02 CN-03");
    assert_books_balance(&mut client);
}

/// One deed of somebody at a desk, at day `n` of January.
fn deed(dice: &mut Dice, n: usize) -> String {
    let at = format!("timestamptz '2024-01-01' + {n} * interval '1 hour'");
    let customer = ["acme", "other", "third"][dice.below(3)];
    let some = |status: &str| {
        format!(
            "(SELECT id FROM billing.invoices WHERE status = '{status}' AND customer = '{customer}' ORDER BY md5(id || {n}) LIMIT 1)"
        )
    };
    match dice.below(10) {
        0 => format!(
            "SELECT billing.adjust_customer_balance('{customer}', {}, 'usd', as_of => {at})",
            dice.below(200) as i64 - 101
        ),
        1 | 2 => format!(
            r#"SELECT billing.create_invoice_item('{{"customer": "{customer}", "currency": "usd", "amount": {}}}', as_of => {at})"#,
            dice.below(90) as i64 - 30
        ),
        3 => format!(
            r#"SELECT billing.create_invoice('{{"customer": "{customer}", "currency": "usd", "auto_advance": true}}', as_of => {at})"#
        ),
        4 => format!(
            r#"SELECT billing.finalize_invoice(billing.create_invoice('{{"customer": "{customer}", "currency": "usd",
                   "pending_invoice_items_behavior": "include", "lines": [{{"amount": {}}}]}}', as_of => {at}), {at})"#,
            dice.below(150) as i64 - 40
        ),
        5 => format!(
            "SELECT billing.create_credit_note(jsonb_build_object('invoice', {}, 'amount', {}), as_of => {at})",
            some("open"),
            1 + dice.below(30)
        ),
        6 => format!(
            "SELECT billing.create_credit_note(jsonb_build_object('invoice', {}, 'amount', 7, 'credit_amount', 7), as_of => {at})",
            some("paid")
        ),
        7 => format!("SELECT billing.void_invoice({}, {at})", some("open")),
        8 => format!("SELECT billing.regenerate_invoice({}, {at})", some("open")),
        _ => format!("SELECT billing.generate_invoices({at})"),
    }
}

/// Whatever several people and runs do at the same time: no deadlock, no number missing, no item twice, and balances that add up.
#[test]
fn a_storm_of_deeds_leaves_the_books_right() {
    let cluster = quiet_cluster();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    client
        .batch_execute(
            r#"SELECT billing.create_customer('other'), billing.create_customer('third');
               INSERT INTO billing.currencies VALUES ('usd', 50);
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 60, "recurring": {"interval": "day"}}', id => 'daily');
               SELECT billing.create_subscription(jsonb_build_object('customer', c, 'items', '[{"price": "daily"}]'::jsonb)::billing.subscription,
                   c || n, timestamptz '2024-01-01' + n * interval '5 hours')
               FROM unnest(ARRAY['acme', 'other', 'third']) c, generate_series(1, 2) n"#,
        )
        .unwrap();
    let allowed = [
        SqlState::INVALID_PARAMETER_VALUE,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        SqlState::NULL_VALUE_NOT_ALLOWED,
    ];
    let done: usize = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..5)
            .map(|session| {
                let database = &database;
                let allowed = &allowed;
                scope.spawn(move || {
                    let mut client = database.connect().unwrap();
                    let numbering = ["account", "customer"][session % 2];
                    client
                        .batch_execute(&format!(
                            "SET timezone = 'UTC'; SET billing.invoice_numbering = {numbering}"
                        ))
                        .unwrap();
                    let mut dice = Dice::new(77 + session as u64);
                    let mut done = 0;
                    for n in 0..120 {
                        let sql = deed(&mut dice, n * 3 + 12);
                        match client.batch_execute(&sql) {
                            Ok(()) => done += 1,
                            Err(error) => assert!(
                                allowed.contains(error.code().unwrap()),
                                "{sql}: {:?}",
                                error.as_db_error()
                            ),
                        }
                    }
                    done
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    assert!(done > 250, "{done}");
    // One-off drafts for which nothing waited.
    client
        .batch_execute(
            "SELECT billing.delete_draft_invoice(id) FROM billing.invoices
             WHERE status = 'draft' AND line_count = 0 AND subscription IS NULL",
        )
        .unwrap();
    assert_books_balance(&mut client);
    for kind in [
        "status = 'void' AND regenerated_as IS NOT NULL",
        "pre_payment_credit_notes_amount > 0",
        "number LIKE 'INV-%'",
        "number NOT LIKE 'INV-%'",
        "ending_balance > 0",
        "ending_balance < 0",
    ] {
        assert!(
            number(
                &mut client,
                &format!("SELECT count(*) FROM billing.invoices WHERE {kind}")
            ) > 0,
            "{kind}"
        );
    }
    // Nothing of it is lost: what was billed and not taken back is owed, paid or on the balance.
    let accounts = "SELECT concat_ws(' ', c.customer, c.billed, c.owed) FROM (
            SELECT i.customer,
                   sum(i.total) FILTER (WHERE i.status NOT IN ('draft', 'void')) AS billed,
                   sum(i.amount_due) FILTER (WHERE i.status NOT IN ('draft', 'void')) + billing.customer_balance(i.customer, 'usd')
                   - (SELECT coalesce(sum(t.amount), 0) FROM billing.customer_balance_transactions t
                      WHERE t.customer = i.customer AND t.type IN ('adjustment', 'credit_note')) AS owed
            FROM billing.invoices i GROUP BY 1) c
         WHERE c.billed <> c.owed";
    assert_eq!(
        client
            .query(accounts, &[])
            .unwrap()
            .iter()
            .map(|row| row.get::<_, String>(0))
            .collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

/// One-off drafts hold up no run, and no run holds them up; one without lines is no invoice.
#[test]
fn one_off_drafts_and_runs_do_not_wait_for_each_other() {
    let (database, mut client) = office();
    let mut other = database.connect().unwrap();
    other.batch_execute("SET lock_timeout = '10s'").unwrap();
    client
        .batch_execute(
            r#"SELECT billing.create_invoice('{"customer": "acme", "currency": "usd", "auto_advance": true,
                   "lines": [{"amount": 1}]}', id, '2024-01-03') FROM unnest(ARRAY['in_held', 'in_free']) id;
               SELECT billing.create_invoice('{"customer": "other", "currency": "usd", "auto_advance": true}', 'in_empty', '2024-01-03')"#,
        )
        .unwrap();
    client
        .batch_execute(
            r#"BEGIN;
               SELECT billing.create_invoice_item('{"customer": "acme", "invoice": "in_held", "amount": 2}', as_of => '2024-01-04')"#,
        )
        .unwrap();
    let drafts = "SELECT string_agg(id, ' ' ORDER BY id) FROM billing.invoices WHERE status = 'draft' AND auto_advance";
    other.batch_execute("CALL billing.run_billing('2024-01-05')").unwrap();
    assert_eq!(text(&mut other, drafts), "in_empty in_held");
    client.batch_execute("COMMIT").unwrap();
    other
        .batch_execute("SELECT billing.generate_invoices('2024-01-05')")
        .unwrap();
    assert_eq!(text(&mut other, drafts), "in_empty");
    assert_eq!(
        number(&mut other, "SELECT total FROM billing.invoices WHERE id = 'in_held'"),
        3
    );
    // A run, as far as a one-off invoice could notice: it holds the lock of roll_up() until it commits.
    client.batch_execute("BEGIN; SELECT billing.roll_up()").unwrap();
    other
        .batch_execute("SELECT billing.finalize_invoice('in_draft', '2024-01-06')")
        .unwrap();
    client.batch_execute("COMMIT").unwrap();
}

#[test]
fn a_draft_goes_with_its_discounts() {
    let (_database, mut client) = office();
    client
        .batch_execute(
            r#"SELECT billing.create_coupon('{"percent_off": 50, "duration": "once"}', 'half');
               SELECT billing.create_invoice('{"customer": "acme"}', 'in_waited', '2024-01-13');
               SELECT billing.apply_discount('half', 'invoice', 'in_waited', '2024-01-13')"#,
        )
        .unwrap();
    let total = "SELECT total FROM billing.invoices WHERE id = 'in_waited'";
    assert_eq!(number(&mut client, total), 4); // 9, less 4.5 → 5
    client
        .batch_execute("SELECT billing.delete_draft_invoice('in_waited', '2024-01-14')")
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.discounts"), 0);
    let waits = "SELECT count(*) FROM billing.invoice_items WHERE id = 'ii_waits' AND invoice IS NULL";
    assert_eq!(number(&mut client, waits), 1);
    // One of a final invoice stays, whoever deletes.
    client
        .batch_execute(
            r#"SELECT billing.create_invoice('{"customer": "acme"}', 'in_final', '2024-01-15');
               SELECT billing.apply_discount('half', 'invoice', 'in_final', '2024-01-15');
               SELECT billing.finalize_invoice('in_final', '2024-01-15')"#,
        )
        .unwrap();
    let error = refusal(&mut client, "DELETE FROM billing.discounts", &[]);
    assert_eq!(error.code(), &SqlState::RESTRICT_VIOLATION);
    // An invoice has a name.
    let nameless = r#"SELECT billing.create_invoice('{"customer": "acme", "currency": "usd"}', '', '2024-01-15')"#;
    let error = refusal(&mut client, nameless, &[]);
    assert_eq!(error.code(), &SqlState::CHECK_VIOLATION);
}
