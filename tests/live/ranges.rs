//! An index of ranges of pages has to hear of a row where its range is summed up, and is not opened where it is not.

use harness::{Database, Options, cluster_under_test};
use postgres::Client;

use crate::entries::{found_by, partition, two_sessions};
use crate::outright::{quiet_database, within_the_day};
use crate::recording::{await_blocked, backend, number, record, recorded_twice};

/// A few pages of events, one call each, with values from `first` on and timestamps of their own.
fn record_pages(client: &mut Client, first: i64) {
    let sql = "SELECT count(*) FROM generate_series($1::bigint, $1 + 299) n
               WHERE billing.record_meter_event('sum', 'acme', n, 'e-' || n, now() - n * interval '1 min')";
    assert_eq!(client.query_one(sql, &[&first]).unwrap().get::<_, i64>(0), 300);
}

/// An event with a value less, and a timestamp older, than those of all before it: one that no summary of a range spans. `nth` says which.
fn record_least(client: &mut Client, nth: i64) {
    let sql = "SELECT billing.record_meter_event('sum', 'acme', -$1::bigint, 'least-' || $1, now() - interval '10 days' - $1 * interval '1 h')";
    assert!(client.query_one(sql, &[&nth]).unwrap().get::<_, bool>(0), "{nth}");
}

/// Records until there is room for more than a page's first row behind the latest event: before that PostgreSQL itself looks after ranges.
fn reach_the_middle_of_a_page(client: &mut Client, nth: i64) {
    for more in 0.. {
        let identifier = format!("filler-{nth}-{more}");
        assert!(record(client, &identifier).unwrap());
        let sql =
            "SELECT (e.ctid::text::point)[1]::int BETWEEN 1 AND 30 FROM billing.meter_events e WHERE e.identifier = $1";
        if client.query_one(sql, &[&identifier]).unwrap().get(0) {
            return;
        }
    }
}

/// A range of pages that is not summed up needs to hear of nothing; one that is, even in part or while it fills, of each event that it does
/// not span.
#[test]
fn a_brin_index_hears_of_what_its_ranges_do_not_span() {
    assert_brin_indexes_hear(&quiet_database());
}

/// With so few, the page that tells of a range has often made room for another since it was last looked at.
#[test]
fn a_brin_index_hears_of_it_with_sixteen_buffers_too() {
    let options = Options::default()
        .set("billing.worker", "off")
        .set("shared_buffers", "128kB");
    let cluster = cluster_under_test(&options).unwrap();
    assert_brin_indexes_hear(&within_the_day(Database::with_extension(&cluster).unwrap()));
}

fn assert_brin_indexes_hear(database: &Database) {
    let mut client = database.connect().unwrap();
    let partition = partition(&mut client);
    let own = format!("{partition}_timestamp_brin");
    client
        .batch_execute(&format!(
            "CREATE INDEX tight ON billing.{partition} USING brin (value) WITH (pages_per_range = 1)"
        ))
        .unwrap();
    let summarize =
        format!("SELECT brin_summarize_new_values('billing.{own}'), brin_summarize_new_values('billing.tight')");
    let steps = [
        // nothing is summed up in the one, the only page in the other
        String::new(),
        summarize.clone(),
        String::new(),
        format!("SELECT brin_desummarize_range('billing.{own}', 0), brin_desummarize_range('billing.tight', 0)"),
        summarize.clone(),
        format!("VACUUM billing.{partition}"),
        format!("SELECT brin_desummarize_range('billing.{own}', 0)"),
        // moved while nothing is summed up, and summed up where nobody has looked yet
        format!("ALTER INDEX billing.{own} SET TABLESPACE elsewhere"),
        summarize.clone(),
        format!("REINDEX TABLE billing.{partition}"),
        "ALTER INDEX billing.tight SET (pages_per_range = 3); REINDEX INDEX billing.tight".to_owned(),
        summarize.clone(),
        String::new(),
    ];
    let mut other = place_elsewhere(database);
    let (mut pages, mut least) = (0, 0);
    for (step, change) in steps.iter().enumerate() {
        for level in ["READ COMMITTED", "SERIALIZABLE"] {
            reach_the_middle_of_a_page(&mut client, least);
            // By another session, so that the one that records has to hear of it.
            other.batch_execute(change).unwrap();
            least += 1;
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
            record_least(&mut client, least);
            record_pages(&mut client, 1000 + pages);
            client.batch_execute("COMMIT").unwrap();
            pages += 300;
            let at = format!("step {step}, {level}: {change}");
            let by_value = format!("value = -{least}");
            assert_eq!(found_by(&mut client, &partition, "tight", &by_value), 1, "{at}");
            let by_time =
                format!("\"timestamp\" < now() - interval '10 days' - {least} * interval '1 h' + interval '30 min'");
            assert_eq!(found_by(&mut client, &partition, &own, &by_time), 1, "{at}");
            assert_eq!(
                found_by(&mut client, &partition, "tight", "value >= 1000"),
                pages,
                "{at}"
            );
            assert_eq!(found_by(&mut client, &partition, "tight", "value < 0"), least, "{at}");
        }
    }
    assert_eq!(recorded_twice(&mut client), []);
}

/// A session, and a tablespace `elsewhere` in which it may put what it likes.
fn place_elsewhere(database: &Database) -> Client {
    let mut client = database.connect().unwrap();
    client.batch_execute("SET allow_in_place_tablespaces = on").unwrap();
    if number(
        &mut client,
        "SELECT count(*) FROM pg_tablespace WHERE spcname = 'elsewhere'",
    ) == 0
    {
        client.batch_execute("CREATE TABLESPACE elsewhere LOCATION ''").unwrap();
    }
    client
}

/// Before the move is committed nobody else knows of the place where ranges are summed up already.
#[test]
fn an_index_that_is_summed_up_where_it_is_being_moved_hears_of_what_is_recorded_meanwhile() {
    let database = quiet_database();
    let (mut here, mut there) = (database.connect().unwrap(), place_elsewhere(&database));
    let mut watcher = database.connect().unwrap();
    let partition = partition(&mut here);
    let own = format!("{partition}_timestamp_brin");
    let pids = (backend(&mut here), backend(&mut there));
    reach_the_middle_of_a_page(&mut here, 0);
    there
        .batch_execute(&format!(
            "BEGIN; ALTER INDEX billing.{own} SET TABLESPACE elsewhere; SELECT brin_summarize_new_values('billing.{own}')"
        ))
        .unwrap();
    let recording = std::thread::spawn(move || {
        record_least(&mut here, 1);
        here
    });
    await_blocked(&mut watcher, pids.0, pids.1);
    there.batch_execute("COMMIT").unwrap();
    let mut here = recording.join().unwrap();
    let by_time = "\"timestamp\" < now() - interval '10 days'";
    assert_eq!(found_by(&mut here, &partition, &own, by_time), 1);
}

/// Whoever moves all of a partition's indexes locks them in the order in which they were made.
#[test]
fn indexes_that_are_moved_one_after_the_other_are_waited_for_in_that_order() {
    let database = quiet_database();
    let (mut here, mut there) = (database.connect().unwrap(), place_elsewhere(&database));
    let mut watcher = database.connect().unwrap();
    let partition = partition(&mut here);
    let pids = (backend(&mut here), backend(&mut there));
    assert!(record(&mut here, "before").unwrap());
    there.batch_execute("BEGIN").unwrap();
    let moved = |index: &str| format!("ALTER INDEX billing.{partition}_{index} SET TABLESPACE elsewhere");
    there.batch_execute(&moved("identity")).unwrap();
    let recording = std::thread::spawn(move || record(&mut here, "meanwhile"));
    await_blocked(&mut watcher, pids.0, pids.1);
    there.batch_execute(&moved("timestamp_brin")).unwrap();
    there.batch_execute("COMMIT").unwrap();
    assert!(recording.join().unwrap().unwrap());
}

/// Of what is recorded before, between and after the steps of building an index beside recording, it misses nothing: each of these events
/// is the least of a page, and each page a range.
#[test]
fn a_brin_index_built_beside_recording_misses_nothing() {
    let database = quiet_database();
    let (mut here, mut watcher) = two_sessions(&database);
    let partition = partition(&mut here);
    let (mut before, mut between, mut builder) = (
        database.connect().unwrap(),
        database.connect().unwrap(),
        database.connect().unwrap(),
    );
    let [writing_before, writing_between, building] = [&mut before, &mut between, &mut builder].map(backend);
    let mut count = 0;
    let mut least_of_a_page = |client: &mut Client| {
        record_pages(client, 1000 + 300 * count);
        reach_the_middle_of_a_page(client, count);
        count += 1;
        record_least(client, count);
    };
    before.batch_execute("BEGIN").unwrap();
    least_of_a_page(&mut before);
    let sql = format!(
        "CREATE INDEX CONCURRENTLY by_age ON billing.{partition} USING brin (\"timestamp\") WITH (pages_per_range = 1)"
    );
    let built = std::thread::spawn(move || builder.batch_execute(&sql));
    await_blocked(&mut watcher, building, writing_before);
    between.batch_execute("BEGIN").unwrap();
    least_of_a_page(&mut between);
    least_of_a_page(&mut here);
    before.batch_execute("COMMIT").unwrap();
    await_blocked(&mut watcher, building, writing_between);
    least_of_a_page(&mut between);
    least_of_a_page(&mut here);
    between.batch_execute("COMMIT").unwrap();
    built.join().unwrap().unwrap();
    least_of_a_page(&mut here);
    here.batch_execute(&format!("DROP INDEX billing.{partition}_timestamp_brin"))
        .unwrap();
    for nth in 1..=count {
        let by_age = format!(
            "\"timestamp\" BETWEEN now() - interval '10 days 30 min' - {nth} * interval '1 h'
                             AND now() - interval '9 days 23:30' - {nth} * interval '1 h'"
        );
        assert_eq!(found_by(&mut here, &partition, "by_age", &by_age), 1, "{nth}");
    }
}
