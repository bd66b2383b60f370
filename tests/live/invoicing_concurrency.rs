//! Invoicing comes to the same however it is run: late or on time, at once or in steps, by one session or by several at once,
//! with rollbacks and a crash in the middle.

use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use harness::{Cluster, Database, Dice, Options, cluster_under_test};
use postgres::Client;
use postgres::error::SqlState;

use crate::invoices::{assert_books_balance, shop};
use crate::recording::{assert_same, await_blocked, backend, number, text};

/// Without workers: nothing but these tests' sessions folds usage.
fn quiet_cluster() -> &'static Cluster {
    static QUIET: OnceLock<Cluster> = OnceLock::new();
    QUIET.get_or_init(|| cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap())
}

fn connect(database: &Database) -> Client {
    let mut client = database.connect().unwrap();
    client
        .batch_execute("SET timezone = 'UTC'; SET billing.max_event_age = -1")
        .unwrap();
    client
}

/// A market of customers with one to three subscriptions each of every kind, and two months of usage from 1 January 2024. The same seed
/// gives the same market.
fn market<'c>(cluster: &'c Cluster, seed: u64, subscriptions: usize) -> Database<'c> {
    let database = Database::with_extension(cluster).unwrap();
    let mut client = connect(&database);
    let mut sql = String::new();
    let customers = subscriptions / 2 + 1;
    for formula in ["sum", "max"] {
        sql += &format!(
            r#"SELECT billing.create_meter('{{"display_name": "{formula}", "event_name": "{formula}", "default_aggregation": {{"formula": "{formula}"}}}}');"#
        );
    }
    for (interval, count) in [("month", 1), ("week", 1), ("day", 10)] {
        let metered = |meter: &str| {
            format!(
                r#""recurring": {{"interval": "{interval}", "interval_count": {count}, "usage_type": "metered", "meter": "{meter}"}}"#
            )
        };
        let (sum, max) = (metered("sum"), metered("max"));
        for (id, price) in [
            (
                "seat",
                format!(r#""unit_amount": 333, "recurring": {{"interval": "{interval}", "interval_count": {count}}}"#),
            ),
            (
                "graduated",
                format!(
                    r#""billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": [{{"up_to": 20, "unit_amount_decimal": "1.5",
                       "flat_amount": 9}}, {{"up_to": "inf", "unit_amount_decimal": "0.7"}}], {sum}"#
                ),
            ),
            ("peak", format!(r#""unit_amount_decimal": "12.25", {max}"#)),
        ] {
            sql +=
                &format!(r#"SELECT billing.create_price('{{"currency": "usd", {price}}}', id => '{interval} {id}');"#);
        }
    }
    sql += &format!("SELECT billing.create_customer('c' || n) FROM generate_series(1, {customers}) n;");
    sql += &reductions(customers);
    client.batch_execute(&sql).unwrap();

    let mut dice = Dice::new(seed);
    for n in 1..=subscriptions {
        create(&mut client, &mut dice, n, customers);
    }
    client
        .batch_execute(
            "UPDATE billing.subscriptions SET default_tax_rates = CASE hashtext(id) & 3 WHEN 0 THEN '{within}'::text[]
                 WHEN 1 THEN '{state,city}' END",
        )
        .unwrap();
    let events = "SELECT billing.record_meter_event(m, 'c' || (1 + abs(hashint4extended(n, $1)) % $2),
                      (abs(hashint4extended(n, $1 + 1)) % 400 - 50)::numeric / 10, n::text,
                      timestamptz '2024-01-01' + abs(hashint4extended(n, $1 + 2)) % 5184000 * interval '1 second')
                  FROM generate_series(1, $3::bigint::int) n, unnest(ARRAY['sum', 'max']) m";
    client
        .query(
            events,
            &[&(seed as i64), &(customers as i64), &((customers * 10) as i64)],
        )
        .unwrap();
    database
}

/// Of every two customers one has a discount, of every three one credit that is not enough, in several grants.
fn reductions(customers: usize) -> String {
    format!(
        r#"SELECT billing.create_coupon(jsonb_build_object('duration', duration) || terms, id) FROM (VALUES
               ('eighth', 'forever', '{{"percent_off": 12.5}}'::jsonb), ('first half', 'once', '{{"percent_off": 50}}'),
               ('some', 'repeating', '{{"amount_off": 77, "currency": "usd", "duration_in_months": 1}}')) c (id, duration, terms);
           SELECT billing.set_discounts('customer', 'c' || n, CASE n % 4 WHEN 0 THEN '[{{"coupon": "first half"}}, {{"coupon": "some"}}]'
                                        ELSE '[{{"coupon": "some"}}, {{"coupon": "eighth"}}, {{"coupon": "first half"}}]' END::jsonb, '2023-12-31')
           FROM generate_series(2, {customers}, 2) n;
           SELECT billing.create_tax_rate(jsonb_build_object('display_name', id, 'percentage', percentage, 'inclusive', id = 'within'), id)
           FROM (VALUES ('within', 19), ('state', 4.3125), ('city', 2.5)) r (id, percentage);
           SELECT billing.create_credit_grant(jsonb_strip_nulls(jsonb_build_object('customer', 'c' || n, 'category', category, 'expires_at', expires_at,
                      'amount', jsonb_build_object('type', 'monetary', 'monetary', jsonb_build_object('currency', 'usd', 'value', 90 + n)),
                      'applicability_config', '{{"scope": {{"price_type": "metered"}}}}'::jsonb)), id || n, '2023-12-31')
           FROM generate_series(3, {customers}, 3) n,
                (VALUES ('gift ', 'promotional', '2024-02-03T04:05:06Z'), ('bought ', 'paid', NULL)) g (id, category, expires_at);"#
    )
}

fn create(client: &mut Client, dice: &mut Dice, n: usize, customers: usize) {
    let interval = ["month", "month", "week", "day"][dice.below(4)];
    let quantity = 1 + dice.below(9);
    let mut items = Vec::new();
    let licensed = !dice.one_in(4);
    if licensed {
        items.push(format!(r#"{{"price": "{interval} seat", "quantity": {quantity}}}"#));
    }
    for metered in ["graduated", "peak"] {
        if !licensed || dice.one_in(2) {
            items.push(format!(r#"{{"price": "{interval} {metered}"}}"#));
        }
    }
    let (day, minute) = (1 + dice.below(31), dice.below(1440));
    let start = format!("2024-01-{day:02} {:02}:{:02}", minute / 60, minute % 60);
    let mut fields = String::new();
    if dice.one_in(5) {
        fields += &format!(r#", "trial_period_days": {}"#, 1 + dice.below(20));
    }
    if dice.one_in(4) {
        fields += &format!(
            r#", "billing_cycle_anchor": "2024-02-{:02}T10:00:00Z""#,
            1 + dice.below(28)
        );
    }
    if dice.one_in(6) {
        fields += &format!(r#", "cancel_at": "2024-02-{:02}T08:30:00Z""#, 1 + dice.below(28));
    } else if dice.one_in(8) {
        fields += r#", "cancel_at_period_end": true"#;
    }
    if dice.one_in(4) {
        fields += r#", "collection_method": "send_invoice", "days_until_due": 14"#;
    }
    if dice.one_in(5) {
        fields += r#", "proration_behavior": "none""#;
    }
    let definition = format!(
        r#"{{"customer": "c{}", "items": [{}]{fields}}}"#,
        1 + dice.below(customers),
        items.join(", ")
    );
    client
        .batch_execute(&format!(
            "SELECT billing.create_subscription('{definition}', 's{n:04}', '{start}')"
        ))
        .unwrap();
    // Seats given back within the first hour make credit, which later invoices use up.
    if licensed && dice.one_in(3) {
        client
            .batch_execute(&format!(
                "SELECT billing.update_subscription(subscription, jsonb_build_object('items', jsonb_build_array(
                     jsonb_build_object('id', id, 'quantity', 0))), timestamptz '{start}' + interval '1 hour')
                 FROM billing.subscription_items WHERE subscription = 's{n:04}' AND quantity IS NOT NULL"
            ))
            .unwrap();
    }
}

fn generate(client: &mut Client, as_of: &str) -> i64 {
    number(client, &format!("SELECT billing.generate_invoices('{as_of}')"))
}

/// All that billing has made, without the ids it made up; lines in their order.
fn books(client: &mut Client) -> Vec<String> {
    client
        .query(
            "SELECT concat_ws(' | ', i.number, i.subscription, i.status, i.billing_reason, i.created, i.finalized_at, i.period_start,
                        i.period_end, i.total, i.starting_balance, i.ending_balance, i.amount_due, i.paid_at, i.due_date, i.line_count,
                        (SELECT string_agg(concat_ws(' ', l.price, l.description, l.quantity, l.amount, l.period_start, l.period_end,
                                                     l.proration, l.kind, l.discount_amount, l.credit_amounts, l.taxes), '; ' ORDER BY l.id)
                         FROM billing.invoice_lines l WHERE l.invoice = i.id))
             FROM billing.invoices i
             UNION ALL
             SELECT concat_ws(' | ', 'subscription', s.id, s.status, s.current_period_start, s.current_period_end, s.canceled_at, s.ended_at,
                              s.next_invoice_at)
             FROM billing.subscriptions s
             UNION ALL
             SELECT concat_ws(' | ', 'balance', t.customer, t.amount, t.type, i.number, t.created)
             FROM billing.customer_balance_transactions t JOIN billing.invoices i ON i.id = t.invoice
             UNION ALL
             SELECT concat_ws(' | ', 'credit', t.credit_grant, t.reason, t.amount, i.number, t.effective_at)
             FROM billing.credit_balance_transactions t LEFT JOIN billing.invoices i ON i.id = t.invoice
             ORDER BY 1",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

fn assert_same_books(what: &str, left: &[String], right: &[String]) {
    assert_same(&format!("{what}: invoices"), left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        assert!(left == right, "{what}:\n{left}\n{right}");
    }
}

/// No period that was invoiced bills anything but what its usage costs, however often it was re-rated. Only where the subscription
/// still runs, as a late event after its end has no next invoice, and where nothing was waived by voiding.
fn assert_usage_billed_exactly(client: &mut Client, before: &str) {
    let wrong = "SELECT string_agg(concat_ws(' ', b.subscription_item, b.period_start, b.billed, b.cost), '; ') FROM (
            SELECT l.subscription_item, l.period_start, sum(l.amount) AS billed,
                   billing.price_line_amount(p.price, greatest(0, coalesce(
                       billing.usage_quantity(p.meter, i.customer, l.period_start, l.period_end), 0))) AS cost
            FROM billing.invoice_lines l
            JOIN billing.invoices i ON i.id = l.invoice
            JOIN billing.subscriptions s ON s.id = i.subscription AND s.status <> 'canceled'
            JOIN billing.prices p ON p.id = l.price
            WHERE l.kind IN ('usage', 'late_usage') AND l.period_end <= $1::text::timestamptz
            GROUP BY l.subscription_item, l.period_start, l.period_end, p.price, p.meter, i.customer
            HAVING NOT bool_or(i.status = 'void')) b
         WHERE b.billed <> b.cost";
    let wrong: Option<String> = client.query_one(wrong, &[&before]).unwrap().get(0);
    assert_eq!(wrong, None);
}

#[test]
fn a_late_run_equals_runs_on_time() {
    for seed in [2, 20_240_229] {
        let late = market(quiet_cluster(), seed, 40);
        let mut late = connect(&late);
        let made = generate(&mut late, "2024-03-01 12:00");
        let expected = books(&mut late);
        assert!(made > 100, "{made}");
        assert!(
            expected.iter().any(|row| row.starts_with("balance")),
            "seed {seed} has no balances"
        );
        for reason in ["credits_applied", "credits_expired"] {
            assert!(
                expected.iter().any(|row| row.contains(reason)),
                "seed {seed}: no {reason}"
            );
        }
        assert_books_balance(&mut late);
        assert_usage_billed_exactly(&mut late, "2024-03-01 12:00");
        assert_eq!(generate(&mut late, "2024-03-01 12:00"), 0);
        // An earlier as_of is no time machine.
        assert_eq!(generate(&mut late, "2024-02-01"), 0);
        assert_same_books("run again", &books(&mut late), &expected);

        let on_time = market(quiet_cluster(), seed, 40);
        let mut on_time = connect(&on_time);
        let runs = "SELECT sum(billing.generate_invoices(t))::bigint FROM generate_series(
                        timestamptz '2024-01-01', '2024-03-01 12:00', '1 day') t";
        let made_on_time = number(&mut on_time, runs) + generate(&mut on_time, "2024-03-01 12:00");
        assert_eq!(made_on_time, made, "seed {seed}");
        assert_same_books(&format!("seed {seed} on time"), &books(&mut on_time), &expected);

        // Each step in a transaction of its own, at any minute, in a session whose days are not UTC's.
        let steps = market(quiet_cluster(), seed, 40);
        let mut steps = connect(&steps);
        steps.batch_execute("SET timezone = 'America/New_York'").unwrap();
        let mut dice = Dice::new(seed);
        let mut minutes: Vec<usize> = (0..12).map(|_| dice.below(60 * 1440)).collect();
        minutes.sort_unstable();
        let mut made_in_steps = 0;
        for minute in minutes {
            let run = format!(
                "SELECT billing.generate_invoices(timestamptz '2024-01-01T00:00Z' + interval '{minute} minutes')"
            );
            made_in_steps += number(&mut steps, &run);
            assert_books_balance(&mut steps);
        }
        made_in_steps += generate(&mut steps, "2024-03-01T12:00Z");
        assert_eq!(made_in_steps, made, "seed {seed}");
        steps.batch_execute("SET timezone = 'UTC'").unwrap();
        assert_same_books(&format!("seed {seed} in steps"), &books(&mut steps), &expected);
    }
}

/// Which invoice has a coupon for once, credit or a balance goes by the order in which they become final.
#[test]
fn batches_of_one_session_equal_one_transaction() {
    let runs = ["2024-01-20 03:00", "2024-02-29 23:30", "2024-03-01 12:00"];
    for seed in [3, 20_240_301] {
        let whole = market(quiet_cluster(), seed, 40);
        let mut whole = connect(&whole);
        for as_of in runs {
            generate(&mut whole, as_of);
        }
        let expected = books(&mut whole);
        for batch in [1, 7, 1000] {
            let parts = market(quiet_cluster(), seed, 40);
            let mut parts = connect(&parts);
            for as_of in runs {
                parts
                    .batch_execute(&format!("CALL billing.run_billing('{as_of}', {batch})"))
                    .unwrap();
            }
            assert_same_books(
                &format!("seed {seed} in batches of {batch}"),
                &books(&mut parts),
                &expected,
            );
            let progress = "SELECT concat_ws(' ', bool_and(state = 'finished' AND done = total), sum(made) > 100, sum(finalized) > 100)
                            FROM billing.billing_progress";
            assert_eq!(text(&mut parts, progress), "t t t", "seed {seed}, batches of {batch}");
        }
    }
}

/// Runs it until no other session is in its way; how many invoices it made.
fn generate_with_retries(client: &mut Client, isolation: &str, as_of: &str) -> i64 {
    loop {
        client
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))
            .unwrap();
        let sql = format!("SELECT billing.generate_invoices('{as_of}')");
        let run = client.query_one(&sql, &[]).map(|row| row.get::<_, i64>(0));
        match run.and_then(|made| client.batch_execute("COMMIT").map(|()| made)) {
            Ok(made) => return made,
            Err(error) => {
                assert_eq!(
                    error.code(),
                    Some(&SqlState::T_R_SERIALIZATION_FAILURE),
                    "{isolation}: {error}"
                );
                assert_ne!(isolation, "READ COMMITTED", "{error}");
                client.batch_execute("ROLLBACK").unwrap();
            }
        }
    }
}

#[test]
fn sessions_at_once_equal_one() {
    const SUBSCRIPTIONS: usize = 60;
    let alone = market(quiet_cluster(), 7, SUBSCRIPTIONS);
    let mut alone = connect(&alone);
    let made = generate(&mut alone, "2024-03-01 12:00");
    let expected = books(&mut alone);
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let database = market(quiet_cluster(), 7, SUBSCRIPTIONS);
        let barrier = Barrier::new(3);
        let made_at_once: i64 = std::thread::scope(|scope| {
            let sessions: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = connect(&database);
                        let mut made = 0;
                        for as_of in ["2024-02-01", "2024-02-10", "2024-03-01 12:00"] {
                            barrier.wait();
                            made += generate_with_retries(&mut client, isolation, as_of);
                        }
                        made
                    })
                })
                .collect();
            sessions.into_iter().map(|session| session.join().unwrap()).sum()
        });
        assert_eq!(made_at_once, made, "{isolation}");
        assert_same_books(isolation, &books(&mut connect(&database)), &expected);
    }
}

#[test]
fn a_rolled_back_finalization_leaves_no_gap() {
    let database = Database::with_extension(quiet_cluster()).unwrap();
    let mut first = connect(&database);
    let mut second = connect(&database);
    let mut watcher = connect(&database);
    shop(&mut watcher);
    watcher
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}],
                   "collection_method": "send_invoice", "days_until_due": 30}', as_of => '2024-01-01')
               FROM generate_series(1, 2)"#,
        )
        .unwrap();
    let drafts: Vec<String> = watcher
        .query("SELECT id FROM billing.invoices WHERE status = 'draft'", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let finalize = "SELECT billing.finalize_invoice($1, '2024-03-01')";
    first.batch_execute("BEGIN").unwrap();
    first.query(finalize, &[&drafts[0]]).unwrap();
    let holder = backend(&mut first);
    let waiting = backend(&mut second);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| second.query(finalize, &[&drafts[1]]).unwrap());
        await_blocked(&mut watcher, waiting, holder);
        first.batch_execute("ROLLBACK").unwrap();
        other.join().unwrap();
    });
    assert_eq!(
        text(&mut watcher, "SELECT max(number) FROM billing.invoices"),
        "INV-000001"
    );
    // A savepoint rolled back is no gap either.
    first.batch_execute("BEGIN; SAVEPOINT s").unwrap();
    first.query(finalize, &[&drafts[0]]).unwrap();
    first.batch_execute("ROLLBACK TO s").unwrap();
    first.query(finalize, &[&drafts[0]]).unwrap();
    first.batch_execute("COMMIT").unwrap();
    assert_eq!(
        text(&mut watcher, "SELECT max(number) FROM billing.invoices"),
        "INV-000002"
    );
    assert_books_balance(&mut watcher);
}

/// Autovacuum that comes by in the middle would note that the pages of thousands of invoices hold none, and plans made by
/// that, of the run itself and after it, take minutes where a second is enough.
#[test]
fn whoever_analyzes_in_the_middle_of_a_large_run_leaves_its_statistics() {
    let database = Database::with_extension(quiet_cluster()).unwrap();
    let (mut run, mut other) = (connect(&database), connect(&database));
    shop(&mut other);
    other
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "call"}]}', as_of => '2024-01-01')
               FROM generate_series(1, 1500)"#,
        )
        .unwrap();
    run.batch_execute("BEGIN").unwrap();
    assert_eq!(generate(&mut run, "2024-02-01"), 1500);
    other
        .batch_execute("ANALYZE (SKIP_LOCKED) billing.invoices, billing.invoice_lines")
        .unwrap();
    run.batch_execute("COMMIT").unwrap();
    let known = "SELECT string_agg(format('%s: %s', relname, reltuples), ', ' ORDER BY relname) FROM pg_class
                 WHERE oid IN ('billing.invoices'::regclass, 'billing.invoice_lines'::regclass)";
    assert_eq!(text(&mut other, known), "invoice_lines: 1500, invoices: 1500");
}

/// Two drafts of one subscription: neither session may miss the late usage that the other has just billed.
#[test]
fn drafts_finalized_at_once_bill_late_usage_once() {
    let database = Database::with_extension(quiet_cluster()).unwrap();
    let (mut first, mut second, mut watcher) = (connect(&database), connect(&database), connect(&database));
    shop(&mut watcher);
    watcher
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "package"}]}', 'sub', '2024-01-01');
               SELECT billing.generate_invoices('2024-02-01 01:00');
               SET billing.finalization_delay = '90d';
               SELECT billing.generate_invoices('2024-04-01');
               SELECT billing.record_meter_event('calls', 'acme', 4, 'late', '2024-01-10')"#,
        )
        .unwrap();
    let drafts: Vec<String> = watcher
        .query(
            "SELECT id FROM billing.invoices WHERE status = 'draft' ORDER BY created",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(drafts.len(), 2);
    let finalize = "SELECT billing.finalize_invoice($1, '2024-04-02')";
    first.batch_execute("BEGIN").unwrap();
    first.query(finalize, &[&drafts[1]]).unwrap();
    let (holder, waiting) = (backend(&mut first), backend(&mut second));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| second.query(finalize, &[&drafts[0]]).unwrap());
        await_blocked(&mut watcher, waiting, holder);
        first.batch_execute("COMMIT").unwrap();
        other.join().unwrap();
    });
    // One package of 40.
    let late = "SELECT string_agg(amount::text, ' ') FROM billing.invoice_lines WHERE kind = 'late_usage'";
    assert_eq!(text(&mut watcher, late), "40");
    assert_books_balance(&mut watcher);
}

/// The draft in place of a void invoice has the late usage of its period, which a run of an older snapshot would find once more, and
/// the one that is finalized first would take from the other.
#[test]
fn a_run_that_does_not_see_an_invoice_made_anew_is_refused() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = Database::with_extension(quiet_cluster()).unwrap();
        let (mut client, mut run) = (connect(&database), connect(&database));
        shop(&mut client);
        client
            .batch_execute(
                r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "package"}]}', 'sub', '2024-01-01');
                   SELECT billing.record_meter_event('calls', 'acme', 4, 'a', '2024-01-10');
                   SELECT billing.generate_invoices('2024-02-01 01:00');
                   SELECT billing.record_meter_event('calls', 'acme', 40, 'late', '2024-01-11'), billing.roll_up()"#,
            )
            .unwrap();
        run.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL {isolation}; SELECT FROM billing.invoices"
        ))
        .unwrap();
        client
            .batch_execute("SELECT billing.regenerate_invoice(id, '2024-02-10') FROM billing.invoices")
            .unwrap();
        let error = run
            .query("SELECT billing.generate_invoices('2024-03-01')", &[])
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error}");
        run.batch_execute(
            "ROLLBACK; SELECT billing.generate_invoices('2024-03-01'), billing.generate_invoices('2024-03-02')",
        )
        .unwrap();
        let billed = "SELECT sum(l.amount) - billing.price_line_amount(p.price, 44)
                      FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice JOIN billing.prices p ON p.id = l.price
                      WHERE i.status <> 'void' GROUP BY p.id";
        assert_eq!(
            text(&mut client, &format!("SELECT ({billed})::text")),
            "0",
            "{isolation}"
        );
        assert_books_balance(&mut client);
    }
}

/// What a session does next.
type Act<'a> = Box<dyn Fn(&mut Dice) -> String + Send + Sync + 'a>;

/// Everything that changes billing, at once: nothing deadlocks, and the books are right at the end.
#[test]
fn a_storm_of_sessions_leaves_the_books_right() {
    const RUN: Duration = Duration::from_secs(4);
    let database = market(quiet_cluster(), 11, 30);
    let started = Instant::now();
    let storm = |client: &mut Client, seed: u64, act: &dyn Fn(&mut Dice) -> String| {
        let mut dice = Dice::new(seed);
        let mut done = 0;
        while started.elapsed() < RUN {
            let sql = act(&mut dice);
            match client.batch_execute(&sql) {
                Ok(()) => done += 1,
                // Too late, or not in that state (any more).
                Err(error) => assert!(
                    [
                        Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
                        Some(&SqlState::INVALID_PARAMETER_VALUE),
                    ]
                    .contains(&error.code()),
                    "{sql}: {error:?}"
                ),
            }
        }
        assert!(done > 0);
    };
    let now = "(SELECT max(current_period_start) FROM billing.subscriptions)";
    let any_invoice = |dice: &mut Dice, status: &str| {
        format!(
            "(SELECT id FROM billing.invoices WHERE status = '{status}' ORDER BY hashtext(id || '{}') LIMIT 1)",
            dice.below(1000)
        )
    };
    let acts: [Act; 4] = [
        Box::new(|_| {
            let day = started.elapsed().as_millis() * 70 / RUN.as_millis();
            format!("SELECT billing.generate_invoices(timestamptz '2024-01-01' + interval '{day} days')")
        }),
        Box::new(|dice| {
            let (customer, value, second, identifier) = (
                1 + dice.below(16),
                dice.below(100),
                dice.below(5_184_000),
                dice.below(400),
            );
            let meter = ["sum", "max"][dice.below(2)];
            if dice.one_in(4) {
                format!("SELECT billing.cancel_meter_event('{meter}', 'c{customer}', '{identifier}')")
            } else {
                format!(
                    "SELECT billing.record_meter_event('{meter}', 'c{customer}', {value}, 'x{identifier}',
                         timestamptz '2024-01-01' + interval '{second} seconds')"
                )
            }
        }),
        Box::new(move |dice| {
            let subscription = 1 + dice.below(30);
            if dice.one_in(40) {
                return format!(
                    "SELECT billing.cancel_subscription('s{subscription:04}', {}, {now})",
                    dice.one_in(2)
                );
            }
            format!("SELECT billing.update_subscription(subscription, jsonb_build_object('items', jsonb_build_array(
                         jsonb_build_object('id', id, 'quantity', {}))), {now})
                     FROM billing.subscription_items WHERE subscription = 's{subscription:04}' AND quantity IS NOT NULL", dice.below(5))
        }),
        Box::new(move |dice| {
            let (function, status) = [
                ("finalize_invoice", "draft"),
                ("finalize_invoice", "draft"),
                ("void_invoice", "open"),
                ("mark_invoice_paid", "open"),
                ("mark_invoice_uncollectible", "open"),
                ("mark_invoice_paid", "uncollectible"),
            ][dice.below(6)];
            let invoice = any_invoice(dice, status);
            format!("SELECT billing.{function}(i, '2024-04-01') FROM (SELECT {invoice}) x (i) WHERE i IS NOT NULL")
        }),
    ];
    std::thread::scope(|scope| {
        for (seed, act) in acts.iter().enumerate() {
            let database = &database;
            let storm = &storm;
            scope.spawn(move || storm(&mut connect(database), seed as u64, act));
        }
    });
    let mut client = connect(&database);
    assert_books_balance(&mut client);
    // Two more periods: late usage of the storm is on their invoices.
    generate(&mut client, "2024-04-20");
    generate(&mut client, "2024-06-20");
    assert_books_balance(&mut client);
    assert_usage_billed_exactly(&mut client, "2024-04-20");
}

/// The backend dies when all drafts are made and rated and the first number is to be given.
#[test]
fn a_crash_in_the_middle_loses_and_doubles_nothing() {
    let cluster = cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap();
    let database = market(&cluster, 5, 100);
    let mut client = connect(&database);
    generate(&mut client, "2024-01-20");
    let before = books(&mut client);

    let mut holder = connect(&database);
    holder
        .batch_execute("BEGIN; SELECT FROM billing.invoice_numbers FOR UPDATE")
        .unwrap();
    let mut victim = connect(&database);
    let (victim_backend, holder_backend) = (backend(&mut victim), backend(&mut holder));
    std::thread::scope(|scope| {
        let run = scope.spawn(move || victim.query("SELECT billing.generate_invoices('2024-03-01 12:00')", &[]));
        await_blocked(&mut client, victim_backend, holder_backend);
        cluster.crash(victim_backend).unwrap();
        assert!(run.join().unwrap().is_err());
    });

    let mut client = connect(&database);
    assert_same_books("after the crash", &books(&mut client), &before);
    generate(&mut client, "2024-03-01 12:00");
    assert_books_balance(&mut client);

    let alone = market(&cluster, 5, 100);
    let mut alone = connect(&alone);
    generate(&mut alone, "2024-03-01 12:00");
    assert_same_books("run again", &books(&mut client), &books(&mut alone));
}
