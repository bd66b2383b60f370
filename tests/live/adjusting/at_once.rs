//! Several sessions at once: the last credit, the last redemption and a coupon for once go to one of them.

use std::sync::Barrier;

use postgres::Client;
use postgres::error::SqlState;

use super::{grant, market, session};
use crate::invoices::assert_books_balance;
use crate::recording::{await_blocked, backend, number, text};

/// Two drafts of 40 each, of two subscriptions of one customer.
fn two_drafts(client: &mut Client) -> Vec<String> {
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "package"}]}', 'other', '2024-01-01');
               UPDATE billing.subscriptions SET default_tax_rates = '{vat}';
               SELECT billing.record_meter_event('calls', 'acme', 4, 'j', '2024-01-10');
               SELECT billing.generate_invoices('2024-02-01')"#,
        )
        .unwrap();
    let drafts = client.query("SELECT id FROM billing.invoices ORDER BY subscription DESC", &[]);
    drafts.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Finalizes the first in an open transaction, then the second, which has to wait; then ends the first.
fn one_after_the_other(end: &str) -> Vec<String> {
    let (database, mut watcher) = market();
    watcher.batch_execute(&grant("g", 50, "")).unwrap();
    watcher
        .batch_execute("SELECT billing.apply_discount('half', 'customer', 'acme', '2024-01-01')")
        .unwrap();
    let drafts = two_drafts(&mut watcher);
    // 40 - 20 - 20 of each: both show the coupon and the credit.
    let shown = "SELECT string_agg(concat_ws(' ', total_discount_amount, total_credit_amount, total), ', ') FROM billing.invoices";
    assert_eq!(text(&mut watcher, shown), "20 20 0, 20 20 0");
    let (mut first, mut second) = (session(&database), session(&database));
    let finalize = "SELECT billing.finalize_invoice($1, '2024-02-01 00:10')";
    first.batch_execute("BEGIN").unwrap();
    first.query(finalize, &[&drafts[0]]).unwrap();
    let (holder, waiting) = (backend(&mut first), backend(&mut second));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| second.query(finalize, &[&drafts[1]]).unwrap());
        await_blocked(&mut watcher, waiting, holder);
        first.batch_execute(end).unwrap();
        other.join().unwrap();
    });
    assert_books_balance(&mut watcher);
    let rows = "SELECT concat_ws(' ', subscription, status, total_discount_amount, total_credit_amount, total_tax_amount, total)
                FROM billing.invoices ORDER BY subscription DESC";
    watcher.query(rows, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn the_first_invoice_to_become_final_has_the_coupon_and_the_credit() {
    // The second goes without the coupon, has the 30 that are left of the credit, and pays 10 % on the other 10.
    assert_eq!(
        one_after_the_other("COMMIT"),
        ["sub paid 20 20 0 0", "other open 0 30 1 11"]
    );
}

#[test]
fn what_was_rolled_back_used_nothing() {
    assert_eq!(
        one_after_the_other("ROLLBACK"),
        ["sub draft 20 20 0 0", "other paid 20 20 0 0"]
    );
}

#[test]
fn the_last_redemption_of_a_coupon_goes_to_one_session() {
    const SESSIONS: usize = 6;
    let (database, mut watcher) = market();
    watcher
        .batch_execute(
            r#"SELECT billing.create_customer('c' || n) FROM generate_series(1, 6) n;
               SELECT billing.create_coupon('{"percent_off": 50, "duration": "forever", "max_redemptions": 2}', 'few')"#,
        )
        .unwrap();
    let barrier = Barrier::new(SESSIONS);
    let redeemed: usize = std::thread::scope(|scope| {
        let sessions: Vec<_> = (1..=SESSIONS)
            .map(|n| {
                let (database, barrier) = (&database, &barrier);
                scope.spawn(move || {
                    let mut client = session(database);
                    barrier.wait();
                    let sql = format!("SELECT billing.apply_discount('few', 'customer', 'c{n}', '2024-01-01')");
                    match client.batch_execute(&sql) {
                        Ok(()) => 1,
                        Err(error) => {
                            assert_eq!(
                                error.code(),
                                Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
                                "{error}"
                            );
                            0
                        }
                    }
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    assert_eq!(redeemed, 2);
    let state = "SELECT concat_ws(' ', times_redeemed, valid, (SELECT count(*) FROM billing.discounts)) FROM billing.coupons WHERE id = 'few'";
    assert_eq!(text(&mut watcher, state), "2 f 2");
}

/// Sessions grant, expire, extend, void and use the credit of one customer as fast as they can.
#[test]
fn whatever_happens_at_once_no_credit_is_used_twice() {
    const ROUNDS: usize = 25;
    let (database, mut watcher) = market();
    watcher
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "package"}]}', 's' || n, '2024-01-01')
               FROM generate_series(1, 40) n;
               SELECT billing.record_meter_event('calls', 'acme', 4, 'j', '2024-01-10');
               SELECT billing.generate_invoices('2024-02-01')"#,
        )
        .unwrap();
    for n in 0..8 {
        watcher.batch_execute(&grant(&format!("g{n}"), 70, "")).unwrap();
    }
    let acts: [&(dyn Fn(usize) -> String + Sync); 4] = [
        &|n| {
            format!(
                "SELECT billing.finalize_invoice(id, '2024-02-01 00:10') FROM billing.invoices WHERE subscription = 's{}'",
                n + 1
            )
        },
        // From the other end; what is paid by credit in full is paid and cannot be voided.
        &|n| {
            format!(
                "SELECT billing.finalize_invoice(id, '2024-02-01 00:10') FROM billing.invoices WHERE subscription = 's{}';
                 SELECT billing.void_invoice(id, '2024-02-01 00:20') FROM billing.invoices WHERE subscription = 's{}' AND status = 'open'",
                40 - n,
                40 - n
            )
        },
        &|n| match n % 3 {
            0 => grant(&format!("x{n}"), 15, ""),
            1 => format!("SELECT billing.expire_credit_grant('g{}', '2024-02-01 00:15')", n % 4),
            _ => format!("SELECT billing.void_credit_grant('x{}', '2024-02-01 00:15')", n - 2),
        },
        &|n| match n % 2 {
            0 => "SELECT billing.expire_credits('2024-02-01 00:30')".to_owned(),
            _ => format!(
                r#"SELECT billing.update_credit_grant('g{}', '{{"expires_at": "2025-01-01T00:00:00Z"}}', '2024-02-01 00:05')"#,
                n % 8
            ),
        },
    ];
    std::thread::scope(|scope| {
        for act in acts {
            let database = &database;
            scope.spawn(move || {
                let mut client = session(database);
                for n in 0..ROUNDS {
                    // Expired, used or voided by another session.
                    if let Err(error) = client.batch_execute(&act(n)) {
                        let expected = [
                            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                            SqlState::INVALID_PARAMETER_VALUE,
                        ];
                        let code = error.code().unwrap_or_else(|| panic!("{error}"));
                        assert!(expected.contains(code), "{}: {error:?}", act(n));
                    }
                }
            });
        }
    });
    assert_books_balance(&mut watcher);
    let used = "SELECT count(*) FROM billing.credit_balance_transactions WHERE reason = 'credits_applied'";
    // The four grants of 70 that nobody expires, at 40 an invoice.
    assert!(number(&mut watcher, used) >= 7);
    let beyond = "SELECT count(*) FROM billing.credit_grants WHERE balance < 0 OR balance > amount";
    assert_eq!(number(&mut watcher, beyond), 0);
}
