//! Invoicing many subscriptions, against the least SQL that inserts the same rows.

use std::cell::RefCell;
use std::sync::Mutex;
use std::time::Instant;

use harness::{Error, Result};
use postgres::Client;

use crate::memory;
use crate::plan::Plan;
use crate::report::{Report, Target, Unit};
use crate::rounds::{Contender, Series, alternate, take_turns};
use crate::server::{Server, number};

pub const ROW: &str = "billing";

const LEAST: &str = "least SQL";
const GENERATE: &str = "generate_invoices";
const RUN: &str = "run_billing";
const FINALIZE: &str = "generate_invoices an hour later";

/// The month that ends: without a change of the clocks.
const START: &str = "2026-09-01 00:00:00+00";
const END: &str = "2026-10-01 00:00:00+00";
const DAYS: u32 = 30;

/// Servers are measured on machines of few cores.
const LOADERS: usize = 2;

/// Databases by their subscriptions, the smallest first, by which the others are judged.
type Sizes = [(&'static str, u32); 4];
const FULL: Sizes = [
    ("1,000", 1_000),
    ("10,000", 10_000),
    ("100,000", 100_000),
    ("300,000", 300_000),
];
const QUICK: Sizes = [("100", 100), ("1,000", 1_000), ("5,000", 5_000), ("10,000", 10_000)];
/// The one that is compared with the least SQL.
const COMPARED: usize = 2;

/// A turn at 300,000 takes a minute or so, in which chance evens out: as many as this, and none that warms up.
const GROWTH_ROUNDS: usize = 3;

/// A database in which a month of all subscriptions has ended.
struct Books<'a> {
    server: &'a Server,
    size: &'static str,
    database: String,
    subscriptions: u32,
}

pub fn measure(server: &Server, plan: &Plan, report: &mut Report) -> Result<()> {
    let books = plan.choose(FULL, QUICK).map(|(size, subscriptions)| Books {
        server,
        size,
        database: format!("billing_{subscriptions}"),
        subscriptions,
    });
    books.iter().try_for_each(Books::make)?;
    compare(&books[COMPARED], plan, report)?;
    growth(&books, plan, report)?;
    server.drop(&books.each_ref().map(|books| books.database.as_str()))
}

fn compare(books: &Books, plan: &Plan, report: &mut Report) -> Result<()> {
    // Finalizes what the turn before it has made.
    let finalized = RefCell::new(Vec::new());
    let contenders = vec![
        Contender::new(LEAST, || books.least()),
        Contender::new(GENERATE, || {
            let rate = books.generate()?;
            finalized.borrow_mut().push(books.finalize()?);
            Ok(rate)
        }),
        Contender::new(RUN, || Ok(books.run()?.0)),
    ];
    let mut series = alternate(plan.rounds(), contenders)?;
    series.push(Series {
        contender: FINALIZE,
        samples: finalized.into_inner().split_off(1), // without the round that warmed up
    });
    // Of the last turns: the extension's, whichever it was, and the least SQL's.
    let differing = number(&mut books.client()?, include_str!("../../sql/billing_compare.sql"))?;
    if differing > 0 {
        let what = format!("{differing} invoices and lines are not those of the least SQL");
        return Err(Error::new(what));
    }
    let target = Target::must(0.4).aim(0.7);
    report.add(
        ROW,
        format!("{} subscriptions", books.size),
        Unit::PerSecond,
        series,
        &[
            (GENERATE, LEAST, target),
            (RUN, LEAST, target),
            (FINALIZE, GENERATE, Target::NONE),
        ],
    );
    Ok(())
}

fn growth(books: &[Books; 4], plan: &Plan, report: &mut Report) -> Result<()> {
    let memory = books.each_ref().map(|_| RefCell::new(Vec::new()));
    let contenders = books.iter().zip(&memory).map(|(books, memory)| {
        Contender::new(books.size, move || {
            let (rate, kib) = books.run()?;
            memory.borrow_mut().push(kib);
            Ok(rate)
        })
    });
    let rates = take_turns(plan.choose(GROWTH_ROUNDS, 2), contenders.collect())?;
    let memory = books.iter().zip(memory).map(|(books, memory)| Series {
        contender: books.size,
        samples: memory.into_inner(),
    });
    let memory = memory.collect();
    let [smallest, small, _, largest] = books.each_ref().map(|books| books.size);
    let linear: Vec<_> = books[1..]
        .iter()
        .map(|books| (books.size, smallest, Target::must(0.8).aim(1.0)))
        .collect();
    let case = |what: &str| format!("growth: {what}, by subscriptions");
    report.add(ROW, case(RUN), Unit::PerSecond, rates, &linear);
    report.add(
        ROW,
        case("memory of run_billing"),
        Unit::Kibibytes,
        memory,
        &[(largest, small, Target::must(1.5).at_most())],
    );
    Ok(())
}

impl Books<'_> {
    fn make(&self) -> Result<()> {
        let mut client = self.server.client("postgres")?;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database))?;
        client.batch_execute(&format!("CREATE DATABASE {}", self.database))?;
        let mut client = self.client()?;
        client.batch_execute(include_str!("../../sql/billing_catalog.sql"))?;
        client.batch_execute(&self.filled_in(include_str!("../../sql/billing_subscriptions.sql")))?;
        let days = Mutex::new(0..DAYS);
        let next = || days.lock().ok()?.next();
        std::thread::scope(|scope| {
            let loaders: Vec<_> = (0..LOADERS)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        let mut client = self.client()?;
                        while let Some(day) = next() {
                            let sql = self.filled_in(include_str!("../../sql/billing_day.sql"));
                            client.batch_execute(&sql.replace("{day}", &day.to_string()))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            loaders.into_iter().try_for_each(|loader| {
                loader
                    .join()
                    .unwrap_or_else(|_| Err(Error::new("loading the buckets panicked")))
            })
        })?;
        client.batch_execute(include_str!("../../sql/billing_index.sql"))?;
        client.batch_execute("VACUUM ANALYZE")?;
        Ok(())
    }

    fn filled_in(&self, sql: &str) -> String {
        sql.replace("{subscriptions}", &self.subscriptions.to_string())
            .replace("{start}", START)
            .replace("{end}", END)
    }

    fn client(&self) -> Result<Client> {
        self.server.client(&self.database)
    }

    /// A session that finds the month not invoiced, and no more dead rows than the last one did.
    fn fresh(&self, schema: &str) -> Result<Client> {
        let mut client = self.client()?;
        let reset = self.filled_in(include_str!("../../sql/billing_reset.sql"));
        client.batch_execute(&reset.replace("{schema}", schema))?;
        client.batch_execute("VACUUM billing.subscriptions")?;
        self.server.checkpoint()?;
        // Without what the reset has left in this one's memory. The extension compiles no statement; nor does the other
        // side, which would lose a second by it.
        let mut client = self.client()?;
        client.batch_execute("SET jit = off")?;
        Ok(client)
    }

    fn least(&self) -> Result<f64> {
        let mut client = self.fresh("least")?;
        let rate = self.timed(
            &mut client,
            &self.filled_in(include_str!("../../sql/least_invoices.sql")),
        )?;
        self.count(&mut client, "least")?;
        Ok(rate)
    }

    fn generate(&self) -> Result<f64> {
        let mut client = self.fresh("billing")?;
        let rate = self.timed(&mut client, &format!("SELECT billing.generate_invoices('{END}')"))?;
        self.count(&mut client, "billing")?;
        Ok(rate)
    }

    fn finalize(&self) -> Result<f64> {
        let mut client = self.client()?;
        let rate = self.timed(
            &mut client,
            &format!("SELECT billing.generate_invoices(timestamptz '{END}' + interval '1 hour')"),
        )?;
        let drafts = number(
            &mut client,
            "SELECT count(*) FROM billing.invoices WHERE status = 'draft'",
        )?;
        if drafts > 0 {
            return Err(Error::new(format!("{drafts} drafts were not finalized")));
        }
        self.count(&mut client, "billing")?;
        Ok(rate)
    }

    /// The rate, and by how many KiB the session's memory grew.
    fn run(&self) -> Result<(f64, f64)> {
        let mut client = self.fresh("billing")?;
        let measured = memory::growth(&mut client, |client| {
            self.timed(client, &format!("CALL billing.run_billing('{END}', 1000)"))
        })?;
        self.count(&mut client, "billing")?;
        Ok(measured)
    }

    /// Subscriptions per second.
    fn timed(&self, client: &mut Client, sql: &str) -> Result<f64> {
        let started = Instant::now();
        client.batch_execute(sql)?;
        Ok(f64::from(self.subscriptions) / started.elapsed().as_secs_f64())
    }

    /// That an invoice of three lines was made of each subscription, and the amounts of lines, totals and buckets agree.
    fn count(&self, client: &mut Client, schema: &str) -> Result<()> {
        let sql = include_str!("../../sql/billing_count.sql").replace("{schema}", schema);
        let row = client.query_one(&sql, &[])?;
        let (invoices, lines, agree): (i64, i64, bool) = (row.get(0), row.get(1), row.get(2));
        let wanted = i64::from(self.subscriptions);
        if (invoices, lines, agree) == (wanted, 3 * wanted, true) {
            return Ok(());
        }
        Err(Error::new(format!(
            "{invoices} invoices and {lines} lines of {wanted} subscriptions in {schema}; amounts agree: {agree}"
        )))
    }
}
