//! What a session that records keeps of meters and customers: never longer than it is true.

use harness::Database;
use postgres::Client;
use postgres::error::SqlState;

use crate::recording::{assert_refused, database, meter, number};

const RECORD: &str = "SELECT billing.record_meter_event($1::text, $2::text)";

fn accepts(client: &mut Client, event_name: &str, customer: &str) {
    let recorded: bool = client.query_one(RECORD, &[&event_name, &customer]).unwrap().get(0);
    assert!(recorded);
}

fn refuses(client: &mut Client, event_name: &str, customer: &str, code: &SqlState, error_code: &str) {
    assert_refused(client, RECORD, &[&event_name, &customer], code, &[error_code]);
}

fn refuses_meter(client: &mut Client, event_name: &str) {
    refuses(client, event_name, "acme", &SqlState::UNDEFINED_OBJECT, "no_meter");
}

fn refuses_customer(client: &mut Client, customer: &str) {
    let code = SqlState::FOREIGN_KEY_VIOLATION;
    refuses(client, "sum", customer, &code, "meter_event_customer_not_found");
}

/// Two sessions that have both recorded.
fn two_sessions(database: &Database) -> (Client, Client) {
    let mut sessions = (database.connect().unwrap(), database.connect().unwrap());
    accepts(&mut sessions.0, "sum", "acme");
    accepts(&mut sessions.1, "sum", "acme");
    sessions
}

#[test]
fn a_meter_is_refused_from_the_moment_another_session_deactivates_it() {
    let database = database();
    let (mut here, mut there) = two_sessions(&database);
    let inactive = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    there
        .batch_execute("BEGIN; SELECT billing.deactivate_meter('sum')")
        .unwrap();
    accepts(&mut here, "sum", "acme");
    there.batch_execute("ROLLBACK").unwrap();
    accepts(&mut here, "sum", "acme");
    accepts(&mut there, "sum", "acme");
    for _ in 0..3 {
        there.batch_execute("SELECT billing.deactivate_meter('sum')").unwrap();
        refuses(&mut here, "sum", "acme", &inactive, "archived_meter");
        refuses(&mut there, "sum", "acme", &inactive, "archived_meter");
        there.batch_execute("SELECT billing.reactivate_meter('sum')").unwrap();
        accepts(&mut here, "sum", "acme");
        accepts(&mut there, "sum", "acme");
    }
}

/// Ids are kept in two ways, by their length.
#[test]
fn ids_of_any_length_are_kept_apart() {
    let database = database();
    let mut client = database.connect().unwrap();
    let ids = [1, 28, 29, 30, 31, 32, 100].map(|length| "c".repeat(length) + "d");
    for id in &ids {
        refuses_customer(&mut client, id);
        client.execute("SELECT billing.create_customer($1)", &[id]).unwrap();
    }
    for id in ids.iter().chain(&ids) {
        accepts(&mut client, "sum", id);
        refuses_customer(&mut client, &format!("{id}x"));
        refuses_customer(&mut client, &format!("{id}\u{1}"));
        refuses_customer(&mut client, &id[..id.len() - 1]);
    }
}

/// Also in a transaction that had recorded before, at every isolation level: what is recorded is new, whatever the snapshot.
#[test]
fn a_transaction_hears_of_it_too() {
    let database = database();
    let (mut here, mut there) = two_sessions(&database);
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        here.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
        accepts(&mut here, "sum", "acme");
        there.batch_execute("SELECT billing.deactivate_meter('sum')").unwrap();
        let refused = here.query_one(RECORD, &[&"sum", &"acme"]).unwrap_err();
        assert_eq!(
            refused.code(),
            Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
            "{level}"
        );
        here.batch_execute("ROLLBACK").unwrap();
        there.batch_execute("SELECT billing.reactivate_meter('sum')").unwrap();
    }
}

/// A session that has looked up many customers reads all of them at once.
#[test]
fn a_customer_read_with_all_others_is_kept_no_longer() {
    let database = database();
    let (mut here, mut there) = two_sessions(&database);
    let many = "INSERT INTO billing.customers (id) SELECT 'c' || n FROM generate_series(1, 1000) n";
    there.batch_execute(many).unwrap();
    here.batch_execute("BEGIN; INSERT INTO billing.customers (id) VALUES ('ghost')")
        .unwrap();
    there
        .batch_execute("INSERT INTO billing.customers (id) VALUES ('late')")
        .unwrap();
    for n in 1..=300 {
        accepts(&mut here, "sum", &format!("c{n}"));
    }
    accepts(&mut here, "sum", "ghost");
    accepts(&mut here, "sum", "late");
    here.batch_execute("ROLLBACK").unwrap();
    refuses_customer(&mut here, "ghost");
    for customer in ["late", "c1", "c300", "c301", "c1000"] {
        accepts(&mut here, "sum", customer);
    }
    refuses_customer(&mut here, "c1001");
    there
        .batch_execute(
            "INSERT INTO billing.customers (id) VALUES ('c1001'); DELETE FROM billing.customers WHERE id = 'c500'",
        )
        .unwrap();
    accepts(&mut here, "sum", "c1001");
    refuses_customer(&mut here, "c500");
    accepts(&mut here, "sum", "c501");
}

#[test]
fn what_is_rolled_back_was_never_there() {
    let database = database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute("BEGIN; SELECT billing.create_customer('new')")
        .unwrap();
    meter(&mut client, "fresh", "sum", "");
    accepts(&mut client, "fresh", "new");
    accepts(&mut client, "fresh", "new");
    client.batch_execute("ROLLBACK").unwrap();
    refuses_customer(&mut client, "new");
    refuses_meter(&mut client, "fresh");

    client
        .batch_execute("BEGIN; SAVEPOINT s; SELECT billing.create_customer('new')")
        .unwrap();
    meter(&mut client, "fresh", "sum", "");
    accepts(&mut client, "fresh", "new");
    client.batch_execute("ROLLBACK TO s").unwrap();
    let sql = "SELECT recorded, error_code FROM billing.record_meter_events('{fresh, sum}', '{acme, new}', '{1, 1}'),
                   LATERAL (SELECT string_agg(error_code, ' ' ORDER BY id) AS error_code FROM billing.meter_event_rejections) r";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    client.batch_execute("RELEASE s; COMMIT").unwrap();
    refuses_customer(&mut client, "new");
    refuses_meter(&mut client, "fresh");
    assert_eq!(
        number(
            &mut client,
            "SELECT count(*) FROM billing.meter_events WHERE customer = 'new' OR event_name = 'fresh'"
        ),
        0
    );

    client.batch_execute("SELECT billing.create_customer('new')").unwrap();
    meter(&mut client, "fresh", "sum", "");
    accepts(&mut client, "fresh", "new");
}

#[test]
fn a_deleted_customer_is_unknown() {
    let database = database();
    let (mut here, mut there) = two_sessions(&database);
    there.batch_execute("SELECT billing.create_customer('leaver')").unwrap();
    accepts(&mut here, "sum", "leaver");
    there
        .batch_execute("BEGIN; DELETE FROM billing.customers WHERE id = 'leaver'")
        .unwrap();
    accepts(&mut here, "sum", "leaver");
    there.batch_execute("ROLLBACK").unwrap();
    accepts(&mut there, "sum", "leaver");
    there
        .batch_execute("DELETE FROM billing.customers WHERE id = 'leaver'")
        .unwrap();
    refuses_customer(&mut here, "leaver");
    refuses_customer(&mut there, "leaver");
    // As a replicated change would be applied.
    there.batch_execute("SELECT billing.create_customer('leaver')").unwrap();
    accepts(&mut here, "sum", "leaver");
    there
        .batch_execute("SET session_replication_role = replica; DELETE FROM billing.customers WHERE id = 'leaver'")
        .unwrap();
    refuses_customer(&mut here, "leaver");
    refuses_customer(&mut there, "leaver");
}

/// Logical replication applies a change row by row, and fires no triggers of statements.
#[test]
fn what_is_replicated_is_heard_of_too() {
    let database = database();
    let (mut here, mut there) = two_sessions(&database);
    there
        .batch_execute(
            "ALTER TABLE billing.customers DISABLE TRIGGER customers_announce_change;
             ALTER TABLE billing.meters DISABLE TRIGGER meters_announce_change",
        )
        .unwrap();
    accepts(&mut here, "sum", "acme");
    accepts(&mut here, "count", "acme");
    there
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE billing.meters SET status = 'inactive', deactivated_at = now() WHERE event_name = 'count'",
        )
        .unwrap();
    let inactive = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    refuses(&mut here, "count", "acme", &inactive, "archived_meter");
    accepts(&mut here, "sum", "acme");
    there
        .batch_execute("DELETE FROM billing.customers WHERE id = 'acme'")
        .unwrap();
    refuses_customer(&mut here, "acme");
}

/// More customers than a session keeps.
#[test]
fn no_customer_is_forgotten_for_want_of_room() {
    let database = database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute("INSERT INTO billing.customers (id) SELECT 'c' || n FROM generate_series(1, 60000) n")
        .unwrap();
    for _ in 0..2 {
        let sql = "SELECT recorded FROM generate_series(0, 2) part, billing.record_meter_events(
                       array_fill('count'::text, '{20000}'),
                       ARRAY(SELECT 'c' || n FROM generate_series(part * 20000 + 1, part * 20000 + 20000) n),
                       array_fill(1::numeric, '{20000}'))";
        let rows = client.query(sql, &[]).unwrap();
        assert_eq!(
            rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(),
            [20_000; 3]
        );
    }
    accepts(&mut client, "sum", "c1");
    refuses_customer(&mut client, "c60001");
    client.batch_execute("SELECT billing.roll_up()").unwrap();
    let sql =
        "SELECT count(*) FROM billing.usage_buckets WHERE event_name = 'count' AND width = 'day' AND event_count = 2";
    assert_eq!(number(&mut client, sql), 60_000);
}
