//! CREATE, ALTER and DROP EXTENSION: versions, what is refused, and what is left behind.

use std::thread;

use harness::{Database, Options, cluster_under_test, shared_cluster};
use postgres::Client;

use crate::refusal::Refusal;

/// The version that Cargo.toml gives the extension.
fn version() -> &'static str {
    let manifest = include_str!("../../Cargo.toml");
    let package = manifest.split("[package]").nth(1).expect("Cargo.toml has a [package]");
    let line = package
        .lines()
        .find(|line| line.starts_with("version = "))
        .expect("a version");
    line.trim_start_matches("version = ").trim_matches('"')
}

fn installed() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

fn empty() -> (Database<'static>, Client) {
    let database = Database::empty(shared_cluster().unwrap()).unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

fn strings(client: &mut Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Everything that mentions the extension's schema, its types or its library, member or not.
const OBJECTS: &str = "
    SELECT i.type || ' ' || i.identity FROM (
        SELECT 'pg_class'::regclass AS c, oid FROM pg_class WHERE relnamespace = 'billing'::regnamespace
            -- one more a day, and TOAST tables are named by number
            AND NOT (relispartition OR relname LIKE 'pg_toast%')
        UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc
            WHERE pronamespace = 'billing'::regnamespace OR probin LIKE '%pg_billing%'
        UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
            LEFT JOIN pg_type e ON e.oid = t.typelem LEFT JOIN pg_class ec ON ec.oid = e.typrelid
            WHERE t.typnamespace = 'billing'::regnamespace AND NOT coalesce(c.relispartition OR ec.relispartition, false)
        UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprcode::text LIKE 'billing.%'
        UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass WHERE opcnamespace = 'billing'::regnamespace
        UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily WHERE opfnamespace = 'billing'::regnamespace
        UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast
            WHERE castsource::regtype::text LIKE 'billing.%' OR casttarget::regtype::text LIKE 'billing.%'
        UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgfoid::regproc::text LIKE 'billing.%'
        UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint c WHERE connamespace = 'billing'::regnamespace
            AND NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = c.conrelid AND r.relispartition)
    ) o, LATERAL pg_identify_object(o.c, o.oid, 0) i ORDER BY 1";

/// A little of everything, so that a DROP has rows, partitions and sequences to take away.
const USE: &str = r#"
    SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
    SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
    SELECT billing.create_price('{"currency":"usd","unit_amount":3,"recurring":{"interval":"month","usage_type":"metered","meter":"calls"}}',
                                'prod', 'p');
    SELECT billing.create_subscription('{"customer":"c","items":[{"price":"p"}]}', 'sub');
    SELECT billing.create_alert('calls', 2);
    SELECT billing.record_meter_event('calls', 'c', 5, 'first');
    SELECT billing.roll_up();
    SELECT billing.record_meter_event('calls', 'c', 6, 'second');"#;

#[test]
fn the_versions_are_one() {
    let (_database, mut client) = installed();
    let row = client
        .query_one(
            "SELECT e.extversion, a.default_version, e.extnamespace::regnamespace::text, e.extrelocatable
             FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname WHERE e.extname = 'pg_billing'",
            &[],
        )
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), (version(), version()));
    assert_eq!((row.get(2), row.get(3)), ("billing", false));
    let row = client
        .query_one(
            "SELECT superuser, trusted, relocatable, schema::text FROM pg_available_extension_versions WHERE name = 'pg_billing'",
            &[],
        )
        .unwrap();
    assert_eq!(
        (row.get(0), row.get(1), row.get(2), row.get(3)),
        (true, false, false, "billing")
    );
    if shared_cluster().unwrap().install().major >= 18 {
        let loaded = strings(
            &mut client,
            "SELECT concat_ws(' ', module_name, version)
             FROM billing.setting_seconds('retention') AS loading, pg_get_loaded_modules()
             WHERE file_name LIKE 'pg_billing%'",
        );
        assert_eq!(loaded, [format!("pg_billing {}", version())]);
    }
}

#[test]
fn installing_twice_is_refused_or_skipped() {
    let (_database, mut client) = installed();
    Refusal::of(&mut client, "CREATE EXTENSION pg_billing", &[]).says("42710", &["pg_billing", "already exists"]);
    client
        .batch_execute("CREATE EXTENSION IF NOT EXISTS pg_billing")
        .unwrap();
    client.batch_execute("ALTER EXTENSION pg_billing UPDATE").unwrap();
    client
        .batch_execute(&format!("ALTER EXTENSION pg_billing UPDATE TO '{}'", version()))
        .unwrap();
    Refusal::of(&mut client, "ALTER EXTENSION pg_billing UPDATE TO '0.0.1'", &[]).says("22023", &["no update path"]);
    Refusal::of(&mut client, "ALTER EXTENSION pg_billing SET SCHEMA public", &[]).says("0A000", &["SET SCHEMA"]);
    client.batch_execute(USE).unwrap();
}

#[test]
fn it_installs_only_where_and_by_whom_it_may() {
    let (database, mut client) = empty();
    Refusal::of(&mut client, "CREATE EXTENSION pg_billing SCHEMA public", &[]).says("0A000", &["schema \"billing\""]);
    Refusal::of(&mut client, "CREATE EXTENSION pg_billing VERSION '0.0.1'", &[]).says("22023", &["0.0.1"]);
    let role = format!("owner_of_{}", database.name());
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}; SET ROLE {role}",
            database.name()
        ))
        .unwrap();
    Refusal::of(&mut client, "CREATE EXTENSION pg_billing", &[]).says("42501", &["permission denied"]);
    client.batch_execute("RESET ROLE").unwrap();
    // Names that are taken: an error, and all or nothing.
    client
        .batch_execute("CREATE SCHEMA billing; CREATE TABLE billing.invoices (mine integer)")
        .unwrap();
    Refusal::of(&mut client, "CREATE EXTENSION pg_billing", &[]).says("42P07", &["invoices"]);
    assert_eq!(
        strings(
            &mut client,
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'billing'::regnamespace"
        ),
        ["invoices"]
    );
    // Beside other names it lives.
    client
        .batch_execute("ALTER TABLE billing.invoices RENAME TO mine; CREATE EXTENSION pg_billing")
        .unwrap();
    client.batch_execute(USE).unwrap();
    client.batch_execute("DROP EXTENSION pg_billing").unwrap();
    assert_eq!(
        strings(
            &mut client,
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'billing'::regnamespace"
        ),
        ["mine"]
    );
}

#[test]
fn a_schema_that_others_write_to_is_not_taken() {
    let (database, mut client) = empty();
    let role = format!("squatter_of_{}", database.name());
    client.batch_execute(&format!("CREATE ROLE {role}")).unwrap();
    // What stands in the schema runs as a superuser, and this would fit calls of the extension's own function better.
    let trap = "CREATE FUNCTION billing.require_argument(text, text) RETURNS void LANGUAGE sql AS ''";
    for squat in [
        format!("CREATE SCHEMA billing AUTHORIZATION {role}"),
        format!("CREATE SCHEMA billing; GRANT CREATE ON SCHEMA billing TO {role}"),
        "CREATE SCHEMA billing; GRANT CREATE ON SCHEMA billing TO PUBLIC".to_owned(),
        format!("CREATE SCHEMA billing; {trap}"),
    ] {
        client.batch_execute(&squat).unwrap();
        Refusal::of(&mut client, "CREATE EXTENSION pg_billing", &[])
            .says("55000", &["schema \"billing\""])
            .hints();
        client.batch_execute("DROP SCHEMA billing CASCADE").unwrap();
    }
    client.batch_execute("CREATE EXTENSION pg_billing").unwrap();
}

#[test]
fn dropping_leaves_the_schema_and_the_roles_only() {
    let (_database, mut client) = empty();
    client.batch_execute("CREATE EXTENSION pg_billing").unwrap();
    let fresh = strings(&mut client, OBJECTS);
    assert!(fresh.len() > 300, "only {}", fresh.len());
    for _ in 0..2 {
        // In one session, which must forget what it knew of the objects before.
        client.batch_execute(USE).unwrap();
        let used: String = client
            .query_one(
                "SELECT aggregated_value::text FROM billing.meter_event_summaries('calls', 'c', now() - interval '1 day', now() + interval '1 day')",
                &[],
            )
            .unwrap()
            .get(0);
        assert_eq!(used, "11");
        client.batch_execute("DROP EXTENSION pg_billing").unwrap();
        let left = strings(&mut client, OBJECTS);
        assert!(left.is_empty(), "{left:?}");
        let left = strings(
            &mut client,
            "SELECT i.type || ' ' || i.identity FROM pg_depend, LATERAL pg_identify_object(classid, objid, objsubid) i
             WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'billing'::regnamespace",
        );
        assert!(left.is_empty(), "{left:?}");
        let roles = strings(
            &mut client,
            "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^billing_(recorder|reader|admin)$'",
        );
        assert_eq!(roles.len(), 3);
        client.batch_execute("CREATE EXTENSION pg_billing").unwrap();
        assert_eq!(strings(&mut client, OBJECTS), fresh);
        assert_eq!(
            strings(&mut client, "SELECT count(*)::text FROM billing.customers"),
            ["0"]
        );
    }
}

#[test]
fn what_users_built_on_it_is_not_dropped_by_surprise() {
    let (_database, mut client) = empty();
    client
        .batch_execute(
            "CREATE EXTENSION pg_billing;
             CREATE TABLE offers (n integer, price billing.price);
             CREATE VIEW open_invoices AS SELECT id FROM billing.invoices WHERE status = 'open';
             CREATE TABLE people (id integer, customer text REFERENCES billing.customers)",
        )
        .unwrap();
    Refusal::of(&mut client, "DROP EXTENSION pg_billing", &[]).says("2BP01", &["other objects depend on it"]);
    Refusal::of(&mut client, "DROP TABLE billing.invoices", &[]).says("2BP01", &["extension pg_billing requires it"]);
    Refusal::of(&mut client, "DROP FUNCTION billing.roll_up()", &[])
        .says("2BP01", &["extension pg_billing requires it"]);
    client.batch_execute("DROP EXTENSION pg_billing CASCADE").unwrap();
    assert_eq!(
        strings(
            &mut client,
            "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1"
        ),
        ["offers.n", "people.customer", "people.id"]
    );
}

#[test]
fn databases_of_a_new_cluster_install_it_at_the_same_time() {
    // The roles, their memberships, comments and settings are the cluster's: whoever comes second meets them half-made.
    let cluster = cluster_under_test(&Options::default()).unwrap();
    let databases: Vec<Database> = (0..4).map(|_| Database::empty(&cluster).unwrap()).collect();
    thread::scope(|scope| {
        let installs: Vec<_> = databases
            .iter()
            .map(|database| {
                scope.spawn(|| {
                    let mut client = database.connect().unwrap();
                    for _ in 0..2 {
                        client.batch_execute("CREATE EXTENSION pg_billing; DROP EXTENSION pg_billing")?;
                    }
                    client.batch_execute("CREATE EXTENSION pg_billing")?;
                    client.batch_execute(USE)
                })
            })
            .collect();
        for install in installs {
            if let Err(error) = install.join().unwrap() {
                panic!("{:?}", error.as_db_error());
            }
        }
    });
}
