//! Who may do what: the whole matrix of roles and objects, what each role gets done, and what a hostile one does not.

use harness::Database;
use postgres::Client;

use crate::refusal::Refusal;

mod abilities;
mod hijacking;
mod matrix;
mod settings;

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

/// A new login role that has nothing but `groups`; roles are the cluster's, so it is named after the test's database.
fn login(database: &Database, name: &str, groups: &str) -> String {
    let role = format!("{name}_of_{}", database.name());
    let grant = if groups.is_empty() {
        String::new()
    } else {
        format!("IN ROLE {groups}")
    };
    database
        .connect()
        .unwrap()
        .batch_execute(&format!("CREATE ROLE {role} LOGIN {grant}"))
        .unwrap();
    role
}

fn strings(client: &mut Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn denied(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        Refusal::of(client, statement, &[]).says("42501", &["permission denied"]);
    }
}

const CATALOG: &str = r#"
    SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
    SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
    SELECT billing.create_price('{"currency":"usd","unit_amount":3,"recurring":{"interval":"month","usage_type":"metered","meter":"calls"}}',
                                'prod', 'p');
    SELECT billing.create_subscription('{"customer":"c","items":[{"price":"p"}]}', 'sub');
    SELECT billing.record_meter_event('calls', 'c', 5, 'first', NULL, '{"region":"eu"}');"#;
