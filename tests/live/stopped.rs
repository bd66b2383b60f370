//! Sessions that are stopped at the boundary between two steps of recording, wherever that is, while others overtake them.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use harness::Database;
use postgres::Client;
use postgres::error::SqlState;
use rustix::process::{Pid, Signal, kill_process};

use crate::recording::{backend, narrow_database, record, recorded_twice, usage};

const PAIRS: usize = 4;
const ROUNDS: usize = 3;
/// Far more than a session records in a second.
const MOST: u32 = 1 << 20;

fn now(client: &mut Client) -> DateTime<Utc> {
    client.query_one("SELECT clock_timestamp()", &[]).unwrap().get(0)
}

fn pause_until(client: &mut Client, at: DateTime<Utc>) {
    if let Ok(left) = (at - now(client)).to_std() {
        std::thread::sleep(left);
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn identifier(prefix: &str, n: u32) -> String {
    format!("{prefix}-{n:07}")
}

/// Records in ascending order until `end`, all in one transaction.
fn run(client: &mut Client, prefix: &str, end: DateTime<Utc>) {
    let sql = format!(
        "DO $$ DECLARE n int := 0; BEGIN
             WHILE clock_timestamp() < '{end}' LOOP
                 PERFORM billing.record_meter_events(array_fill('sum'::text, '{{1000}}'), array_fill('acme'::text, '{{1000}}'),
                     array_fill(1::numeric, '{{1000}}'),
                     ARRAY(SELECT '{prefix}-' || to_char(n + i, 'FM0000000') FROM generate_series(0, 999) i));
                 n := n + 1000;
             END LOOP;
         END $$"
    );
    client.batch_execute(&sql).unwrap();
}

/// Records the first identifier that the stopped session has not recorded yet, found by halving.
fn overtake(client: &mut Client, prefix: &str) {
    let (mut recorded_by_it, mut free) = (0, MOST);
    while free - recorded_by_it > 1 {
        let middle = u32::midpoint(recorded_by_it, free);
        match record(client, &identifier(prefix, middle)) {
            Ok(true) => free = middle,
            // Its row, which is not committed.
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => recorded_by_it = middle,
            // It goes on already.
            Ok(false) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// One round of one pair: the first is stopped shortly before the partition's time is over and goes on when the other has passed.
fn race(database: &Database, prefix: &str) {
    let (mut first, mut second, mut clock) = (
        database.connect().unwrap(),
        database.connect().unwrap(),
        database.connect().unwrap(),
    );
    let boundary = DateTime::from_timestamp(now(&mut clock).timestamp() + 2, 0).unwrap();
    // The partition is made by a transaction that has ended, so that the stopped session holds nothing but its events.
    pause_until(&mut clock, boundary - Duration::from_secs(1));
    record(&mut clock, &format!("{prefix} before")).unwrap();
    let pid = backend(&mut first);
    std::thread::scope(|scope| {
        scope.spawn(|| run(&mut first, prefix, boundary + Duration::from_millis(100)));
        pause_until(&mut clock, boundary - Duration::from_millis(2));
        signal(pid, Signal::STOP);
        pause_until(&mut clock, boundary);
        let overtaking = scope.spawn(|| {
            record(&mut second, &format!("{prefix} after")).unwrap();
            second.batch_execute("SET lock_timeout = '5ms'").unwrap();
            overtake(&mut second, prefix);
        });
        // It may have stopped with a page in its hand that the other needs.
        let deadline = Instant::now() + Duration::from_secs(2);
        while !overtaking.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(pid, Signal::CONT);
        overtaking.join().unwrap();
    });
}

#[test]
fn record_nothing_twice() {
    let database = narrow_database();
    record(&mut database.connect().unwrap(), "makes the partition").unwrap();
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            for pair in 0..PAIRS {
                let database = &database;
                scope.spawn(move || race(database, &format!("{round}.{pair}")));
            }
        });
    }
    let mut client = database.connect().unwrap();
    assert_eq!(recorded_twice(&mut client), []);
    let rows = crate::recording::number(&mut client, "SELECT count(*) FROM billing.meter_events");
    assert_eq!(usage(&mut client, "sum"), rows.to_string());
}
