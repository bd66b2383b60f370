//! What never changes, and a ledger that adds up whoever writes to it.

use postgres::error::SqlState;

use super::{grant, market};
use crate::invoices::assert_books_balance;
use crate::recording::{assert_refused, number, refusal, text};

#[test]
fn terms_stay_and_rows_are_never_deleted() {
    let (_database, mut client) = market();
    client.batch_execute(&grant("g", 50, "")).unwrap();
    client
        .batch_execute("SELECT billing.apply_discount('half', 'subscription', 'sub', '2024-01-01')")
        .unwrap();
    let changes = [
        ("coupons", "id = id || 'x'"),
        ("coupons", "percent_off = percent_off + 1"),
        ("coupons", "amount_off = amount_off + 1"),
        ("coupons", "currency_options = '{\"eur\": {}}'"),
        ("coupons", "duration = 'forever', duration_in_months = NULL"),
        ("coupons", "max_redemptions = 9"),
        ("coupons", "redeem_by = now()"),
        ("coupons", "applies_to_products = '{x}'"),
        ("coupons", "times_redeemed = times_redeemed - 1"),
        ("coupons", "created = created + interval '1s'"),
        ("discounts", "coupon = 'five'"),
        ("discounts", "customer = 'other'"),
        ("discounts", "subscription = NULL"),
        ("discounts", "start_at = start_at - interval '1 day'"),
        ("discounts", "end_at = start_at + interval '1 day'"),
        ("discounts", "places = '{7}'"),
        ("discounts", "placed_at = array[now()]"),
        ("tax_rates", "percentage = 11"),
        ("tax_rates", "inclusive = true"),
        ("credit_grants", "amount = amount + 1"),
        ("credit_grants", "customer = 'other'"),
        ("credit_grants", "currency = 'eur'"),
        ("credit_grants", "price_type = NULL, prices = '{call}'"),
        ("credit_grants", "category = 'promotional'"),
        ("credit_grants", "priority = 1"),
        ("credit_grants", "effective_at = effective_at + interval '1 day'"),
        ("credit_balance_transactions", "amount = amount"),
        ("credit_balance_transactions", "place = 2"),
    ];
    for (table, change) in changes {
        let sql = format!("UPDATE billing.{table} SET {change}");
        assert_refused(&mut client, &sql, &[], &SqlState::RESTRICT_VIOLATION, &[]);
    }
    for table in [
        "coupons",
        "discounts",
        "tax_rates",
        "credit_grants",
        "credit_balance_transactions",
    ] {
        for sql in [
            format!("DELETE FROM billing.{table}"),
            format!("TRUNCATE billing.{table} CASCADE"),
        ] {
            assert_refused(&mut client, &sql, &[], &SqlState::RESTRICT_VIOLATION, &[]);
        }
    }
    // What means nothing to billing may change.
    client
        .batch_execute(
            r#"UPDATE billing.coupons SET name = 'Half', metadata = '{"a": "b"}' WHERE id = 'half';
               UPDATE billing.tax_rates SET display_name = 'GST', active = false;
               UPDATE billing.credit_grants SET metadata = '{"a": "b"}'"#,
        )
        .unwrap();
}

/// By SQL and as a superuser: the balance moves with the ledger and not without it, and never below zero or above the amount.
#[test]
fn a_balance_is_the_sum_of_its_ledger() {
    let (_database, mut client) = market();
    client.batch_execute(&grant("g", 50, "")).unwrap();
    let used = |amount: i64| {
        format!(
            "INSERT INTO billing.credit_balance_transactions (credit_grant, type, reason, amount, effective_at, created)
             VALUES ('g', 'debit', 'credits_expired', {amount}, '2024-01-02', '2024-01-02')"
        )
    };
    let refused = refusal(&mut client, &used(51), &[]);
    assert_eq!(
        refused.constraint(),
        Some("credit_grants_balance_within_amount"),
        "{refused}"
    );
    client.batch_execute(&used(20)).unwrap();
    for (sql, constraint) in [
        (used(31), "credit_grants_balance_within_amount"),
        (used(0), "credit_balance_transactions_amount_positive"),
        (used(-5), "credit_balance_transactions_amount_positive"),
        (
            used(10).replace("'debit'", "'credit'"),
            "credit_balance_transactions_reason_known",
        ),
        (
            used(30).replace("credits_expired", "credits_lost"),
            "credit_balance_transactions_reason_known",
        ),
        (
            used(30).replace("credits_expired", "credits_applied"),
            "credit_balance_transactions_with_line",
        ),
        (
            used(30).replace("credits_expired", "credits_usage_corrected"),
            "credit_balance_transactions_reason_known",
        ),
        (
            used(20).replace("'debit', 'credits_expired'", "'credit', 'credits_usage_corrected'"),
            "credit_balance_transactions_with_line",
        ),
        (
            used(20).replace("credits_expired", "credits_correction_invoice_voided"),
            "credit_balance_transactions_with_line",
        ),
        (
            used(20).replace("'debit', 'credits_expired'", "'credit', 'credits_granted'"),
            "credit_balance_transactions_granted_first",
        ),
    ] {
        let refused = refusal(&mut client, &sql, &[]);
        assert_eq!(refused.code(), &SqlState::CHECK_VIOLATION, "{sql}: {refused}");
        assert_eq!(refused.constraint(), Some(constraint), "{sql}: {refused}");
    }
    // A place is given, not chosen.
    for (place, code) in [
        (1, SqlState::CHECK_VIOLATION),
        (2, SqlState::UNIQUE_VIOLATION),
        (3, SqlState::RESTRICT_VIOLATION),
    ] {
        let sql = used(1)
            .replace("(credit_grant,", "(place, credit_grant,")
            .replace("('g',", &format!("({place}, 'g',"));
        let refused = refusal(&mut client, &sql, &[]);
        assert_eq!(refused.code(), &code, "{sql}: {refused}");
    }
    for change in [
        "balance = balance - 1",
        "balance = 50",
        "transaction_count = transaction_count + 1",
        "balance = 0",
    ] {
        let sql = format!("UPDATE billing.credit_grants SET {change}");
        assert_refused(
            &mut client,
            &sql,
            &[],
            &SqlState::CHECK_VIOLATION,
            &["\"g\"", "2 transactions of 30"],
        );
    }
    assert_eq!(
        text(
            &mut client,
            "SELECT concat_ws(' ', balance, transaction_count) FROM billing.credit_grants"
        ),
        "30 2"
    );
    // Several at once, of which the last is too much: none of them counts.
    let many = format!(
        "{} , ('g', 'debit', 'credits_expired', 11, '2024-01-02', '2024-01-02')",
        used(20)
    );
    assert_eq!(refusal(&mut client, &many, &[]).code(), &SqlState::CHECK_VIOLATION);
    assert_eq!(number(&mut client, "SELECT balance FROM billing.credit_grants"), 30);
    assert_books_balance(&mut client);
}

#[test]
fn a_customer_has_at_most_a_hundred_unused_grants() {
    let (_database, mut client) = market();
    for n in 0..100 {
        let more = if n < 2 {
            r#", "expires_at": "2024-03-01T00:00:00Z""#
        } else {
            ""
        };
        client.batch_execute(&grant(&format!("g{n:03}"), 5, more)).unwrap();
    }
    let words = ["acme", "100"];
    assert_refused(
        &mut client,
        &grant("one more", 5, ""),
        &[],
        &SqlState::PROGRAM_LIMIT_EXCEEDED,
        &words,
    );
    // Again is not one more, and what is voided, used up or expired does not count.
    client.batch_execute(&grant("g050", 5, "")).unwrap();
    client
        .batch_execute(
            "SELECT billing.void_credit_grant('g050', '2024-01-02');
             SELECT billing.record_meter_event('calls', 'acme', 1, 'one', '2024-01-10');
             SELECT billing.generate_invoices('2024-02-01 01:00')",
        )
        .unwrap();
    let used_up = number(
        &mut client,
        "SELECT count(*) FROM billing.credit_grants WHERE balance = 0",
    );
    assert_eq!(used_up, 9, "one voided, and 40 of a package of one call are eight of 5");
    for n in 0..9 {
        client.batch_execute(&grant(&format!("new {n}"), 5, "")).unwrap();
    }
    let refused = refusal(&mut client, &grant("too many", 5, ""), &[]);
    assert_eq!(refused.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
    assert_books_balance(&mut client);
}
