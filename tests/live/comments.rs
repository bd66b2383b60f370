//! The extension documents itself: every object has a comment, and psql's listings show them.

use harness::Database;
use postgres::Client;

fn database() -> (Database<'static>, Client) {
    let database = Database::shared().unwrap();
    let client = database.connect().unwrap();
    (database, client)
}

/// What CREATE TYPE and CREATE TABLE make along the way: array types, the row types of tables, sequences of columns.
const MADE_ALONG: &str = "classid = 'pg_type'::regclass AND EXISTS (
        SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.oid = objid AND (t.typelem <> 0 AND t.typcategory = 'A' OR c.relkind <> 'c'))
    OR classid = 'pg_class'::regclass AND EXISTS (
        SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = members.objid AND c.relkind = 'S' AND d.deptype = 'i')";

/// The members with their comments, and their columns and triggers, which are no members themselves.
fn commented() -> String {
    format!(
        "WITH members AS (
             SELECT classid, objid, 0 AS objsubid FROM pg_depend
             WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
               AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_billing')
         ), everything AS (
             SELECT classid, objid, objsubid FROM members WHERE NOT ({MADE_ALONG})
             UNION ALL
             SELECT classid, objid, a.attnum FROM members JOIN pg_attribute a ON a.attrelid = objid
             JOIN pg_class c ON c.oid = objid
             WHERE classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'c') AND a.attnum > 0 AND NOT a.attisdropped
             UNION ALL
             SELECT 'pg_trigger'::regclass, t.oid, 0 FROM members JOIN pg_trigger t ON t.tgrelid = objid
             WHERE classid = 'pg_class'::regclass AND NOT t.tgisinternal
             UNION ALL
             SELECT 'pg_extension'::regclass, oid, 0 FROM pg_extension WHERE extname = 'pg_billing'
             UNION ALL
             SELECT 'pg_namespace'::regclass, 'billing'::regnamespace::oid, 0
         )
         SELECT i.type || ' ' || i.identity AS object, i.type,
                CASE WHEN objsubid > 0 THEN col_description(objid, objsubid) ELSE obj_description(objid, classid::regclass::name) END
                    AS comment
         FROM everything, LATERAL pg_identify_object(classid, objid, objsubid) i"
    )
}

#[test]
fn every_object_has_a_comment() {
    let (_database, mut client) = database();
    let rows = client
        .query(
            &format!("SELECT object, type, comment FROM ({}) o ORDER BY 1", commented()),
            &[],
        )
        .unwrap();
    let kinds = [
        "table",
        "table column",
        "function",
        "type",
        "cast",
        "operator",
        "operator class",
        "operator family",
        "trigger",
        "extension",
        "schema",
        "aggregate",
    ];
    for kind in kinds {
        assert!(
            rows.iter().any(|row| row.get::<_, &str>(1) == kind),
            "no {kind} was looked at"
        );
    }
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let (object, comment): (&str, Option<&str>) = (row.get(0), row.get(2));
            match comment.map(str::trim) {
                None | Some("") => Some(format!("{object}: none")),
                Some(comment) if comment.len() < 8 || comment.contains("TODO") => {
                    Some(format!("{object}: {comment:?}"))
                }
                Some(_) => None,
            }
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} without a comment:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

#[test]
fn roles_and_settings_say_what_they_are_for() {
    let (_database, mut client) = database();
    client
        .batch_execute("SELECT billing.setting_interval('retention')")
        .unwrap();
    let bare: Vec<String> = client
        .query(
            "SELECT rolname::text FROM pg_roles WHERE rolname IN ('billing_recorder', 'billing_reader', 'billing_admin')
                 AND shobj_description(oid, 'pg_authid') IS NULL
             UNION ALL SELECT name FROM pg_settings WHERE name LIKE 'billing.%' AND (coalesce(short_desc, '') = '' OR coalesce(extra_desc, '') = '')",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(bare.is_empty(), "{bare:?}");
}

#[test]
fn psql_lists_it_all_as_a_manual() {
    let (database, mut client) = database();
    let listing = |command: &str| {
        let shown = database
            .cluster()
            .psql(database.name(), &["--expanded"], command)
            .unwrap();
        assert!(!shown.is_empty(), "{command} shows nothing");
        shown
    };
    let members = listing("\\dx+ pg_billing");
    for object in [
        "table billing.invoices",
        "function billing.roll_up()",
        "type billing.price",
    ] {
        assert!(members.contains(object), "{object}");
    }
    let functions = listing("\\df+ billing.*");
    let tables = listing("\\d+ billing.*");
    for command in [
        "\\dt+ billing.*",
        "\\dT+ billing.*",
        "\\dC+ billing.*",
        "\\do+ pg_catalog.= billing.*",
        "\\dn+ billing",
        "\\drds",
        "\\du+ billing_*",
        "\\dAc+ hash billing.*",
        "\\dAf+ hash billing.*",
        "\\dd billing.*",
        "\\dp billing.*",
        "\\dconfig+ billing.*",
        "\\ds billing.*",
        "\\di+ billing.*",
        "\\da billing.*",
        "\\sf billing.roll_up",
    ] {
        // \drds and \dconfig may have nothing to show.
        database.cluster().psql(database.name(), &[], command).unwrap();
    }
    let rows = client
        .query(
            &format!(
                "SELECT type, object, comment FROM ({}) o WHERE type IN ('function', 'table column')",
                commented()
            ),
            &[],
        )
        .unwrap();
    for row in rows {
        let (kind, object, comment): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let shown = if kind == "function" { &functions } else { &tables };
        // A row type's columns are shown by \d+ of a composite type only; its lines are broken where the comment's are.
        let first = comment.lines().next().unwrap_or_default();
        assert!(shown.contains(first), "{object}: {first}");
    }
}
