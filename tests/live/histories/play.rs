//! Playing a history on a database, and reading back what billing has made of it.

use chrono::{DateTime, Utc};
use harness::{Cluster, Database};
use postgres::Client;

use super::books::Told;
use super::model::{Invoice, Line};
use super::prices::{self, Source};
use super::story::{History, Micros, Subscription};

fn time(micros: Micros) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap()
}

/// For a statement.
pub fn shown(micros: Micros) -> String {
    time(micros).to_rfc3339()
}

pub fn connect(database: &Database) -> Client {
    let mut client = database.connect().unwrap();
    client
        .batch_execute("SET timezone = 'UTC'; SET billing.max_event_age = -1")
        .unwrap();
    client
}

/// A database with the prices and customers of a history.
pub fn open<'c>(cluster: &'c Cluster, history: &History) -> Database<'c> {
    let database = Database::with_extension(cluster).unwrap();
    let mut sql = String::new();
    for source in Source::ALL {
        let name = source.name();
        sql += &format!(
            r#"SELECT billing.create_meter('{{"display_name": "{name}", "event_name": "{name}", "default_aggregation": {{"formula": "{name}"}}}}');"#
        );
    }
    for price in prices::all() {
        sql += &format!(
            "SELECT billing.create_price('{}', id => '{}');",
            price.definition(),
            price.id()
        );
    }
    sql += &format!(
        "SELECT billing.create_customer('c' || n) FROM generate_series(0, {}) n",
        history.customers - 1
    );
    connect(&database).batch_execute(&sql).unwrap();
    database
}

/// more: what else it is to have, each with a comma before it.
pub fn create(subscription: &Subscription, more: &str) -> String {
    let items: Vec<String> = subscription
        .items
        .iter()
        .map(|(price, quantity)| match price.source {
            None => format!(r#"{{"price": "{}", "quantity": {quantity}}}"#, price.id()),
            Some(_) => format!(r#"{{"price": "{}"}}"#, price.id()),
        })
        .collect();
    let mut fields = format!(
        r#""customer": "c{}", "items": [{}], "cancel_at_period_end": {}"#,
        subscription.customer,
        items.join(", "),
        subscription.cancel_at_period_end
    );
    for (name, at) in [
        ("billing_cycle_anchor", subscription.anchor),
        ("trial_end", subscription.trial_end),
        ("cancel_at", subscription.cancel_at),
    ] {
        if let Some(at) = at {
            fields += &format!(r#", "{name}": "{}""#, shown(at));
        }
    }
    if !subscription.prorates {
        fields += r#", "proration_behavior": "none""#;
    }
    if subscription.sends_invoices {
        fields += r#", "collection_method": "send_invoice", "days_until_due": 14"#;
    }
    format!(
        "SELECT billing.create_subscription('{{{fields}{more}}}', '{}', '{}');",
        subscription.id,
        shown(subscription.start)
    )
}

/// What happens before a run: subscriptions that start, events that arrive, and events that are cancelled.
pub fn happen(client: &mut Client, history: &History, run: usize) {
    let mut sql = String::new();
    for subscription in &history.subscriptions {
        if history.run_at(subscription.start) == Some(run) {
            sql += &create(subscription, "");
        }
    }
    sql += &usage(history, run);
    client.batch_execute(&sql).unwrap();
}

/// Events that arrive before a run, and events that are cancelled.
pub fn usage(history: &History, run: usize) -> String {
    let mut sql = String::new();
    for event in history.events.iter().filter(|event| event.arrives == run) {
        sql += &format!(
            "SELECT billing.record_meter_event('{}', 'c{}', {}::numeric / 10, 'e{}', '{}');",
            event.source.name(),
            event.customer,
            event.tenths,
            event.identifier,
            shown(event.at)
        );
    }
    for event in history.events.iter().filter(|event| event.cancelled == Some(run)) {
        sql += &format!(
            "SELECT billing.cancel_meter_event('{}', 'c{}', 'e{}');",
            event.source.name(),
            event.customer,
            event.identifier
        );
    }
    sql
}

fn tell(line: &Line) -> String {
    let Line {
        kind,
        price,
        start,
        end,
        tenths,
        amount,
    } = line;
    format!(
        "{kind} {price} {} – {}: {tenths} tenths, {amount}, discount 0, credit 0, tax 0",
        shown(*start),
        shown(*end)
    )
}

pub fn told(invoices: &[Invoice]) -> Vec<Told> {
    let mut told: Vec<Told> = std::iter::zip(1.., invoices)
        .map(|(number, invoice)| {
            let mut lines: Vec<String> = invoice.lines.iter().map(tell).collect();
            lines.sort();
            Told {
                subscription: invoice.subscription.clone(),
                reason: invoice.reason.to_owned(),
                created: invoice.created,
                finalized_at: invoice.finalized_at,
                total: invoice.total(),
                lines,
                settled: invoice
                    .balances
                    .map(|(starting, ending)| (number, starting, ending, invoice.total() + starting - ending)),
            }
        })
        .collect();
    told.sort();
    told
}

/// Without what depends on the order in which invoices became final: their numbers, and which of them used up a balance.
pub fn unordered(mut books: Vec<Told>) -> Vec<Told> {
    for invoice in &mut books {
        invoice.settled = invoice.settled.map(|_| (0, 0, 0, 0));
    }
    books.sort();
    books
}
