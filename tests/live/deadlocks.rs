//! Runs beside deeds by hand, with phases of schedules, thresholds, coupons, credit and balances, and several deeds in a transaction: whoever
//! waits, waits for somebody who does not wait for them.

use harness::{Cluster, Database, Dice, Options, cluster_under_test};
use postgres::Client;
use postgres::error::SqlState;

use crate::invoices::{assert_books_balance, shop};
use crate::recording::{await_blocked, await_that, backend, number, text};

fn quiet_cluster() -> Cluster {
    cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap()
}

fn connect(database: &Database) -> Client {
    let mut client = database.connect().unwrap();
    client
        .batch_execute("SET timezone = 'UTC'; SET billing.max_event_age = -1")
        .unwrap();
    client
}

/// Twelve customers with two subscriptions each, `s00` to `s23`: by turns one that follows a schedule, whose phases are invoiced at once, and
/// ones with thresholds. All have coupons, credit and something on their balance.
const MARKET: &str = r#"
    SELECT billing.create_price('{"currency": "usd", "unit_amount": 240, "recurring": {"interval": "day"}}', id => 'day');
    SELECT billing.create_price('{"currency": "usd", "unit_amount": 7, "recurring": {"interval": "day", "usage_type": "metered",
        "meter": "calls"}}', id => 'day call');
    SELECT billing.create_coupon('{"percent_off": 10, "duration": "once"}', 'once'),
           billing.create_coupon('{"percent_off": 5, "duration": "forever"}', 'forever');
    SELECT billing.create_customer('c' || n) FROM generate_series(0, 11) n;
    SELECT billing.set_discounts('customer', 'c' || n, '[{"coupon": "once"}, {"coupon": "forever"}]', '2023-12-31'),
           billing.adjust_customer_balance('c' || n, -100 - n, 'usd', as_of => '2023-12-31'),
           billing.create_credit_grant(jsonb_build_object('customer', 'c' || n, 'expires_at', '2024-01-09T00:00:00Z',
               'amount', '{"type": "monetary", "monetary": {"currency": "usd", "value": 500}}'::jsonb,
               'applicability_config', '{"scope": {"price_type": "metered"}}'::jsonb), as_of => '2023-12-31')
    FROM generate_series(0, 11) n;
    SELECT billing.create_subscription((jsonb_build_object('customer', 'c' || n / 2, 'items', '[{"price": "day"}, {"price": "day call"}]'::jsonb)
               || CASE n % 3 WHEN 1 THEN '{"billing_thresholds": {"amount_gte": 20}}'
                             ELSE '{"billing_thresholds": {"amount_gte": 30, "reset_billing_cycle_anchor": true}}' END::jsonb)::billing.subscription,
               's' || lpad(n::text, 2, '0'), '2024-01-01')
    FROM generate_series(0, 23) n;
    SELECT billing.update_subscription_schedule(
               billing.create_subscription_schedule(jsonb_build_object('from_subscription', 's' || lpad(n::text, 2, '0')), 'h' || n, '2024-01-01'),
               jsonb_build_object('phases',
                   (SELECT jsonb_agg(jsonb_build_object('proration_behavior', 'always_invoice',
                               'end_date', timestamptz '2024-01-01 07:00' + (n + p * 25) * interval '1 hour',
                               'discounts', '[{"coupon": "forever"}]'::jsonb,
                               'items', jsonb_build_array(jsonb_build_object('price', 'day', 'quantity', 1 + p % 3),
                                                          jsonb_build_object('price', 'day call'))) ORDER BY p)
                    FROM generate_series(0, 9) p)), '2024-01-01')
    FROM generate_series(0, 23, 3) n;"#;

/// What somebody at a desk does: in one transaction what concerns one subscription, and its invoice last.
fn deed(dice: &mut Dice) -> String {
    let subscription = format!("s{:02}", dice.below(24));
    let customer = format!("c{}", dice.below(12));
    let now = "(SELECT max(current_period_start) FROM billing.subscriptions)";
    let invoice = |status: &str, of: &str, nth: usize| {
        format!(
            "(SELECT id FROM billing.invoices WHERE status = '{status}' AND {of} ORDER BY hashtext(id || '{nth}') LIMIT 1)"
        )
    };
    let nth = dice.below(1000);
    let quantity = |behavior: &str, quantity: usize| {
        format!(
            "SELECT billing.update_subscription('{subscription}', jsonb_build_object('proration_behavior', '{behavior}', 'items',
                 jsonb_build_array(jsonb_build_object('id', id, 'quantity', {quantity}))), {now})
             FROM billing.subscription_items WHERE subscription = '{subscription}' AND price = 'day' AND ended_at IS NULL;"
        )
    };
    match dice.below(11) {
        0 | 1 => quantity("always_invoice", dice.below(5)),
        2 | 3 => {
            let draft = invoice("draft", &format!("subscription = '{subscription}'"), nth);
            format!(
                "BEGIN; {} SELECT billing.finalize_invoice(i, '2024-03-01') FROM (SELECT {draft}) x (i) WHERE i IS NOT NULL; COMMIT",
                quantity("create_prorations", dice.below(5))
            )
        }
        4 if dice.one_in(8) => {
            format!(
                "SELECT billing.cancel_subscription('{subscription}', false, {now}, invoice_now => true, prorate => true)"
            )
        }
        4 | 5 => format!(
            r#"SELECT billing.record_meter_event('calls', '{customer}', {}, "timestamp" => {now} + {} * interval '1 minute')"#,
            1 + dice.below(9),
            dice.below(600)
        ),
        6 => format!(
            r#"SELECT billing.set_discounts('subscription', '{subscription}', '[{{"coupon": "once"}}]', {now})"#
        ),
        7 => format!(
            "SELECT billing.adjust_customer_balance('{customer}', {}, 'usd', as_of => {now})",
            dice.below(99) as i64 - 50
        ),
        8 => format!(
            r#"SELECT billing.finalize_invoice(billing.create_invoice('{{"customer": "{customer}", "currency": "usd",
                   "lines": [{{"amount": {}}}]}}', as_of => {now}), {now})"#,
            dice.below(150) as i64 - 40
        ),
        9 => format!(
            "SELECT billing.void_invoice(i, '2024-03-01') FROM (SELECT {}) x (i) WHERE i IS NOT NULL",
            invoice("open", &format!("customer = '{customer}'"), nth)
        ),
        _ => format!("SELECT billing.expire_credits({now})"),
    }
}

/// Each session does its deeds until the runs are through, and at least some.
#[test]
fn runs_and_deeds_by_hand_do_not_wait_for_each_other() {
    let cluster = quiet_cluster();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = connect(&database);
    shop(&mut client);
    client.batch_execute(MARKET).unwrap();
    let attempt = |client: &mut Client, sql: &str| match client.batch_execute(sql) {
        Ok(()) => 1,
        Err(error) => {
            client.batch_execute("ROLLBACK").unwrap();
            // Too late, or not in that state (any more).
            assert!(
                [
                    Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
                    Some(&SqlState::INVALID_PARAMETER_VALUE),
                ]
                .contains(&error.code()),
                "{sql}: {:?}",
                error.as_db_error()
            );
            0
        }
    };
    let done: usize = std::thread::scope(|scope| {
        let mut sessions = Vec::new();
        for run in ["SELECT billing.generate_invoices", "CALL billing.run_billing"] {
            let database = &database;
            sessions.push(scope.spawn(move || {
                let mut client = connect(database);
                (1..=36)
                    .map(|step| {
                        attempt(
                            &mut client,
                            &format!("{run}(timestamptz '2024-01-01' + {step} * interval '5 hours')"),
                        )
                    })
                    .sum::<usize>()
            }));
        }
        for seed in 1..=4 {
            let database = &database;
            sessions.push(scope.spawn(move || {
                let mut client = connect(database);
                let mut dice = Dice::new(seed);
                (0..100).map(|_| attempt(&mut client, &deed(&mut dice))).sum()
            }));
        }
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    assert!(done > 250, "{done}");
    client
        .batch_execute("SELECT billing.generate_invoices('2024-02-01'); SELECT billing.generate_invoices('2024-02-05')")
        .unwrap();
    assert_books_balance(&mut client);
    for reason in [
        "subscription_update",
        "subscription_threshold",
        "subscription_cycle",
        "manual",
    ] {
        let some =
            format!("SELECT count(*) FROM billing.invoices WHERE billing_reason = '{reason}' AND status <> 'draft'");
        assert!(number(&mut client, &some) > 10, "{reason}");
    }
}

/// Whoever holds a subscription finalizes its invoice while a run, which has folded usage, waits for that subscription. What the run
/// folded is on the next invoice, and nothing is lost or billed twice.
#[test]
fn a_draft_is_finalized_while_a_run_waits() {
    let cluster = quiet_cluster();
    let database = Database::with_extension(&cluster).unwrap();
    let mut client = connect(&database);
    shop(&mut client);
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}, {"price": "package"}]}', 'sub', '2024-01-01');
               SELECT billing.record_meter_event('calls', 'acme', 4, 'a', '2024-01-10');
               SELECT billing.generate_invoices('2024-02-01');
               SELECT billing.record_meter_event('calls', 'acme', 4, 'b', '2024-01-11')"#,
        )
        .unwrap();
    let mut run = connect(&database);
    let mut late = connect(&database);
    client
        .batch_execute(
            "BEGIN; SELECT billing.update_subscription('sub', '{\"description\": \"held\"}', '2024-02-01 00:10')",
        )
        .unwrap();
    std::thread::scope(|scope| {
        let (waiting, holder) = (backend(&mut run), backend(&mut client));
        let running = scope.spawn(move || number(&mut run, "SELECT billing.generate_invoices('2024-03-01 01:00')"));
        await_blocked(&mut late, waiting, holder);
        // Behind what the run folds.
        late.batch_execute("SELECT billing.record_meter_event('calls', 'acme', 4, 'c', '2024-01-12')")
            .unwrap();
        client
            .batch_execute(
                "SELECT billing.finalize_invoice(id, '2024-02-01 00:10') FROM billing.invoices WHERE status = 'draft'; COMMIT",
            )
            .unwrap();
        assert_eq!(running.join().unwrap(), 1);
    });
    client
        .batch_execute("SELECT billing.generate_invoices('2024-04-01 01:00')")
        .unwrap();
    assert_books_balance(&mut client);
    // Twelve calls are three packages, 120; whichever of the invoices has them.
    let billed = "SELECT sum(l.amount)::text FROM billing.invoice_lines l WHERE l.kind IN ('usage', 'late_usage') AND l.period_start = '2024-01-01'";
    assert_eq!(text(&mut client, billed), "120");
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.late_usage_marks"), 0);
}

/// What stands before two that come one after the other, and what they do; a third session holds what the first of them waits for.
struct Crossing {
    before: &'static str,
    held: &'static str,
    first: &'static str,
    second: &'static str,
}

const ADD_A_SEAT: &str =
    "SELECT billing.update_subscription('a', jsonb_build_object('proration_behavior', 'always_invoice',
        'items', jsonb_build_array(jsonb_build_object('id', id, 'quantity', 2))), '2024-06-16')
    FROM billing.subscription_items WHERE subscription = 'a' AND quantity IS NOT NULL";
const FINALIZE_B: &str = "SELECT billing.finalize_invoice(id, '2024-06-16') FROM billing.invoices WHERE status = 'draft' AND subscription = 'b'";

/// An invoice at once makes an older draft final before it, and so takes numbers and then locks what the second one uses up. What
/// the first locks comes before the numbers: a discount that has ended but holds for the draft, a grant that is used up and gets
/// something back, the customer's discounts before a coupon. Two lists that name coupons in opposite orders lock them in one. A change of a
/// schedule locks its coupons before a phase that is due is invoiced.
const CROSSINGS: [Crossing; 5] = [
    Crossing {
        before: r#"SELECT billing.create_coupon('{"percent_off": 50, "duration": "once"}', 'half');
            SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', s, '2024-05-01') FROM unnest('{a,b}'::text[]) s;
            SELECT billing.apply_discount('half', 'customer', 'acme', '2024-05-10');
            SELECT billing.generate_invoices('2024-06-01');
            SELECT billing.set_discounts('customer', 'acme', '[]', '2024-06-10')"#,
        held: "SELECT FROM billing.discounts FOR NO KEY UPDATE",
        first: FINALIZE_B,
        second: ADD_A_SEAT,
    },
    Crossing {
        before: r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}, {"price": "call"}]}', 'a', '2024-04-01');
            SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "call"}]}', 'b', '2024-04-01');
            SELECT billing.create_credit_grant('{"customer": "acme", "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 50}},
                "applicability_config": {"scope": {"price_type": "metered"}}}', as_of => '2024-04-01');
            SELECT billing.record_meter_event('calls', 'acme', 200, 'taken back', '2024-04-05');
            SELECT billing.generate_invoices('2024-05-01 01:00');
            SELECT billing.generate_invoices('2024-06-01');
            SELECT billing.cancel_meter_event('calls', 'acme', 'taken back');
            SELECT billing.roll_up()"#,
        held: "SELECT FROM billing.credit_grants FOR NO KEY UPDATE",
        first: FINALIZE_B,
        second: ADD_A_SEAT,
    },
    Crossing {
        before: r#"SELECT billing.create_customer('bolt');
            SELECT billing.create_coupon('{"percent_off": 10, "duration": "forever"}', 'tenth'), billing.create_coupon('{"percent_off": 20, "duration": "forever"}', 'fifth');
            SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', 'a', '2024-05-01');
            SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}], "discounts": [{"coupon": "fifth"}]}', 'b', '2024-05-01')"#,
        held: "SELECT billing.apply_discount('tenth', 'customer', 'bolt', '2024-06-16')",
        first: r#"SELECT billing.update_subscription('a', jsonb_build_object('proration_behavior', 'always_invoice', 'discounts', '[{"coupon": "tenth"}]'::jsonb,
                'items', jsonb_build_array(jsonb_build_object('id', id, 'quantity', 2))), '2024-06-16')
            FROM billing.subscription_items WHERE subscription = 'a'"#,
        second: r#"SELECT billing.set_discounts('subscription', 'b', '[{"coupon": "tenth"}]', '2024-06-16')"#,
    },
    Crossing {
        before: r#"SELECT billing.create_customer('bolt');
            SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', 'a', '2024-05-01');
            SELECT billing.create_coupon('{"percent_off": 10, "duration": "forever"}', c) FROM unnest('{first,middle,last}'::text[]) c"#,
        held: "SELECT FROM billing.coupons WHERE id = 'middle' FOR NO KEY UPDATE",
        first: r#"SELECT billing.set_discounts('customer', 'acme', '[{"coupon": "last"}, {"coupon": "middle"}, {"coupon": "first"}]', '2024-06-01')"#,
        second: r#"SELECT billing.set_discounts('subscription', 'a', '[{"coupon": "first"}, {"coupon": "middle"}, {"coupon": "last"}]', '2024-06-01')"#,
    },
    Crossing {
        before: r#"SELECT billing.create_customer('bolt');
            SELECT billing.create_price('{"currency": "usd", "unit_amount": 900, "recurring": {"interval": "month"}}', id => 'desk');
            SELECT billing.create_coupon('{"percent_off": 10, "duration": "forever"}', c) FROM unnest('{first,last}'::text[]) c;
            SELECT billing.create_subscription_schedule('{"customer": "acme", "start_date": "2024-05-01T00:00:00Z", "phases": [
                {"items": [{"price": "seat"}], "end_date": "2024-05-11T00:00:00Z"},
                {"items": [{"price": "desk"}], "proration_behavior": "always_invoice", "end_date": "2024-09-11T00:00:00Z"}]}', 'h', '2024-05-01')"#,
        held: "SELECT FROM billing.coupons WHERE id = 'last' FOR NO KEY UPDATE",
        first: r#"SELECT billing.create_subscription('{"customer": "bolt", "items": [{"price": "seat"}],
            "discounts": [{"coupon": "first"}, {"coupon": "last"}]}', 'b', '2024-05-12')"#,
        second: r#"SELECT billing.update_subscription_schedule('h', '{"phases": [{"items": [{"price": "desk"}], "discounts": [{"coupon": "first"}],
            "end_date": "2024-09-11T00:00:00Z"}]}', '2024-05-12')"#,
    },
];

#[test]
fn deeds_take_their_locks_in_the_order_of_all() {
    let cluster = quiet_cluster();
    for Crossing {
        before,
        held,
        first,
        second,
    } in CROSSINGS
    {
        let database = Database::with_extension(&cluster).unwrap();
        let mut client = connect(&database);
        shop(&mut client);
        client.batch_execute(before).unwrap();
        client.batch_execute(&format!("BEGIN; {held}")).unwrap();
        let mut watcher = connect(&database);
        std::thread::scope(|scope| {
            let mut start = |sql: &'static str| {
                let mut session = connect(&database);
                let waiting = backend(&mut session);
                let doing = scope.spawn(move || session.batch_execute(sql));
                await_that("it waits", || {
                    let blocked = format!("SELECT count(*) FROM unnest(pg_blocking_pids({waiting}))");
                    number(&mut watcher, &blocked) > 0
                });
                doing
            };
            let doing = [start(first), start(second)];
            client.batch_execute("COMMIT").unwrap();
            for deed in doing {
                deed.join().unwrap().unwrap();
            }
        });
        client
            .batch_execute("SELECT billing.generate_invoices('2024-07-01 01:00')")
            .unwrap();
        assert_books_balance(&mut client);
    }
}

/// A phase is by its terms, though it was scheduled while a run waited for the subscription, or between the run's transactions.
#[test]
fn a_phase_scheduled_beside_a_run_begins_in_time() {
    const SCHEDULED: &str = r#"
        SELECT billing.create_price('{"currency": "usd", "unit_amount": 100, "recurring": {"interval": "month"}}', id => 'cheap');
        SELECT billing.create_subscription_schedule('{"customer": "acme", "start_date": "now", "phases": [
            {"items": [{"price": "seat"}], "end_date": "2024-09-01T00:00:00Z"}]}', 'h', '2024-04-01')"#;
    const CHEAPER: &str = r#"
        SELECT billing.update_subscription_schedule('h', '{"phases": [{"items": [{"price": "seat"}], "end_date": "2024-05-01T00:00:00Z"},
            {"items": [{"price": "cheap"}], "iterations": 3, "proration_behavior": "none"}]}', '2024-04-30 23:59:59')"#;
    let cluster = quiet_cluster();
    let billed = |run: &dyn Fn(&Database, &mut Client)| {
        let database = Database::with_extension(&cluster).unwrap();
        let mut client = connect(&database);
        shop(&mut client);
        client.batch_execute(SCHEDULED).unwrap();
        run(&database, &mut client);
        let lines = "SELECT string_agg(concat_ws(' ', i.created::date, l.price, l.amount), ', ' ORDER BY l.id)
                     FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice";
        let lines = text(&mut client, lines);
        assert_eq!(lines, "2024-04-01 seat 500, 2024-05-01 cheap 100");
    };
    billed(&|database, client| {
        let holder = backend(client);
        client.batch_execute(&format!("BEGIN; {CHEAPER}")).unwrap();
        let mut session = connect(database);
        let waiting = backend(&mut session);
        std::thread::scope(|scope| {
            let run = scope.spawn(move || session.batch_execute("SELECT billing.generate_invoices('2024-05-01')"));
            await_blocked(&mut connect(database), waiting, holder);
            client.batch_execute("COMMIT").unwrap();
            run.join().unwrap().unwrap();
        });
        client
            .batch_execute("SELECT billing.generate_invoices('2024-05-01')")
            .unwrap();
    });
    billed(&|_, client| {
        let run = text(client, "SELECT billing.start_billing_run('2024-05-01', 1000)");
        client.batch_execute(CHEAPER).unwrap();
        let goes_on = format!("SELECT billing.bill_batch('{run}', 1000)::text");
        while text(client, &goes_on) == "true" {}
        let left = "SELECT count(*) FROM billing.billing_runs WHERE finished_at IS NULL";
        assert_eq!(number(client, left), 0);
        client.batch_execute("CALL billing.run_billing('2024-05-01')").unwrap();
    });
}

/// `CALL run_billing`, late, looks at the thresholds of the periods that have just begun, as `generate_invoices` does.
#[test]
fn a_late_run_in_batches_looks_at_thresholds_of_new_periods() {
    let cluster = quiet_cluster();
    let billed = |run: &str| {
        let database = Database::with_extension(&cluster).unwrap();
        let mut client = connect(&database);
        shop(&mut client);
        client.batch_execute(MARKET).unwrap();
        client
            .batch_execute(
                "SELECT billing.record_meter_event('calls', 'c' || n, 3 + n % 5, h || ' ' || n, timestamptz '2024-01-01' + h * interval '1 hour')
                 FROM generate_series(0, 11) n, generate_series(1, 100, 3) h",
            )
            .unwrap();
        client.batch_execute(run).unwrap();
        assert_books_balance(&mut client);
        let reached = number(
            &mut client,
            "SELECT count(*) FROM billing.invoices WHERE billing_reason = 'subscription_threshold' AND created = '2024-01-05 03:00'",
        );
        assert!(reached > 10, "{reached}");
        // Again adds nothing.
        assert_eq!(
            number(&mut client, "SELECT billing.generate_invoices('2024-01-05 03:00')"),
            0
        );
        client
            .query(
                "SELECT concat_ws(' ', i.subscription, i.billing_reason, i.created, i.finalized_at, i.subtotal) FROM billing.invoices i ORDER BY 1",
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect::<Vec<String>>()
    };
    assert_eq!(
        billed("CALL billing.run_billing('2024-01-05 03:00', 3)"),
        billed("SELECT billing.generate_invoices('2024-01-05 03:00')")
    );
}
