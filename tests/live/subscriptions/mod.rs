//! What subscriptions refuse, what a refusal leaves undone, and what is so whatever happens to them. The amounts of changes are
//! told by the stories (`goldens`).

mod random;
mod refusals;
mod schedules;

use harness::Database;
use postgres::Client;

use crate::invoices::shop;

/// The shop of the invoices with more prices: `pro` (1500, licensed), `year` (licensed), `week` (licensed), `euro`, `once`, `old`
/// (archived), and subscription `sub` of `seat` and `call` since 1 January 2024.
fn open_shop() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let mut client = database.connect().unwrap();
    shop(&mut client);
    client
        .batch_execute(
            r#"SELECT billing.create_price('{"currency": "usd", "unit_amount": 1500, "recurring": {"interval": "month"}}', id => 'pro');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 9000, "recurring": {"interval": "year"}}', id => 'year');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 100, "recurring": {"interval": "week"}}', id => 'week');
               SELECT billing.create_price('{"currency": "eur", "unit_amount": 500, "recurring": {"interval": "month"}}', id => 'euro');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 500}', id => 'once');
               SELECT billing.create_price('{"currency": "usd", "unit_amount": 500, "recurring": {"interval": "month"}}', id => 'old');
               SELECT billing.archive_price('old');
               SELECT billing.create_subscription('{"customer": "acme", "items": [{"price": "seat"}, {"price": "call"}]}', 'sub', '2024-01-01')"#,
        )
        .unwrap();
    (database, client)
}

/// All that a change could have touched.
fn state(client: &mut Client) -> String {
    crate::recording::text(
        client,
        "SELECT concat_ws(E'\\n',
             (SELECT jsonb_agg(to_jsonb(s) ORDER BY s.id) FROM billing.subscriptions s),
             (SELECT jsonb_agg(to_jsonb(i) ORDER BY i.id) FROM billing.subscription_items i),
             (SELECT jsonb_agg(to_jsonb(h)) FROM billing.subscription_item_past_prices h),
             (SELECT jsonb_agg(to_jsonb(h) ORDER BY h.id) FROM billing.subscription_schedules h),
             (SELECT jsonb_agg(to_jsonb(x) ORDER BY x.id) FROM billing.invoice_items x),
             (SELECT jsonb_agg(to_jsonb(i) ORDER BY i.id) FROM billing.invoices i))",
    )
}
