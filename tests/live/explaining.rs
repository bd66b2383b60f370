//! Every amount on an invoice is explained: the steps of each kind of line, worked out by hand, and that they add up for all of them.

use harness::Database;
use postgres::Client;
use postgres::error::SqlState;

use crate::recording::{assert_refused, number, text};

const PRELUDE: &str = r#"
    SET timezone = 'UTC';
    SET billing.max_event_age = -1;
    SELECT billing.create_customer('acme');
    SELECT billing.create_meter('{"display_name": "Calls", "event_name": "calls", "default_aggregation": {"formula": "sum"}}');
    SELECT billing.create_price('{"currency": "usd", "unit_amount": 500, "nickname": "Seat", "recurring": {"interval": "month"}}', id => 'seat');"#;

fn open() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let mut client = database.connect().unwrap();
    client.batch_execute(PRELUDE).unwrap();
    (database, client)
}

/// A price on `calls`, and the subscription `sub` to it from 1 January 2024.
fn metered(client: &mut Client, id: &str, terms: &str) {
    client
        .batch_execute(&format!(
            r#"SELECT billing.create_price('{{"currency": "usd", {terms},
                   "recurring": {{"interval": "month", "usage_type": "metered", "meter": "calls"}}}}', id => '{id}');
               SELECT billing.create_subscription('{{"customer": "acme", "items": [{{"price": "{id}"}}]}}', 'sub', '2024-01-01')"#
        ))
        .unwrap();
}

fn record(client: &mut Client, identifier: &str, value: &str, at: &str) {
    client
        .batch_execute(&format!(
            "SELECT billing.record_meter_event('calls', 'acme', {value}, '{identifier}', '{at}')"
        ))
        .unwrap();
}

fn generate(client: &mut Client, as_of: &str) {
    client
        .batch_execute(&format!("SELECT billing.generate_invoices('{as_of}')"))
        .unwrap();
}

/// part | from | to | quantity | tier | unit_amount | flat_amount | amount | note, with "" where there is none, and times without what is 0.
fn explained(client: &mut Client, line: &str, events: bool) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws(' | ', part, pg_temp.at(start_time), pg_temp.at(end_time), coalesce(quantity::text, ''),
                    CASE WHEN tier_from IS NULL THEN '' ELSE tier_from || '–' || coalesce(tier_up_to::text, '') END,
                    coalesce(unit_amount::text, ''), coalesce(flat_amount::text, ''), coalesce(amount::text, ''),
                    coalesce(note, ''))
         FROM billing.explain_invoice_line((SELECT l.id FROM billing.invoice_lines l
                                            JOIN billing.invoices i ON i.id = l.invoice WHERE {line}), {events})
              WITH ORDINALITY ORDER BY ordinality"
    );
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION pg_temp.at(at timestamptz) RETURNS text LANGUAGE sql AS $$
                 SELECT coalesce(regexp_replace(to_char(at AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), ' 00:00$', ''), '') $$",
        )
        .unwrap();
    client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[track_caller]
fn assert_explained(client: &mut Client, line: &str, expected: &[&str]) {
    let shown = explained(client, line, false);
    assert_eq!(shown, expected, "{line}:\n{}", shown.join("\n"));
}

/// What is said of the rows: those before "amount" add up to it, and it is the line's amount; what is taken off and put on after it is
/// what the line says.
fn assert_all_add_up(client: &mut Client) {
    let wrong = "SELECT string_agg(concat_ws(' ', l.id, l.kind, l.amount, s.sum), '; ')
         FROM billing.invoice_lines l
         CROSS JOIN LATERAL (
             SELECT sum(x.amount) FILTER (WHERE x.ordinality < x.place) AS sum,
                    sum(x.amount) FILTER (WHERE x.part = 'amount') AS amount,
                    coalesce(-sum(x.amount) FILTER (WHERE x.part = 'discount'), 0) AS discount,
                    coalesce(-sum(x.amount) FILTER (WHERE x.part = 'credit'), 0) AS credit,
                    coalesce(sum(x.amount) FILTER (WHERE x.part = 'tax'), 0) AS tax,
                    bool_or(x.part = 'difference') AS unexplained, count(*) FILTER (WHERE x.part = 'amount') AS amounts
             FROM (SELECT x.*, max(x.ordinality) FILTER (WHERE x.part = 'amount') OVER () AS place
                   FROM billing.explain_invoice_line(l.id) WITH ORDINALITY x) x) s
         WHERE (s.sum, s.amount, s.discount, s.credit, s.tax, s.unexplained, s.amounts)
               IS DISTINCT FROM (l.amount, l.amount, l.discount_amount, l.credit_amount, l.tax_amount, false, 1)";
    assert_eq!(text(client, wrong), "NULL");
    assert!(number(client, "SELECT count(*) FROM billing.invoice_lines") > 0);
}

/// 500 × 3; from 16 January to 1 February 16 of 31 days: 1500 × 16 / 31 = 774.19…; a trial is free.
#[test]
fn licensed_lines() {
    let (_database, mut client) = open();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat", "quantity": 3}],
                   "billing_cycle_anchor": "2024-02-01T00:00:00Z"}', 'stub', '2024-01-16');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat", "quantity": 3}],
                   "trial_end": "2024-01-20T00:00:00Z"}', 'trial', '2024-01-16');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}], "proration_behavior": "none",
                   "billing_cycle_anchor": "2024-02-01T00:00:00Z"}', 'none', '2024-01-16');
               SELECT billing.generate_invoices('2024-02-01')"#,
        )
        .unwrap();
    let unit = "unit |  |  | 3 |  | 500 |  | 1500 | every unit at one price";
    assert_explained(
        &mut client,
        "i.subscription = 'stub' AND l.proration",
        &[
            "quantity | 01-16 | 02-01 | 3 |  |  |  |  | 3 × Seat",
            unit,
            "proration | 01-16 | 02-01 |  |  |  |  | -725.806451612903 | \
             the share of the whole period from 2024-01-01 00:00:00 to 2024-02-01 00:00:00",
            "rounding |  |  |  |  |  |  | -0.193548387097 | once, to the minor unit, half away from zero",
            "amount | 01-16 | 02-01 |  |  |  |  | 774 | 3 × Seat",
        ],
    );
    assert_explained(
        &mut client,
        "i.subscription = 'stub' AND NOT l.proration",
        &[
            "quantity | 02-01 | 03-01 | 3 |  |  |  |  | 3 × Seat",
            unit,
            "amount | 02-01 | 03-01 |  |  |  |  | 1500 | 3 × Seat",
        ],
    );
    assert_explained(
        &mut client,
        "i.subscription = 'trial' AND l.amount = 0",
        &[
            "quantity | 01-16 | 01-20 | 3 |  |  |  |  | Free trial: 3 × Seat",
            unit,
            "proration | 01-16 | 01-20 |  |  |  |  | -1500 | free trial",
            "amount | 01-16 | 01-20 |  |  |  |  | 0 | Free trial: 3 × Seat",
        ],
    );
    assert_explained(
        &mut client,
        "i.subscription = 'none' AND l.amount = 0",
        &[
            "quantity | 01-16 | 02-01 | 1 |  |  |  |  | 1 × Seat",
            "unit |  |  | 1 |  | 500 |  | 500 | every unit at one price",
            "proration | 01-16 | 02-01 |  |  |  |  | -500 | free until the first boundary, as proration_behavior is none",
            "amount | 01-16 | 02-01 |  |  |  |  | 0 | 1 × Seat",
        ],
    );
    assert_all_add_up(&mut client);
}

/// From 1 January 05:20: 1.5 in the cut hour, 2 at 07:00, 4 on the 2nd, 3 on 1 February at 04:00 and 0.5 at 05:10. 11 in all.
/// 10 × 2.5 + 1 × 0.1 + 3 = 28.1.
#[test]
fn usage_shows_its_buckets_tiers_and_events() {
    let (_database, mut client) = open();
    client
        .batch_execute(
            r#"SELECT billing.create_price('{"currency": "usd", "billing_scheme": "tiered", "tiers_mode": "graduated",
                   "tiers": [{"up_to": 10, "unit_amount_decimal": "2.5"}, {"up_to": "inf", "unit_amount_decimal": "0.1", "flat_amount": 3}],
                   "recurring": {"interval": "month", "usage_type": "metered", "meter": "calls"}}', id => 'call');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "call"}]}', 'sub', '2024-01-01 05:20')"#,
        )
        .unwrap();
    for (identifier, value, at) in [
        ("before", "99", "2024-01-01 05:19:59.999999"),
        ("a", "1.5", "2024-01-01 05:20"),
        ("b", "2", "2024-01-01 07:00"),
        ("c", "3", "2024-01-02 10:00"),
        ("d", "1", "2024-01-02 11:00"),
        ("e", "3", "2024-02-01 04:00"),
        ("f", "0.5", "2024-02-01 05:10"),
        ("cancelled", "7", "2024-01-20 05:10"),
        ("after", "99", "2024-02-01 05:20"),
    ] {
        record(&mut client, identifier, value, at);
    }
    client
        .batch_execute("SELECT billing.cancel_meter_event('calls', 'acme', 'cancelled')")
        .unwrap();
    generate(&mut client, "2024-02-01 05:20");
    let sources = [
        "events | 01-01 05:20 | 01-01 06:00 | 1.5 |  |  |  |  | in a cut hour, 1 event",
        "bucket | 01-01 07:00 | 01-01 08:00 | 2 |  |  |  |  | hour, 1 event",
        "bucket | 01-02 | 01-03 | 4 |  |  |  |  | day, 2 events",
        "bucket | 02-01 04:00 | 02-01 05:00 | 3 |  |  |  |  | hour, 1 event",
        "events | 02-01 05:00 | 02-01 05:20 | 0.5 |  |  |  |  | in a cut hour, 1 event",
    ];
    let steps = [
        "quantity | 01-01 05:20 | 02-01 05:20 | 11 |  |  |  |  | sum of meter calls",
        "tier |  |  | 10 | 0–10 | 2.5 |  | 25 | tier 1: the units that fall in it",
        "tier |  |  | 1 | 10– | 0.1 | 3 | 3.1 | tier 2: the units that fall in it",
        "rounding |  |  |  |  |  |  | -0.1 | once, to the minor unit, half away from zero",
        "amount | 01-01 05:20 | 02-01 05:20 |  |  |  |  | 28 | Calls",
    ];
    assert_explained(&mut client, "true", &[&sources[..], &steps[..]].concat());
    let shown = explained(&mut client, "true", true);
    let event =
        |at: &str, value: &str, identifier: &str| format!("event | {at} |  | {value} |  |  |  |  | {identifier}");
    let with_events: Vec<String> = [
        vec![sources[0].to_owned(), event("01-01 05:20", "1.5", "a")],
        vec![sources[1].to_owned(), event("01-01 07:00", "2", "b")],
        vec![
            sources[2].to_owned(),
            event("01-02 10:00", "3", "c"),
            event("01-02 11:00", "1", "d"),
        ],
        vec![sources[3].to_owned(), event("02-01 04:00", "3", "e")],
        vec![sources[4].to_owned(), event("02-01 05:10", "0.5", "f")],
        steps.iter().map(ToString::to_string).collect(),
    ]
    .concat();
    assert_eq!(shown, with_events, "{}", shown.join("\n"));

    // 2 more, not rolled up yet: 13 → 25 + 3.3 = 28.3, the same amount; 9 more: 22 → 29.2, one cent more.
    record(&mut client, "late", "2", "2024-01-02 23:00");
    let shown = explained(&mut client, "true", false).join("\n");
    assert!(
        shown.contains("bucket | 01-02 | 01-03 | 6 |  |  |  |  | day, 3 events, some of it not rolled up yet"),
        "{shown}"
    );
    assert!(
        shown.contains("sum of meter calls; usage has changed since this was rated, by +2 to 13\n"),
        "{shown}"
    );
    record(&mut client, "later", "9", "2024-01-02 23:00");
    let shown = explained(&mut client, "true", false).join("\n");
    assert!(
        shown.contains("sum of meter calls; usage has changed since this was rated, by +11 to 22, the amount by +1\n"),
        "{shown}"
    );
    assert_all_add_up(&mut client);
}

/// 8 × 10 = 80 in January. Then 1 is cancelled: 70, less 80, on the invoice of 1 March, and 3 come: 100, less 80 and −10, on that of
/// 1 April. That is voided, and all cancelled: 0, less 80, −10 and 30, of which 30 were waived and so are not given back.
#[test]
fn late_usage_takes_off_what_was_billed() {
    let (_database, mut client) = open();
    metered(&mut client, "call", r#""unit_amount": 10"#);
    record(&mut client, "one", "1", "2024-01-10");
    record(&mut client, "seven", "7", "2024-01-10");
    generate(&mut client, "2024-02-01 01:00");
    client
        .batch_execute("SELECT billing.cancel_meter_event('calls', 'acme', 'one')")
        .unwrap();
    generate(&mut client, "2024-03-01 01:00");
    record(&mut client, "three", "3", "2024-01-11");
    generate(&mut client, "2024-04-01 01:00");
    let bucket = "bucket | 01-10 | 01-11 | 7 |  |  |  |  | day, 1 event";
    assert_explained(
        &mut client,
        "l.kind = 'late_usage' AND i.number = 'INV-000003'",
        &[
            bucket,
            "bucket | 01-11 | 01-12 | 3 |  |  |  |  | day, 1 event",
            "quantity | 01-01 | 02-01 | 10 |  |  |  |  | sum of meter calls",
            "unit |  |  | 10 |  | 10 |  | 100 | every unit at one price",
            "billed before | 01-01 | 02-01 | 8 |  |  |  | -80 | invoice INV-000001",
            "billed before | 01-01 | 02-01 | 7 |  |  |  | 10 | late usage on invoice INV-000002",
            "amount | 01-01 | 02-01 |  |  |  |  | 30 | Late usage: Calls",
        ],
    );
    // The first line is as it was: 8, though 10 are there now.
    let shown = explained(&mut client, "l.kind = 'usage' AND i.number = 'INV-000001'", false).join("\n");
    assert!(shown.contains("by +2 to 10, the amount by +20"), "{shown}");
    client
        .batch_execute(
            "SELECT billing.void_invoice(id, '2024-04-02') FROM billing.invoices WHERE number = 'INV-000003';
             SELECT billing.cancel_meter_event('calls', 'acme', identifier) FROM (VALUES ('three'), ('seven')) v (identifier)",
        )
        .unwrap();
    generate(&mut client, "2024-05-01 01:00");
    assert_explained(
        &mut client,
        "l.kind = 'late_usage' AND i.number = 'INV-000004'",
        &[
            "quantity | 01-01 | 02-01 | 0 |  |  |  |  | sum of meter calls",
            "unit |  |  | 0 |  | 10 |  | 0 | every unit at one price",
            "billed before | 01-01 | 02-01 | 8 |  |  |  | -80 | invoice INV-000001",
            "billed before | 01-01 | 02-01 | 7 |  |  |  | 10 | late usage on invoice INV-000002",
            "billed before | 01-01 | 02-01 | 10 |  |  |  | -30 | late usage on void invoice INV-000003",
            "waived |  |  |  |  |  |  | 30 | billed on a void invoice, so there is nothing to give back of it",
            "amount | 01-01 | 02-01 |  |  |  |  | -70 | Late usage: Calls",
        ],
    );
    assert_all_add_up(&mut client);
}

/// Packages of 4 at 40, thresholds at 100: 9 → 3 packages, 120, on 5 January; 21 → 6 packages, 240, less 120, on 9 January; at the
/// end 22 → 240, less 240.
#[test]
fn threshold_lines_take_off_earlier_ones() {
    let (_database, mut client) = open();
    metered(
        &mut client,
        "package",
        r#""unit_amount": 40, "transform_quantity": {"divide_by": 4, "round": "up"}"#,
    );
    client
        .batch_execute("UPDATE billing.subscriptions SET amount_gte = 100 WHERE id = 'sub'")
        .unwrap();
    record(&mut client, "a", "9", "2024-01-03");
    generate(&mut client, "2024-01-05");
    record(&mut client, "b", "12", "2024-01-08");
    generate(&mut client, "2024-01-09");
    record(&mut client, "c", "1", "2024-01-12");
    generate(&mut client, "2024-02-01 01:00");
    let a = "bucket | 01-03 | 01-04 | 9 |  |  |  |  | day, 1 event";
    let b = "bucket | 01-08 | 01-09 | 12 |  |  |  |  | day, 1 event";
    let packages = |n: i32| {
        format!(
            "package |  |  | {n} |  | 40 |  | {} | packages of 4: one begun counts whole",
            n * 40
        )
    };
    let before = "billed before | 01-01 | 01-05 | 9 |  |  |  | -120 | threshold invoice INV-000001";
    assert_explained(
        &mut client,
        "i.number = 'INV-000001'",
        &[
            a,
            "quantity | 01-01 | 01-05 | 9 |  |  |  |  | sum of meter calls",
            &packages(3),
            "amount | 01-01 | 01-05 |  |  |  |  | 120 | Calls",
        ],
    );
    assert_explained(
        &mut client,
        "i.number = 'INV-000002'",
        &[
            a,
            b,
            "quantity | 01-01 | 01-09 | 21 |  |  |  |  | sum of meter calls",
            &packages(6),
            before,
            "amount | 01-01 | 01-09 |  |  |  |  | 120 | Calls",
        ],
    );
    assert_explained(
        &mut client,
        "i.number = 'INV-000003'",
        &[
            a,
            b,
            "bucket | 01-12 | 01-13 | 1 |  |  |  |  | day, 1 event",
            "quantity | 01-01 | 02-01 | 22 |  |  |  |  | sum of meter calls",
            &packages(6),
            before,
            "billed before | 01-01 | 01-09 | 21 |  |  |  | -120 | threshold invoice INV-000002",
            "amount | 01-01 | 02-01 |  |  |  |  | 0 | Calls",
        ],
    );
    assert_all_add_up(&mut client);
}

/// Volume: all 25 at the second tier, 25 × 0.5 + 2 = 14.5, at least 20 and in euros at most 9. Of regions eu and us only.
#[test]
fn filters_currencies_and_bounds_are_seen() {
    let (_database, mut client) = open();
    let tiers = r#""billing_scheme": "tiered", "tiers_mode": "volume",
        "tiers": [{"up_to": 20, "unit_amount": 1}, {"up_to": "inf", "unit_amount_decimal": "0.5", "flat_amount": 2}]"#;
    client
        .batch_execute(&format!(
            r#"SELECT billing.create_meter('{{"display_name": "Calls", "event_name": "regional", "default_aggregation": {{"formula": "sum"}},
                   "dimension_payload_keys": ["region"]}}');
               SELECT billing.create_price('{{"currency": "usd", {tiers}, "minimum_amount": 20, "maximum_amount": 1000, "dimension_filters": {{"region": ["eu", "us"]}},
                   "currency_options": {{"eur": {{"tiers": [{{"up_to": 20, "unit_amount": 1}}, {{"up_to": "inf", "unit_amount_decimal": "0.5"}}],
                                                "minimum_amount": 5, "maximum_amount": 9}}}},
                   "recurring": {{"interval": "month", "usage_type": "metered", "meter": "regional"}}}}', id => 'call');
               SELECT billing.create_subscription('{{"customer": "acme", "items": [{{"price": "call"}}]}}', c, '2024-01-01')
               FROM unnest(ARRAY['usd', 'eur']) c;
               UPDATE billing.subscriptions SET currency = 'eur' WHERE id = 'eur';
               SELECT billing.record_meter_event('regional', 'acme', v, r, '2024-01-05', jsonb_build_object('region', r))
               FROM (VALUES ('eu', 15), ('us', 10), ('asia', 400)) x (r, v);
               SELECT billing.generate_invoices('2024-02-01 01:00')"#
        ))
        .unwrap();
    let bucket = "bucket | 01-05 | 01-06 | 25 |  |  |  |  | day, 2 events";
    let quantity =
        "quantity | 01-01 | 02-01 | 25 |  |  |  |  | sum of meter regional where {\"region\": [\"eu\", \"us\"]}";
    assert_explained(
        &mut client,
        "i.currency = 'usd'",
        &[
            bucket,
            quantity,
            "tier |  |  | 25 | 20– | 0.5 | 2 | 14.5 | tier 2: every unit, as the whole quantity falls in it",
            "minimum |  |  | 25 |  |  | 20 | 5.5 | raised to the least that a period costs",
            "amount | 01-01 | 02-01 |  |  |  |  | 20 | Calls",
        ],
    );
    assert_explained(
        &mut client,
        "i.currency = 'eur'",
        &[
            bucket,
            quantity,
            "tier |  |  | 25 | 20– | 0.5 |  | 12.5 | tier 2: every unit, as the whole quantity falls in it",
            "maximum |  |  | 25 |  |  | 9 | -3.5 | lowered to the most that a period costs",
            "amount | 01-01 | 02-01 |  |  |  |  | 9 | Calls",
        ],
    );
    let shown = explained(&mut client, "i.currency = 'eur'", true).join("\n");
    assert!(
        shown.contains("| eu {\"region\": \"eu\"}") && !shown.contains("asia"),
        "{shown}"
    );
    assert_all_add_up(&mut client);
}

/// What a bucket shows and what the period bills, by aggregation. 3 on the 2nd, −1 and 7 on the 3rd.
#[test]
fn every_aggregation_is_explained() {
    let (_database, mut client) = open();
    let mut expected = Vec::new();
    for (formula, second, third, quantity) in [
        ("count", "1", "2", "3"),
        ("max", "3", "7", "7"),
        ("min", "3", "-1", "0"),
        ("last", "3", "7", "7"),
        ("unique_count", "1", "2", "2"),
    ] {
        let key = if formula == "unique_count" {
            r#", "value_settings": {"event_payload_key": "user"}"#
        } else {
            ""
        };
        client
            .batch_execute(&format!(
                r#"SELECT billing.create_meter('{{"display_name": "{formula}", "event_name": "{formula}",
                       "default_aggregation": {{"formula": "{formula}"}}{key}}}');
                   SELECT billing.create_price('{{"currency": "usd", "unit_amount": 2,
                       "recurring": {{"interval": "month", "usage_type": "metered", "meter": "{formula}"}}}}', id => '{formula}');
                   SELECT billing.create_subscription('{{"customer": "acme", "items": [{{"price": "{formula}"}}]}}', '{formula}', '2024-01-01');
                   SELECT billing.record_meter_event('{formula}', 'acme', v, n::text, t::timestamptz, jsonb_build_object('user', u))
                   FROM (VALUES (1, 3, 'ada', '2024-01-02 01:00'), (2, -1, 'bob', '2024-01-03 01:00'),
                                (3, 7, 'ada', '2024-01-03 02:00')) e (n, v, u, t)"#
            ))
            .unwrap();
        let events = |n: i32| match formula {
            "unique_count" => String::new(),
            _ => format!(", {n} event{}", if n == 1 { "" } else { "s" }),
        };
        expected.push((
            formula,
            [
                format!("bucket | 01-02 | 01-03 | {second} |  |  |  |  | day{}", events(1)),
                format!("bucket | 01-03 | 01-04 | {third} |  |  |  |  | day{}", events(2)),
                format!("quantity | 01-01 | 02-01 | {quantity} |  |  |  |  | {formula} of meter {formula}"),
            ],
        ));
    }
    // A level of 4 from December on, 31 higher over the last of the 31 days: 4 + 31 / 31 = 5 on the average.
    client
        .batch_execute(
            r#"SELECT billing.create_meter('{"display_name": "Level", "event_name": "level", "default_aggregation": {"formula": "weighted_sum"}}');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 2,
                   "recurring": {"interval": "month", "usage_type": "metered", "meter": "level"}}', id => 'level');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "level"}]}', 'weighted_sum', '2024-01-01');
               SELECT billing.record_meter_event('level', 'acme', 4, 'a', '2023-12-05'),
                      billing.record_meter_event('level', 'acme', 31, 'b', '2024-01-31')"#,
        )
        .unwrap();
    expected.push((
        "weighted_sum",
        [
            "bucket |  | 01-01 | 4 |  |  |  |  | the level at the start, 1 event".to_owned(),
            "bucket | 01-31 | 02-01 | 31 |  |  |  |  | day, 1 event".to_owned(),
            "quantity | 01-01 | 02-01 | 5 |  |  |  |  | weighted_sum of meter level".to_owned(),
        ],
    ));
    generate(&mut client, "2024-02-01 01:00");
    for (subscription, rows) in expected {
        let shown = explained(&mut client, &format!("i.subscription = '{subscription}'"), false);
        assert_eq!(shown[..3], rows, "{subscription}");
    }
    assert_all_add_up(&mut client);
}

/// Given back: of 1500 for January less 310 credited, from the 11th on 21 of 31 days, 806.13; of 7 × 500 × 21/31 = 2371 charged then 8 of 21
/// days, 903.24.
#[test]
fn credits_and_items_by_hand() {
    let (_database, mut client) = open();
    client
        .batch_execute(
            r#"SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat", "quantity": 3}]}', 'sub', '2024-01-01');
               SELECT billing.create_credit_note(jsonb_build_object('invoice', i.id, 'amount', 310), 'note', '2024-01-05') FROM billing.invoices i;
               SELECT billing.update_subscription('sub', jsonb_build_object('items', jsonb_build_array(
                          jsonb_build_object('id', t.id, 'quantity', q.quantity))), q.at)
               FROM billing.subscription_items t,
                    (VALUES (7, timestamptz '2024-01-11'), (4, '2024-01-24')) q (quantity, at) ORDER BY q.at;
               SET billing.finalization_delay = '30d';
               SELECT billing.generate_invoices('2024-02-01');
               INSERT INTO billing.invoice_lines (invoice, kind, description, quantity, amount, period_start, period_end)
               SELECT i.id, 'item', 'Setting up', 2, 4999, i.created, i.created FROM billing.invoices i WHERE i.status = 'draft';
               INSERT INTO billing.invoice_lines (invoice, price, kind, description, quantity, amount, period_start, period_end)
               SELECT i.id, 'seat', 'item', 'One seat by hand', 1, 500, i.created, i.created FROM billing.invoices i WHERE i.status = 'draft'"#,
        )
        .unwrap();
    assert_explained(
        &mut client,
        "l.amount = -806",
        &[
            "quantity | 01-11 | 02-01 | 3 |  |  |  |  | Unused time: 3 × Seat",
            "billed before | 01-01 | 02-01 |  |  |  |  | -1190 | what invoice INV-000001 charges for it, less credit notes",
            "proration | 01-11 | 02-01 |  |  |  |  | 383.870967741935 | stays charged: only part of that time is given back",
            "rounding |  |  |  |  |  |  | 0.129032258065 | once, to the minor unit, half away from zero",
            "amount | 01-11 | 02-01 |  |  |  |  | -806 | Unused time: 3 × Seat",
        ],
    );
    // Of a charge that is on the same draft.
    let draft = text(&mut client, "SELECT id FROM billing.invoices WHERE status = 'draft'");
    assert_explained(
        &mut client,
        "l.amount = -903",
        &[
            "quantity | 01-24 | 02-01 | 7 |  |  |  |  | Unused time: 7 × Seat",
            &format!("billed before | 01-11 | 02-01 |  |  |  |  | -2371 | what invoice {draft} charges for it"),
            "proration | 01-24 | 02-01 |  |  |  |  | 1467.761904761905 | stays charged: only part of that time is given back",
            "rounding |  |  |  |  |  |  | 0.238095238095 | once, to the minor unit, half away from zero",
            "amount | 01-24 | 02-01 |  |  |  |  | -903 | Unused time: 7 × Seat",
        ],
    );
    assert_explained(
        &mut client,
        "l.amount = 4999",
        &[
            "quantity | 02-01 | 02-01 | 2 |  |  |  |  | Setting up",
            "given |  |  |  |  |  |  | 4999 | as the item was added",
            "amount | 02-01 | 02-01 |  |  |  |  | 4999 | Setting up",
        ],
    );
    assert_explained(
        &mut client,
        "l.description = 'One seat by hand'",
        &[
            "quantity | 02-01 | 02-01 | 1 |  |  |  |  | One seat by hand",
            "unit |  |  | 1 |  | 500 |  | 500 | every unit at one price",
            "amount | 02-01 | 02-01 |  |  |  |  | 500 | One seat by hand",
        ],
    );
    assert_all_add_up(&mut client);

    // Discounts, credits and taxes as they stand in the line.
    client
        .batch_execute(
            r#"UPDATE billing.invoice_lines SET discount_amount = 50, discount_amounts = '[{"discount": "di_1", "amount": 50}]',
                   credit_amount = 30, credit_amounts = '[{"credit_grant": "credgr_1", "amount": 20}, {"credit_grant": "credgr_2", "amount": 10}]',
                   tax_amount = 84, taxes = '[{"tax_rate": "txr_1", "amount": 84, "tax_behavior": "exclusive", "taxable_amount": 420,
                                               "taxability_reason": "standard_rated"}]'
               WHERE description = 'One seat by hand'"#,
        )
        .unwrap();
    let shown = explained(&mut client, "l.description = 'One seat by hand'", false);
    assert_eq!(
        shown[3..],
        [
            "discount |  |  |  |  |  |  | -50 | di_1",
            "credit |  |  |  |  |  |  | -20 | credgr_1",
            "credit |  |  |  |  |  |  | -10 | credgr_2",
            "tax |  |  | 420 |  |  |  | 84 | txr_1, exclusive, standard_rated",
        ]
    );
    assert_all_add_up(&mut client);
}

/// A draft of an amount that bigint cannot hold bills 0 until usage is corrected, and says so.
#[test]
fn what_cannot_be_rated_is_said() {
    let (_database, mut client) = open();
    metered(&mut client, "call", r#""unit_amount": 1000000"#);
    record(&mut client, "huge", "1e20", "2024-01-10");
    generate(&mut client, "2024-02-01 01:00");
    assert_explained(
        &mut client,
        "i.status = 'draft'",
        &[
            "bucket | 01-10 | 01-11 | 100000000000000000000 |  |  |  |  | day, 1 event",
            "quantity | 01-01 | 02-01 | 100000000000000000000 |  |  |  |  | sum of meter calls",
            "unit |  |  | 100000000000000000000 |  | 1000000 |  | 100000000000000000000000000 | every unit at one price",
            "unrated |  |  |  |  |  |  | -100000000000000000000000000 | \
             beyond the range of bigint: the invoice waits until usage is corrected",
            "amount | 01-01 | 02-01 |  |  |  |  | 0 | Calls",
        ],
    );
    assert_all_add_up(&mut client);
}

#[test]
fn a_reader_may_ask_and_bad_questions_are_refused() {
    let (database, mut client) = open();
    metered(&mut client, "call", r#""unit_amount": 10"#);
    record(&mut client, "a", "2", "2024-01-10");
    generate(&mut client, "2024-02-01");
    let line = text(&mut client, "SELECT id FROM billing.invoice_lines");
    let mut reader = database.connect().unwrap();
    reader
        .batch_execute("SET default_transaction_read_only = on; SET ROLE billing_reader")
        .unwrap();
    let amount = "SELECT amount::text FROM billing.explain_invoice_line($1, true) WHERE part = 'amount'";
    let read: String = reader.query_one(amount, &[&line]).unwrap().get(0);
    assert_eq!(read, "20");
    let explain = "SELECT * FROM billing.explain_invoice_line($1, $2)";
    assert_refused(
        &mut reader,
        explain,
        &[&"il_none", &false],
        &SqlState::UNDEFINED_OBJECT,
        &["\"il_none\""],
    );
    assert_refused(
        &mut reader,
        explain,
        &[&None::<&str>, &false],
        &SqlState::NULL_VALUE_NOT_ALLOWED,
        &["\"line\""],
    );
    assert_refused(
        &mut reader,
        explain,
        &[&line, &None::<bool>],
        &SqlState::NULL_VALUE_NOT_ALLOWED,
        &["\"events\""],
    );
    let steps = "SELECT * FROM billing.price_steps((SELECT price FROM billing.prices WHERE id = 'call'), 'NaN')";
    assert_refused(&mut client, steps, &[], &SqlState::INVALID_PARAMETER_VALUE, &["NaN"]);
}
