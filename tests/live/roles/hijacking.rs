//! A search_path full of traps, and functions that do not step into them.

use super::{CATALOG, database, login, strings};

/// Helpers in SQL that only functions with a pinned search_path call, and that a pin would keep from being inlined.
const INLINED: &[&str] = &[
    "advances",
    "alert_period",
    "collection_paused",
    "credited_line",
    "due_before",
    "finalizes_at",
    "is_waived",
    "item_period",
    "licensed_lines",
    "pause_behavior",
    "pending_items",
    "price_label",
    "subscription_ends",
    "subscription_pauses",
    "subscription_period",
    "usage_amount",
    "usage_lines",
    "usage_unbilled",
];

/// Bodies of nothing but expressions of the grammar, which no search_path reaches; called for every event.
const WITHOUT_NAMES: &[&str] = &["later_usage_event"];

/// Could not commit with a pin, so that every name in it is said in full.
const COMMITS: &[&str] = &["run_billing"];

#[test]
fn every_function_that_runs_as_its_owner_pins_its_names() {
    let (_database, mut client) = database();
    let loose = strings(
        &mut client,
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND prosecdef
         AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)",
    );
    assert!(loose.is_empty(), "{loose:?}");
    // Others run as their caller; but a caller may be a superuser, in a search_path where anyone may put an operator.
    let loose = strings(
        &mut client,
        &format!(
            "SELECT p.proname::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
             WHERE p.pronamespace = 'billing'::regnamespace AND l.lanname IN ('sql', 'plpgsql') AND p.prosqlbody IS NULL
               AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)
               AND p.proname <> ALL ('{{{}}}')",
            [INLINED, WITHOUT_NAMES, COMMITS].concat().join(",")
        ),
    );
    assert!(loose.is_empty(), "{loose:?}");
}

/// As its caller, who may create whatever he likes in his own schema: everything of pg_catalog over the usual types a
/// second time, each function and operator raising when it is run, and temporary tables of the extension's names.
const SHADOWS: &str = r#"
    CREATE SCHEMA evil;
    DO $do$
    DECLARE
        usual regtype[] := '{text,numeric,int4,int8,timestamptz,jsonb,bool,interval,"text[]",tstzrange,anyelement}';
        shadow record;
    BEGIN
        FOR shadow IN
            SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.prorettype::regtype AS result
            FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
              AND p.proargtypes::oid[] <@ usual::oid[] AND p.prorettype = ANY (usual::oid[])
        LOOP
            BEGIN
                EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS
                                $$BEGIN RAISE EXCEPTION ''hijacked: %%'', current_user; END$$',
                               shadow.proname, shadow.arguments, shadow.result);
            EXCEPTION WHEN OTHERS THEN NULL;  -- a polymorphic result without its argument
            END;
        END LOOP;
        FOR shadow IN
            SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result, o.oid
            FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft = ANY (usual::oid[])
              AND o.oprright = ANY (usual::oid[])
        LOOP
            BEGIN
                EXECUTE format('CREATE FUNCTION evil.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS
                                $$BEGIN RAISE EXCEPTION ''hijacked: %%'', current_user; END$$', shadow.oid, shadow.l, shadow.r, shadow.result);
                EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.op_%s)',
                               shadow.oprname, shadow.l, shadow.r, shadow.oid);
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
    END $do$;
    CREATE AGGREGATE evil.sum(numeric) (SFUNC = evil.numeric_add, STYPE = numeric, INITCOND = '0');
    CREATE AGGREGATE evil.max(timestamptz) (SFUNC = evil.timestamptz_larger, STYPE = timestamptz, INITCOND = '-infinity');
    CREATE TEMP TABLE meters (event_name text, status text); CREATE TEMP TABLE customers (id text);
    CREATE TEMP TABLE meter_events (customer text); CREATE TEMP TABLE usage_pending (customer text);
    CREATE TEMP TABLE usage_buckets (customer text); CREATE TEMP TABLE meter_event_partitions (customer text);
    CREATE TEMP TABLE pg_class (relname text); CREATE TEMP TABLE pg_proc (proname text); CREATE TEMP TABLE pg_type (typname text);
    CREATE TEMP TABLE prices (id text); CREATE TEMP TABLE invoices (id text); CREATE TEMP TABLE subscriptions (id text);"#;

#[test]
fn a_hostile_search_path_hijacks_nothing() {
    let (database, mut owner) = database();
    owner.batch_execute(CATALOG).unwrap();
    owner
        .batch_execute(&format!("GRANT CREATE ON DATABASE {} TO PUBLIC", database.name()))
        .unwrap();
    let role = login(&database, "mallory", "billing_admin");
    let mut client = database.connect_as(&role).unwrap();
    client.batch_execute(SHADOWS).unwrap();
    let shadows: i64 = owner
        .query_one(
            "SELECT count(*) FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace AND oprname IN ('=', '<', '+', '||', '->>', '<>')",
            &[],
        )
        .unwrap()
        .get(0);
    assert!(shadows > 30, "only {shadows} operators are shadowed");
    client
        .batch_execute("SET search_path = pg_temp, evil, billing, pg_catalog")
        .unwrap();
    // The attack works where nothing is pinned.
    let hijacked = client.simple_query("SELECT 'a'::text = 'a'::text").unwrap_err();
    assert!(
        hijacked.as_db_error().unwrap().message().contains("hijacked"),
        "{hijacked:?}"
    );
    // simple_query: the driver's own look-up of types would fall into the trap.
    let mut answer = |sql: &str| -> String {
        let messages = client
            .simple_query(sql)
            .unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        let row = messages.into_iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        row.unwrap_or_default()
    };
    // What a recorder calls,
    assert_eq!(
        answer("SELECT billing.record_meter_event('calls', 'c', 7, 'second', NULL, '{\"region\":\"eu\"}')"),
        "t"
    );
    assert_eq!(
        answer("SELECT billing.record_meter_event('calls', 'c', 7, 'second')"),
        "f"
    );
    assert_eq!(
        answer(
            r#"SELECT r FROM billing.record_meter_events('[{"event_name":"calls","payload":{"customer":"c","value":"1","region":"us"},"identifier":"third"},
               {"event_name":"none","payload":{}}]'::jsonb) r"#
        ),
        "(1,0,1)"
    );
    assert_eq!(
        answer("SELECT r FROM billing.record_meter_events('{calls}'::text[], '{c}'::text[], '{4}'::numeric[]) r"),
        "(1,0,0)"
    );
    assert_eq!(answer("SELECT billing.cancel_meter_event('calls', 'c', 'third')"), "t");
    // what a reader calls,
    let summary = |dimensions: &str| {
        format!(
            "SELECT aggregated_value FROM billing.meter_event_summaries('calls', 'c', '2020-01-01Z', '2120-01-01Z', NULL, {dimensions})"
        )
    };
    for _ in 0..2 {
        assert_eq!(answer(&summary("NULL")), "16");
        assert_eq!(answer(&summary("'{\"region\":\"eu\"}'")), "12");
        assert_eq!(
            answer("SELECT billing.usage_quantity('calls', 'c', NULL, '2120-01-01Z')"),
            "16"
        );
        assert_eq!(answer("SELECT amount FROM billing.preview_invoice('sub')"), "48");
        answer("SELECT billing.roll_up()");
    }
    // and what an admin calls.
    for call in [
        "SELECT billing.create_customer('d', 'n', 'e', '{}')",
        "SELECT billing.create_product('prod2', 'n', 'd', 'u', '{}')",
        r#"SELECT billing.create_meter('{"event_name":"two","default_aggregation":{"formula":"last"}}')"#,
        r#"SELECT billing.create_price('{"currency":"usd","unit_amount":3,"recurring":{"interval":"month"}}', 'prod2', 'q')"#,
        r#"SELECT billing.create_price('{"currency":"usd","unit_amount":3,"recurring":{"interval":"month","usage_type":"metered","meter":"two"}}')"#,
        r#"SELECT billing.create_subscription('{"customer":"d","items":[{"price":"q","quantity":2}]}', 'sub2', '2024-01-31Z')"#,
        "SELECT billing.create_alert('calls', 20, 'c', 'per_period', 'title')",
        "SELECT billing.record_meter_event('calls', 'c', 8)",
        "SELECT billing.roll_up()",
        "SELECT billing.update_subscription('sub2', '{\"description\":\"x\"}', '2024-02-01Z')",
        "SELECT billing.generate_invoices('2024-04-01Z')",
        "SELECT billing.cancel_subscription('sub2', true, '2024-04-02Z')",
        "SELECT billing.archive_price('q')",
        "SELECT billing.activate_price('q')",
        "SELECT billing.deactivate_meter('two')",
        "SELECT billing.reactivate_meter('two')",
        "SELECT billing.maintain_partitions()",
        "SELECT billing.verify('calls', 'c', '2020-01-01Z', '2120-01-01Z')",
        "INSERT INTO billing.customers (id) VALUES ('e')",
        r#"INSERT INTO billing.meters (meter) VALUES ('{"event_name":"three","default_aggregation":{"formula":"max"}}')"#,
        r#"INSERT INTO billing.prices (price) VALUES ('{"currency":"usd","unit_amount":3}')"#,
    ] {
        answer(call);
    }
    let row = owner
        .query_one(
            "SELECT (SELECT count(*) FROM billing.invoices WHERE subscription = 'sub2'), (SELECT count(*) FROM billing.alert_events),
                    (SELECT count(*) FROM billing.meters)",
            &[],
        )
        .unwrap();
    // 31 January, 29 February and 31 March; one crossing; three meters
    assert_eq!((row.get(0), row.get(1), row.get(2)), (3_i64, 1_i64, 3_i64));
}
