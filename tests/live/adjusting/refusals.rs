//! Bad input: a clear error with the offending value and a hint, and nothing half done.

use postgres::Client;

use super::{grant, market};
use crate::recording::text;
use crate::refusal::Refusal;

fn state(client: &mut Client) -> String {
    text(
        client,
        "SELECT concat_ws(' ', (SELECT count(*) FROM billing.coupons), (SELECT sum(times_redeemed) FROM billing.coupons),
                (SELECT count(*) FROM billing.discounts), (SELECT count(*) FROM billing.tax_rates),
                (SELECT count(*) FROM billing.credit_grants), (SELECT count(*) FROM billing.credit_balance_transactions))",
    )
}

/// Each statement is refused with a SQLSTATE and words, and leaves everything as it was.
fn refused(client: &mut Client, cases: &[(&str, &str, &[&str])]) {
    let before = state(client);
    for (sql, code, words) in cases {
        Refusal::of(client, sql, &[]).says(code, words).hints();
    }
    assert_eq!(state(client), before);
}

#[test]
fn bad_coupons_and_rates_are_refused_by_field() {
    let (_database, mut client) = market();
    let before = state(&mut client);
    let coupon = |fields: &str| format!("SELECT billing.create_coupon('{{{fields}}}')");
    let cases: &[(&str, &[&str])] = &[
        ("", &["percent_off", "amount_off", "required"]),
        (r#""percent_off": 0"#, &["percent_off", "0"]),
        (r#""percent_off": -5"#, &["percent_off", "-5", "negative"]),
        (r#""percent_off": 100.1"#, &["percent_off", "100.1", "from 0 to 100"]),
        (
            r#""percent_off": 1.23456"#,
            &["percent_off", "1.23456", "4 decimal places"],
        ),
        (r#""percent_off": "a third""#, &["percent_off", "a third"]),
        (
            r#""percent_off": 5, "amount_off": 5, "currency": "usd""#,
            &["amount_off", "together"],
        ),
        (r#""percent_off": 5, "currency": "usd""#, &["currency", "absent"]),
        (r#""amount_off": 5"#, &["currency", "required"]),
        (r#""amount_off": 0, "currency": "usd""#, &["amount_off", "0"]),
        (
            r#""amount_off": 1.5, "currency": "usd""#,
            &["amount_off", "1.5", "integer"],
        ),
        (
            r#""amount_off": 9223372036854775808, "currency": "usd""#,
            &["amount_off", "9223372036854775808"],
        ),
        (r#""amount_off": 5, "currency": "xxx""#, &["currency", "xxx"]),
        (
            r#""amount_off": 5, "currency": "usd", "currency_options": {"xxx": {"amount_off": 1}}"#,
            &["xxx"],
        ),
        (
            r#""amount_off": 5, "currency": "usd", "currency_options": {"eur": {}}"#,
            &["currency_options.eur.amount_off"],
        ),
        (
            r#""amount_off": 5, "currency": "usd", "currency_options": {"usd": {"amount_off": 6}}"#,
            &["usd", "6"],
        ),
        (r#""percent_off": 5, "duration": "weekly""#, &["duration", "weekly"]),
        (
            r#""percent_off": 5, "duration": "repeating""#,
            &["duration_in_months", "required"],
        ),
        (
            r#""percent_off": 5, "duration": "once", "duration_in_months": 2"#,
            &["duration_in_months", "2"],
        ),
        (
            r#""percent_off": 5, "duration": "repeating", "duration_in_months": 0"#,
            &["duration_in_months", "0"],
        ),
        (r#""percent_off": 5, "max_redemptions": 0"#, &["max_redemptions", "0"]),
        (r#""percent_off": 5, "redeem_by": "soon""#, &["redeem_by", "soon"]),
        (r#""percent_off": 5, "colour": "red""#, &["colour", "red"]),
        (r#""percent_off": 5, "metadata": {"a": 1}"#, &["metadata.a", "1"]),
        (
            r#""percent_off": 5, "applies_to": {"products": [5]}"#,
            &["applies_to.products", "5"],
        ),
        (
            r#""percent_off": 5, "applies_to": {"products": ["a", "a"]}"#,
            &["applies_to.products", "a"],
        ),
    ];
    for (fields, words) in cases {
        Refusal::of(&mut client, &coupon(fields), &[]).says("22023", words);
    }
    Refusal::of(&mut client, "SELECT billing.create_coupon('5')", &[]).says("22P02", &["coupon", "5"]);
    let rate = |fields: &str| format!("SELECT billing.create_tax_rate('{{{fields}}}')");
    let cases: &[(&str, &[&str])] = &[
        (r#""display_name": "V", "inclusive": true"#, &["percentage", "required"]),
        (r#""display_name": "V", "percentage": 10"#, &["inclusive", "required"]),
        (r#""inclusive": true, "percentage": 10"#, &["display_name", "required"]),
        (
            r#""display_name": "V", "inclusive": true, "percentage": 100.0001"#,
            &["percentage", "100.0001"],
        ),
        (
            r#""display_name": "V", "inclusive": true, "percentage": 0.00001"#,
            &["percentage", "4 decimal places"],
        ),
        (
            r#""display_name": "V", "inclusive": "yes", "percentage": 1"#,
            &["inclusive", "yes"],
        ),
        (
            r#""display_name": "V", "inclusive": true, "percentage": 1, "country": "DEU""#,
            &["country", "DEU"],
        ),
    ];
    for (fields, words) in cases {
        Refusal::of(&mut client, &rate(fields), &[]).says("22023", words);
    }
    assert_eq!(state(&mut client), before);
}

#[test]
fn again_is_no_error_and_other_terms_are() {
    let (_database, mut client) = market();
    client.batch_execute(&grant("g", 50, "")).unwrap();
    let before = state(&mut client);
    client
        .batch_execute(&format!(
            r#"SELECT billing.create_coupon('{{"percent_off": 50.0, "duration": "once", "object": "coupon", "valid": true}}', 'half');
               SELECT billing.create_coupon('{{"id": "five", "amount_off": 5, "currency": "USD", "duration": "forever", "currency_options": {{"usd": {{"amount_off": 5}}}}}}');
               SELECT billing.create_tax_rate('{{"display_name": "VAT", "percentage": "10.0000", "inclusive": false}}', 'vat');
               {}"#,
            grant("g", 50, r#", "category": "paid", "priority": 50"#)
        ))
        .unwrap();
    assert_eq!(state(&mut client), before);
    client
        .batch_execute("SELECT billing.delete_coupon('five'), billing.delete_coupon('five')")
        .unwrap();
    let more = grant("g", 51, "");
    refused(
        &mut client,
        &[
            (
                r#"SELECT billing.create_coupon('{"percent_off": 51}', 'half')"#,
                "23505",
                &["half"],
            ),
            (
                r#"SELECT billing.create_coupon('{"amount_off": 5, "currency": "usd", "duration": "forever"}', 'five')"#,
                "23505",
                &["five"],
            ),
            (
                r#"SELECT billing.create_tax_rate('{"display_name": "VAT", "percentage": 10, "inclusive": true}', 'vat')"#,
                "23505",
                &["vat"],
            ),
            (&more, "23505", &["\"g\""]),
            ("SELECT billing.create_coupon(NULL)", "22004", &["coupon"]),
            ("SELECT billing.create_tax_rate(NULL)", "22004", &["tax_rate"]),
            ("SELECT billing.create_credit_grant(NULL)", "22004", &["credit_grant"]),
            ("SELECT billing.delete_coupon('none')", "42704", &["none"]),
            ("SELECT billing.archive_tax_rate('none')", "42704", &["none"]),
            (
                r#"SELECT billing.create_coupon('{"percent_off": 5, "applies_to": {"products": ["none"]}}')"#,
                "23503",
                &["none"],
            ),
        ],
    );
}

#[test]
fn coupons_are_redeemed_only_while_they_may_be() {
    let (_database, mut client) = market();
    client
        .batch_execute(
            r#"SELECT billing.create_coupon('{"percent_off": 5, "max_redemptions": 1, "duration": "forever"}', 'one');
               SELECT billing.create_coupon('{"percent_off": 5, "redeem_by": "2024-02-01T00:00:00Z"}', 'early');
               SELECT billing.create_coupon('{"percent_off": 5}', 'deleted');
               SELECT billing.delete_coupon('deleted', '2024-01-01');
               SELECT billing.create_coupon('{"amount_off": 5, "currency": "eur"}', 'euros');
               SELECT billing.apply_discount('one', 'customer', 'acme', '2024-01-01');
               SELECT billing.apply_discount('early', 'customer', 'acme', '2024-01-31 23:59:59.999999');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}]}', 'ended', '2024-01-01');
               SELECT billing.cancel_subscription('ended', as_of => '2024-01-02')"#,
        )
        .unwrap();
    let long = format!(
        "SELECT billing.set_discounts('customer', 'acme', (SELECT jsonb_agg('{}'::jsonb) FROM generate_series(1, 21)))",
        r#"{"coupon": "half"}"#
    );
    refused(
        &mut client,
        &[
            (
                "SELECT billing.apply_discount('one', 'subscription', 'sub', '2024-01-02')",
                "55000",
                &["one", "1 times"],
            ),
            (
                "SELECT billing.apply_discount('early', 'subscription', 'sub', '2024-02-01')",
                "55000",
                &["early", "2024-02-01"],
            ),
            (
                "SELECT billing.apply_discount('deleted', 'subscription', 'sub', '2024-01-02')",
                "55000",
                &["deleted"],
            ),
            (
                "SELECT billing.apply_discount('euros', 'subscription', 'sub', '2024-01-02')",
                "22023",
                &["euros", "eur", "usd"],
            ),
            (
                "SELECT billing.apply_discount('none', 'subscription', 'sub', '2024-01-02')",
                "23503",
                &["none"],
            ),
            (
                "SELECT billing.apply_discount('half', 'subscription', 'none')",
                "42704",
                &["subscription", "none"],
            ),
            (
                "SELECT billing.apply_discount('half', 'subscription_item', 'none')",
                "42704",
                &["subscription item", "none"],
            ),
            (
                "SELECT billing.apply_discount('half', 'customer', 'none')",
                "42704",
                &["customer", "none"],
            ),
            (
                "SELECT billing.apply_discount('half', 'invoice', 'none')",
                "42704",
                &["invoice", "none"],
            ),
            (
                "SELECT billing.apply_discount('half', 'product', 'none')",
                "22023",
                &["product"],
            ),
            (
                "SELECT billing.apply_discount('half', 'subscription', 'ended', '2024-01-03')",
                "55000",
                &["ended", "canceled"],
            ),
            (
                "SELECT billing.apply_discount('half', 'invoice', (SELECT id FROM billing.invoices LIMIT 1))",
                "55000",
                &["open"],
            ),
            (
                "SELECT billing.apply_discount(NULL, 'customer', 'acme')",
                "22004",
                &["coupon"],
            ),
            (
                "SELECT billing.apply_discount('half', 'customer', 'acme', 'infinity')",
                "22023",
                &["as_of"],
            ),
            (&long, "22023", &["21"]),
            (
                r#"SELECT billing.set_discounts('customer', 'acme', '{"coupon": "half"}')"#,
                "22023",
                &["array"],
            ),
            (
                r#"SELECT billing.set_discounts('customer', 'acme', '[5]')"#,
                "22023",
                &["discounts[0]", "5"],
            ),
            (
                r#"SELECT billing.set_discounts('customer', 'acme', '[{"coupon": "half"}, {}]')"#,
                "22023",
                &["discounts[1]"],
            ),
            (
                r#"SELECT billing.set_discounts('customer', 'acme', '[{"coupon": "half", "colour": "red"}]')"#,
                "22023",
                &["colour"],
            ),
            (
                r#"SELECT billing.set_discounts('customer', 'acme', '[{"coupon": "half", "discount": "di_1"}]')"#,
                "22023",
                &["discounts[0]"],
            ),
            (
                r#"SELECT billing.set_discounts('customer', 'acme', '[{"promotion_code": "promo_1"}]')"#,
                "0A000",
                &["promo_1"],
            ),
            (
                r#"SELECT billing.set_discounts('subscription', 'sub', '[{"discount": "di_1"}]')"#,
                "42704",
                &["di_1", "sub"],
            ),
            (
                r#"SELECT billing.set_discounts('subscription', 'sub', '[{"coupon": "half"}, {"coupon": "half"}]')"#,
                "22023",
                &["half", "twice"],
            ),
            (
                "SELECT billing.set_discounts('customer', 'acme', (SELECT jsonb_build_array(min(id), min(id)) FROM billing.discounts))",
                "22023",
                &["di_", "twice"],
            ),
            (
                "SELECT billing.set_discounts('customer', 'acme', NULL)",
                "22004",
                &["discounts"],
            ),
        ],
    );
}

#[test]
fn bad_grants_are_refused_by_field() {
    let (_database, mut client) = market();
    let full = |amount: &str, scope: &str, more: &str| {
        format!(
            r#"SELECT billing.create_credit_grant('{{"customer": "acme", "amount": {amount}, "applicability_config": {{"scope": {scope}}}{more}}}',
                   as_of => '2024-01-01')"#
        )
    };
    let money = r#"{"type": "monetary", "monetary": {"currency": "usd", "value": 5}}"#;
    let metered = r#"{"price_type": "metered"}"#;
    let prices = format!(
        r#"{{"prices": [{}]}}"#,
        (0..21)
            .map(|n| format!(r#"{{"id": "p{n}"}}"#))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let cases: Vec<(String, &str, &[&str])> = vec![
        (full("5", metered, ""), "22023", &["amount", "5"]),
        (
            full(r#"{"type": "monetary"}"#, metered, ""),
            "22023",
            &["amount.monetary"],
        ),
        (
            full(&money.replace('5', "0"), metered, ""),
            "22023",
            &["amount.monetary.value", "0"],
        ),
        (
            full(&money.replace('5', "5.5"), metered, ""),
            "22023",
            &["amount.monetary.value", "5.5"],
        ),
        (
            full(&money.replace("usd", "xxx"), metered, ""),
            "22023",
            &["amount.monetary.currency", "xxx"],
        ),
        (
            full(&money.replace("\"monetary\",", "\"units\","), metered, ""),
            "22023",
            &["amount.type", "units"],
        ),
        (full(money, "{}", ""), "22023", &["applicability_config.scope"]),
        (
            full(money, r#"{"price_type": "licensed"}"#, ""),
            "22023",
            &["price_type", "licensed"],
        ),
        (
            full(money, r#"{"price_type": "metered", "prices": [{"id": "call"}]}"#, ""),
            "22023",
            &["only one"],
        ),
        (
            full(money, r#"{"prices": [{"id": "call"}, {"id": "call"}]}"#, ""),
            "22023",
            &["prices[1].id", "call"],
        ),
        (full(money, &prices, ""), "22023", &["21"]),
        (full(money, r#"{"prices": [{"id": "none"}]}"#, ""), "23503", &["none"]),
        (
            full(money, r#"{"prices": [{"id": "seat"}]}"#, ""),
            "22023",
            &["seat", "metered"],
        ),
        (
            full(money, metered, r#", "priority": 101"#),
            "22023",
            &["priority", "101"],
        ),
        (
            full(money, metered, r#", "category": "gift""#),
            "22023",
            &["category", "gift"],
        ),
        (
            full(money, metered, r#", "expires_at": "2024-01-01T00:00:00Z""#),
            "22023",
            &["expires_at", "2024-01-01"],
        ),
        (
            full(
                money,
                metered,
                r#", "effective_at": "2024-03-01T00:00:00Z", "expires_at": "2024-02-01T00:00:00Z""#,
            ),
            "22023",
            &["expires_at", "2024-02-01", "2024-03-01"],
        ),
        (full(money, metered, "").replace("acme", "none"), "23503", &["none"]),
        (
            full(money, metered, "").replace("\"customer\": \"acme\", ", ""),
            "22023",
            &["customer", "required"],
        ),
    ];
    let before = state(&mut client);
    for (sql, code, words) in &cases {
        Refusal::of(&mut client, sql, &[]).says(code, words);
    }
    assert_eq!(state(&mut client), before);
    client
        .batch_execute(&grant("g", 5, r#", "effective_at": "2024-02-01T00:00:00Z""#))
        .unwrap();
    refused(
        &mut client,
        &[
            (
                "SELECT billing.expire_credit_grant('g', '2024-01-15')",
                "55000",
                &["\"g\"", "2024-02-01"],
            ),
            (
                "SELECT billing.expire_credit_grant('g', '2023-12-31')",
                "22023",
                &["as_of", "2023-12-31"],
            ),
            ("SELECT billing.expire_credit_grant('none')", "42704", &["none"]),
            ("SELECT billing.void_credit_grant('none')", "42704", &["none"]),
            ("SELECT billing.void_credit_grant(NULL)", "22004", &["credit_grant"]),
            (
                r#"SELECT billing.update_credit_grant('g', '{"expires_at": "2024-02-01T00:00:00Z"}', '2024-01-15')"#,
                "22023",
                &["2024-02-01"],
            ),
            ("SELECT billing.update_credit_grant('g', NULL)", "22004", &["changes"]),
            ("SELECT billing.credit_balance(NULL, 'usd')", "22004", &["customer"]),
            ("SELECT billing.expire_credits('infinity')", "22023", &["as_of"]),
        ],
    );
    // One that is not effective yet can be voided, and was then never there.
    client
        .batch_execute("SELECT billing.void_credit_grant('g', '2024-01-15')")
        .unwrap();
    for as_of in ["2024-01-20", "2024-02-01", "2024-03-01"] {
        let balance = format!("SELECT billing.credit_balance('acme', 'usd', '{as_of}')::text");
        assert_eq!(text(&mut client, &balance), "(0,0)", "{as_of}");
    }
}

#[test]
fn rates_are_named_only_while_they_may_be() {
    let (_database, mut client) = market();
    client
        .batch_execute(
            r#"SELECT billing.create_tax_rate('{"display_name": "old", "percentage": 1, "inclusive": false, "active": false}', 'old');
               SELECT billing.require_tax_rates(NULL), billing.require_tax_rates('{}'), billing.require_tax_rates('{vat}')"#,
        )
        .unwrap();
    refused(
        &mut client,
        &[
            ("SELECT billing.require_tax_rates('{vat,none}')", "23503", &["none"]),
            (
                "SELECT billing.require_tax_rates('{vat,old}')",
                "55000",
                &["old", "archived"],
            ),
            (
                "SELECT billing.require_tax_rates('{vat,vat}')",
                "22023",
                &["vat", "twice"],
            ),
            (
                "SELECT billing.require_tax_rates(array_fill('vat'::text, '{11}'))",
                "22023",
                &["11"],
            ),
            ("SELECT billing.require_tax_rates('{NULL}')", "23503", &["NULL"]),
        ],
    );
    client
        .batch_execute("SELECT billing.activate_tax_rate('old'); SELECT billing.require_tax_rates('{vat,old}')")
        .unwrap();
}

#[test]
fn the_pure_function_names_what_is_wrong_with_an_invoice() {
    let (_database, mut client) = market();
    for (invoice, words) in [
        ("5", "invalid invoice"),
        ("{}", "missing field"),
        (
            r#"{"created": "2024-01-01T00:00:00Z", "tax_exempt": "none", "discounts": [], "credit_grants": [], "tax_rates": [], "lines": [
             {"amount": 1, "discountable": true, "metered": false, "period_end": "2024-01-01T00:00:00Z", "tax_rates": ["txr_1"]}]}"#,
            "txr_1",
        ),
    ] {
        let sql = format!("SELECT * FROM billing.adjust_amounts('{invoice}')");
        Refusal::of(&mut client, &sql, &[]).says("22023", &[words]).hints();
    }
    assert_eq!(
        text(&mut client, "SELECT count(*) FROM billing.adjust_amounts(NULL)"),
        "0"
    );
}
