//! `cargo demo`: from CREATE EXTENSION to checked invoices, on every flight that left New York in 2013.

mod alerts;
mod catalog;
mod check;
mod count;
mod flights;
mod import;
mod invoicing;
mod report;
mod screen;
mod tariff;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use harness::{Cluster, Error, Options, Result, place, progress, toolchain};
use postgres::Client;
use serde_json::Value;

use check::Check;
use count::Count;
use flights::{Airline, Flight};
use import::Outcome;
use screen::{Screen, grouped};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let screen = Screen::new();
    screen.line("pg_billing bills the flights that left New York in 2013 to their airlines.");

    screen.title("What it needs");
    let (install, extension) = toolchain::provision()?;
    extension.install(&install)?;
    let data = flights::fetch()?;
    let airlines = flights::airlines(&data)?;
    let flights = flights::flights(&data)?;
    let count = count::count(&data)?;
    screen.line(&format!(
        "  {} flights of {} airlines",
        grouped(count.rows),
        airlines.len()
    ));

    let started = Instant::now();
    screen.title("A database");
    let cluster = Cluster::start(&install, &Options::default().durable())?;
    cluster.connect("postgres")?.batch_execute("CREATE DATABASE demo")?;
    let mut client = cluster.connect("demo")?;
    client.batch_execute("CREATE EXTENSION pg_billing")?;
    screen.line(&format!(
        "  PostgreSQL {} in {}, port {}: CREATE EXTENSION pg_billing",
        install.version()?,
        cluster.socket_dir().display(),
        cluster.port()
    ));

    screen.title("What is measured and what it costs");
    prepare(&mut client, &airlines, &count, &screen)?;

    screen.title("The year, imported");
    let (outcome, heard) = import(&cluster, &mut client, &flights, &screen)?;
    refusals(&mut client, outcome, &count, &screen)?;
    let first = flights.get(..import::BATCH).unwrap_or(&flights);
    let again = import::record(&mut client, first)?;
    screen.line(&format!(
        "  The first batch sent once more: {} recorded, {} duplicates, {} refused again.",
        again.recorded,
        grouped(again.duplicate),
        again.rejected
    ));

    screen.title("Twelve months of invoices");
    let invoicing_started = Instant::now();
    let made = invoicing::run(&mut client, &screen)?;
    let invoicing_took = progress::seconds(invoicing_started.elapsed());
    screen.line(&format!("  {made} monthly invoices in {invoicing_took}."));
    let made_again = invoicing::run_again(&mut client)?;

    show(&mut client, &airlines, &count, &screen)?;

    screen.title("The check");
    let mut check = Check::default();
    check.import(&count, outcome);
    check.usage(&mut client, &airlines, &count)?;
    check.invoices(&mut client, &airlines, &count)?;
    check.alerts(&mut client, &airlines, &count, &heard)?;
    check.nothing_twice(again, made_again);
    let compared = check.finish()?;
    screen.line(&format!(
        "  {} figures (usage by airline, month, meter and airport; every line, total and number of\n  \
         every invoice; every alert) equal those counted from the CSV file without the database.",
        grouped(compared)
    ));

    drop(client);
    cluster.stop(harness::Stop::Fast)?;
    drop(cluster);
    screen.title(&format!(
        "Done, {} after the build. The server and its data are gone.",
        progress::seconds(started.elapsed())
    ));
    screen.line(&format!(
        "What was built and fetched stays in {}.",
        place::target().display()
    ));
    Ok(())
}

fn show(client: &mut Client, airlines: &[Airline], count: &Count, screen: &Screen) -> Result<()> {
    let shown = airline(airlines, "VX")?;
    screen.title(&format!("One invoice: {}, July", shown.name));
    report::invoice(client, shown, 6, screen)?;
    screen.title(&format!("One chart: {}, departures by month", shown.name));
    report::chart(client, shown, "departures", screen)?;
    let shown = airline(airlines, "B6")?;
    screen.title(&format!("A meter split by airport: slots of {}", shown.name));
    report::slots_by_airport(client, shown, count, screen)?;
    screen.title("The year by airline");
    report::totals(client, airlines, count, screen)
}

fn airline<'a>(airlines: &'a [Airline], carrier: &str) -> Result<&'a Airline> {
    let found = airlines.iter().find(|airline| airline.carrier == carrier);
    found.ok_or_else(|| Error::new(format!("the data names no airline {carrier}")))
}

fn prepare(client: &mut Client, airlines: &[Airline], count: &Count, screen: &Screen) -> Result<()> {
    catalog::create(client, airlines)?;
    for airline in airlines {
        let airports = count.airports(&airline.carrier).len();
        catalog::subscribe(client, &airline.carrier, airports as i64)?;
    }
    for price in &catalog::PRICES {
        screen.line(&format!("  {:<28}{}", price.product, price.terms));
    }
    screen.line(&format!(
        "  {} airlines subscribe to all of it, from 1 January 2013.",
        airlines.len()
    ));
    screen.line("\n  The time of a flight is its scheduled departure, as an instant in UTC. Billing months begin at");
    screen.line("  05:00 UTC: midnight in New York in winter, one o'clock in summer, when nothing is scheduled.");
    screen.line("  A slot and an aircraft count for every flight, a departure only if it left the gate; its miles");
    screen.line("  only with an air time, for a diverted flight did not fly those of its plan.");
    Ok(())
}

/// Imports while another connection listens for alerts and the background worker folds the usage.
fn import(
    cluster: &Cluster,
    client: &mut Client,
    flights: &[Flight],
    screen: &Screen,
) -> Result<(Outcome, Vec<Value>)> {
    let listener = alerts::subscribe(cluster.connect("demo")?)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| alerts::listen(listener, &stop, screen));
        let imported = record(client, flights, screen);
        stop.store(true, Ordering::Relaxed);
        let heard = listening.join();
        let heard = heard.map_err(|_| Error::new("the listener for alerts ended early"))?;
        Ok((imported?, heard?))
    })
}

fn record(client: &mut Client, flights: &[Flight], screen: &Screen) -> Result<Outcome> {
    let started = Instant::now();
    let outcome = import::import(client, flights, screen)?;
    let recorded = progress::seconds(started.elapsed());
    import::await_worker(client)?;
    let folded = progress::seconds(started.elapsed());
    screen.line(&format!(
        "  Recorded after {recorded}, folded into buckets by the background worker after {folded}."
    ));
    Ok(outcome)
}

fn refusals(client: &mut Client, outcome: Outcome, count: &Count, screen: &Screen) -> Result<()> {
    screen.line(&format!(
        "\n  {} events recorded. {} flights were cancelled: no departure, no miles.",
        grouped(outcome.recorded),
        grouped(count.cancelled)
    ));
    screen.line(&format!(
        "  {} events were refused, and are kept in billing.meter_event_rejections:",
        grouped(outcome.rejected)
    ));
    report::rejections(client, screen)
}
