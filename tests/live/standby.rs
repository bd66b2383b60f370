//! A hot standby answers as its primary does, from buckets, queue and events, and writes nothing.

use chrono::{DateTime, Utc};
use harness::{Cluster, Database, Options, cluster_under_test};
use postgres::Client;
use postgres::error::SqlState;
use serde_json::json;

use crate::recording::{FORMULAS, assert_never_crashed, catalog, number, record, refusal, usage};

const USAGE: &str = "SELECT concat_ws(' ', m.event_name, s.start_time, s.end_time, coalesce(s.aggregated_value::text, 'NULL'))
    FROM billing.meters m,
         billing.meter_event_summaries(m.event_name, 'acme', $1::timestamptz - interval '50:20:10.000007', $1, 'hour', NULL,
                                       'Asia/Kathmandu') s
    ORDER BY m.event_name, s.start_time";

fn answers(client: &mut Client, sql: &str, at: DateTime<Utc>) -> Vec<String> {
    let rows = client
        .query(sql, &[&at])
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter().map(|row| row.get(0)).collect()
}

fn record_round(client: &mut Client, round: i32) {
    for formula in FORMULAS {
        client
            .execute(
                "SELECT billing.record_meter_event($1, 'acme', n, $2 || n, now() - n * interval '3 h 7 min 1 us', '{\"value\": \"x\"}')
                 FROM generate_series(1, 15) n",
                &[&formula, &format!("{round}-")],
            )
            .unwrap();
    }
}

#[test]
fn a_standby_answers_as_its_primary_does() {
    // Nobody rolls up but the test. The standby would start a worker if it could.
    let primary = cluster_under_test(&Options::default().set("billing.worker", "off")).unwrap();
    let database = Database::with_extension(&primary).unwrap();
    let mut writer = database.connect().unwrap();
    catalog(&mut writer);
    let price = json!({"currency": "usd", "unit_amount_decimal": "0.5",
        "recurring": {"interval": "month", "usage_type": "metered", "meter": "sum"}});
    let subscription = json!({"customer": "acme", "items": [{"price": "call"}]});
    let create = "SELECT billing.create_product('p', 'P'), billing.create_price($1::jsonb, 'p', 'call'),
                  billing.create_subscription($2::jsonb, 'sub', now() - interval '6 days')";
    writer.execute(create, &[&price, &subscription]).unwrap();
    let standby = Cluster::standby_of(&primary, &Options::default().set("billing.worker", "on")).unwrap();
    let mut reader = standby.connect(database.name()).unwrap();

    // Nothing folded; buckets and queue together; cancelled events that wait for a rebuild; all folded.
    for round in 0..4 {
        match round {
            0 | 1 => record_round(&mut writer, round),
            2 => {
                let cancel = "SELECT billing.cancel_meter_event($1, 'acme', '0-2')";
                for formula in FORMULAS {
                    assert!(writer.query_one(cancel, &[&formula]).unwrap().get::<_, bool>(0));
                }
            }
            _ => {}
        }
        assert_eq!(
            number(&mut writer, "SELECT least(count(*), 1) FROM billing.usage_pending"),
            i64::from(round < 3)
        );
        standby.catch_up_with(&primary).unwrap();
        for status in [
            "SELECT concat_ws(' ', pending_rows, pending_events, last_roll_up, last_roll_up_events, worker_alive)
             FROM billing.ingestion_status WHERE $1::timestamptz IS NOT NULL",
            "SELECT concat_ws(' ', name, state, event_count_exact, total_bytes > 0) FROM billing.partition_status
             WHERE $1::timestamptz IS NOT NULL",
        ] {
            let here = answers(&mut reader, status, Utc::now());
            assert!(!here.is_empty());
            assert_eq!(here, answers(&mut writer, status, Utc::now()), "round {round}");
        }
        // Of one moment: windows and previews end with it.
        let at: DateTime<Utc> = writer.query_one("SELECT now()", &[]).unwrap().get(0);
        let summaries = answers(&mut writer, USAGE, at);
        assert!(summaries.len() > 7 * 50);
        assert_eq!(answers(&mut reader, USAGE, at), summaries, "round {round}");
        // Line ids are made up for every preview; the rest is the same.
        let preview = "SELECT concat_ws(' ', price, quantity, amount, period_start, period_end)
                       FROM billing.preview_invoice('sub', $1)";
        let lines = answers(&mut writer, preview, at);
        assert_eq!(
            (lines.len(), answers(&mut reader, preview, at)),
            (1, lines),
            "round {round}"
        );
        for formula in FORMULAS.into_iter().filter(|formula| *formula != "weighted_sum") {
            assert_eq!(usage(&mut reader, formula), usage(&mut writer, formula), "{formula}");
        }
        let wrong = reader
            .query(
                "SELECT v::text FROM billing.meters m, billing.verify(m.event_name, 'acme', NULL, NULL) v",
                &[],
            )
            .unwrap();
        assert!(wrong.is_empty(), "round {round}: {wrong:?}");
        if round != 1 {
            writer.execute("SELECT billing.roll_up()", &[]).unwrap();
        }
        if round == 2 {
            assert_eq!(number(&mut writer, "SELECT count(*) FROM billing.usage_pending"), 0);
        }
    }

    for write in [
        "SELECT billing.record_meter_event('sum', 'acme')",
        r#"SELECT * FROM billing.record_meter_events('{"event_name": "sum", "payload": {"customer": "acme", "value": 1}}')"#,
        "SELECT * FROM billing.record_meter_events('{sum}', '{acme}', '{1}')",
        "SELECT billing.cancel_meter_event('sum', 'acme', '0-1')",
        "SELECT billing.roll_up()",
        "SELECT billing.generate_invoices()",
        "SELECT billing.create_alert('sum', 1)",
        "SELECT billing.maintain_partitions()",
    ] {
        let refused = refusal(&mut reader, write, &[]);
        assert_eq!(
            *refused.code(),
            SqlState::READ_ONLY_SQL_TRANSACTION,
            "{write}: {refused}"
        );
    }
    // Neither a refused write nor the standby's setting has brought a worker to life where it could do nothing.
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_billing%'";
    assert_eq!(number(&mut reader, workers), 0);

    // Promoted, it goes on where the primary stopped.
    let before = usage(&mut writer, "sum").parse::<i64>().unwrap();
    record(&mut writer, "last words").unwrap();
    standby.catch_up_with(&primary).unwrap();
    drop(writer);
    primary.stop(harness::Stop::Fast).unwrap();
    reader.execute("SELECT pg_promote()", &[]).unwrap();
    assert!(!record(&mut reader, "last words").unwrap());
    assert!(record(&mut reader, "first words").unwrap());
    assert_eq!(usage(&mut reader, "sum"), (before + 2).to_string());
    reader.execute("SELECT billing.roll_up()", &[]).unwrap();
    assert_eq!(usage(&mut reader, "sum"), (before + 2).to_string());
    assert_never_crashed(&standby);
}
