//! Coupons, discounts, tax rates and credit: what the database holds them to, at once and against whom. Their amounts are stories of
//! `goldens` and pure tests.

use harness::Database;
use postgres::Client;

use crate::invoices::shop;

mod at_once;
mod choosing;
mod facts;
mod refusals;

/// The shop with customer `acme`, a coupon, a tax rate, and subscription `sub` to two metered prices since 1 January 2024.
fn market() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    client
        .batch_execute(
            r#"SELECT billing.create_coupon('{"percent_off": 50, "duration": "once"}', 'half');
               SELECT billing.create_coupon('{"amount_off": 5, "currency": "usd", "duration": "forever"}', 'five');
               SELECT billing.create_tax_rate('{"display_name": "VAT", "percentage": 10, "inclusive": false}', 'vat');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "package"}]}', 'sub', '2024-01-01')"#,
        )
        .unwrap();
    (database, client)
}

/// A statement that grants `acme` an amount on 1 January 2024.
fn grant(id: &str, amount: i64, more: &str) -> String {
    format!(
        r#"SELECT billing.create_credit_grant('{{"customer": "acme", "amount": {{"type": "monetary", "monetary": {{"currency": "usd",
               "value": {amount}}}}}, "applicability_config": {{"scope": {{"price_type": "metered"}}}}{more}}}', '{id}', '2024-01-01')"#
    )
}

fn session(database: &Database) -> Client {
    let mut client = database.connect().unwrap();
    client
        .batch_execute("SET timezone = 'UTC'; SET billing.max_event_age = -1")
        .unwrap();
    client
}
