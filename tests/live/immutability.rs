//! A finalized invoice is a fact: not even a superuser changes, deletes or adds to it or its lines by SQL.

use harness::Database;
use postgres::Client;
use postgres::error::SqlState;

use crate::invoices::{assert_books_balance, shop};
use crate::recording::{number, refusal, text};

const FACTS: [&str; 7] = [
    "invoices",
    "invoice_lines",
    "invoice_items",
    "credit_notes",
    "credit_note_lines",
    "customer_balance_transactions",
    "invoice_numbers",
];

/// Invoices 1 to 4, each of two seats: open, paid, uncollectible, void; 5, open, of another subscription; 6, which gives back a seat of
/// the first: below zero, so paid at once; and a draft. A credit note takes 10 off 5.
fn ledger() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat", "quantity": 2}]}', 's' || n, '2024-01-01')
               FROM generate_series(1, 4) n;
               SELECT billing.update_subscription('s1', jsonb_build_object('items', jsonb_build_array(
                   jsonb_build_object('id', id, 'quantity', 1))), '2024-01-11') FROM billing.subscription_items WHERE subscription = 's1';
               SELECT billing.cancel_subscription('s' || n, as_of => '2024-01-12') FROM generate_series(1, 4) n;
               SELECT billing.mark_invoice_paid((SELECT id FROM billing.invoices WHERE number = 'INV-000002'), '2024-01-12');
               SELECT billing.mark_invoice_uncollectible((SELECT id FROM billing.invoices WHERE number = 'INV-000003'), '2024-01-12');
               SELECT billing.void_invoice((SELECT id FROM billing.invoices WHERE number = 'INV-000004'), '2024-01-12');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "call"}, {"price": "seat"}]}', 'run', '2024-01-13');
               SELECT billing.record_meter_event('calls', 'acme', 30, 'a', '2024-01-20');
               SELECT billing.generate_invoices('2024-02-13');
               SELECT billing.create_credit_note(jsonb_build_object('invoice', id, 'amount', 10), as_of => '2024-02-13')
               FROM billing.invoices WHERE number = 'INV-000005'"#,
        )
        .unwrap();
    assert_eq!(
        text(
            &mut client,
            "SELECT string_agg(status, ' ' ORDER BY number) FROM billing.invoices"
        ),
        "open paid uncollectible void open paid draft"
    );
    (database, client)
}

fn facts(client: &mut Client) -> String {
    let sums =
        FACTS.map(|table| format!("(SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM billing.{table} t)"));
    text(client, &format!("SELECT concat_ws(' ', {})", sums.join(", ")))
}

fn columns(client: &mut Client, table: &str) -> Vec<(String, String)> {
    client
        .query(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
             WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[&format!("billing.{table}")],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

/// Another value of the column, whatever it holds.
fn other_value(column: &str, kind: &str) -> String {
    match kind {
        "text" => format!("coalesce({column}, '') || 'x'"),
        "bigint" | "integer" | "numeric" => format!("coalesce({column}, 0) + 1"),
        "timestamp with time zone" => format!("coalesce({column}, 'epoch') + interval '1 second'"),
        "boolean" => format!("NOT {column}"),
        "text[]" => format!("coalesce({column}, '{{}}') || '{{x}}'"),
        "jsonb" => format!("coalesce({column}, '[]') || '[{{}}]'"),
        _ => panic!("no other value for {column} {kind}"),
    }
}

fn assert_kept(client: &mut Client, sql: &str, codes: &[SqlState]) {
    let refused = refusal(client, sql, &[]);
    assert!(
        codes.contains(refused.code()),
        "{sql}: {} {refused}",
        refused.code().code()
    );
}

#[test]
fn no_column_of_a_finalized_invoice_changes() {
    let (_database, mut client) = ledger();
    let before = facts(&mut client);
    let codes = [SqlState::RESTRICT_VIOLATION, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE];
    let columns = columns(&mut client, "invoices");
    assert!(columns.len() > 20, "{columns:?}");
    for status in ["open", "paid", "uncollectible", "void"] {
        for (column, kind) in columns.iter().filter(|(column, _)| column != "amount_remaining") {
            let value = other_value(column, kind);
            let update = format!("UPDATE billing.invoices SET {column} = {value} WHERE status = '{status}'");
            if column.ends_with("credit_notes_amount") {
                // Its own bounds may be in the way first.
                let codes = [SqlState::RESTRICT_VIOLATION, SqlState::CHECK_VIOLATION];
                assert_kept(&mut client, &update, &codes);
            } else {
                assert_kept(&mut client, &update, &codes);
            }
            let nullable =
                format!("SELECT count(*) FROM billing.invoices WHERE status = '{status}' AND {column} IS NOT NULL");
            if number(&mut client, &nullable) > 0 {
                let erase = format!(
                    "UPDATE billing.invoices SET {column} = NULL WHERE status = '{status}' AND {column} IS NOT NULL"
                );
                let refused = refusal(&mut client, &erase, &[]);
                assert!(
                    codes.contains(refused.code()) || refused.code() == &SqlState::NOT_NULL_VIOLATION,
                    "{erase}: {refused}"
                );
            }
            // Nor under cover of a change of status that is allowed.
            if status == "open" && !["status", "paid_at", "amount_paid"].contains(&column.as_str()) {
                let covered = format!(
                    "UPDATE billing.invoices SET status = 'paid', paid_at = '2024-03-01', amount_paid = amount_remaining,
                         {column} = {value} WHERE status = 'open'"
                );
                let covered = refusal(&mut client, &covered, &[]);
                assert!(
                    covered.code() == &SqlState::RESTRICT_VIOLATION || covered.code() == &SqlState::CHECK_VIOLATION,
                    "{column}: {covered}"
                );
            }
        }
    }
    assert_eq!(facts(&mut client), before);
}

#[test]
fn a_status_moves_only_as_it_may() {
    let (_database, mut client) = ledger();
    let before = facts(&mut client);
    let illegal = [
        ("open", "draft"),
        ("paid", "draft"),
        ("paid", "open"),
        ("paid", "uncollectible"),
        ("paid", "void"),
        ("uncollectible", "draft"),
        ("uncollectible", "open"),
        ("void", "draft"),
        ("void", "open"),
        ("void", "paid"),
        ("void", "uncollectible"),
        ("draft", "void"),
        ("draft", "uncollectible"),
        ("draft", "paid"),
    ];
    for (from, to) in illegal {
        let times = match to {
            "paid" => "'2024-03-01', voided_at = NULL",
            "void" => "NULL, voided_at = '2024-03-01'",
            _ => "NULL, voided_at = NULL",
        };
        let sql = format!("UPDATE billing.invoices SET status = '{to}', paid_at = {times} WHERE status = '{from}'");
        let refused = refusal(&mut client, &sql, &[]);
        assert_eq!(
            refused.code(),
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "{from} → {to}: {refused}"
        );
        assert!(
            refused.message().contains(from) && refused.message().contains(to),
            "{from} → {to}: {refused}"
        );
    }
    assert_eq!(facts(&mut client), before);
    // What the functions may, an UPDATE may.
    client
        .batch_execute(
            "UPDATE billing.invoices SET status = 'paid', paid_at = '2024-03-01', amount_paid = amount_remaining
             WHERE status = 'uncollectible'",
        )
        .unwrap();
    assert_ne!(facts(&mut client), before);
}

#[test]
fn no_line_of_a_finalized_invoice_changes() {
    let (_database, mut client) = ledger();
    let before = facts(&mut client);
    let codes = [SqlState::RESTRICT_VIOLATION];
    let finalized = "invoice IN (SELECT id FROM billing.invoices WHERE status <> 'draft')";
    let draft = "(SELECT id FROM billing.invoices WHERE status = 'draft')";
    for (column, kind) in columns(&mut client, "invoice_lines") {
        let value = match column.as_str() {
            "invoice" => draft.to_owned(),
            "subscription_item" => {
                format!("(SELECT max(id) FROM billing.subscription_items WHERE id <> coalesce({column}, ''))")
            }
            "price" => "'package'".to_owned(),
            "invoice_item" => "(SELECT min(id) FROM billing.invoice_items)".to_owned(),
            "kind" => "CASE kind WHEN 'usage' THEN 'late_usage' ELSE 'usage' END".to_owned(),
            "proration" => "kind = 'licensed' AND NOT proration".to_owned(),
            _ => other_value(&column, &kind),
        };
        // Usage is never prorated; a licensed line's proration is the value to change.
        let some = if ["proration", "kind"].contains(&column.as_str()) {
            "kind = 'licensed' AND NOT proration AND "
        } else {
            ""
        };
        let sql = format!("UPDATE billing.invoice_lines SET {column} = {value} WHERE {some}{finalized}");
        if column == "id" {
            // A credit note refers to it.
            assert_kept(&mut client, &sql, &[SqlState::FOREIGN_KEY_VIOLATION]);
        } else {
            assert_kept(&mut client, &sql, &codes);
        }
    }
    let copy = |to: &str, amount: &str| {
        format!(
            "INSERT INTO billing.invoice_lines (invoice, price, description, quantity, amount, period_start, period_end, kind)
             SELECT {to}, 'seat', 'one more', 1, {amount}, '2024-01-01', '2024-02-01', 'licensed'"
        )
    };
    for status in ["open", "paid", "uncollectible", "void"] {
        let of_status = format!("(SELECT min(id) FROM billing.invoices WHERE status = '{status}')");
        for sql in [
            copy(&of_status, "0"),
            copy(&of_status, "7"),
            format!("DELETE FROM billing.invoice_lines WHERE invoice = {of_status}"),
            format!("UPDATE billing.invoice_lines SET invoice = {of_status} WHERE invoice = {draft}"),
            // A line away and another in its place, in one statement.
            format!(
                "WITH gone AS (DELETE FROM billing.invoice_lines WHERE invoice = {of_status} RETURNING *)
                 INSERT INTO billing.invoice_lines SELECT * FROM gone"
            ),
            format!("DELETE FROM billing.invoices WHERE id = {of_status}"),
            format!(
                "INSERT INTO billing.invoices (id, customer, subscription, currency, period_start, period_end, created, billing_reason)
                 SELECT id, customer, subscription, currency, period_start, period_end, created, billing_reason
                 FROM billing.invoices WHERE id = {of_status}
                 ON CONFLICT (id) DO UPDATE SET total = 0, subtotal = 0"
            ),
            format!(
                "MERGE INTO billing.invoice_lines l USING (SELECT id FROM billing.invoice_lines WHERE invoice = {of_status}) s
                 ON l.id = s.id WHEN MATCHED THEN UPDATE SET amount = 0"
            ),
        ] {
            let refused = refusal(&mut client, &sql, &[]);
            assert!(
                refused.code() == &SqlState::RESTRICT_VIOLATION || refused.code() == &SqlState::UNIQUE_VIOLATION,
                "{sql}: {} {refused}",
                refused.code().code()
            );
        }
    }
    assert_eq!(facts(&mut client), before);
    assert_books_balance(&mut client);
}

#[test]
fn nothing_that_money_depends_on_is_emptied_or_edited() {
    let (_database, mut client) = ledger();
    let before = facts(&mut client);
    for sql in [
        "TRUNCATE billing.invoice_lines CASCADE",
        "TRUNCATE billing.credit_notes CASCADE",
        "TRUNCATE billing.credit_note_lines CASCADE",
        "TRUNCATE billing.invoices CASCADE",
        "TRUNCATE billing.customers CASCADE",
        "TRUNCATE billing.prices CASCADE",
        "TRUNCATE billing.subscriptions CASCADE",
        "TRUNCATE billing.invoice_items CASCADE",
        "TRUNCATE billing.customer_balance_transactions",
        "UPDATE billing.invoice_items SET amount = 0",
        "DELETE FROM billing.credit_notes",
        "UPDATE billing.credit_notes SET memo = 'x'",
        "UPDATE billing.credit_notes SET status = 'void', voided_at = '2024-03-01', amount = amount + 1, subtotal = subtotal + 1,
             pre_payment_amount = pre_payment_amount + 1",
        "UPDATE billing.credit_notes SET invoice = (SELECT id FROM billing.invoices WHERE number = 'INV-000002')",
        "DELETE FROM billing.credit_note_lines",
        "UPDATE billing.credit_note_lines SET amount = amount - 1",
        "DELETE FROM billing.customer_balance_transactions",
        "UPDATE billing.customer_balance_transactions SET amount = -amount",
    ] {
        assert_kept(&mut client, sql, &[SqlState::RESTRICT_VIOLATION]);
    }
    for sql in [
        "DELETE FROM billing.customers WHERE id = 'acme'",
        "DELETE FROM billing.invoice_items",
        "DELETE FROM billing.prices WHERE id = 'seat'",
        "DELETE FROM billing.prices WHERE id = 'call'",
        "DELETE FROM billing.meters",
        "DELETE FROM billing.subscriptions WHERE id = 's1'",
        "DELETE FROM billing.subscription_items WHERE subscription = 's1'",
        "UPDATE billing.customers SET id = 'other'",
        "UPDATE billing.subscriptions SET id = id || 'x'",
        "UPDATE billing.subscription_items SET id = id || 'x'",
    ] {
        let refused = refusal(&mut client, sql, &[]);
        assert!(
            refused.code().code().starts_with("23") || refused.code() == &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "{sql}: {} {refused}",
            refused.code().code()
        );
    }
    assert_eq!(facts(&mut client), before);
}

#[test]
fn a_draft_can_be_deleted_and_leaves_no_gap() {
    let (_database, mut client) = ledger();
    // Not with its lines on it: nothing goes that nobody named.
    let refused = refusal(&mut client, "DELETE FROM billing.invoices WHERE status = 'draft'", &[]);
    assert_eq!(refused.code(), &SqlState::FOREIGN_KEY_VIOLATION, "{refused}");
    client
        .batch_execute(
            "DELETE FROM billing.invoice_lines WHERE invoice IN (SELECT id FROM billing.invoices WHERE status = 'draft');
             DELETE FROM billing.invoices WHERE status = 'draft'",
        )
        .unwrap();
    assert_eq!(
        number(&mut client, "SELECT billing.generate_invoices('2024-03-13 01:00')"),
        1
    );
    assert_eq!(
        text(&mut client, "SELECT max(number) FROM billing.invoices"),
        "INV-000007"
    );
    assert_books_balance(&mut client);
}

/// A draft is not made final by hand with lines that do not add up, however it is tried.
#[test]
fn a_draft_becomes_final_only_with_lines_that_add_up() {
    let (_database, mut client) = ledger();
    let finalize =
        "UPDATE billing.invoices SET status = 'open', number = 'INV-000099', finalized_at = '2024-02-13 01:00',
                    starting_balance = 0, ending_balance = 0";
    for change in [
        ", total = total + 1, subtotal = subtotal + 1, amount_due = amount_due + 1",
        ", line_count = line_count + 1",
        ", total = total + 1, amount_due = amount_due + 1",
        ", amount_due = 0",
    ] {
        let refused = refusal(&mut client, &format!("{finalize}{change} WHERE status = 'draft'"), &[]);
        assert_eq!(refused.code(), &SqlState::CHECK_VIOLATION, "{change}: {refused}");
    }
    let refused = refusal(
        &mut client,
        "UPDATE billing.invoices SET status = 'open' WHERE status = 'draft'",
        &[],
    );
    assert!(
        refused.code().code() == "55000" || refused.code() == &SqlState::CHECK_VIOLATION,
        "{refused}"
    );
}
