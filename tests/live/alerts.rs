//! Alerts: a crossing, previous < gte <= current, is one row and one notification; nothing else is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::Database;
use postgres::Client;
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::{Value, json};

use crate::recording::{assert_refused, await_blocked, backend, narrow_database, number};

/// On a cluster without workers: only the test rolls up.
fn ready() -> (Database<'static>, Client) {
    let database = narrow_database();
    let mut client = connect(&database);
    client.execute("SELECT billing.create_customer('zeta')", &[]).unwrap();
    (database, client)
}

fn connect(database: &Database) -> Client {
    let mut client = database.connect().unwrap();
    client.batch_execute("SET billing.max_event_age = -1").unwrap();
    client
}

fn alert(client: &mut Client, arguments: &str) -> String {
    let sql = format!("SELECT billing.create_alert({arguments})");
    client.query_one(&sql, &[]).unwrap().get(0)
}

fn record(client: &mut Client, event_name: &str, customer: &str, value: &str, at: &str) {
    let sql = "SELECT billing.record_meter_event($1, $2, $3::text::numeric, $4, $5::text::timestamptz,
                                                 jsonb_build_object('value', $3::text))";
    let identifier = format!("{customer} {value} {at}");
    let recorded: bool = client
        .query_one(sql, &[&event_name, &customer, &value, &identifier, &at])
        .unwrap()
        .get(0);
    assert!(recorded, "{identifier}");
}

fn fold(client: &mut Client) {
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
}

/// `title customer gte value period_start` of the alert events after the first `seen`, in the order of their ids.
fn fired_after(client: &mut Client, seen: usize) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', a.title, e.customer, e.gte, e.value, e.period_start::date)
               FROM billing.alert_events e JOIN billing.alerts a ON a.id = e.alert ORDER BY e.id OFFSET $1";
    let rows = client.query(sql, &[&(seen as i64)]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Records for acme, folds, and returns what this fired.
fn after(client: &mut Client, event_name: &str, value: &str, at: &str) -> Vec<String> {
    let seen = number(client, "SELECT count(*) FROM billing.alert_events") as usize;
    record(client, event_name, "acme", value, at);
    fold(client);
    fired_after(client, seen)
}

const NOTHING: [&str; 0] = [];

#[test]
fn fires_once_for_each_customer_when_the_threshold_is_reached() {
    let (_database, mut client) = ready();
    alert(&mut client, "'sum', 10, title => 'each'");
    alert(&mut client, "'sum', 10.5, 'zeta', title => 'zeta only'");
    assert_eq!(after(&mut client, "sum", "9.999999999999", "2026-01-01"), NOTHING);
    assert_eq!(
        after(&mut client, "sum", "0.000000000001", "2025-06-01"),
        ["each acme 10 10"]
    );
    for (value, at) in [("100", "2026-01-02"), ("-200", "2026-01-03"), ("300", "2026-01-04")] {
        assert_eq!(after(&mut client, "sum", value, at), NOTHING, "{value}");
    }
    record(&mut client, "sum", "zeta", "11", "2026-01-01");
    record(&mut client, "count", "zeta", "11", "2026-01-01");
    fold(&mut client);
    assert_eq!(
        fired_after(&mut client, 1),
        ["each zeta 10 11", "zeta only zeta 10.5 11"]
    );
}

#[test]
fn each_threshold_crossed_at_once_is_a_row_of_its_own() {
    let (_database, mut client) = ready();
    for gte in [30, 10, 20, 41] {
        alert(&mut client, &format!("'sum', {gte}, title => 'at'"));
    }
    assert_eq!(
        after(&mut client, "sum", "40", "2026-01-01"),
        ["at acme 10 40", "at acme 20 40", "at acme 30 40"]
    );
    assert_eq!(after(&mut client, "sum", "1", "2026-01-02"), ["at acme 41 41"]);
}

#[test]
fn watches_every_aggregation_but_averages() {
    let (_database, mut client) = ready();
    for meter in ["count", "last", "max", "min", "unique_count"] {
        alert(&mut client, &format!("'{meter}', 2, title => '{meter}'"));
    }
    // (value, time): what fires then.
    for (meter, steps) in [
        (
            "count",
            vec![("9", "2026-01-01", ""), ("9", "2026-01-02", "count acme 2 2")],
        ),
        (
            "last",
            vec![
                ("1", "2026-01-05", ""),
                ("7", "2026-01-04", ""),
                ("3", "2026-01-06", "last acme 2 3"),
            ],
        ),
        (
            "max",
            vec![("1.9", "2026-01-01", ""), ("5", "2025-01-01", "max acme 2 5")],
        ),
        ("min", vec![("1", "2026-01-01", ""), ("5", "2026-01-02", "")]),
        (
            "unique_count",
            vec![
                ("a", "2026-01-01", ""),
                ("a", "2026-02-01", ""),
                ("b", "2026-03-01", "unique_count acme 2 2"),
            ],
        ),
    ] {
        for (value, at, expected) in steps {
            let seen = number(&mut client, "SELECT count(*) FROM billing.alert_events") as usize;
            let sql =
                "SELECT billing.record_meter_event($1, 'acme', $2::text::numeric, NULL, $3::text::timestamptz, $4)";
            let quantity = if meter == "unique_count" { "1" } else { value };
            client
                .execute(sql, &[&meter, &quantity, &at, &json!({"value": value})])
                .unwrap();
            fold(&mut client);
            let expected: Vec<&str> = expected.split_terminator('|').collect();
            assert_eq!(fired_after(&mut client, seen), expected, "{meter} {value} {at}");
        }
    }
    let refused = SqlState::FEATURE_NOT_SUPPORTED;
    let create = "SELECT billing.create_alert('weighted_sum', 1)";
    assert_refused(&mut client, create, &[], &refused, &["weighted_sum"]);
}

#[test]
fn usage_that_was_above_before_is_no_crossing() {
    let (_database, mut client) = ready();
    assert_eq!(after(&mut client, "sum", "15", "2026-01-01"), NOTHING);
    alert(&mut client, "'sum', 10, title => 'late'");
    assert_eq!(after(&mut client, "sum", "1", "2026-01-02"), NOTHING);
    assert_eq!(after(&mut client, "sum", "-7", "2026-01-03"), NOTHING, "9: below");
    assert_eq!(after(&mut client, "sum", "2", "2026-01-04"), ["late acme 10 11"]);
    assert_eq!(after(&mut client, "sum", "-5", "2026-01-05"), NOTHING);
    assert_eq!(after(&mut client, "sum", "9", "2026-01-06"), NOTHING, "once only");
}

#[test]
fn per_period_fires_once_in_every_period_late_ones_too() {
    let (_database, mut client) = ready();
    alert(&mut client, "'sum', 10, recurrence => 'per_period', title => 'monthly'");
    assert_eq!(after(&mut client, "sum", "6", "2026-01-31 23:59:59.999999"), NOTHING);
    assert_eq!(
        after(&mut client, "sum", "6", "2026-02-01"),
        NOTHING,
        "months do not add up"
    );
    assert_eq!(
        after(&mut client, "sum", "4", "2026-02-28 12:00"),
        ["monthly acme 10 10 2026-02-01"]
    );
    assert_eq!(after(&mut client, "sum", "50", "2026-02-02"), NOTHING, "once only");
    assert_eq!(
        after(&mut client, "sum", "5", "2026-01-01"),
        ["monthly acme 10 11 2026-01-01"],
        "late"
    );
    // One fold over several periods.
    record(&mut client, "sum", "acme", "20", "2026-04-10");
    record(&mut client, "sum", "acme", "19", "2026-03-10");
    record(&mut client, "sum", "zeta", "18", "2026-03-10");
    fold(&mut client);
    let mut fired = fired_after(&mut client, 2);
    fired.sort();
    assert_eq!(
        fired,
        [
            "monthly acme 10 19 2026-03-01",
            "monthly acme 10 20 2026-04-01",
            "monthly zeta 10 18 2026-03-01"
        ]
    );
}

/// The period begins and ends within an hour, and clamps at the ends of months as bills do.
#[test]
fn periods_are_those_of_the_subscription() {
    let (_database, mut client) = ready();
    let price = json!({"currency": "usd", "unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered", "meter": "sum"}});
    let subscription = json!({"customer": "acme", "items": [{"price": "call"}]});
    let sql = "SELECT billing.create_product('p', 'P'), billing.create_price($1::jsonb, 'p', 'call'),
               billing.create_subscription($2::jsonb, 'sub', '2026-01-31 10:20:30')";
    client.execute(sql, &[&price, &subscription]).unwrap();
    alert(&mut client, "'sum', 10, recurrence => 'per_period', title => 'cycle'");
    assert_eq!(after(&mut client, "sum", "5", "2026-01-31 10:20:30"), NOTHING);
    assert_eq!(
        after(&mut client, "sum", "9", "2026-02-28 10:20:30"),
        NOTHING,
        "the next period"
    );
    assert_eq!(
        after(&mut client, "sum", "9", "2026-01-31 10:20:29.999999"),
        NOTHING,
        "before the first"
    );
    assert_eq!(
        after(&mut client, "sum", "5", "2026-02-28 10:20:29.999999"),
        ["cycle acme 10 10 2026-01-31"]
    );
    assert_eq!(
        after(&mut client, "sum", "1", "2026-03-31 10:20:29"),
        ["cycle acme 10 10 2026-02-28"]
    );
    let start = "SELECT count(*) FROM billing.alert_events WHERE period_start IN ('2026-01-31 10:20:30', '2026-02-28 10:20:30')";
    assert_eq!(number(&mut client, start), 2);
}

#[test]
fn cancelled_usage_does_not_count() {
    let (_database, mut client) = ready();
    for meter in ["sum", "max"] {
        alert(&mut client, &format!("'{meter}', 10, title => '{meter}'"));
    }
    let cancel = |client: &mut Client, meter: &str, identifier: &str| {
        let sql = "SELECT billing.cancel_meter_event($1, 'acme', $2)";
        assert!(client.query_one(sql, &[&meter, &identifier]).unwrap().get::<_, bool>(0));
    };
    for meter in ["sum", "max"] {
        // Cancelled before it was folded; below, and no crossing.
        record(&mut client, meter, "acme", "12", "2026-01-01");
        cancel(&mut client, meter, "acme 12 2026-01-01");
        assert_eq!(after(&mut client, meter, "5", "2026-01-02"), NOTHING, "{meter}");
        // Cancelling a refund is a crossing.
        if meter == "sum" {
            assert_eq!(after(&mut client, meter, "-20", "2026-01-03"), NOTHING);
            assert_eq!(after(&mut client, meter, "7", "2026-01-04"), NOTHING);
            cancel(&mut client, meter, "acme -20 2026-01-03");
            fold(&mut client);
            assert_eq!(fired_after(&mut client, 0), ["sum acme 10 12"]);
            cancel(&mut client, meter, "acme 7 2026-01-04");
        } else {
            assert_eq!(after(&mut client, meter, "11", "2026-01-04"), ["max acme 10 11"]);
            cancel(&mut client, meter, "acme 11 2026-01-04");
        }
        fold(&mut client);
        assert_eq!(
            after(&mut client, meter, "30", "2026-01-05"),
            NOTHING,
            "{meter}: once only"
        );
    }
}

#[test]
fn an_inactive_alert_sees_nothing_and_an_archived_one_never_again() {
    let (_database, mut client) = ready();
    let id = alert(&mut client, "'sum', 10, title => 'switched'");
    let other = alert(&mut client, "'sum', 1000, title => 'gone'");
    let set = |client: &mut Client, function: &str, id: &str| {
        // Again is no error.
        for _ in 0..2 {
            let sql = format!("SELECT billing.{function}_alert($1)");
            assert_eq!(client.query_one(&sql, &[&id]).unwrap().get::<_, &str>(0), id);
        }
    };
    let status = |client: &mut Client, id: &str| -> String {
        let sql = "SELECT status FROM billing.alerts WHERE id = $1";
        client.query_one(sql, &[&id]).unwrap().get(0)
    };
    assert_eq!(after(&mut client, "sum", "5", "2026-01-01"), NOTHING);
    set(&mut client, "deactivate", &id);
    assert_eq!(status(&mut client, &id), "inactive");
    assert_eq!(after(&mut client, "sum", "7", "2026-01-01 01:00"), NOTHING);
    set(&mut client, "activate", &id);
    assert_eq!(
        after(&mut client, "sum", "1", "2026-01-02"),
        NOTHING,
        "crossed while inactive"
    );
    assert_eq!(after(&mut client, "sum", "-4", "2026-01-03"), NOTHING);
    assert_eq!(after(&mut client, "sum", "5", "2026-01-04"), ["switched acme 10 14"]);
    set(&mut client, "archive", &other);
    assert_eq!(status(&mut client, &other), "archived");
    assert_eq!(after(&mut client, "sum", "5000", "2026-01-05"), NOTHING);
    for function in ["activate", "deactivate"] {
        let sql = format!("SELECT billing.{function}_alert($1)");
        let code = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
        assert_refused(&mut client, &sql, &[&other], &code, &[&other]);
    }
    for function in ["activate", "deactivate", "archive"] {
        let sql = format!("SELECT billing.{function}_alert($1)");
        assert_refused(
            &mut client,
            &sql,
            &[&"alrt_no"],
            &SqlState::UNDEFINED_OBJECT,
            &["alrt_no"],
        );
        let none: Option<&str> = None;
        assert_refused(
            &mut client,
            &sql,
            &[&none],
            &SqlState::NULL_VALUE_NOT_ALLOWED,
            &["alert"],
        );
    }
    // What an alert watches stays; so do the rows it wrote.
    let code = SqlState::from_code("23001");
    for change in [
        "gte = 11",
        "event_name = 'count'",
        "customer = 'zeta'",
        "recurrence = 'per_period'",
    ] {
        let sql = format!("UPDATE billing.alerts SET {change} WHERE id = $1");
        assert_refused(&mut client, &sql, &[&id], &code, &[&id]);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.alert_events"), 1);
}

/// Everything that has come, waiting at least for `count`.
fn heard(listener: &mut Client, count: usize) -> Vec<Value> {
    let mut payloads = Vec::new();
    let mut notifications = listener.notifications();
    loop {
        let patience = Duration::from_millis(if payloads.len() < count { 10_000 } else { 100 });
        match notifications.timeout_iter(patience).next().unwrap() {
            Some(notification) => {
                assert_eq!(notification.channel(), "billing_alert");
                payloads.push(serde_json::from_str(notification.payload()).unwrap());
            }
            None => return payloads,
        }
    }
}

#[test]
fn tells_listeners_when_it_commits() {
    let (database, mut client) = ready();
    // A session's own settings do not show in what others get.
    client
        .batch_execute("SET timezone = 'Asia/Kolkata'; SET datestyle = 'German'")
        .unwrap();
    let mut listener = database.connect().unwrap();
    listener.batch_execute("LISTEN billing_alert").unwrap();
    let once = alert(&mut client, "'sum', 10.50");
    let title = r#"Ü "quoted" \ 'text'"#;
    let monthly = alert(
        &mut client,
        r#"'sum', 12, 'acme', 'per_period', E'\u00dc "quoted" \\ ''text'''"#,
    );
    record(&mut client, "sum", "acme", "12.250", "2026-02-14 00:00Z");
    client.batch_execute("BEGIN").unwrap();
    fold(&mut client);
    assert_eq!(heard(&mut listener, 0), NOTHING);
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(heard(&mut listener, 0), NOTHING);
    assert_eq!(fired_after(&mut client, 0), NOTHING);

    client.batch_execute("BEGIN").unwrap();
    fold(&mut client);
    assert_eq!(heard(&mut listener, 0), NOTHING);
    assert_eq!(number(&mut listener, "SELECT count(*) FROM billing.alert_events"), 0);
    client.batch_execute("COMMIT").unwrap();
    let heard = heard(&mut listener, 2);
    let rows = client
        .query(
            "SELECT id, to_char(triggered_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') FROM billing.alert_events ORDER BY id",
            &[],
        )
        .unwrap();
    let expected = [
        json!({"alert": once, "title": null, "gte": "10.50", "value": "12.25", "period_start": null}),
        json!({"alert": monthly, "title": title, "gte": "12", "value": "12.25", "period_start": "2026-02-01T00:00:00+00:00"}),
    ];
    assert_eq!(heard.len(), 2);
    for ((mut expected, row), mut told) in expected.into_iter().zip(&rows).zip(heard) {
        expected["id"] = json!(row.get::<_, i64>(0));
        expected["event_name"] = json!("sum");
        expected["customer"] = json!("acme");
        let triggered_at = told.as_object_mut().unwrap().remove("triggered_at").unwrap();
        let triggered_at = triggered_at.as_str().unwrap();
        assert!(triggered_at.starts_with(row.get::<_, &str>(1)), "{triggered_at}");
        assert!(triggered_at.ends_with("+00:00"), "{triggered_at}");
        assert_eq!(told, expected);
    }
}

#[test]
fn two_folds_at_once_fire_once() {
    let (database, mut client) = ready();
    alert(&mut client, "'sum', 10, title => 'one'");
    record(&mut client, "sum", "acme", "9", "2026-01-01");
    client.batch_execute("BEGIN").unwrap();
    fold(&mut client);
    let mut other = connect(&database);
    record(&mut other, "sum", "acme", "1", "2026-01-02");
    let (waiting, holder) = (backend(&mut other), backend(&mut client));
    std::thread::scope(|scope| {
        let folding = scope.spawn(|| fold(&mut other));
        let mut watcher = database.connect().unwrap();
        await_blocked(&mut watcher, waiting, holder);
        client.batch_execute("COMMIT").unwrap();
        folding.join().unwrap();
    });
    assert_eq!(fired_after(&mut client, 0), ["one acme 10 10"]);
}

/// Each threshold of each customer once, none missed, whoever folds; a listener that reads on by id misses none.
#[test]
fn many_sessions_fire_each_crossing_once() {
    const EVENTS: i64 = 60;
    let (database, mut client) = ready();
    for gte in (1..=EVENTS * 2 + 1).step_by(10) {
        alert(&mut client, &format!("'sum', {gte}"));
        alert(&mut client, &format!("'count', {gte}, recurrence => 'per_period'"));
    }
    let over = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut client = database.connect().unwrap();
            let (mut last, mut read) = (0_i64, Vec::new());
            loop {
                let finished = over.load(Ordering::Relaxed);
                let sql = "SELECT id FROM billing.alert_events WHERE id > $1 ORDER BY id";
                for row in client.query(sql, &[&last]).unwrap() {
                    last = row.get(0);
                    read.push(last);
                }
                if finished {
                    return read;
                }
            }
        });
        let writers: Vec<_> = ["acme", "acme", "zeta", "zeta"]
            .iter()
            .map(|customer| {
                let database = &database;
                scope.spawn(move || {
                    let mut client = connect(database);
                    for _ in 0..EVENTS {
                        for meter in ["sum", "count"] {
                            let sql = "SELECT billing.record_meter_event($1, $2, 1, NULL, '2026-01-15')";
                            client.execute(sql, &[&meter, customer]).unwrap();
                        }
                        fold(&mut client);
                    }
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Before any of them is unwrapped: the reader would go on for ever.
        over.store(true, Ordering::Relaxed);
        written.into_iter().for_each(|written| written.unwrap());
        reader.join().unwrap()
    });
    // 1, 11, …, 111 of 120 and not 121; two customers, two meters. Values stand at or barely past their thresholds.
    let exact = "SELECT count(*) FROM (SELECT DISTINCT alert, customer, event_name, gte, period_start
                 FROM billing.alert_events WHERE value >= gte AND value < gte + 10) e";
    assert_eq!(number(&mut client, exact), 12 * 2 * 2);
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM billing.alert_events"),
        12 * 2 * 2
    );
    let all: Vec<i64> = client
        .query("SELECT id FROM billing.alert_events ORDER BY id", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(read, all);
}

#[test]
fn what_is_no_alert_is_refused() {
    let (_database, mut client) = ready();
    let good = ["'sum'", "10", "'acme'", "'one_time'", "'title'"];
    let long = format!("'{}'", "x".repeat(251));
    let injection = "'''); DROP TABLE billing.alerts CASCADE; --'";
    let invalid = SqlState::INVALID_PARAMETER_VALUE;
    for (position, bad, code, word) in [
        (0, "'nothing'", SqlState::UNDEFINED_OBJECT, "nothing"),
        (0, injection, SqlState::UNDEFINED_OBJECT, "(no_meter)"),
        (1, "0", invalid.clone(), "0"),
        (1, "-1", invalid.clone(), "-1"),
        (1, "'NaN'", invalid.clone(), "NaN"),
        (1, "'Infinity'", invalid.clone(), "Infinity"),
        (1, "1e100", invalid.clone(), "1000"),
        (1, "1e-101", invalid.clone(), "0.000"),
        (2, "'nobody'", SqlState::UNDEFINED_OBJECT, "nobody"),
        (2, injection, SqlState::UNDEFINED_OBJECT, "DROP TABLE"),
        (3, "'daily'", invalid.clone(), "daily"),
        (3, injection, invalid.clone(), "DROP TABLE"),
        (4, &long, invalid.clone(), "251"),
        (0, "NULL", SqlState::NULL_VALUE_NOT_ALLOWED, "event_name"),
        (1, "NULL", SqlState::NULL_VALUE_NOT_ALLOWED, "gte"),
        (3, "NULL", SqlState::NULL_VALUE_NOT_ALLOWED, "recurrence"),
    ] {
        let mut arguments = good;
        arguments[position] = bad;
        let sql = format!("SELECT billing.create_alert({})", arguments.join(", "));
        assert_refused(&mut client, &sql, &[], &code, &[word]);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.alerts"), 0);
    let id = alert(&mut client, &good.join(", "));
    assert!(id.starts_with("alrt_"), "{id}");
}
