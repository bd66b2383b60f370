//! Proof that the audit can fail: what must never happen is done by hand, in the database or in the ledger, and has to be found.

use std::collections::HashMap;
use std::time::Duration;

use postgres::Client;

use super::finding::{Finding, Kind};
use super::ledger::{Ledger, Told};
use super::stage::{Kills, Plan, Stage};
use super::storm::after;
use crate::error::{Error, Result};
use crate::install::PgInstall;

struct Sabotage {
    what: &'static str,
    sql: &'static str,
    /// What the audit must at least say.
    expected: &'static [Kind],
}

const SABOTAGES: [Sabotage; 9] = [
    Sabotage {
        // One that a summary shows: a sum does not tell of an event with a value of 0.
        what: "a row of the queue is lost",
        sql: "DELETE FROM billing.usage_pending WHERE (tableoid, ctid) = (
                  SELECT p.tableoid, p.ctid FROM billing.usage_pending p
                  WHERE p.event_name = 'sum_0' AND p.event_count > 0 AND p.value_sum <> 0 LIMIT 1)",
        expected: &[Kind::Usage, Kind::Summary, Kind::Verify],
    },
    Sabotage {
        what: "a row of the queue is folded twice",
        sql: "INSERT INTO billing.usage_pending
              SELECT * FROM billing.usage_pending WHERE event_name = 'count_2' AND event_count > 0 LIMIT 1",
        expected: &[Kind::Usage, Kind::Summary, Kind::Verify],
    },
    Sabotage {
        what: "an identity stands in two partitions",
        sql: "INSERT INTO billing.meter_events
              SELECT e.customer, e.event_name, e.identifier, e.value, e.\"timestamp\", o.received_at, e.dimensions, e.cancelled_at
              FROM billing.meter_events e JOIN billing.meter_events o ON o.tableoid <> e.tableoid LIMIT 1",
        expected: &[Kind::Twice],
    },
    Sabotage {
        what: "an acknowledged event is lost",
        sql: "DELETE FROM billing.meter_events WHERE identifier = (
                  SELECT e.identifier FROM billing.meter_events e GROUP BY 1 HAVING count(*) = 1 AND max(e.cancelled_at) IS NULL LIMIT 1)",
        expected: &[Kind::Lost],
    },
    Sabotage {
        what: "a value is changed",
        sql: "UPDATE billing.meter_events SET value = value + 0.001 WHERE identifier = (
                  SELECT e.identifier FROM billing.meter_events e GROUP BY 1 HAVING count(*) = 1 LIMIT 1)",
        expected: &[Kind::Altered],
    },
    Sabotage {
        what: "an event is cancelled that nobody cancelled",
        sql: "UPDATE billing.meter_events SET cancelled_at = now() WHERE identifier = (
                  SELECT e.identifier FROM billing.meter_events e GROUP BY 1 HAVING count(*) = 1 AND max(e.cancelled_at) IS NULL LIMIT 1)",
        expected: &[Kind::Cancellation],
    },
    Sabotage {
        what: "a cancelled event counts again",
        sql: "UPDATE billing.meter_events SET cancelled_at = NULL WHERE (identifier, event_name, customer) IN (
                  SELECT e.identifier, e.event_name, e.customer FROM billing.meter_events e WHERE e.cancelled_at IS NOT NULL LIMIT 1)",
        expected: &[Kind::Cancellation],
    },
    Sabotage {
        what: "a bucket is off by a thousandth",
        sql: "UPDATE billing.usage_buckets SET value_sum = value_sum + 0.001
              WHERE ctid = (SELECT min(ctid) FROM billing.usage_buckets WHERE event_name = 'sum_2' AND width = 'hour')",
        expected: &[Kind::Usage, Kind::Verify],
    },
    Sabotage {
        what: "a sealed partition has events that it does not know of",
        sql: "UPDATE billing.meter_event_partitions SET sealed_at = now(), event_count = 0
              WHERE name = (SELECT max(p.name) FROM billing.meter_event_partitions p
                            JOIN billing.meter_events e ON e.tableoid = to_regclass('billing.' || p.name))",
        expected: &[Kind::Misplaced],
    },
];

/// Something that no database that works could have told.
struct Forgery {
    what: &'static str,
    forge: fn(&mut Ledger, there: u32, gone: u32),
    expected: Kind,
}

const FORGERIES: [Forgery; 7] = [
    Forgery {
        what: "an event that is not there was acknowledged",
        forge: |ledger, _, gone| ledger.committed.recorded.push(gone),
        expected: Kind::Lost,
    },
    Forgery {
        what: "an event that is not there was a duplicate",
        forge: |ledger, _, gone| ledger.seen.push(gone),
        expected: Kind::Lost,
    },
    Forgery {
        what: "an event was acknowledged twice",
        forge: |ledger, there, _| ledger.committed.recorded.extend([there; 2]),
        expected: Kind::Twice,
    },
    Forgery {
        what: "nobody was told of an event that is there",
        forge: |ledger, there, _| {
            ledger.committed.recorded.retain(|number| *number != there);
            ledger.committed.batched.retain(|number| *number != there);
        },
        expected: Kind::Unaccounted,
    },
    Forgery {
        what: "a batch recorded one more than it said",
        forge: |ledger, _, _| ledger.committed.rows -= 1,
        expected: Kind::Unaccounted,
    },
    Forgery {
        what: "a cancellation was acknowledged and is not there",
        forge: |ledger, there, _| ledger.cancelled_before.push(there),
        expected: Kind::Cancellation,
    },
    Forgery {
        what: "half of a transaction is there",
        forge: |ledger, there, gone| {
            ledger.unknown.push(Told {
                recorded: vec![there, gone],
                ..Told::default()
            });
        },
        expected: Kind::Torn,
    },
];

/// Whether there is something to sabotage of each kind.
const MATERIAL: &str = "
    SELECT (SELECT count(DISTINCT e.tableoid) > 1 AND count(e.cancelled_at) > 0 FROM billing.meter_events e)
       AND (SELECT count(DISTINCT p.event_name) = 2 FROM billing.usage_pending p
            WHERE (p.event_name = 'sum_0' AND p.value_sum <> 0 OR p.event_name = 'count_2') AND p.event_count > 0)";

/// A small storm in which nobody empties the queue at the end, and after it each sabotage, undone before the next. Returns what the
/// audit found without any, and for each that it did not find what it must.
pub fn control(install: &PgInstall, seed: u64) -> Result<Vec<Finding>> {
    let plan = Plan {
        seed,
        events: 1500,
        checks: 10,
        kills: Kills::default(),
        partition_width: "1s",
        largest_batch: 300,
        recorders: 4,
        slow: 1,
        rollers: 1,
        worker: false,
        preload: false,
        standby: false,
        progress: None,
        least: Duration::ZERO,
    };
    after(install, &plan, |stage, mut past| {
        let mut client = stage.cluster.connect(&stage.database)?;
        client.batch_execute("SELECT billing.roll_up()")?;
        let mut extra = 0;
        while !client.query_one(MATERIAL, &[])?.get::<_, bool>(0) && stage.board.findings().is_empty() {
            past.ledger.take_in(stage.record_once(extra));
            extra += 1;
        }
        let mut findings = stage.board.findings();
        findings.extend(undone(&mut client, |client| {
            stage.audit(&past.ledger).findings(client)
        })?);
        for sabotage in &SABOTAGES {
            let found = undone(&mut client, |client| {
                sabotage.commit(client)?;
                let audit = stage.audit(&past.ledger);
                if sabotage.expected.contains(&Kind::Usage) {
                    audit.findings(client)
                } else {
                    audit.of_events(client)
                }
            })?;
            findings.extend(unnoticed(sabotage.what, sabotage.expected, &found));
        }
        let (there, gone) = lone_events(stage, &mut client)?;
        for forgery in &FORGERIES {
            let mut forged = past.ledger.clone();
            (forgery.forge)(&mut forged, there, gone);
            let found = stage.audit(&forged).of_events(&mut client)?;
            findings.extend(unnoticed(forgery.what, &[forgery.expected], &found));
        }
        Ok(findings)
    })
}

/// In a transaction that leaves nothing behind.
fn undone<T>(client: &mut Client, act: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
    client.batch_execute("BEGIN")?;
    let done = act(client)?;
    client.batch_execute("ROLLBACK")?;
    Ok(done)
}

/// Of the events that were sent once, one that counts, and one that was rolled back.
fn lone_events(stage: &Stage, client: &mut Client) -> Result<(u32, u32)> {
    let sql = "SELECT customer, event_name, identifier, cancelled_at IS NULL FROM billing.meter_events";
    let counts: HashMap<u32, bool> = client
        .query(sql, &[])?
        .iter()
        .filter_map(|row| Some((stage.world.number(row.get(0), row.get(1), row.get(2))?, row.get(3))))
        .collect();
    let lone = || (0..stage.board.numbers() as u32).filter(|number| stage.board.attempts(*number) == 1);
    lone()
        .find(|number| counts.get(number) == Some(&true))
        .zip(lone().find(|number| !counts.contains_key(number)))
        .ok_or_else(|| Error::new("the storm was too small for forgeries"))
}

fn unnoticed(what: &str, expected: &[Kind], found: &[Finding]) -> Vec<Finding> {
    let missing = expected
        .iter()
        .filter(|kind| found.iter().all(|finding| finding.kind != **kind));
    missing
        .map(|kind| Finding::new(Kind::Unnoticed, format!("{what}, and the audit does not say {kind:?}")))
        .collect()
}

impl Sabotage {
    fn commit(&self, client: &mut Client) -> Result<()> {
        match client.execute(self.sql, &[])? {
            1 | 2 => Ok(()),
            rows => Err(Error::new(format!("{rows} rows were sabotaged: {}", self.what))),
        }
    }
}
