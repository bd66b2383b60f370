//! Customers, products, meters and prices: made by functions and by plain INSERTs, kept, archived, never falsified.

use harness::Database;
use postgres::Client;
use postgres::types::ToSql;
use serde_json::{Value, json};

mod archiving;
mod changing;
mod filtering;
mod injection;
mod inserting;
mod lookup_keys;
mod making;
mod naming;
mod nulls;
mod products;

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

fn text(client: &mut Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> String {
    match client.query_one(sql, parameters) {
        Ok(row) => row.get(0),
        Err(error) => panic!("{error:?}: {sql} {parameters:?}"),
    }
}

fn truth(client: &mut Client, sql: &str) -> bool {
    client.query_one(sql, &[]).unwrap().get(0)
}

fn meter(event_name: &str) -> Value {
    json!({"event_name": event_name, "default_aggregation": {"formula": "sum"}})
}

fn metered(meter: &str) -> Value {
    json!({"currency": "usd", "unit_amount": 2, "recurring": {"interval": "month", "usage_type": "metered", "meter": meter}})
}

const CUSTOMER: &str = "SELECT billing.create_customer($1, $2, $3, $4::jsonb)";
const PRODUCT: &str = "SELECT billing.create_product($1, $2, $3, $4, $5::jsonb)";
const METER: &str = "SELECT billing.create_meter($1::jsonb)";
const PRICE: &str = "SELECT billing.create_price($1::jsonb, $2, $3)";
