//! Whatever is sent: a clear error or a kept rejection, every good event recorded, and a server that goes on.

use harness::Database;
use postgres::Client;
use postgres::error::SqlState;
use serde_json::{Value, json};

use crate::recording::{assert_never_crashed, assert_refused, counts, database, meter, number, refusal, text, usage};

const ONE: &str =
    "SELECT billing.record_meter_event($1, $2, $3::text::numeric, $4, $5::text::timestamptz, $6::text::jsonb)";
const ARRAYS: &str =
    "SELECT * FROM billing.record_meter_events($1::text[], $2::text[], $3::text[]::numeric[], $4::text[],
                          $5::text[]::timestamptz[], $6::text[]::jsonb[])";
const JSON: &str = "SELECT * FROM billing.record_meter_events($1::text::jsonb)";

/// One event in the words of all three functions.
#[derive(Clone, Default)]
struct Sent {
    event_name: Option<String>,
    customer: Option<String>,
    value: Option<String>,
    identifier: Option<String>,
    timestamp: Option<String>,
    dimensions: Option<String>,
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn good() -> Sent {
    Sent {
        event_name: some("sum"),
        customer: some("acme"),
        value: some("1"),
        ..Sent::default()
    }
}

impl Sent {
    fn refused_alone(&self, client: &mut Client, code: &SqlState, words: &[&str]) {
        let Sent {
            event_name,
            customer,
            value,
            identifier,
            timestamp,
            dimensions,
        } = self;
        assert_refused(
            client,
            ONE,
            &[event_name, customer, value, identifier, timestamp, dimensions],
            code,
            words,
        );
    }

    /// The good one beside it is recorded.
    fn rejected_in_arrays(&self, client: &mut Client, words: &[&str]) {
        let good = good();
        let both = |field: fn(&Sent) -> &Option<String>| vec![field(&good).clone(), field(self).clone()];
        let row = client
            .query_one(
                ARRAYS,
                &[
                    &both(|e| &e.event_name),
                    &both(|e| &e.customer),
                    &both(|e| &e.value),
                    &both(|e| &e.identifier),
                    &both(|e| &e.timestamp),
                    &both(|e| &e.dimensions),
                ],
            )
            .unwrap();
        assert_eq!(counts(&row), (1, 0, 1), "{words:?}");
        let kept = newest_rejection(client, words);
        assert_eq!(kept["event_name"], json!(self.event_name));
        assert_eq!(kept["payload"]["customer"], json!(self.customer));
    }

    fn as_json(&self) -> Value {
        let mut event =
            json!({"event_name": self.event_name, "payload": {"customer": self.customer, "value": self.value}});
        let optional = [("identifier", &self.identifier), ("timestamp", &self.timestamp)];
        for (field, value) in optional {
            if let Some(value) = value {
                event[field] = json!(value);
            }
        }
        event
    }

    fn rejected_in_json(&self, client: &mut Client, words: &[&str]) {
        rejected(client, &self.as_json(), words);
    }
}

/// A bad object is kept whole, and the good one beside it recorded.
fn rejected(client: &mut Client, bad: &Value, words: &[&str]) {
    let events = json!([bad, good().as_json()]).to_string();
    assert_eq!(counts(&client.query_one(JSON, &[&events]).unwrap()), (1, 0, 1), "{bad}");
    assert_eq!(&newest_rejection(client, words), bad);
}

/// The event as it was kept; code and message must hold `words`, the code as the last of them.
fn newest_rejection(client: &mut Client, words: &[&str]) -> Value {
    let sql = "SELECT event, error_code, error_message FROM billing.meter_event_rejections ORDER BY id DESC LIMIT 1";
    let row = client.query_one(sql, &[]).unwrap();
    let (code, message): (&str, &str) = (row.get(1), row.get(2));
    let (expected, in_message) = words.split_last().unwrap();
    assert_eq!(format!("({code})"), *expected, "{message}");
    for word in in_message {
        assert!(message.contains(word), "{message} without {word}");
    }
    row.get(0)
}

#[test]
fn each_rule_in_each_form() {
    let database = database();
    let mut client = database.connect().unwrap();
    meter(&mut client, "archived", "sum", "");
    client
        .execute("SELECT billing.deactivate_meter('archived')", &[])
        .unwrap();
    meter(&mut client, "split", "sum", r#", "dimension_payload_keys": ["region"]"#);
    let long = "x".repeat(10_000);
    let number_of_30 = "1".repeat(30);
    let (null, state, foreign, undefined) = (
        SqlState::NULL_VALUE_NOT_ALLOWED,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        SqlState::FOREIGN_KEY_VIOLATION,
        SqlState::UNDEFINED_OBJECT,
    );
    let (invalid, range) = (SqlState::INVALID_PARAMETER_VALUE, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    let days_ago = |days: i64| Some((chrono::Utc::now() - chrono::Duration::days(days)).to_rfc3339());
    let in_an_hour = Some((chrono::Utc::now() + chrono::Duration::hours(1)).to_rfc3339());
    let cases: Vec<(Sent, &SqlState, Vec<&str>)> = vec![
        (
            Sent {
                event_name: some("nothing"),
                ..good()
            },
            &undefined,
            vec!["\"nothing\"", "(no_meter)"],
        ),
        (
            Sent {
                event_name: some(""),
                ..good()
            },
            &undefined,
            vec!["\"\"", "(no_meter)"],
        ),
        (
            Sent {
                event_name: some(&long),
                ..good()
            },
            &undefined,
            vec!["xxx", "(no_meter)"],
        ),
        (
            Sent {
                event_name: some("archived"),
                ..good()
            },
            &state,
            vec!["\"archived\"", "(archived_meter)"],
        ),
        (
            Sent {
                customer: some("nobody"),
                ..good()
            },
            &foreign,
            vec!["\"nobody\"", "(meter_event_customer_not_found)"],
        ),
        (
            Sent {
                customer: some(""),
                ..good()
            },
            &foreign,
            vec!["\"\"", "(meter_event_customer_not_found)"],
        ),
        (
            Sent {
                customer: some(&long),
                ..good()
            },
            &foreign,
            vec!["xxx", "(meter_event_customer_not_found)"],
        ),
        (
            Sent {
                customer: None,
                ..good()
            },
            &null,
            vec!["customer", "(meter_event_no_customer_defined)"],
        ),
        (
            Sent { value: None, ..good() },
            &null,
            vec!["value", "(meter_event_value_not_found)"],
        ),
        (
            Sent {
                value: some("NaN"),
                ..good()
            },
            &invalid,
            vec!["NaN", "(meter_event_invalid_value)"],
        ),
        (
            Sent {
                value: some("Infinity"),
                ..good()
            },
            &invalid,
            vec!["Infinity", "(meter_event_invalid_value)"],
        ),
        (
            Sent {
                value: some("-Infinity"),
                ..good()
            },
            &invalid,
            vec!["-Infinity", "(meter_event_invalid_value)"],
        ),
        (
            Sent {
                value: some(&number_of_30),
                ..good()
            },
            &range,
            vec!["30 digits", "(meter_event_value_too_many_digits)"],
        ),
        (
            Sent {
                value: some("1e-30"),
                ..good()
            },
            &range,
            vec!["30 digits", "(meter_event_value_too_many_digits)"],
        ),
        (
            Sent {
                value: some("1e1000"),
                ..good()
            },
            &range,
            vec!["digits", "(meter_event_value_too_many_digits)"],
        ),
        (
            Sent {
                identifier: some(""),
                ..good()
            },
            &invalid,
            vec!["empty", "(meter_event_invalid_identifier)"],
        ),
        (
            Sent {
                identifier: some(&long),
                ..good()
            },
            &invalid,
            vec!["10000", "(meter_event_invalid_identifier)"],
        ),
        (
            Sent {
                timestamp: days_ago(36),
                ..good()
            },
            &invalid,
            vec!["is before", "(timestamp_too_far_in_past)"],
        ),
        (
            Sent {
                timestamp: days_ago(700_000),
                ..good()
            },
            &invalid,
            vec!["is before", "(timestamp_too_far_in_past)"],
        ),
        (
            Sent {
                timestamp: in_an_hour,
                ..good()
            },
            &invalid,
            vec!["is later", "(timestamp_in_future)"],
        ),
    ];
    let rounds = cases.len() as i64;
    for (sent, code, words) in &cases {
        sent.refused_alone(&mut client, code, words);
        sent.rejected_in_arrays(&mut client, words);
        sent.rejected_in_json(&mut client, words);
    }
    // PostgreSQL's infinite times have no text in JSON.
    for (timestamp, words) in [
        ("infinity", ["(timestamp_in_future)"]),
        ("-infinity", ["(timestamp_too_far_in_past)"]),
    ] {
        let sent = Sent {
            timestamp: some(timestamp),
            ..good()
        };
        sent.refused_alone(&mut client, &invalid, &words);
        sent.rejected_in_arrays(&mut client, &words);
    }
    let dimensions = [
        ("sum", "5", "(meter_event_invalid_dimensions)"),
        ("sum", "[]", "(meter_event_invalid_dimensions)"),
        ("sum", r#""text""#, "(meter_event_invalid_dimensions)"),
        ("sum", r#"{"a": {}}"#, "(meter_event_invalid_dimensions)"),
        ("sum", r#"{"a": [1]}"#, "(meter_event_invalid_dimensions)"),
        ("split", r#"{"other": "eu"}"#, "(missing_dimension_payload_keys)"),
        ("split", r#"{"region": null}"#, "(missing_dimension_payload_keys)"),
    ];
    for (event_name, given, code) in dimensions {
        let sent = Sent {
            event_name: some(event_name),
            dimensions: some(given),
            ..good()
        };
        sent.refused_alone(&mut client, &invalid, &[code]);
        sent.rejected_in_arrays(&mut client, &[code]);
    }
    let recorded = rounds * 2 + 2 + dimensions.len() as i64;
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM billing.meter_events"),
        recorded,
        "a good event is lost"
    );
    assert_eq!(usage(&mut client, "sum"), recorded.to_string());
}

#[test]
fn the_limits_themselves_are_taken() {
    let database = database();
    let mut client = database.connect().unwrap();
    let longest = "x".repeat(255);
    for (value, identifier, timestamp) in [
        ("9".repeat(28), longest.clone(), None),
        (format!("-0.{}", "9".repeat(28)), "ü".repeat(127), None),
        ("0".to_owned(), "zero".to_owned(), None),
        (
            format!("{}.000", "1".repeat(28)),
            "zeros after the point".to_owned(),
            None,
        ),
        ("1".to_owned(), "old".to_owned(), Some("34 days 23 hours 59 minutes")),
        ("1".to_owned(), "early".to_owned(), Some("-4 minutes")),
    ] {
        let sql = "SELECT billing.record_meter_event('sum', 'acme', $1::text::numeric, $2, now() - $3::text::interval)";
        let recorded: bool = client
            .query_one(sql, &[&value, &identifier, &timestamp])
            .unwrap()
            .get(0);
        assert!(recorded, "{identifier}");
    }
    let exact = "SELECT value::text FROM billing.meter_events WHERE identifier = repeat('x', 255)";
    assert_eq!(text(&mut client, exact), "9".repeat(28));
}

#[test]
fn numbers_in_json_are_taken_as_they_are_written() {
    let database = database();
    let mut client = database.connect().unwrap();
    for (written, kept) in [
        ("0.1", "0.1"),
        ("1e3", "1000"),
        ("123456789012345678.0000000001", "123456789012345678.0000000001"),
        ("\" 7\"", ""),
        ("\"1_000\"", ""),
        ("\"0x10\"", ""),
        ("\"abc\"", ""),
        ("\"\"", ""),
        ("\"1,5\"", ""),
        ("\"١\"", ""),
        ("\"NaN\"", ""),
        ("\"Infinity\"", ""),
        ("true", ""),
        ("[1]", ""),
        ("{\"n\": 1}", ""),
    ] {
        let event = format!(r#"{{"event_name": "sum", "payload": {{"customer": "acme", "value": {written}}}}}"#);
        let row = client.query_one(JSON, &[&event]).unwrap();
        if kept.is_empty() {
            assert_eq!(counts(&row), (0, 0, 1), "{written}");
            newest_rejection(&mut client, &["(meter_event_invalid_value)"]);
        } else {
            assert_eq!(counts(&row), (1, 0, 0), "{written}");
            let value = "SELECT trim_scale(value)::text FROM billing.meter_events ORDER BY received_at DESC LIMIT 1";
            assert_eq!(text(&mut client, value), kept);
        }
    }
    for missing in [json!({"customer": "acme"}), json!({"customer": "acme", "value": null})] {
        rejected(
            &mut client,
            &json!({"event_name": "sum", "payload": missing}),
            &["(meter_event_value_not_found)"],
        );
    }
}

#[test]
fn objects_that_are_no_meter_events() {
    let database = database();
    let mut client = database.connect().unwrap();
    let payload = json!({"customer": "acme", "value": 1});
    let cases = [
        (json!(5), "(meter_event_invalid)"),
        (json!(null), "(meter_event_invalid)"),
        (json!("text"), "(meter_event_invalid)"),
        (json!([]), "(meter_event_invalid)"),
        (json!([good().as_json()]), "(meter_event_invalid)"),
        (json!({}), "(no_meter)"),
        (json!({"event_name": 5, "payload": payload}), "(no_meter)"),
        (json!({"event_name": null, "payload": payload}), "(no_meter)"),
        (json!({"event_name": "sum"}), "(meter_event_invalid)"),
        (json!({"event_name": "sum", "payload": null}), "(meter_event_invalid)"),
        (json!({"event_name": "sum", "payload": []}), "(meter_event_invalid)"),
        (
            json!({"event_name": "sum", "payload": payload, "idempotency_key": "x"}),
            "(meter_event_invalid)",
        ),
        (
            json!({"event_name": "sum", "payload": payload, "identifier": 5}),
            "(meter_event_invalid_identifier)",
        ),
        (
            json!({"event_name": "sum", "payload": payload, "timestamp": "yesterday"}),
            "(meter_event_invalid_timestamp)",
        ),
        (
            json!({"event_name": "sum", "payload": payload, "timestamp": "2026-01-01"}),
            "(meter_event_invalid_timestamp)",
        ),
        (
            json!({"event_name": "sum", "payload": payload, "timestamp": 1e300}),
            "(meter_event_invalid_timestamp)",
        ),
        (
            json!({"event_name": "sum", "payload": payload, "timestamp": {}}),
            "(meter_event_invalid_timestamp)",
        ),
        (
            json!({"event_name": "sum", "payload": {"value": 1}}),
            "(meter_event_no_customer_defined)",
        ),
        (
            json!({"event_name": "sum", "payload": {"value": 1, "customer": null}}),
            "(meter_event_no_customer_defined)",
        ),
        (
            json!({"event_name": "sum", "payload": {"value": 1, "customer": {}}}),
            "(meter_event_no_customer_defined)",
        ),
        (
            json!({"event_name": "sum", "payload": {"value": 1, "customer": "acme", "x": {}}}),
            "(meter_event_invalid_dimensions)",
        ),
        (
            json!({"event_name": "unique_count", "payload": {"customer": "acme"}}),
            "(meter_event_value_not_found)",
        ),
        (
            json!({"event_name": "unique_count", "payload": {"customer": "acme", "value": "x".repeat(10_000)}}),
            "(meter_event_invalid_value)",
        ),
    ];
    for (bad, code) in &cases {
        rejected(&mut client, bad, &[code]);
    }
    assert_eq!(usage(&mut client, "sum"), cases.len().to_string());
    for (scalar, word) in [("5", "5"), ("null", "null"), ("\"text\"", "text"), ("true", "true")] {
        assert_refused(
            &mut client,
            JSON,
            &[&scalar],
            &SqlState::INVALID_PARAMETER_VALUE,
            &[word],
        );
    }
    assert_eq!(counts(&client.query_one(JSON, &[&"[]"]).unwrap()), (0, 0, 0));
}

#[test]
fn text_that_is_no_text_is_refused_before_anything_is_recorded() {
    let database = database();
    let mut client = database.connect().unwrap();
    for escape in [r"\u0000", r"\ud800", r"\udc00", r"\ud800\u0041", r"\uZZZZ", r"\x41"] {
        for event in [
            format!(
                r#"{{"event_name": "sum", "identifier": "a{escape}", "payload": {{"customer": "acme", "value": 1}}}}"#
            ),
            format!(r#"{{"event_name": "sum", "payload": {{"customer": "acme", "value": 1, "k{escape}": "v"}}}}"#),
        ] {
            let refusal = refusal(&mut client, JSON, &[&event]);
            let expected = [
                SqlState::UNTRANSLATABLE_CHARACTER,
                SqlState::INVALID_TEXT_REPRESENTATION,
            ];
            assert!(expected.contains(refusal.code()), "{escape}: {refusal}");
        }
    }
    let refusal = refusal(
        &mut client,
        "SELECT billing.record_meter_event('sum', 'acme', 1, convert_from('\\xff'::bytea, 'UTF8'))",
        &[],
    );
    assert_eq!(refusal.code(), &SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.meter_events"), 0);
    // Escapes of real characters are those characters.
    let event =
        r#"{"event_name": "sum", "identifier": "\u00fc\ud83d\ude00", "payload": {"customer": "acme", "value": 1}}"#;
    assert_eq!(counts(&client.query_one(JSON, &[&event]).unwrap()), (1, 0, 0));
    assert_eq!(text(&mut client, "SELECT identifier FROM billing.meter_events"), "ü😀");
}

/// A database that would store UTF-8 as something else.
#[test]
fn other_encodings_are_refused_at_the_door() {
    with_encoding("LATIN1", |client| {
        let code = &SqlState::FEATURE_NOT_SUPPORTED;
        assert_refused(client, "CREATE EXTENSION pg_billing", &[], code, &["UTF8", "LATIN1"]);
    });
}

/// SQL_ASCII takes any bytes as text; what is no UTF-8 is refused when it comes.
#[test]
fn bytes_that_are_no_utf8_are_refused_where_the_database_lets_them_pass() {
    with_encoding("SQL_ASCII", |client| {
        client.batch_execute("CREATE EXTENSION pg_billing").unwrap();
        let bad = "convert_from('\\xff41', 'SQL_ASCII')";
        let code = &SqlState::CHARACTER_NOT_IN_REPERTOIRE;
        for call in [
            format!("record_meter_event({bad}, 'acme')"),
            format!("record_meter_event('sum', {bad})"),
            format!("record_meter_event('sum', 'acme', 1, {bad})"),
            format!("record_meter_events(ARRAY[{bad}], ARRAY['acme'], ARRAY[1])"),
            format!("record_meter_events(jsonb_build_object('event_name', {bad}))"),
            format!("cancel_meter_event('sum', 'acme', {bad})"),
            format!("price_in({bad}::cstring)"),
            format!("period_containing(now(), {bad}, 1, now())"),
        ] {
            assert_refused(client, &format!("SELECT billing.{call}"), &[], code, &["UTF-8"]);
        }
    });
}

fn with_encoding(encoding: &str, check: impl FnOnce(&mut Client)) {
    let cluster = harness::shared_cluster().unwrap();
    let mut admin = cluster.connect("postgres").unwrap();
    let name = format!("bad_input_{}", encoding.to_lowercase());
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
    admin.batch_execute(&create).unwrap();
    check(&mut cluster.connect(&name).unwrap());
    admin
        .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
        .unwrap();
}

#[test]
fn nothing_nested_however_deep_takes_good_events_along() {
    let database = database();
    let mut client = database.connect().unwrap();
    // Beyond what the server itself reads is its own error; deep below that is a rejection.
    for depth in [100_usize, 130, 500, 3000] {
        let nested = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for bad in [
            nested.clone(),
            format!(r#"{{"event_name": "sum", "payload": {{"customer": "acme", "value": 1, "x": {nested}}}}}"#),
            format!(r#"{{"event_name": "sum", "payload": {nested}}}"#),
            format!(r#"{{"event_name": {nested}, "payload": {{}}}}"#),
        ] {
            let events = format!("[{}, {bad}]", good().as_json());
            assert_eq!(
                counts(&client.query_one(JSON, &[&events]).unwrap()),
                (1, 0, 1),
                "depth {depth}"
            );
        }
        let sent = Sent {
            dimensions: Some(nested),
            ..good()
        };
        sent.refused_alone(
            &mut client,
            &SqlState::INVALID_PARAMETER_VALUE,
            &["(meter_event_invalid_dimensions)"],
        );
        sent.rejected_in_arrays(&mut client, &["(meter_event_invalid_dimensions)"]);
    }
    let nested = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let refusal = refusal(&mut client, JSON, &[&nested]);
    assert_eq!(refusal.code(), &SqlState::STATEMENT_TOO_COMPLEX, "{refusal}");
    assert_eq!(usage(&mut client, "sum"), "20");
    assert_never_crashed(database.cluster());
}

#[test]
fn null_in_every_argument() {
    let database = database();
    let mut client = database.connect().unwrap();
    let null = SqlState::NULL_VALUE_NOT_ALLOWED;
    for (sql, words) in [
        (
            "SELECT billing.record_meter_event(NULL, 'acme', 1, 'a', now(), '{}')",
            "event_name",
        ),
        (
            "SELECT billing.record_meter_event('sum', NULL, 1, 'a', now(), '{}')",
            "meter_event_no_customer_defined",
        ),
        (
            "SELECT billing.record_meter_event('sum', 'acme', NULL, 'a', now(), '{}')",
            "meter_event_value_not_found",
        ),
        ("SELECT billing.record_meter_events(NULL::jsonb)", "events"),
        (
            "SELECT billing.record_meter_events(NULL, '{acme}', '{1}')",
            "event_names",
        ),
        ("SELECT billing.record_meter_events('{sum}', NULL, '{1}')", "customers"),
        ("SELECT billing.record_meter_events('{sum}', '{acme}', NULL)", "values"),
    ] {
        let refusal = refusal(&mut client, sql, &[]);
        assert_eq!(refusal.code(), &null, "{sql}");
        assert!(refusal.message().contains(words), "{refusal}");
    }
    for sql in [
        "SELECT billing.record_meter_event('sum', 'acme', 1, NULL, NULL, NULL)",
        "SELECT recorded = 1 FROM billing.record_meter_events('{sum}', '{acme}', '{1}', NULL, NULL, NULL)",
        "SELECT recorded = 1 FROM billing.record_meter_events('{sum}', '{acme}', '{1}', '{NULL}', '{NULL}', '{NULL}')",
        "SELECT billing.record_meter_event('sum', 'acme', 1, dimensions => 'null')",
    ] {
        assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0), "{sql}");
    }
    for (sql, code) in [
        (
            "SELECT * FROM billing.record_meter_events('{NULL,sum}', '{acme,acme}', '{1,1}')",
            "(no_meter)",
        ),
        (
            "SELECT * FROM billing.record_meter_events('{sum,sum}', '{acme,NULL}', '{1,1}')",
            "(meter_event_no_customer_defined)",
        ),
        (
            "SELECT * FROM billing.record_meter_events('{sum,sum}', '{acme,acme}', '{NULL,1}')",
            "(meter_event_value_not_found)",
        ),
    ] {
        assert_eq!(counts(&client.query_one(sql, &[]).unwrap()), (1, 0, 1), "{sql}");
        newest_rejection(&mut client, &[code]);
    }
    assert_eq!(usage(&mut client, "sum"), "7");
}

#[test]
fn arrays_of_unusual_shape() {
    let database = database();
    let mut client = database.connect().unwrap();
    for (sql, words) in [
        (
            "SELECT billing.record_meter_events('{sum,sum}', '{acme}', '{1,1}')",
            ["customers", "1 ", "2"],
        ),
        (
            "SELECT billing.record_meter_events('{sum}', '{acme}', '{1,1}')",
            ["values", "2 ", "1"],
        ),
        (
            "SELECT billing.record_meter_events('{sum}', '{acme}', '{}')",
            ["values", "0 ", "1"],
        ),
        (
            "SELECT billing.record_meter_events('{sum}', '{acme}', '{1}', '{a,b}')",
            ["identifiers", "2 ", "1"],
        ),
        (
            "SELECT billing.record_meter_events('{sum}', '{acme}', '{1}', NULL, '{}')",
            ["timestamps", "0 ", "1"],
        ),
        (
            "SELECT billing.record_meter_events('{sum}', '{acme}', '{1}', NULL, NULL, ARRAY[]::jsonb[])",
            ["dimensions", "0 ", "1"],
        ),
    ] {
        assert_refused(&mut client, sql, &[], &SqlState::ARRAY_ELEMENT_ERROR, &words);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM billing.meter_events"), 0);
    let taken = |client: &mut Client, sql: &str| counts(&client.query_one(sql, &[]).unwrap());
    assert_eq!(
        taken(
            &mut client,
            "SELECT * FROM billing.record_meter_events('{}', '{}', '{}')"
        ),
        (0, 0, 0)
    );
    assert_eq!(
        taken(
            &mut client,
            "SELECT * FROM billing.record_meter_events('{}', '{}', '{}', '{}', '{}', '{}')"
        ),
        (0, 0, 0)
    );
    // Several dimensions are read in their order, subscripts may start anywhere.
    let square =
        "SELECT * FROM billing.record_meter_events('{{sum,sum},{sum,sum}}', '{{acme,acme},{acme,acme}}', '{1,2,3,4}',
                      '[7:8][0:1]={{a,b},{c,d}}')";
    assert_eq!(taken(&mut client, square), (4, 0, 0));
    let order = "SELECT string_agg(identifier || value, ' ' ORDER BY received_at) FROM billing.meter_events";
    assert_eq!(text(&mut client, order), "a1 b2 c3 d4");
    assert_eq!(
        taken(
            &mut client,
            "SELECT * FROM billing.record_meter_events('[5:5]={sum}', '[-3:-3]={acme}', '[0:0]={1}')"
        ),
        (1, 0, 0)
    );
}

#[test]
fn one_bad_event_among_a_hundred_thousand() {
    let database = database();
    let mut client = database.connect().unwrap();
    let arrays = "SELECT c.* FROM (SELECT array_agg(CASE n WHEN 50000 THEN 'nothing' ELSE 'sum' END ORDER BY n) AS names,
            array_agg('acme'::text) AS customers, array_agg(1::numeric) AS quantities, array_agg('a' || n ORDER BY n) AS ids
            FROM generate_series(1, 100000) n) a,
        billing.record_meter_events(names, customers, quantities, ids) c";
    assert_eq!(counts(&client.query_one(arrays, &[]).unwrap()), (99_999, 0, 1));
    assert_eq!(
        newest_rejection(&mut client, &["\"nothing\"", "(no_meter)"])["identifier"],
        "a50000"
    );
    let objects =
        "SELECT c.* FROM (SELECT jsonb_agg(jsonb_build_object('event_name', 'sum', 'identifier', 'j' || n, 'payload',
            jsonb_build_object('customer', 'acme', 'value', CASE n WHEN 70000 THEN 'seven' ELSE '1' END))) AS events
            FROM generate_series(1, 100000) n) a,
        billing.record_meter_events(events) c";
    assert_eq!(counts(&client.query_one(objects, &[]).unwrap()), (99_999, 0, 1));
    assert_eq!(
        newest_rejection(&mut client, &["\"seven\"", "(meter_event_invalid_value)"])["identifier"],
        "j70000"
    );
    assert_eq!(usage(&mut client, "sum"), "199998");
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(usage(&mut client, "sum"), "199998");
}

const HOSTILE: [&str; 12] = [
    "'; DROP TABLE billing.meter_events; --",
    "'); DROP SCHEMA billing CASCADE; --",
    "\"; DROP TABLE billing.customers; --",
    "$$; DROP TABLE billing.meters; $$",
    "$1",
    "%I %L %s %",
    "\\'; SELECT 1; --",
    "\\\\",
    "E'\\x00'",
    "{\"a\": 1}",
    "Ünïcödé \u{202e}evil\u{200b}😀",
    "line\nbreak\ttab\u{1}",
];

#[test]
fn hostile_texts_are_texts() {
    let database = database();
    let mut client = database.connect().unwrap();
    for text in HOSTILE {
        // As what does not exist …
        Sent {
            event_name: some(text),
            ..good()
        }
        .refused_alone(&mut client, &SqlState::UNDEFINED_OBJECT, &["(no_meter)"]);
        Sent {
            customer: some(text),
            ..good()
        }
        .refused_alone(
            &mut client,
            &SqlState::FOREIGN_KEY_VIOLATION,
            &["(meter_event_customer_not_found)"],
        );
        for sent in [
            Sent {
                event_name: some(text),
                ..good()
            },
            Sent {
                customer: some(text),
                ..good()
            },
        ] {
            let code = if sent.customer == some(text) {
                "(meter_event_customer_not_found)"
            } else {
                "(no_meter)"
            };
            sent.rejected_in_arrays(&mut client, &[code]);
            sent.rejected_in_json(&mut client, &[code]);
        }
        let cancelled = "SELECT billing.cancel_meter_event($1, $2, $3)";
        for arguments in [[text, "acme", "a"], ["sum", text, "a"], ["sum", "acme", text]] {
            let arguments = arguments.map(str::to_owned);
            let row = client
                .query_one(cancelled, &[&arguments[0], &arguments[1], &arguments[2]])
                .unwrap();
            assert!(!row.get::<_, bool>(0));
        }
        // … and as what does.
        client.execute("SELECT billing.create_customer($1)", &[&text]).unwrap();
        let definition = json!({"display_name": text, "event_name": text, "default_aggregation": {"formula": "sum"},
                                "dimension_payload_keys": [text]});
        client
            .execute("SELECT billing.create_meter($1::jsonb::billing.meter)", &[&definition])
            .unwrap();
        let dimensions = json!({ text: text }).to_string();
        let row = client
            .query_one(ONE, &[&text, &text, &"2", &text, &None::<String>, &dimensions])
            .unwrap();
        assert!(row.get::<_, bool>(0));
        let event =
            json!({"event_name": text, "identifier": text, "payload": {"customer": text, "value": "3", text: text}});
        assert_eq!(
            counts(&client.query_one(JSON, &[&event.to_string()]).unwrap()),
            (0, 1, 0),
            "{text}: not the same identity"
        );
        let kept = "SELECT customer, event_name, identifier, dimensions FROM billing.meter_events WHERE customer = $1";
        let row = client.query_one(kept, &[&text]).unwrap();
        assert_eq!(
            (row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, &str>(2)),
            (text, text, text)
        );
        assert_eq!(row.get::<_, Value>(3), json!({ text: text }));
        client.execute("SELECT billing.roll_up()", &[]).unwrap();
        let summary =
            "SELECT aggregated_value::text FROM billing.meter_event_summaries($1, $1, '2000-01-01', '2100-01-01',
                           dimensions => $2)";
        let value: String = client
            .query_one(summary, &[&text, &json!({ text: text })])
            .unwrap()
            .get(0);
        assert_eq!(value, "2");
        assert!(
            client
                .query_one(cancelled, &[&text, &text, &text])
                .unwrap()
                .get::<_, bool>(0)
        );
    }
    for table in ["meter_events", "customers", "meters"] {
        number(&mut client, &format!("SELECT count(*) FROM billing.{table}"));
    }
    // A partition's name goes into dynamic SQL too.
    for text in HOSTILE {
        let sql = "SELECT billing.seal_partition($1)";
        assert!(!client.query_one(sql, &[&text]).unwrap().get::<_, bool>(0));
    }
    assert_never_crashed(database.cluster());
}

/// Someone else's schema must not decide what recording does.
#[test]
fn a_hostile_search_path_changes_nothing() {
    let database: Database = database();
    let mut client = database.connect().unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA evil;
             CREATE FUNCTION evil.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.equal);
             CREATE TABLE evil.meters (LIKE billing.meters);
             CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
             CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
             SET search_path = evil, pg_catalog, billing",
        )
        .unwrap();
    assert!(crate::recording::record(&mut client, "a").unwrap());
    assert!(!crate::recording::record(&mut client, "a").unwrap());
    assert_eq!(
        counts(&client.query_one(JSON, &[&good().as_json().to_string()]).unwrap()),
        (1, 0, 0)
    );
    for sql in [
        "SELECT billing.cancel_meter_event('sum', 'acme', 'a')",
        "SELECT billing.roll_up()",
        "SELECT billing.maintain_partitions()",
    ] {
        client.query_one(sql, &[]).unwrap();
    }
    assert_eq!(usage(&mut client, "sum"), "1");
}
