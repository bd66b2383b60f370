//! Summaries: compared with a count of the events themselves over random histories, and with values worked out by hand.

mod history;
mod oracle;

use std::time::{SystemTime, UNIX_EPOCH};

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use harness::Database;
use postgres::Client;
use postgres::error::SqlState;
use serde_json::{Map, Value, json};

use crate::recording::{
    FORMULAS, assert_refused, await_next_partition, await_that, meter, narrow_database, number, record, refusal, text,
    usage,
};
use history::{CUSTOMERS, History, METERS, SCENES, formula, middle, name};
use oracle::{DAY, Event, HOUR, MINUTE, Micros, instant};

#[derive(Debug)]
struct Question {
    meter: usize,
    customer: &'static str,
    start: Micros,
    end: Micros,
    window: Option<&'static str>,
    filter: Option<Value>,
    zone: Tz,
}

type Answer = Vec<(Micros, Micros, Option<BigDecimal>)>;

impl Question {
    fn any(history: &mut History, meter: usize) -> Question {
        let times: Vec<Micros> = history.visible(0).iter().map(|e| e.at).collect();
        let dice = &mut history.dice;
        let scene = *dice.of(&history.scenes);
        let window = *dice.of(&[None, Some("hour"), Some("day"), Some("month")]);
        let reach = match window {
            None | Some("hour") => 2 * DAY,
            Some("day") => 5 * DAY,
            Some(_) => 90 * DAY,
        };
        let mut bounds = [0, 1].map(|_| {
            let at = middle(scene) + dice.between(-reach, reach);
            match dice.below(5) {
                0 => at.div_euclid(HOUR) * HOUR,
                1 => at.div_euclid(DAY) * DAY,
                // A midnight, or near one, on most clocks.
                2 => at.div_euclid(15 * MINUTE) * 15 * MINUTE,
                // An event on the bound, or just outside of it.
                3 if !times.is_empty() => {
                    let near = |t: &&Micros| (**t - middle(scene)).abs() <= reach;
                    let near: Vec<&Micros> = times.iter().filter(near).collect();
                    if near.is_empty() {
                        at
                    } else {
                        **dice.of(&near) + dice.between(0, 2)
                    }
                }
                _ => at,
            }
        });
        bounds.sort_unstable();
        if window.is_none() && dice.one_in(4) {
            bounds = [middle(4) - 900 * DAY, middle(7) + 100 * DAY];
        }
        let filter = match dice.below(12) {
            0 => Some(json!({})),
            1 => Some(json!({"region": "eu"})),
            2 => Some(json!({"region": "ü\"'", "tier": "0"})),
            3 => Some(json!({"tier": 1})),
            4 => Some(json!({"note": "x"})),
            5 => Some(json!({"note": "", "region": "us"})),
            6 => Some(json!({"region": "nowhere"})),
            7 => Some(json!({"absent": "x"})),
            _ => None,
        };
        Question {
            meter,
            customer: if dice.one_in(5) { CUSTOMERS[1] } else { CUSTOMERS[0] },
            start: bounds[0],
            end: bounds[1].max(bounds[0] + 1),
            window,
            filter,
            zone: SCENES[if dice.one_in(3) {
                dice.below(SCENES.len())
            } else {
                scene
            }]
            .0,
        }
    }

    fn expected(&self, visible: &[&Event]) -> Answer {
        let nothing = Map::new();
        let filter = self.filter.as_ref().and_then(Value::as_object).unwrap_or(&nothing);
        let passes = |event: &Event| {
            filter.iter().all(|(key, wanted)| {
                let wanted = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
                event.dimensions.get(key) == Some(&wanted)
            })
        };
        let mine = |e: &&&Event| e.meter == self.meter && e.customer == self.customer && passes(e);
        let events: Vec<&Event> = visible.iter().filter(mine).copied().collect();
        oracle::windows(self.start, self.end, self.window, self.zone)
            .into_iter()
            .map(|(start, end)| (start, end, oracle::value(formula(self.meter), &events, start, end)))
            .collect()
    }

    fn answer(&self, client: &mut Client) -> Answer {
        let sql = "SELECT start_time, end_time, aggregated_value::text
                   FROM billing.meter_event_summaries($1, $2, $3, $4, $5, $6, $7)";
        let rows = client.query(
            sql,
            &[
                &name(self.meter),
                &self.customer,
                &instant(self.start),
                &instant(self.end),
                &self.window,
                &self.filter,
                &self.zone.name(),
            ],
        );
        rows.unwrap_or_else(|error| panic!("{error}: {self:?}"))
            .iter()
            .map(|row| {
                let (start, end): (DateTime<Utc>, DateTime<Utc>) = (row.get(0), row.get(1));
                let value: Option<&str> = row.get(2);
                (
                    start.timestamp_micros(),
                    end.timestamp_micros(),
                    value.map(|v| v.parse().unwrap()),
                )
            })
            .collect()
    }
}

/// Asks both sessions about every meter; returns how many questions had events to count.
fn check(history: &mut History, reader: &str, questions: usize, seed: u64) -> usize {
    let mut telling = 0;
    for meter in 0..METERS {
        for number in 0..questions * 2 {
            let session = number % 2;
            let question = Question::any(history, meter);
            let expected = question.expected(&history.visible(session));
            // Whoever sees the tables through policies has them read by statements.
            let limited = history.dice.one_in(2);
            let client = &mut history.sessions[session].client;
            if limited {
                client.batch_execute(&format!("SET ROLE {reader}")).unwrap();
            }
            let answer = question.answer(client);
            client.batch_execute("RESET ROLE").unwrap();
            if let Some((told, due)) = answer.iter().zip(&expected).find(|(told, due)| told != due) {
                panic!("seed {seed}: told {told:?}, due {due:?}: {question:?}");
            }
            assert_eq!(answer.len(), expected.len(), "seed {seed}: {question:?}");
            let zero = BigDecimal::from(0);
            telling += usize::from(expected.iter().any(|(.., v)| v.as_ref().is_some_and(|v| *v != zero)));
        }
    }
    telling
}

/// A role that sees all rows of what summaries read, but by policies.
fn limited_reader(database: &Database, client: &mut Client) -> String {
    let role = format!("reader_of_{}", database.name());
    client
        .batch_execute(&format!("CREATE ROLE {role}; GRANT billing_reader TO {role}"))
        .unwrap();
    for table in [
        "usage_buckets",
        "usage_distinct_values",
        "usage_pending",
        "meter_events",
    ] {
        client
            .batch_execute(&format!(
                "ALTER TABLE billing.{table} ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY everything ON billing.{table} USING (true)"
            ))
            .unwrap();
    }
    role
}

fn differences(client: &mut Client, event_name: &str) -> Vec<String> {
    let sql = "SELECT v::text FROM billing.customers c, billing.verify($1, c.id, NULL, NULL) v";
    let rows = client.query(sql, &[&event_name]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn assert_verified(history: &mut History, seed: u64) {
    for session in &mut history.sessions {
        for meter in 0..METERS {
            let found = differences(&mut session.client, &name(meter));
            assert!(found.is_empty(), "seed {seed}: {found:?}");
        }
    }
}

/// PG_BILLING_TEST_SEED repeats a run.
fn seed() -> u64 {
    let chosen = std::env::var("PG_BILLING_TEST_SEED").ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = chosen.map_or(now.as_millis() as u64, |seed| seed.parse().unwrap());
    println!("PG_BILLING_TEST_SEED={seed}");
    seed
}

#[test]
fn any_history_adds_up_over_any_range() {
    let seed = seed();
    let database = narrow_database();
    let mut history = History::begin(&database, seed);
    let reader = limited_reader(&database, &mut history.sessions[0].client);
    for _ in 0..60 {
        history.step();
    }
    let mut telling = check(&mut history, &reader, 3, seed);
    assert_verified(&mut history, seed);
    for _ in 0..8 {
        for _ in 0..25 {
            history.step();
            if history.dice.one_in(6) {
                let session = history.dice.below(2);
                history.roll_up(session);
            }
        }
        telling += check(&mut history, &reader, 2, seed);
        history.end_all();
        history.sessions[0]
            .client
            .execute("SELECT billing.maintain_partitions()", &[])
            .unwrap();
    }
    assert_verified(&mut history, seed);
    history.roll_up(0);
    let client = &mut history.sessions[0].client;
    assert_eq!(number(client, "SELECT count(*) FROM billing.usage_pending"), 0);
    telling += check(&mut history, &reader, 5, seed);
    assert_verified(&mut history, seed);
    assert!(
        telling > 100,
        "seed {seed}: only {telling} answers had anything to tell"
    );
    tamper(&mut history, seed);
}

/// Both checks above can fail: whatever is changed in a bucket, a set or the queue is found, and seen in a summary.
fn tamper(history: &mut History, seed: u64) {
    let client = &mut history.sessions[0].client;
    let state = |formula: &str| match formula {
        "sum" => "value_sum = value_sum + 1",
        "weighted_sum" => "value_time_sum = value_time_sum + 1",
        "max" => "value_max = value_max + 1",
        "min" => "value_min = value_min - 1",
        "last" => "last_value = last_value + 1",
        _ => "event_count = event_count + 1",
    };
    for meter in 0..METERS {
        let at = format!("event_name = '{}' AND customer = 'acme'", name(meter));
        let some = format!("ctid = (SELECT min(ctid) FROM billing.usage_buckets WHERE {at} AND event_count > 0)");
        let mut attacks = vec![
            format!("UPDATE billing.usage_buckets SET {} WHERE {some}", state(formula(meter))),
            format!("UPDATE billing.usage_buckets SET event_count = event_count - 1 WHERE {some}"),
            format!("DELETE FROM billing.usage_buckets WHERE {some}"),
            format!(
                "UPDATE billing.meter_events SET cancelled_at = now()
                 WHERE identifier = (SELECT min(identifier) FROM billing.meter_events WHERE {at} AND cancelled_at IS NULL)"
            ),
        ];
        if formula(meter) == "unique_count" {
            let some = format!("ctid = (SELECT min(ctid) FROM billing.usage_distinct_values WHERE {at})");
            attacks.push(format!(
                "UPDATE billing.usage_distinct_values SET value = 'forged' WHERE {some}"
            ));
            attacks.push(format!("DELETE FROM billing.usage_distinct_values WHERE {some}"));
        }
        for attack in attacks {
            client.batch_execute("BEGIN").unwrap();
            assert_eq!(client.execute(&attack, &[]).unwrap(), 1, "seed {seed}: {attack}");
            assert!(!differences(client, &name(meter)).is_empty(), "seed {seed}: {attack}");
            client.batch_execute("ROLLBACK").unwrap();
        }
        assert!(differences(client, &name(meter)).is_empty(), "seed {seed}");
    }
}

/// `start|end|value` of each row, times in UTC.
fn summary(client: &mut Client, arguments: &str) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws('|', to_char(start_time, 'YYYY-MM-DD HH24:MI'), to_char(end_time, 'YYYY-MM-DD HH24:MI'),
                          coalesce(aggregated_value::text, 'NULL'))
         FROM billing.meter_event_summaries({arguments})"
    );
    let rows = client.query(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter().map(|row| row.get(0)).collect()
}

fn ready() -> (Database<'static>, Client) {
    let database = narrow_database();
    let mut client = database.connect().unwrap();
    client.batch_execute("SET billing.max_event_age = -1").unwrap();
    (database, client)
}

#[test]
fn windows_without_events_are_zero_or_null() {
    let (_database, mut client) = ready();
    for formula in FORMULAS {
        let empty = match formula {
            "sum" | "count" | "unique_count" => "0",
            _ => "NULL",
        };
        let expected = [
            format!("2026-03-01 00:30|2026-03-01 01:00|{empty}"),
            format!("2026-03-01 01:00|2026-03-01 01:15|{empty}"),
        ];
        let arguments = format!("'{formula}', 'acme', '2026-03-01 00:30', '2026-03-01 01:15', 'hour'");
        assert_eq!(summary(&mut client, &arguments), expected);
        let arguments = format!("'{formula}', 'acme', '2026-03-01 00:30', '2026-03-01 01:15'");
        let expected = [format!("2026-03-01 00:30|2026-03-01 01:15|{empty}")];
        assert_eq!(summary(&mut client, &arguments), expected);
    }
}

/// An event an hour around each change of clocks: a day's sum is the number of its hours.
#[test]
fn days_have_23_or_25_hours_where_clocks_change() {
    let (_database, mut client) = ready();
    for (from, to) in [
        ("2018-11-01", "2018-11-10"),
        ("2025-03-01", "2025-04-15"),
        ("2025-10-01", "2025-11-15"),
    ] {
        client
            .execute(
                "SELECT billing.record_meter_events(array_agg('sum'::text), array_agg('acme'::text), array_agg(1::numeric),
                     timestamps => array_agg(at)) FROM generate_series($1::text::timestamptz, $2::text::timestamptz, '1 h') at",
                &[&from, &to],
            )
            .unwrap();
    }
    for rolled_up in [false, true] {
        if rolled_up {
            client.execute("SELECT billing.roll_up()", &[]).unwrap();
        }
        // Europe: 02:00 → 03:00 on 30 March, 03:00 → 02:00 on 26 October, both at 01:00 UTC.
        let spring = summary(
            &mut client,
            "'sum', 'acme', '2025-03-29 00:00+01', '2025-04-01 00:00+02', 'day', NULL, 'Europe/Paris'",
        );
        assert_eq!(
            spring,
            [
                "2025-03-28 23:00|2025-03-29 23:00|24",
                "2025-03-29 23:00|2025-03-30 22:00|23",
                "2025-03-30 22:00|2025-03-31 22:00|24",
            ]
        );
        let autumn = summary(
            &mut client,
            "'sum', 'acme', '2025-10-26 00:00+02', '2025-10-28 00:00+01', 'day', NULL, 'Europe/Paris'",
        );
        assert_eq!(
            autumn,
            [
                "2025-10-25 22:00|2025-10-26 23:00|25",
                "2025-10-26 23:00|2025-10-27 23:00|24"
            ]
        );
        // Each of the 25 hours has its window, the repeated one too.
        let hours = summary(
            &mut client,
            "'sum', 'acme', '2025-10-26 00:00+02', '2025-10-27 00:00+01', 'hour', NULL, 'Europe/Paris'",
        );
        assert_eq!(hours.len(), 25);
        assert!(hours.iter().all(|hour| hour.ends_with("|1")), "{hours:?}");
        // New York: 2 November at 06:00 UTC. November begins before it, October has 744 hours.
        let months = summary(
            &mut client,
            "'sum', 'acme', '2025-10-01 00:00-04', '2025-11-10 12:00-05', 'month', NULL, 'America/New_York'",
        );
        assert_eq!(
            months,
            [
                "2025-10-01 04:00|2025-11-01 04:00|744",
                "2025-11-01 04:00|2025-11-10 17:00|229"
            ]
        );
        // Cuba repeats the hour after midnight: the day begins at the first. Brazil had no midnight on 4 November 2018.
        let twice = summary(
            &mut client,
            "'sum', 'acme', '2025-11-01 04:00', '2025-11-04 05:00', 'day', NULL, 'America/Havana'",
        );
        assert_eq!(
            twice,
            [
                "2025-11-01 04:00|2025-11-02 04:00|24",
                "2025-11-02 04:00|2025-11-03 05:00|25",
                "2025-11-03 05:00|2025-11-04 05:00|24",
            ]
        );
        let skipped = summary(
            &mut client,
            "'sum', 'acme', '2018-11-03 03:00', '2018-11-05 12:00', 'day', NULL, 'America/Sao_Paulo'",
        );
        assert_eq!(
            skipped,
            [
                "2018-11-03 03:00|2018-11-04 03:00|24",
                "2018-11-04 03:00|2018-11-05 02:00|23",
                "2018-11-05 02:00|2018-11-05 12:00|10",
            ]
        );
        // India's hours begin at half past in UTC, Nepal's at a quarter past.
        for (zone, bound) in [("Asia/Kolkata", "30"), ("Asia/Kathmandu", "15")] {
            let arguments = format!("'sum', 'acme', '2025-10-05 00:05', '2025-10-05 02:00', 'hour', NULL, '{zone}'");
            let expected = [
                format!("2025-10-05 00:05|2025-10-05 00:{bound}|0"),
                format!("2025-10-05 00:{bound}|2025-10-05 01:{bound}|1"),
                format!("2025-10-05 01:{bound}|2025-10-05 02:00|0"),
            ];
            assert_eq!(summary(&mut client, &arguments), expected);
        }
    }
}

/// A level of 10 from midnight, 6 from 06:00: over twelve hours (10 × 6 + 6 × 6) / 12 = 8.
#[test]
fn a_level_is_weighted_by_the_time_it_lasts() {
    let (_database, mut client) = ready();
    client
        .batch_execute(
            "SELECT billing.record_meter_event('weighted_sum', 'acme', 10, 'up', '2026-01-01 00:00');
             SELECT billing.record_meter_event('weighted_sum', 'acme', -4, 'down', '2026-01-01 06:00')",
        )
        .unwrap();
    for rolled_up in [false, true] {
        if rolled_up {
            client.execute("SELECT billing.roll_up()", &[]).unwrap();
        }
        for (start, end, average) in [
            ("2026-01-01 00:00", "2026-01-01 12:00", "8"),
            ("2026-01-01 03:00", "2026-01-01 09:00", "8"),
            ("2026-01-01 05:00", "2026-01-01 08:00", "7.33333333333333333333"),
            ("2025-12-31 00:00", "2026-01-01 06:00", "2"),
            ("2026-02-01 00:00", "2026-02-01 00:00:00.000001", "6"),
            ("2025-12-31 00:00", "2026-01-01 00:00", "NULL"),
        ] {
            let sql = format!(
                "SELECT coalesce(aggregated_value::text, 'NULL')
                 FROM billing.meter_event_summaries('weighted_sum', 'acme', '{start}', '{end}')"
            );
            assert_eq!(text(&mut client, &sql), average, "[{start}, {end})");
        }
    }
}

#[test]
fn a_snapshot_keeps_its_usage_while_it_is_rolled_up() {
    let (database, mut client) = ready();
    let mut reader = database.connect().unwrap();
    let record = "SELECT billing.record_meter_event('sum', 'acme', 7, NULL, '2026-01-01 10:10')";
    client.execute(record, &[]).unwrap();
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    assert_eq!(usage(&mut reader, "sum"), "7");
    client.execute("SELECT billing.roll_up()", &[]).unwrap();
    client.execute(record, &[]).unwrap();
    assert_eq!(usage(&mut reader, "sum"), "7");
    assert!(differences(&mut reader, "sum").is_empty());
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(usage(&mut reader, "sum"), "14");
}

#[test]
fn a_snapshot_older_than_a_partition_shows_its_own_events_there() {
    let database = narrow_database();
    let (mut own, mut other) = (database.connect().unwrap(), database.connect().unwrap());
    record(&mut other, "makes the first partition").unwrap();
    own.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM billing.meters")
        .unwrap();
    await_next_partition(&mut other);
    record(&mut other, "makes the next one").unwrap();
    record(&mut own, "own").unwrap();
    // The bounds cut an hour, so the events themselves are read.
    let cut = "SELECT trim_scale(aggregated_value)::text FROM billing.meter_event_summaries('sum', 'acme',
                   now() - interval '90 minutes', now() + interval '1 minute')";
    assert_eq!(text(&mut own, cut), "2");
}

/// What a transaction has read so far: the names of tables of schema billing.
fn tables_read(client: &mut Client, like: &str) -> Vec<String> {
    let sql = "SELECT relname::text FROM pg_stat_xact_user_tables
               WHERE schemaname = 'billing' AND relname LIKE $1 AND seq_scan + coalesce(idx_scan, 0) > 0 ORDER BY 1";
    let rows = client.query(sql, &[&like]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_summary_reads_its_own_part_of_the_queue_and_the_partitions_of_its_hours() {
    let (database, mut client) = ready();
    for day in 1..=3 {
        let sql = format!("SELECT billing.record_meter_event('sum', 'acme', {day}, NULL, '2026-01-0{day} 10:10Z')");
        client.batch_execute(&sql).unwrap();
        await_next_partition(&mut client);
    }
    let sealed = "SELECT count(*) FILTER (WHERE billing.seal_partition(name)) FROM billing.meter_event_partitions
                  WHERE upper_bound <= now() - interval '1 second'";
    // Sealing waits as long as a partition is wide.
    await_that("three partitions are sealed", || {
        client.execute(sealed, &[]).unwrap();
        number(
            &mut client,
            "SELECT count(*) FROM billing.meter_event_partitions WHERE min_timestamp IS NOT NULL",
        ) == 3
    });
    let holder = "SELECT name FROM billing.meter_event_partitions WHERE min_timestamp = '2026-01-02 10:10Z'";
    let holder = text(&mut client, holder);
    // Another session, because a session's counts are of all that it has not reported yet.
    let mut reader = database.connect().unwrap();
    reader.batch_execute("BEGIN").unwrap();
    let cut = "SELECT aggregated_value::text FROM billing.meter_event_summaries('sum', 'acme', '2026-01-01 20:00Z', '2026-01-02 10:30Z')";
    assert_eq!(text(&mut reader, cut), "2");
    assert_eq!(tables_read(&mut reader, "meter\\_events\\_p%"), [holder]);
    assert_eq!(tables_read(&mut reader, "usage\\_pending%").len(), 1);
    reader.batch_execute("COMMIT").unwrap();
}

/// Whoever does not see all events, or asks beside parallel workers, has the table read as a whole.
#[test]
fn events_are_read_with_the_rights_of_the_caller_and_in_parallel_queries() {
    let (database, mut client) = ready();
    let cut = "SELECT trim_scale(aggregated_value)::text
               FROM billing.meter_event_summaries('sum', 'acme', '2026-01-01 10:10Z', '2026-01-01 10:20Z')";
    let role = format!("reader_of_{}", database.name());
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT billing_reader TO {role};
             SELECT billing.record_meter_event('sum', 'acme', n, 'id' || n, '2026-01-01 10:10Z') FROM generate_series(1, 3) n"
        ))
        .unwrap();
    let mut reader = database.connect_as(&role).unwrap();
    assert_eq!(text(&mut reader, cut), "6");
    let forced = match number(&mut client, "SELECT current_setting('server_version_num')::bigint") {
        ..160_000 => "force_parallel_mode",
        _ => "debug_parallel_query",
    };
    reader
        .batch_execute(&format!("BEGIN; SET LOCAL {forced} = on"))
        .unwrap();
    assert_eq!(text(&mut reader, cut), "6");
    reader.batch_execute("COMMIT").unwrap();
    client
        .batch_execute(
            "ALTER TABLE billing.meter_events ENABLE ROW LEVEL SECURITY;
             CREATE POLICY not_the_third ON billing.meter_events USING (identifier <> 'id3')",
        )
        .unwrap();
    assert_eq!(text(&mut reader, cut), "3");
    assert_eq!(text(&mut client, cut), "6");
    client
        .batch_execute("REVOKE SELECT ON billing.meter_events FROM billing_reader")
        .unwrap();
    let refused = refusal(&mut reader, cut, &[]);
    assert_eq!(*refused.code(), SqlState::INSUFFICIENT_PRIVILEGE, "{refused}");
}

#[test]
fn queue_and_buckets_are_read_with_the_rights_of_the_caller() {
    let (database, mut client) = ready();
    let role = format!("reader_of_{}", database.name());
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT billing_reader TO {role};
             SELECT billing.record_meter_event(meter, 'acme', n, NULL, '2026-01-01 10:10Z', jsonb_build_object('value', n))
             FROM generate_series(1, 3) n, (VALUES ('sum'), ('unique_count')) m (meter)"
        ))
        .unwrap();
    let mut reader = database.connect_as(&role).unwrap();
    let hour = "SELECT string_agg(trim_scale(s.aggregated_value)::text, ' ' ORDER BY m.meter)
                FROM (VALUES ('sum'), ('unique_count')) m (meter),
                     billing.meter_event_summaries(m.meter, 'acme', '2026-01-01 10:00Z', '2026-01-01 11:00Z') s";
    for (folded, tables) in [
        (false, &["usage_pending"][..]),
        (true, &["usage_buckets", "usage_distinct_values"][..]),
    ] {
        if folded {
            client.batch_execute("SELECT billing.roll_up()").unwrap();
        }
        assert_eq!(text(&mut reader, hour), "6 3");
        for table in tables {
            client
                .batch_execute(&format!("ALTER TABLE billing.{table} ENABLE ROW LEVEL SECURITY"))
                .unwrap();
        }
        assert_eq!(text(&mut reader, hour), "0 0", "{tables:?}");
        assert_eq!(text(&mut client, hour), "6 3", "{tables:?}");
        for table in tables {
            client
                .batch_execute(&format!("ALTER TABLE billing.{table} DISABLE ROW LEVEL SECURITY"))
                .unwrap();
        }
        for table in tables {
            client
                .batch_execute(&format!("REVOKE SELECT ON billing.{table} FROM billing_reader"))
                .unwrap();
            let refused = refusal(&mut reader, hour, &[]);
            assert_eq!(*refused.code(), SqlState::INSUFFICIENT_PRIVILEGE, "{refused}");
            client
                .batch_execute(&format!("GRANT SELECT ON billing.{table} TO billing_reader"))
                .unwrap();
            assert_eq!(text(&mut reader, hour), "6 3", "{table}");
        }
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let (_database, mut client) = ready();
    let call = |arguments: &str| format!("SELECT * FROM billing.meter_event_summaries({arguments})");
    let good = [
        "'sum'",
        "'acme'",
        "'2026-01-01'",
        "'2026-02-01'",
        "'day'",
        "NULL",
        "'UTC'",
    ];
    assert_eq!(client.query(&call(&good.join(", ")), &[]).unwrap().len(), 31);
    let injection = "'''); DROP TABLE billing.meters CASCADE; --'";
    let invalid = SqlState::INVALID_PARAMETER_VALUE;
    for (position, bad, code, words) in [
        (0, "'nothing'", SqlState::UNDEFINED_OBJECT, "nothing"),
        (0, injection, SqlState::UNDEFINED_OBJECT, "(no_meter)"),
        (1, "'nobody'", SqlState::FOREIGN_KEY_VIOLATION, "nobody"),
        (
            1,
            injection,
            SqlState::FOREIGN_KEY_VIOLATION,
            "(meter_event_customer_not_found)",
        ),
        (2, "'2026-02-01'", invalid.clone(), "2026-02-01"),
        (2, "'2026-02-01 00:00:00.000001'", invalid.clone(), "2026-02-01"),
        (2, "'-infinity'", invalid.clone(), "-infinity"),
        (3, "'infinity'", invalid.clone(), "infinity"),
        (4, "'week'", invalid.clone(), "week"),
        (4, "'DAY'", invalid.clone(), "DAY"),
        (4, injection, invalid.clone(), "DROP TABLE"),
        (5, "'[]'", invalid.clone(), "[]"),
        (5, "'1'", invalid.clone(), "1"),
        (5, r#"'{"region": {"a": 1}}'"#, invalid.clone(), "region"),
        (5, r#"'{"region": null}'"#, invalid.clone(), "region"),
    ] {
        let mut arguments = good;
        arguments[position] = bad;
        assert_refused(&mut client, &call(&arguments.join(", ")), &[], &code, &[words]);
    }
    for position in [0, 1, 2, 3, 6] {
        let mut arguments = good;
        arguments[position] = "NULL";
        let name = ["event_name", "customer", "start_time", "end_time", "", "", "timezone"][position];
        let missing = SqlState::NULL_VALUE_NOT_ALLOWED;
        assert_refused(&mut client, &call(&arguments.join(", ")), &[], &missing, &[name]);
    }
    for zone in ["'Mars/Olympus'", "''", injection] {
        let mut arguments = good;
        arguments[6] = zone;
        assert_eq!(
            *refusal(&mut client, &call(&arguments.join(", ")), &[]).code(),
            invalid,
            "{zone}"
        );
    }
    // A dimension may have any name and any text.
    let hostile = json!({"'); DROP TABLE billing.meters; --": "\"'\\"});
    let sql = "SELECT aggregated_value::text FROM billing.meter_event_summaries('sum', 'acme', '2026-01-01', '2026-02-01', NULL, $1)";
    assert_eq!(client.query_one(sql, &[&hostile]).unwrap().get::<_, &str>(0), "0");
    meter(&mut client, "still_there", "sum", "");
}

#[test]
fn verify_refuses_what_it_does_not_know() {
    let (_database, mut client) = ready();
    let call = "SELECT * FROM billing.verify($1, $2, NULL, NULL)";
    assert_refused(
        &mut client,
        call,
        &[&"nothing", &"acme"],
        &SqlState::UNDEFINED_OBJECT,
        &["nothing"],
    );
    for (arguments, name) in [([None, Some("acme")], "event_name"), ([Some("sum"), None], "customer")] {
        let [event_name, customer] = arguments;
        let code = SqlState::NULL_VALUE_NOT_ALLOWED;
        assert_refused(&mut client, call, &[&event_name, &customer], &code, &[name]);
    }
}

#[test]
fn verify_says_where_buckets_differ() {
    let (_database, mut client) = ready();
    client
        .batch_execute(
            "SELECT billing.record_meter_event('sum', 'acme', 5, 'a', '2026-03-02 10:20Z');
             SELECT billing.record_meter_event('sum', 'acme', 2, 'b', '2026-03-02 12:00Z');
             SELECT billing.record_meter_event('sum', 'acme', 7, 'c', '2026-03-03 11:00Z');
             SELECT billing.roll_up()",
        )
        .unwrap();
    assert_eq!(differences(&mut client, "sum"), [] as [&str; 0]);
    // Wrong, missing, and of nothing.
    client
        .batch_execute(
            "SET timezone = 'UTC';
             UPDATE billing.usage_buckets SET value_sum = 6 WHERE width = 'hour' AND start = '2026-03-02 10:00Z';
             DELETE FROM billing.usage_buckets WHERE width = 'day' AND start = '2026-03-03 00:00Z';
             INSERT INTO billing.usage_buckets (customer, event_name, width, start, event_count, value_sum)
             VALUES ('acme', 'sum', 'hour', '2026-03-03 15:00Z', 1, 1)",
        )
        .unwrap();
    let sql = "SELECT concat_ws(' ', v.width, v.start, v.expected -> 'event_count', v.expected -> 'value_sum', '|',
                                v.actual -> 'event_count', v.actual -> 'value_sum')
               FROM billing.meters m, billing.verify(m.id, 'acme', $1::timestamptz, '2026-03-03 00:00:01Z') v
               WHERE m.event_name = 'sum'";
    let found = |client: &mut Client, since: Option<DateTime<Utc>>| -> Vec<String> {
        client
            .query(sql, &[&since])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    let all = [
        "hour 2026-03-02 10:00:00+00 1 5 | 1 6",
        "day 2026-03-03 00:00:00+00 1 7 |",
        "hour 2026-03-03 15:00:00+00 | 1 1",
    ];
    assert_eq!(found(&mut client, None), all);
    // The range is of whole days.
    let later = "2026-03-03T00:00:00Z".parse().unwrap();
    assert_eq!(found(&mut client, Some(later)), all[1..]);
}
