//! Contradictory and impossible changes: a clear error, and nothing half done.

use postgres::error::SqlState;

use super::{open_shop, state};
use crate::recording::{assert_refused, text};

const UPDATE: &str = "SELECT billing.update_subscription('sub', $1::text::jsonb, '2024-01-11')";

#[test]
fn an_impossible_change_changes_nothing() {
    let (_database, mut client) = open_shop();
    let client = &mut client;
    let seat = text(client, "SELECT id FROM billing.subscription_items WHERE price = 'seat'");
    let call = text(client, "SELECT id FROM billing.subscription_items WHERE price = 'call'");
    let before = state(client);
    let invalid = &SqlState::INVALID_PARAMETER_VALUE;
    let too_many: Vec<String> = (0..19).map(|_| r#"{"price": "pro"}"#.to_owned()).collect();
    let cases: Vec<(String, &SqlState, Vec<&str>)> = vec![
        (
            r#"{"items": [{"price": "none"}]}"#.into(),
            &SqlState::FOREIGN_KEY_VIOLATION,
            vec!["\"none\""],
        ),
        (
            r#"{"items": [{"price": "old"}]}"#.into(),
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            vec!["\"old\"", "archived"],
        ),
        (
            r#"{"items": [{"price": "once"}]}"#.into(),
            invalid,
            vec!["\"once\"", "one_time"],
        ),
        (
            r#"{"items": [{"price": "euro"}]}"#.into(),
            invalid,
            vec!["\"euro\"", "eur", "usd"],
        ),
        (
            r#"{"items": [{"price": "week"}]}"#.into(),
            invalid,
            vec!["\"week\"", "1 week", "1 month"],
        ),
        (
            r#"{"items": [{"price": "seat"}]}"#.into(),
            invalid,
            vec!["\"seat\"", &seat],
        ),
        (
            format!(r#"{{"items": [{}]}}"#, too_many.join(", ")),
            invalid,
            vec!["\"pro\"", "already"],
        ),
        (
            r#"{"items": [{"price": "package", "quantity": 3}]}"#.into(),
            invalid,
            vec!["\"package\"", "3"],
        ),
        (
            format!(r#"{{"items": [{{"id": "{call}", "quantity": 3}}]}}"#),
            invalid,
            vec![&call, "3"],
        ),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "price": "package", "quantity": 3}}]}}"#),
            invalid,
            vec!["\"package\"", "3"],
        ),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "billing_thresholds": {{"usage_gte": 7}}}}]}}"#),
            invalid,
            vec!["usage_gte", "7", "\"seat\""],
        ),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "price": "call"}}]}}"#),
            invalid,
            vec!["\"call\"", &call],
        ),
        // The first of two is possible, and undone with the second.
        (
            format!(r#"{{"items": [{{"id": "{seat}", "quantity": 9}}, {{"id": "{call}", "price": "old"}}]}}"#),
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            vec!["\"old\""],
        ),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "deleted": true}}, {{"id": "{call}", "deleted": true}}]}}"#),
            invalid,
            vec!["0 items"],
        ),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "quantity": 9223372036854775807}}]}}"#),
            &SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            vec!["bigint"],
        ),
        (
            r#"{"items": [{"id": "si_none", "deleted": true}]}"#.into(),
            &SqlState::UNDEFINED_OBJECT,
            vec!["si_none"],
        ),
        (
            r#"{"cancel_at": "2024-01-11T00:00:00Z"}"#.into(),
            invalid,
            vec!["cancel_at", "2024-01-11"],
        ),
        (
            r#"{"trial_end": "2024-01-11T00:00:00Z"}"#.into(),
            invalid,
            vec!["trial_end", "2024-01-11"],
        ),
        (
            r#"{"trial_end": "2026-01-11T00:00:00Z"}"#.into(),
            invalid,
            vec!["trial_end", "2026-01-11"],
        ),
        (
            r#"{"trial_end": "2024-01-20T00:00:00Z", "billing_cycle_anchor": "now"}"#.into(),
            invalid,
            vec!["trial_end", "billing_cycle_anchor"],
        ),
        (
            r#"{"collection_method": "send_invoice"}"#.into(),
            invalid,
            vec!["send_invoice", "days_until_due"],
        ),
        (
            r#"{"days_until_due": 5}"#.into(),
            invalid,
            vec!["charge_automatically", "5"],
        ),
        (
            r#"{"default_tax_rates": ["txr_none"]}"#.into(),
            &SqlState::FOREIGN_KEY_VIOLATION,
            vec!["txr_none"],
        ),
        (
            r#"{"discounts": [{"coupon": "none"}]}"#.into(),
            &SqlState::FOREIGN_KEY_VIOLATION,
            vec!["\"none\""],
        ),
    ];
    for (changes, code, words) in &cases {
        assert_refused(client, UPDATE, &[changes], code, words);
        assert_eq!(state(client), before, "{changes}");
    }
}

#[test]
fn a_status_goes_only_where_it_can() {
    let (_database, mut client) = open_shop();
    let client = &mut client;
    let refused = &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    let set = |status: &str| format!("SELECT billing.set_subscription_status('sub', '{status}', '2024-01-11')");
    // From each status to each: what is possible is carried out, in an order that visits all; the rest is refused, naming both.
    let all = [
        "incomplete",
        "incomplete_expired",
        "trialing",
        "active",
        "past_due",
        "unpaid",
        "paused",
        "canceled",
    ];
    let possible = [
        ("active", "past_due"),
        ("past_due", "unpaid"),
        ("unpaid", "past_due"),
        ("past_due", "active"),
        ("active", "unpaid"),
        ("unpaid", "active"),
    ];
    for (from, to) in possible {
        for other in all.iter().filter(|other| !possible.contains(&(from, other))) {
            assert_refused(client, &set(other), &[], refused, &[from, other]);
        }
        client.batch_execute(&set(to)).unwrap();
        assert_eq!(text(client, "SELECT status FROM billing.subscriptions"), to);
    }
    client
        .batch_execute("SELECT billing.pause_subscription('sub', '2024-01-12')")
        .unwrap();
    for to in all {
        assert_refused(
            client,
            &set(to).replace("01-11", "01-12"),
            &[],
            refused,
            &["paused", to],
        );
    }
    client
        .batch_execute("SELECT billing.cancel_subscription('sub', false, '2024-01-13')")
        .unwrap();
    for call in [
        "SELECT billing.set_subscription_status('sub', 'active', '2024-01-14')",
        "SELECT billing.pause_subscription('sub', '2024-01-14')",
        "SELECT billing.resume_subscription('sub', as_of => '2024-01-14')",
        "SELECT billing.update_subscription('sub', '{}', '2024-01-14')",
        "SELECT billing.cancel_subscription('sub', true, '2024-01-14')",
        r#"SELECT billing.create_subscription_schedule('{"from_subscription": "sub"}', as_of => '2024-01-14')"#,
    ] {
        assert_refused(client, call, &[], refused, &["\"sub\"", "canceled"]);
    }
    for call in [
        "SELECT billing.resume_subscription('sub', 'later', as_of => '2024-01-14')",
        "SELECT billing.resume_subscription('sub', 'now', 'maybe', '2024-01-14')",
    ] {
        assert_refused(client, call, &[], &SqlState::INVALID_PARAMETER_VALUE, &[]);
    }
}

/// The times at which the functions of this room are asked for something.
#[test]
fn impossible_ids_and_times_are_refused() {
    let (_database, mut client) = open_shop();
    let client = &mut client;
    client
        .batch_execute(
            r#"SELECT billing.create_subscription_schedule('{"from_subscription": "sub"}', 'sub', '2024-01-02')"#,
        )
        .unwrap();
    for function in [
        "SELECT billing.set_subscription_status(%1, 'past_due', %2)",
        "SELECT billing.pause_subscription(%1, %2)",
        "SELECT billing.resume_subscription(%1, as_of => %2)",
        "SELECT billing.update_subscription_schedule(%1, '{}', %2)",
        "SELECT billing.release_subscription_schedule(%1, %2)",
        "SELECT billing.cancel_subscription_schedule(%1, as_of => %2)",
    ] {
        let call = |id: &str, as_of: &str| function.replace("%1", id).replace("%2", as_of);
        let null = &SqlState::NULL_VALUE_NOT_ALLOWED;
        assert_refused(
            client,
            &call("'none'", "'2024-01-05'"),
            &[],
            &SqlState::UNDEFINED_OBJECT,
            &["\"none\""],
        );
        assert_refused(client, &call("NULL", "'2024-01-05'"), &[], null, &[]);
        assert_refused(client, &call("'sub'", "NULL"), &[], null, &["as_of"]);
        for time in ["'infinity'", "'2023-12-31'"] {
            assert_refused(
                client,
                &call("'sub'", time),
                &[],
                &SqlState::INVALID_PARAMETER_VALUE,
                &["as_of"],
            );
        }
    }
}
