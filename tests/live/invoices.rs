//! Stories of billing (`goldens/*.txt`: what happened when, and the invoices expected, worked out by hand), previews that
//! equal the invoices made after them, and what billing refuses.

use std::path::Path;

use harness::Database;
use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};

use crate::recording::{assert_refused, number, refusal, text};

/// `TABLE bill` and `TABLE adjusted`, as `goldens/prelude.txt` describes it. Cells are joined by " | ", as in the stories.
const BILL: &str = "
    CREATE FUNCTION pg_temp.moment(at timestamptz) RETURNS text LANGUAGE sql AS $$
        SELECT regexp_replace(regexp_replace(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
                                             '(:00)?\\.000000$', ''), ' 00:00$', '') $$;
    CREATE TEMP VIEW bill AS
    SELECT row FROM (
        SELECT i.number, i.created, i.subscription, i.id AS invoice, '' AS line,
               concat_ws(' | ', coalesce(i.number, 'draft'), i.subscription, i.status, pg_temp.moment(i.created),
                         'final ' || pg_temp.moment(i.finalized_at), 'total ' || i.total, 'due ' || i.amount_due) AS row
        FROM billing.invoices i
        UNION ALL
        SELECT i.number, i.created, i.subscription, i.id, l.id,
               concat_ws(' | ', '- ' || concat_ws(' | ', l.price, trim_scale(l.quantity)), l.amount, pg_temp.moment(l.period_start),
                         pg_temp.moment(l.period_end),
                         CASE WHEN l.kind = 'usage' THEN 'usage' WHEN l.kind = 'late_usage' THEN 'late' WHEN l.kind = 'item' THEN 'item'
                              WHEN l.description LIKE 'Free trial: %' THEN 'trial'
                              WHEN l.description LIKE 'Unused time: %' THEN 'unused'
                              WHEN l.description LIKE 'Remaining time: %' THEN 'remaining'
                              WHEN l.proration THEN 'prorated' ELSE 'advance' END)
        FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
    ) r ORDER BY number NULLS LAST, created, subscription, invoice, line;

    CREATE TEMP VIEW adjusted AS
    SELECT row FROM (
        SELECT i.number, i.created, i.subscription, i.id AS invoice, '' AS line,
               concat_ws(' | ', coalesce(i.number, 'draft'), i.subscription, i.subtotal, 'discounts ' || i.total_discount_amount,
                         'credit ' || i.total_credit_amount, 'tax ' || i.total_tax_amount, 'total ' || i.total) AS row
        FROM billing.invoices i
        UNION ALL
        SELECT i.number, i.created, i.subscription, i.id, l.id,
               concat_ws(' | ', '- ' || l.price, l.amount,
                   (SELECT string_agg(x.coupon || ' ' || (a.value ->> 'amount'), ', ' ORDER BY a.place)
                    FROM jsonb_array_elements(l.discount_amounts) WITH ORDINALITY a (value, place)
                    JOIN billing.discounts x ON x.id = a.value ->> 'discount'),
                   (SELECT string_agg((a.value ->> 'credit_grant') || ' ' || (a.value ->> 'amount'), ', ' ORDER BY a.place)
                    FROM jsonb_array_elements(l.credit_amounts) WITH ORDINALITY a (value, place)),
                   (SELECT string_agg(concat_ws(' ', a.value ->> 'tax_rate', a.value ->> 'amount', 'of', a.value ->> 'taxable_amount'),
                                      ', ' ORDER BY a.place)
                    FROM jsonb_array_elements(l.taxes) WITH ORDINALITY a (value, place)))
        FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
    ) r ORDER BY number NULLS LAST, created, subscription, invoice, line";

/// A step of a story: a statement, and what must come of it.
struct Step {
    line: usize,
    sql: String,
    rows: Vec<String>,
    refusal: Option<String>,
}

/// Comments are lines of `#`; a statement ends with the line that ends with `;`.
fn steps(story: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open = false;
    for (index, line) in story.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if let Some(row) = trimmed.strip_prefix("| ").filter(|_| !open) {
            steps.last_mut().unwrap().rows.push(cells(row));
        } else if let Some(refusal) = trimmed.strip_prefix("! ").filter(|_| !open) {
            steps.last_mut().unwrap().refusal = Some(refusal.to_owned());
        } else {
            if !open {
                steps.push(Step {
                    line: index + 1,
                    sql: String::new(),
                    rows: Vec::new(),
                    refusal: None,
                });
            }
            let step = steps.last_mut().unwrap();
            step.sql.push_str(line);
            step.sql.push('\n');
            open = !trimmed.ends_with(';');
        }
    }
    assert!(!open, "a story ends in the middle of a statement");
    steps
}

fn cells(row: &str) -> String {
    row.split('|').map(str::trim).collect::<Vec<_>>().join(" | ")
}

fn rows(client: &mut Client, sql: &str) -> Result<Vec<String>, postgres::Error> {
    let rows = client
        .simple_query(sql)?
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL"));
                Some(cells.collect::<Vec<_>>().join(" | "))
            }
            _ => None,
        });
    Ok(rows.collect())
}

fn play(client: &mut Client, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("live/goldens").join(name);
    let story = std::fs::read_to_string(&path).unwrap();
    for step in steps(&story) {
        let place = format!("{name}:{}: {}", step.line, step.sql.trim_end());
        match (rows(client, &step.sql), step.refusal) {
            (Ok(found), None) => {
                let found: Vec<String> = found.iter().map(|row| cells(row)).collect();
                assert!(
                    step.rows.is_empty() || found == step.rows,
                    "{place}\nexpected:\n  {}\nfound:\n  {}",
                    step.rows.join("\n  "),
                    found.join("\n  ")
                );
            }
            (Ok(found), Some(_)) => panic!("{place}\nnot refused, but {found:?}"),
            (Err(error), None) => panic!("{place}\n{:?}", error.as_db_error()),
            (Err(error), Some(refusal)) => {
                let error = error.as_db_error().unwrap();
                let mut words = refusal.split_whitespace();
                assert_eq!(Some(error.code().code()), words.next(), "{place}\n{error}");
                for word in words {
                    assert!(error.message().contains(word), "{place}\n{error}, without {word}");
                }
            }
        }
    }
}

/// What holds of every set of invoices, whatever happened.
pub fn assert_books_balance(client: &mut Client) {
    let wrong = "SELECT count(*) FROM billing.invoices i
         CROSS JOIN LATERAL (SELECT count(*) AS count, coalesce(sum(l.amount), 0) AS sum
                             FROM billing.invoice_lines l WHERE l.invoice = i.id) l
         WHERE i.finalization_error IS NULL
           AND (l.sum <> i.subtotal OR l.count <> i.line_count OR l.count = 0 OR i.total <> i.subtotal
                    - i.total_discount_amount - i.total_credit_amount + i.total_exclusive_tax_amount)";
    assert_eq!(number(client, wrong), 0, "lines that are not their invoice's total");
    let numbers = "SELECT count(*) FROM (
             SELECT split_part(number, '-', 1) AS prefix, array_agg(split_part(number, '-', 2)::bigint ORDER BY number) AS given
             FROM billing.invoices WHERE number IS NOT NULL GROUP BY 1) n
         WHERE given <> ARRAY(SELECT generate_series(1, cardinality(given))::bigint)";
    assert_eq!(number(client, numbers), 0, "numbers with gaps, or twice");
    let unordered =
        "SELECT count(*) FROM billing.invoices WHERE status <> 'draft' AND number IS NULL OR amount_due < 0";
    assert_eq!(number(client, unordered), 0);
    let balance = "SELECT count(*) FROM (
             SELECT customer, currency, sum(amount), bool_or(type IN ('adjustment', 'invoice_too_small')) AS owes
             FROM billing.customer_balance_transactions GROUP BY 1, 2) b
         WHERE b.sum > 0 AND NOT b.owes OR b.sum <> billing.customer_balance(b.customer, b.currency)";
    assert_eq!(
        number(client, balance),
        0,
        "a balance that is no sum, or above zero without reason"
    );
    let applied = "SELECT count(*) FROM billing.invoices i
         WHERE i.status <> 'draft' AND i.ending_balance - i.starting_balance <> (
             SELECT coalesce(sum(t.amount), 0) FROM billing.customer_balance_transactions t
             WHERE t.invoice = i.id AND t.type IN ('applied_to_invoice', 'invoice_too_small', 'invoice_too_large'))";
    assert_eq!(
        number(client, applied),
        0,
        "an invoice that changed the balance by something else"
    );
    let credited = "SELECT count(*) FROM billing.invoices i
         CROSS JOIN LATERAL (SELECT coalesce(sum(n.amount), 0) AS amount, coalesce(sum(n.refund_amount), 0) AS refund
                             FROM billing.credit_notes n WHERE n.invoice = i.id AND n.status = 'issued') n
         WHERE n.amount <> i.pre_payment_credit_notes_amount + i.post_payment_credit_notes_amount
            OR n.amount > greatest(i.total, 0) OR n.refund > i.amount_paid";
    assert_eq!(
        number(client, credited),
        0,
        "an invoice that its credit notes do not account for"
    );
    let items = "SELECT count(*) FROM billing.invoice_items x FULL JOIN (
             SELECT l.invoice_item, l.invoice, l.amount FROM billing.invoice_lines l
             JOIN billing.invoices i ON i.id = l.invoice
             WHERE l.invoice_item IS NOT NULL AND i.regenerated_as IS NULL) l ON l.invoice_item = x.id
         WHERE (x.invoice, x.amount) IS DISTINCT FROM (l.invoice, l.amount) AND NOT (x.invoice IS NULL AND l.invoice IS NULL)";
    assert_eq!(
        number(client, items),
        0,
        "an invoice item on another invoice, or on several"
    );
    let twice = "SELECT count(*) FROM (
             SELECT FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
             WHERE l.kind = 'usage' AND i.regenerated_as IS NULL AND i.billing_reason <> 'subscription_threshold'
             GROUP BY l.subscription_item, l.period_start HAVING count(*) > 1) d";
    assert_eq!(number(client, twice), 0, "a period invoiced twice");
}

/// Discounts, credit and tax: of lines by what they consist of, of invoices by lines, of the ledger by lines, of grants by the ledger.
fn assert_adjustments_add_up(client: &mut Client) {
    let parts = "SELECT count(*) FROM billing.invoice_lines l
         CROSS JOIN LATERAL (SELECT coalesce(sum((a ->> 'amount')::bigint), 0) AS sum
                             FROM jsonb_array_elements(l.discount_amounts) a) d
         CROSS JOIN LATERAL (SELECT coalesce(sum((a ->> 'amount')::bigint), 0) AS sum
                             FROM jsonb_array_elements(l.credit_amounts) a) c
         CROSS JOIN LATERAL (SELECT coalesce(sum((a ->> 'amount')::bigint), 0) AS sum FROM jsonb_array_elements(l.taxes) a) t
         WHERE (d.sum, c.sum, t.sum) <> (l.discount_amount, l.credit_amount, l.tax_amount)
            OR l.discount_amount + l.credit_amount NOT BETWEEN least(l.amount, 0) AND greatest(l.amount, 0)";
    assert_eq!(number(client, parts), 0, "parts that are not their line's");
    let totals = "SELECT count(*) FROM billing.invoices i
         CROSS JOIN LATERAL (
             SELECT sum(l.discount_amount) AS discount, sum(l.credit_amount) AS credit, sum(l.tax_amount) AS tax,
                    sum((SELECT coalesce(sum((a ->> 'amount')::bigint), 0) FROM jsonb_array_elements(l.taxes) a
                         WHERE a ->> 'tax_behavior' = 'exclusive')) AS on_top
             FROM billing.invoice_lines l WHERE l.invoice = i.id) l
         WHERE i.finalization_error IS NULL
           AND ((l.discount, l.credit, l.tax, l.on_top) IS DISTINCT FROM
                (i.total_discount_amount, i.total_credit_amount, i.total_tax_amount, i.total_exclusive_tax_amount)
                OR i.total <> i.subtotal - l.discount - l.credit + l.on_top)";
    assert_eq!(
        number(client, totals),
        0,
        "lines whose adjustments are not their invoice's"
    );
    let used = "SELECT count(*) FROM (
             SELECT l.id, a ->> 'credit_grant' AS credit_grant, (a ->> 'amount')::bigint AS amount
             FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice AND i.status <> 'draft'
             CROSS JOIN LATERAL jsonb_array_elements(l.credit_amounts) a) l
         FULL JOIN (
             SELECT invoice_line, credit_grant, CASE type WHEN 'debit' THEN amount ELSE -amount END AS amount
             FROM billing.credit_balance_transactions WHERE reason IN ('credits_applied', 'credits_usage_corrected')) t
             ON (t.invoice_line, t.credit_grant) = (l.id, l.credit_grant)
         WHERE t.amount IS DISTINCT FROM l.amount";
    assert_eq!(number(client, used), 0, "credit on lines that is not in the ledger");
    let beyond = "SELECT count(*) FROM (
             SELECT sum((a ->> 'amount')::bigint) AS sum FROM billing.invoice_lines l
             JOIN billing.invoices i ON i.id = l.invoice AND i.status <> 'void'
             CROSS JOIN LATERAL jsonb_array_elements(coalesce(l.discount_amounts, '[]') || coalesce(l.credit_amounts, '[]')) a
             WHERE l.kind IN ('usage', 'late_usage') AND NOT EXISTS (
                 SELECT FROM billing.invoice_lines o JOIN billing.invoices v ON v.id = o.invoice AND v.status = 'void'
                 WHERE (o.subscription_item, o.price, o.period_start) = (l.subscription_item, l.price, l.period_start))
             GROUP BY l.subscription_item, l.price, l.period_start, a ->> 'discount', a ->> 'credit_grant') g
         WHERE g.sum < 0";
    assert_eq!(number(client, beyond), 0, "more given back than was taken off");
    let ledger = "SELECT count(*) FROM billing.credit_grants g
         CROSS JOIN LATERAL (
             SELECT sum(CASE type WHEN 'credit' THEN amount ELSE -amount END) AS sum, count(*) AS count, max(place) AS last
             FROM billing.credit_balance_transactions t WHERE t.credit_grant = g.id) t
         WHERE (t.sum, t.count, t.last) IS DISTINCT FROM (g.balance, g.transaction_count, g.transaction_count)";
    assert_eq!(number(client, ledger), 0, "grants that are not their ledger");
    let twice = "SELECT count(*) FROM (
             SELECT a ->> 'discount' FROM billing.invoices i
             JOIN billing.invoice_lines l ON l.invoice = i.id
             CROSS JOIN LATERAL jsonb_array_elements(l.discount_amounts) a
             JOIN billing.discounts x ON x.id = a ->> 'discount'
             JOIN billing.coupons c ON c.id = x.coupon AND c.duration = 'once' AND (a ->> 'amount')::bigint > 0
             WHERE i.status NOT IN ('draft', 'void') GROUP BY 1 HAVING count(DISTINCT i.id) > 1) d";
    assert_eq!(number(client, twice), 0, "a coupon for once on two invoices");
}

fn story(name: &str) {
    let database = Database::shared().unwrap();
    let mut client = database.connect().unwrap();
    client.batch_execute(BILL).unwrap();
    play(&mut client, "prelude.txt");
    play(&mut client, name);
    assert_books_balance(&mut client);
    assert_adjustments_add_up(&mut client);
}

macro_rules! stories {
    ($($name:ident)*) => {
        $(#[test] fn $name() { story(concat!(stringify!($name), ".txt")); })*

        /// Nobody reads a story that no test plays.
        #[test]
        fn every_story_is_played() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("live/goldens");
            let mut files: Vec<String> = std::fs::read_dir(folder).unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name != "prelude.txt")
                .collect();
            files.sort();
            let mut played = vec![$(concat!(stringify!($name), ".txt")),*];
            played.sort();
            assert_eq!(files, played);
        }
    };
}

stories! {
    adjusted_beyond_bigint
    always_invoice
    anchor_config
    anchor_now
    backdate
    bad_changes
    balance_by_hand
    beyond_bigint
    cancel
    cancel_at_the_boundary
    cancel_variants
    coupon_lists
    coupon_months
    coupon_once
    coupon_order
    coupon_remainders
    credit_corrections
    credit_expiry
    credit_notes
    credit_notes_and_late_usage
    credit_notes_corrected
    credit_notes_with_tax
    credit_order
    credit_repaid
    credit_shared
    credit_voided
    drafts_kept
    grace
    incomplete
    interval_change
    interval_removed
    intervals
    invoice_items
    items
    late_at_once
    late_usage
    late_usage_credited
    late_usage_discounted
    late_usage_ignored
    late_usage_models
    late_usage_volume
    leap_days
    licensed_and_metered
    matrix_pricing
    minimum_charge
    minimum_maximum
    minor_units
    mixed_intervals
    month_end
    numbers_per_customer
    one_off
    pause_collection
    pause_collection_waives
    paused
    preview_phases
    price_models
    price_swap
    price_swap_metered
    proration_before_final
    proration_date
    proration_discounts
    proration_in_parts
    proration_of_drafts
    proration_waiting
    quantity_change
    regenerate
    regenerate_before_change
    regenerate_expired_credit
    resubscribe
    schedule
    schedule_changes
    schedule_current_phase
    schedule_dates
    schedule_discounts
    send_invoice
    settle
    stub
    tax_exempt
    tax_inclusive_discounts
    tax_rates
    three_price_changes
    threshold_beyond_bigint
    threshold_given_back
    threshold_late_run
    threshold_late_usage
    threshold_reset
    threshold_tiers
    threshold_usage_gte
    time_zone
    trial
    trial_changes
    void_waives
}

/// Meter `calls`, customer `acme`, and prices `seat` (500, licensed), `call` (graduated, metered) and `package` (metered).
pub fn shop(client: &mut Client) {
    let recurring = r#""recurring": {"interval": "month", "usage_type": "metered", "meter": "calls"}"#;
    client
        .batch_execute(&format!(
            r#"SET timezone = 'UTC';
               SET billing.max_event_age = -1;
               SELECT billing.create_customer('acme');
               SELECT billing.create_meter('{{"display_name": "Calls", "event_name": "calls", "default_aggregation": {{"formula": "sum"}}}}');
               SELECT billing.create_price('{{"currency": "usd", "unit_amount": 500, "recurring": {{"interval": "month"}}}}', id => 'seat');
               SELECT billing.create_price('{{"currency": "usd", "billing_scheme": "tiered", "tiers_mode": "graduated",
                   "tiers": [{{"up_to": 10, "unit_amount_decimal": "2.5"}}, {{"up_to": "inf", "unit_amount": 1, "flat_amount": 3}}],
                   {recurring}}}', id => 'call');
               SELECT billing.create_price('{{"currency": "usd", "unit_amount": 40,
                   "transform_quantity": {{"divide_by": 4, "round": "up"}}, {recurring}}}', id => 'package')"#
        ))
        .unwrap();
}

fn open_shop() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    (database, client)
}

const LINE: &str = "concat_ws(' | ', subscription_item, price, description, quantity, amount, period_start, period_end, proration, kind)";

fn preview(client: &mut Client, as_of: &str) -> Vec<String> {
    let sql = format!("SELECT {LINE} FROM billing.preview_invoice('sub', '{as_of}')");
    rows(client, &sql).unwrap()
}

/// The lines of the latest invoice of `sub`.
fn invoiced(client: &mut Client) -> Vec<String> {
    let sql = format!(
        "SELECT {LINE} FROM billing.invoice_lines WHERE invoice =
             (SELECT id FROM billing.invoices WHERE subscription = 'sub' ORDER BY created DESC, id DESC LIMIT 1) ORDER BY id"
    );
    rows(client, &sql).unwrap()
}

#[test]
fn a_preview_equals_the_invoice_made_after_it() {
    let (_database, mut client) = open_shop();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "trial_end": "2024-01-11T00:00:00Z", "items":
                   [{"price": "seat", "quantity": 2}, {"price": "call"}, {"price": "package"}]}', 'sub', '2024-01-01')"#,
        )
        .unwrap();
    let change = "SELECT billing.update_subscription('sub', jsonb_build_object('items', jsonb_build_array(
                      jsonb_build_object('id', id, 'quantity', 7))), '2024-03-02') FROM billing.subscription_items WHERE price = 'seat'";
    // The end of the trial, a plain month, a change and late usage, an end by cancel_at.
    let months: [(&str, &[&str]); 4] = [
        (
            "2024-01-11",
            &["SELECT billing.record_meter_event('calls', 'acme', 99, 't', '2024-01-10')"],
        ),
        (
            "2024-02-11",
            &["SELECT billing.record_meter_event('calls', 'acme', 10.5, 'a', '2024-02-10')"],
        ),
        (
            "2024-03-11",
            &[
                "SELECT billing.record_meter_event('calls', 'acme', 3, 'b', '2024-02-12')",
                "SELECT billing.roll_up()",
                "SELECT billing.record_meter_event('calls', 'acme', 2, 'c', '2024-02-10')",
                change,
            ],
        ),
        (
            "2024-03-20",
            &[
                "SELECT billing.cancel_meter_event('calls', 'acme', 'a')",
                r#"SELECT billing.update_subscription('sub', '{"cancel_at": "2024-03-20T00:00:00Z"}', '2024-03-15')"#,
            ],
        ),
    ];
    for (end, happenings) in months {
        for sql in happenings {
            client.batch_execute(sql).unwrap();
        }
        let expected = preview(&mut client, end);
        assert!(!expected.is_empty(), "{end}");
        assert_eq!(
            number(&mut client, &format!("SELECT billing.generate_invoices('{end} 01:00')")),
            1
        );
        assert_eq!(expected, invoiced(&mut client), "{end}");
    }
    assert_eq!(preview(&mut client, "2024-03-21"), Vec::<String>::new());
    assert_books_balance(&mut client);
}

/// Usage counts from the period's start up to and with as_of, committed or not, and nothing is written.
#[test]
fn a_preview_holds_what_the_transaction_has_just_recorded() {
    let (database, mut client) = open_shop();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "call"}, {"price": "seat"}]}', 'sub', '2024-01-01');
               SELECT billing.record_meter_event('calls', 'acme', 4, 'a', '2024-01-05');
               SELECT billing.record_meter_event('calls', 'acme', 1000, 'next month', '2024-02-01')"#,
        )
        .unwrap();
    client.batch_execute("BEGIN").unwrap();
    client
        .batch_execute("SELECT billing.record_meter_event('calls', 'acme', 8, 'b', '2024-01-06 00:00:00.000001')")
        .unwrap();
    // 4 × 2.5 = 10; with 8 more 10 × 2.5 + 2 × 1 + 3 = 30; with 1000 of the next period still 30.
    let usage = |client: &mut Client, as_of: &str| {
        text(
            client,
            &format!(
                "SELECT trim_scale(quantity) || ' ' || amount FROM billing.preview_invoice('sub', '{as_of}') WHERE kind = 'usage'"
            ),
        )
    };
    assert_eq!(usage(&mut client, "2024-01-06"), "4 10");
    assert_eq!(usage(&mut client, "2024-01-06 00:00:00.000001"), "12 30");
    assert_eq!(usage(&mut client, "2024-02-10"), "12 30");
    let seat = "SELECT concat_ws(' ', quantity, amount, period_start::date, period_end::date)
                FROM billing.preview_invoice('sub', '2024-01-06') WHERE kind = 'licensed'";
    assert_eq!(text(&mut client, seat), "1 500 2024-02-01 2024-03-01");

    let mut other = database.connect().unwrap();
    assert_eq!(usage(&mut other, "2024-02-10"), "4 10");
    client.batch_execute("ROLLBACK").unwrap();
    client
        .batch_execute("BEGIN READ ONLY; SELECT * FROM billing.preview_invoice('sub', '2024-01-06'); COMMIT")
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.invoices"), 1);
    assert_refused(
        &mut client,
        "SELECT billing.preview_invoice('sub', '2023-12-31')",
        &[],
        &SqlState::INVALID_PARAMETER_VALUE,
        &["2023-12-31"],
    );
}

fn create(client: &mut Client, fields: &str, code: &SqlState, words: &[&str]) {
    let sql = "SELECT billing.create_subscription($1::text::billing.subscription, as_of => '2024-01-01')";
    let definition = format!(r#"{{"customer": "acme", {fields}}}"#);
    let refused = refusal(client, sql, &[&definition]);
    assert_eq!(refused.code(), code, "{fields}: {refused}");
    for word in words {
        assert!(refused.message().contains(word), "{fields}: {refused}, without {word}");
    }
}

#[test]
fn a_subscription_of_unfit_prices_is_refused() {
    let (_database, mut client) = open_shop();
    client
        .batch_execute(
            r#"SELECT billing.create_price('{"currency": "eur", "unit_amount": 5, "recurring": {"interval": "month"}}', id => 'euro');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 5, "recurring": {"interval": "week"}}', id => 'weekly');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 5}', id => 'once');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 5, "recurring": {"interval": "month"}}', id => 'old');
               SELECT billing.archive_price('old')"#,
        )
        .unwrap();
    let client = &mut client;
    let invalid = &SqlState::INVALID_PARAMETER_VALUE;
    let missing = &SqlState::FOREIGN_KEY_VIOLATION;
    create(client, r#""items": [{"price": "none"}]"#, missing, &["\"none\""]);
    create(
        client,
        r#""customer_x": 1, "items": [{"price": "seat"}]"#,
        invalid,
        &["customer_x"],
    );
    create(
        client,
        r#""items": [{"price": "old"}]"#,
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        &["\"old\"", "archived"],
    );
    create(
        client,
        r#""items": [{"price": "seat"}, {"price": "euro"}]"#,
        invalid,
        &["usd", "eur"],
    );
    create(
        client,
        r#""items": [{"price": "seat"}, {"price": "seat"}]"#,
        invalid,
        &["\"seat\""],
    );
    create(
        client,
        r#""items": [{"price": "call", "quantity": 3}]"#,
        invalid,
        &["\"call\"", "3"],
    );
    create(
        client,
        r#""items": [{"price": "once"}]"#,
        invalid,
        &["\"once\"", "one_time"],
    );
    create(
        client,
        r#""items": [{"price": "seat"}, {"price": "weekly"}]"#,
        invalid,
        &["\"seat\"", "1 month", "\"weekly\"", "1 week"],
    );
    create(client, r#""items": []"#, invalid, &["items"]);
    create(
        client,
        r#""items": [{"price": "seat", "quantity": -1}]"#,
        invalid,
        &["quantity"],
    );
    let seat = r#""items": [{"price": "seat"}], "#;
    for (fields, words) in [
        (
            r#""start_date": "2024-01-01T00:00:01Z""#,
            ["start_date", "2024-01-01 00:00:01"],
        ),
        (r#""trial_end": "2024-01-01T00:00:00Z""#, ["trial_end", "2024-01-01"]),
        (r#""cancel_at": "2023-12-31T00:00:00Z""#, ["cancel_at", "2023-12-31"]),
        (r#""collection_method": "barter""#, ["collection_method", "barter"]),
        (r#""proration_behavior": "maybe""#, ["proration_behavior", "maybe"]),
    ] {
        create(client, &format!("{seat}{fields}"), invalid, &words);
    }
    assert_refused(
        client,
        r#"SELECT billing.create_subscription('{"customer": "nobody", "items": [{"price": "seat"}]}')"#,
        &[],
        missing,
        &["\"nobody\""],
    );
    assert_eq!(number(client, "SELECT count(*) FROM billing.subscriptions"), 0);
    assert_eq!(number(client, "SELECT count(*) FROM billing.invoices"), 0);

    // A price that is archived later stays in the subscriptions that have it.
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', 'sub', '2024-01-01');
               SELECT billing.archive_price('seat')"#,
        )
        .unwrap();
    assert_eq!(number(client, "SELECT billing.generate_invoices('2024-02-01')"), 1);
    let again = r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "call"}]}', 'sub', '2024-01-01')"#;
    let refused = refusal(client, again, &[]);
    assert_eq!(refused.code(), &SqlState::UNIQUE_VIOLATION, "{refused}");
}

/// What is not built yet is refused by name where it would mean money, in the form that a caller writes and in the one that
/// Stripe returns (with `object`), never left out silently.
#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let (_database, mut client) = open_shop();
    let fields = [
        ("add_invoice_items", r#""add_invoice_items": [{"price": "seat"}]"#),
        ("automatic_tax", r#""automatic_tax": {"enabled": true}"#),
        ("billing_schedules", r#""billing_schedules": [{"key": "a"}]"#),
        (
            "pending_invoice_item_interval",
            r#""pending_invoice_item_interval": {"interval": "week"}"#,
        ),
    ];
    for (name, field) in fields {
        for object in ["", r#""object": "subscription", "id": "sub_1", "livemode": false, "#] {
            let returned = !object.is_empty();
            let items = if returned {
                r#"{"object": "list", "data": [{"object": "subscription_item", "id": "si_1", "price": {"id": "seat", "object": "price"}, "quantity": 1}]}"#
            } else {
                r#"[{"price": "seat"}]"#
            };
            let definition = format!(r#"{{{object}"customer": "acme", "items": {items}, {field}}}"#);
            let refused = refusal(
                &mut client,
                "SELECT billing.create_subscription($1::text::billing.subscription, as_of => '2024-01-01')",
                &[&definition],
            );
            assert_eq!(
                refused.code(),
                &SqlState::FEATURE_NOT_SUPPORTED,
                "{definition}: {refused}"
            );
            assert!(refused.message().contains(name), "{definition}: {refused}");
        }
    }
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}, {"price": "call"}]}', 'sub', '2024-01-01')"#,
        )
        .unwrap();
    for (changes, name) in [
        (r#"{"add_invoice_items": [{"price": "seat"}]}"#, "add_invoice_items"),
        (
            r#"{"items": [{"price_data": {"currency": "usd"}}]}"#,
            "items[0].price_data",
        ),
        (r#"{"cancel_at": "max_billed_until"}"#, "cancel_at"),
        (r#"{"payment_behavior": "pending_if_incomplete"}"#, "payment_behavior"),
        (r#"{"discounts": [{"promotion_code": "promo"}]}"#, "discounts[0]"),
    ] {
        assert_eq!(
            refusal(
                &mut client,
                "SELECT billing.update_subscription('sub', $1::text::jsonb, '2024-01-02')",
                &[&changes],
            )
            .code(),
            &SqlState::FEATURE_NOT_SUPPORTED,
            "{name}"
        );
    }
    assert_books_balance(&mut client);
}

/// Every function of billing, with `%1` for its id and `%2` for its as_of.
const FUNCTIONS: [&str; 8] = [
    "SELECT billing.update_subscription(%1, '{}', %2)",
    "SELECT billing.cancel_subscription(%1, false, %2)",
    "SELECT billing.preview_invoice(%1, %2)",
    "SELECT billing.finalize_invoice(%1, %2)",
    "SELECT billing.void_invoice(%1, %2)",
    "SELECT billing.mark_invoice_paid(%1, %2)",
    "SELECT billing.mark_invoice_uncollectible(%1, %2)",
    "SELECT billing.cancel_subscription(%1, true, %2)",
];

#[test]
fn unknown_ids_and_impossible_times_are_refused() {
    let (_database, mut client) = open_shop();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', 'sub', '2024-01-01')"#,
        )
        .unwrap();
    let invoice = text(&mut client, "SELECT id FROM billing.invoices");
    for function in FUNCTIONS {
        let id = if function.contains("subscription") || function.contains("preview") {
            "sub"
        } else {
            &invoice
        };
        let call = |id: &str, as_of: &str| function.replace("%1", id).replace("%2", as_of);
        let id = &format!("'{id}'");
        assert_refused(
            &mut client,
            &call("'nothing'", "'2024-01-10'"),
            &[],
            &SqlState::UNDEFINED_OBJECT,
            &["\"nothing\""],
        );
        assert_refused(
            &mut client,
            &call("NULL", "'2024-01-10'"),
            &[],
            &SqlState::NULL_VALUE_NOT_ALLOWED,
            &[],
        );
        let null = &SqlState::NULL_VALUE_NOT_ALLOWED;
        assert_refused(&mut client, &call(id, "NULL"), &[], null, &["as_of"]);
        for infinite in ["'infinity'", "'-infinity'"] {
            let invalid = &SqlState::INVALID_PARAMETER_VALUE;
            assert_refused(&mut client, &call(id, infinite), &[], invalid, &["as_of"]);
        }
        let early = refusal(&mut client, &call(id, "'2023-12-31'"), &[]);
        assert_eq!(early.code(), &SqlState::INVALID_PARAMETER_VALUE, "{function}: {early}");
        assert!(early.message().contains("2023-12-31"), "{function}: {early}");
    }
    for (as_of, code) in [
        ("NULL", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("'infinity'", SqlState::INVALID_PARAMETER_VALUE),
        ("'-infinity'", SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let generate = format!("SELECT billing.generate_invoices({as_of})");
        assert_refused(&mut client, &generate, &[], &code, &["as_of"]);
        let create = format!(
            r#"SELECT billing.create_subscription('{{"customer": "acme", "items": [{{"price": "seat"}}]}}', as_of => {as_of})"#
        );
        assert_refused(&mut client, &create, &[], &code, &["as_of"]);
    }
    for (sql, argument) in [
        ("SELECT billing.create_subscription(NULL)", "subscription"),
        (
            "SELECT billing.update_subscription('sub', NULL, '2024-01-02')",
            "changes",
        ),
        (
            "SELECT billing.cancel_subscription('sub', NULL, '2024-01-02')",
            "at_period_end",
        ),
    ] {
        assert_refused(&mut client, sql, &[], &SqlState::NULL_VALUE_NOT_ALLOWED, &[argument]);
    }
    let left =
        "SELECT (SELECT string_agg(status, ' ') FROM billing.invoices) || ' ' || status FROM billing.subscriptions";
    assert_eq!(text(&mut client, left), "open active");
}

/// Texts that are SQL stay texts, in every argument that takes one.
#[test]
fn sql_in_a_text_is_only_text() {
    let (_database, mut client) = open_shop();
    let evil = r#"'; DROP TABLE billing.invoices CASCADE; -- $$ "x" %s %I \ "#;
    client
        .query(
            "SELECT billing.create_customer($1::text), billing.create_product($1::text, $1::text),
                    billing.create_price('{\"currency\": \"usd\", \"unit_amount\": 5, \"recurring\": {\"interval\": \"month\"}}', $1::text, $1::text)",
            &[&evil],
        )
        .unwrap();
    let created: String = client
        .query_one(
            "SELECT billing.create_subscription(jsonb_build_object('customer', $1::text, 'description', $1::text,
                 'metadata', jsonb_build_object('note', $1::text),
                 'items', jsonb_build_array(jsonb_build_object('price', $1::text)))::billing.subscription, $1::text, '2024-01-01')",
            &[&evil],
        )
        .unwrap()
        .get(0);
    assert_eq!(created, evil);
    assert_eq!(
        number(&mut client, "SELECT billing.generate_invoices('2024-02-01 01:00')"),
        1
    );
    let description: String = client
        .query_one("SELECT DISTINCT description FROM billing.invoice_lines", &[])
        .unwrap()
        .get(0);
    assert_eq!(description, format!("1 × {evil}"));
    client
        .query(
            "SELECT billing.update_subscription($1::text, jsonb_build_object('description', $1::text || 'new'), '2024-02-02')",
            &[&evil],
        )
        .unwrap();
    assert_eq!(
        client
            .query("SELECT * FROM billing.preview_invoice($1, '2024-02-03')", &[&evil])
            .unwrap()
            .len(),
        1
    );
    for function in FUNCTIONS {
        let sql = function.replace("%1", "$1").replace("%2", "'2024-02-03'");
        let unknown = format!("{evil} unknown");
        let refused = refusal(&mut client, &sql, &[&unknown]);
        assert_eq!(refused.code(), &SqlState::UNDEFINED_OBJECT, "{sql}: {refused}");
        assert!(refused.message().contains(evil), "{sql}: {refused}");
    }
    for changes in [
        serde_json::json!({ evil: 1 }),
        serde_json::json!({ "items": [{ "id": evil, "quantity": 1 }] }),
        serde_json::json!({ "items": [{ "id": "si", evil: 1 }] }),
        serde_json::json!({ "proration_behavior": evil }),
    ] {
        let refused = refusal(
            &mut client,
            "SELECT billing.update_subscription($1, $2, '2024-02-03')",
            &[&evil, &changes],
        );
        // As JSON where a value of the wrong kind is shown.
        let shown = [evil.to_owned(), serde_json::json!(evil).to_string()];
        assert!(
            shown.iter().any(|shown| refused.message().contains(shown.as_str())),
            "{changes}: {refused}"
        );
    }
    client
        .query("SELECT billing.cancel_subscription($1, false, '2024-02-03')", &[&evil])
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.invoices"), 2);
}

/// What can only be answered with an error is answered with the right one.
#[test]
fn malformed_changes_are_refused() {
    let (_database, mut client) = open_shop();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}, {"price": "call"}]}', 'sub', '2024-01-01')"#,
        )
        .unwrap();
    let item = |client: &mut Client, price: &str| {
        text(
            client,
            &format!("SELECT id FROM billing.subscription_items WHERE price = '{price}'"),
        )
    };
    let (seat, call) = (item(&mut client, "seat"), item(&mut client, "call"));
    let invalid = "22";
    for (changes, class) in [
        ("[]".to_owned(), invalid),
        ("3".to_owned(), invalid),
        (r#"{"items": {}}"#.to_owned(), invalid),
        (r#"{"items": [7]}"#.to_owned(), invalid),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "quantity": "many"}}]}}"#),
            invalid,
        ),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "quantity": 1.5}}]}}"#),
            invalid,
        ),
        (
            format!(r#"{{"items": [{{"id": "{seat}", "quantity": 99999999999999999999}}]}}"#),
            invalid,
        ),
        (
            // The old quantity would be given back twice.
            format!(r#"{{"items": [{{"id": "{seat}", "quantity": 2}}, {{"id": "{seat}", "quantity": 3}}]}}"#),
            invalid,
        ),
        (format!(r#"{{"items": [{{"id": "{seat}", "quantity": -1}}]}}"#), "2"),
        (format!(r#"{{"items": [{{"id": "{call}", "quantity": 1}}]}}"#), invalid),
        (r#"{"items": [{"id": "si_none", "quantity": 1}]}"#.to_owned(), "42704"),
        (r#"{"cancel_at": "soon"}"#.to_owned(), invalid),
        (r#"{"cancel_at": "infinity"}"#.to_owned(), "2"),
        (r#"{"cancel_at": "2024-01-02T00:00:00Z"}"#.to_owned(), invalid),
        (r#"{"cancel_at": 1e300}"#.to_owned(), invalid),
        (r#"{"cancel_at": "10/11/2030"}"#.to_owned(), invalid),
        (r#"{"cancel_at": true}"#.to_owned(), invalid),
        (r#"{"cancel_at_period_end": "perhaps"}"#.to_owned(), invalid),
        (r#"{"metadata": 5}"#.to_owned(), "2"),
    ] {
        let sql = "SELECT billing.update_subscription('sub', $1::text::jsonb, '2024-01-02')";
        assert!(client.query(sql, &[&changes]).is_err(), "not refused: {changes}");
        let refused = refusal(&mut client, sql, &[&changes]);
        assert!(
            refused.code().code().starts_with(class),
            "{changes}: {} {refused}",
            refused.code().code()
        );
    }
    let kept = "SELECT concat_ws(' ', status, cancel_at, cancel_at_period_end, current_period_end::date) FROM billing.subscriptions";
    assert_eq!(text(&mut client, kept), "active f 2024-02-01");
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.invoice_items"), 0);
}

#[test]
fn a_change_before_an_earlier_change_is_refused() {
    let (_database, mut client) = open_shop();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', 'sub', '2024-01-01')"#,
        )
        .unwrap();
    let change = |quantity: i32, day: i32| {
        format!(
            "SELECT billing.update_subscription('sub', jsonb_build_object('items', jsonb_build_array(
                 jsonb_build_object('id', id, 'quantity', {quantity}))), '2024-01-{day}') FROM billing.subscription_items"
        )
    };
    client.query(&change(5, 21), &[]).unwrap();
    // What would be given back from the 11th on, five seats, was one seat until the 21st.
    assert_refused(
        &mut client,
        &change(3, 11),
        &[],
        &SqlState::INVALID_PARAMETER_VALUE,
        &["2024-01-21"],
    );
    client.query(&change(3, 21), &[]).unwrap();
}
