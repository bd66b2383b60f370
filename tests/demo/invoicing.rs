//! Twelve months pass: each ends, its invoices are made, their hour of grace passes, they are final.

use chrono::{DateTime, TimeDelta, Utc};
use harness::Result;
use postgres::Client;

use crate::catalog::{MONTHS, month_start};
use crate::screen::{Screen, grouped, money};

/// The default of `billing.finalization_delay`.
const GRACE: TimeDelta = TimeDelta::hours(1);

/// As a scheduler would: once a month, when the grace of the month's invoices is over. Returns how many it made.
pub fn run(client: &mut Client, screen: &Screen) -> Result<i64> {
    // The first finalizes what the subscriptions began with: the licensed items of January.
    generate(client, month_start(0)? + GRACE)?;
    report(client, month_start(0)?, "on subscribing", screen)?;
    let mut made = 0;
    for (index, month) in MONTHS.iter().enumerate() {
        let end = month_start(index + 1)?;
        made += generate(client, end + GRACE)?;
        report(client, end, &format!("for {month}"), screen)?;
    }
    Ok(made)
}

/// The same again, which must make nothing.
pub fn run_again(client: &mut Client) -> Result<i64> {
    generate(client, month_start(12)? + GRACE)
}

fn generate(client: &mut Client, as_of: DateTime<Utc>) -> Result<i64> {
    Ok(client
        .query_one("SELECT billing.generate_invoices($1)", &[&as_of])?
        .get(0))
}

fn report(client: &mut Client, created: DateTime<Utc>, what: &str, screen: &Screen) -> Result<()> {
    let row = client.query_one(
        "SELECT count(*), min(number), max(number), coalesce(sum(total), 0)::int8
         FROM billing.invoices WHERE created = $1 AND status IN ('open', 'paid')",
        &[&created],
    )?;
    let (count, total): (i64, i64) = (row.get(0), row.get(3));
    let [first, last]: [Option<&str>; 2] = [row.get(1), row.get(2)];
    screen.line(&format!(
        "  {}  {what:<15} {:>3} invoices  {} to {}  {:>18} USD",
        created.format("%Y-%m-%d"),
        grouped(count),
        first.unwrap_or("none"),
        last.unwrap_or("none"),
        money(total)
    ));
    Ok(())
}
