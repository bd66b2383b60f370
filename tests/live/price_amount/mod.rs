//! The pure functions against PostgreSQL itself: amounts against its `numeric`, periods against its calendar.

use harness::Database;
use postgres::Client;

mod currencies;
mod lines;
mod models;
mod periods;
mod planning;
mod prorations;

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

/// Asserts that the query finds no row; shows the first ones if it does.
fn none(client: &mut Client, sql: &str) {
    let wrong: Vec<String> = client
        .query(&format!("SELECT to_jsonb(wrong)::text FROM ({sql}) wrong LIMIT 5"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
