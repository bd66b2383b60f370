//! What a person reads: what was refused, one invoice, one chart, the year in one table.

use chrono::{DateTime, Utc};
use harness::{Error, Result};
use postgres::Client;
use serde_json::json;

use crate::catalog::{MONTHS, month_start};
use crate::count::Count;
use crate::flights::Airline;
use crate::screen::{Screen, grouped, money};

const WIDTH: usize = 84;
const BAR: i64 = 44;

/// Refused events by reason, each with one of them as the database keeps it.
pub fn rejections(client: &mut Client, screen: &Screen) -> Result<()> {
    let rows = client.query(
        "SELECT event ->> 'event_name', error_code, count(*), min(error_message), (array_agg(event::text ORDER BY id))[1]
         FROM billing.meter_event_rejections GROUP BY 1, 2 ORDER BY 1, 2",
        &[],
    )?;
    for row in rows {
        let [meter, code, message, event]: [&str; 4] = [row.get(0), row.get(1), row.get(3), row.get(4)];
        screen.line(&format!(
            "  {:>5} by meter \"{meter}\": {message} ({code})",
            grouped(row.get(2))
        ));
        for line in wrapped(&format!("such as {event}")) {
            screen.line(&format!("        {line}"));
        }
    }
    Ok(())
}

/// `text` in lines of no more than WIDTH, as far as its spaces allow.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.len() + word.len() < WIDTH => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The invoice of `airline` for the usage of month `index`.
pub fn invoice(client: &mut Client, airline: &Airline, index: usize, screen: &Screen) -> Result<()> {
    let (start, end) = (month_start(index)?, month_start(index + 1)?);
    let invoice = client.query_opt(
        "SELECT id, number, status, finalized_at, due_date, period_start, period_end, total, amount_due
         FROM billing.invoices WHERE customer = $1 AND period_start = $2 AND period_end = $3",
        &[&airline.carrier, &start, &end],
    )?;
    let invoice =
        invoice.ok_or_else(|| Error::new(format!("{} has no invoice for {}", airline.name, MONTHS[index])))?;
    let day = |column: &str| match invoice.get::<_, Option<DateTime<Utc>>>(column) {
        Some(at) => at.format("%-d %B %Y").to_string(),
        None => "-".to_owned(),
    };
    let [id, number, status]: [&str; 3] = [invoice.get("id"), invoice.get("number"), invoice.get("status")];
    screen.line(&format!("  {}", "=".repeat(WIDTH)));
    screen.line(&format!("  Invoice {number:<44}{:>32}", day("finalized_at")));
    screen.line(&format!("  To      {} ({})", airline.name, airline.carrier));
    screen.line(&format!(
        "  Usage   {} to {} (05:00 UTC)",
        day("period_start"),
        day("period_end")
    ));
    screen.line(&format!("  Status  {status}, due on {}", day("due_date")));
    screen.line(&format!("  {}", "-".repeat(WIDTH)));
    let lines = client.query(
        "SELECT description, quantity::text, amount, period_start, period_end FROM billing.invoice_lines
         WHERE invoice = $1 ORDER BY id",
        &[&id],
    )?;
    for line in lines {
        let [start, end]: [DateTime<Utc>; 2] = [line.get(3), line.get(4)];
        let quantity: &str = line.get(1);
        screen.line(&format!(
            "  {:<32}{:<20}{:>14}{:>18}",
            line.get::<_, &str>(0),
            format!("{} - {}", start.format("%-d %b"), end.format("%-d %b")),
            quantity.parse().map_or_else(|_| quantity.to_owned(), grouped),
            money(line.get(2))
        ));
    }
    screen.line(&format!("  {}", "-".repeat(WIDTH)));
    screen.line(&format!("  {:<66}{:>18}", "Total, USD", money(invoice.get("total"))));
    screen.line(&format!(
        "  {:<66}{:>18}",
        "Amount due",
        money(invoice.get("amount_due"))
    ));
    screen.line(&format!("  {}", "=".repeat(WIDTH)));
    Ok(())
}

/// Text bars by month, by the clocks of New York.
pub fn chart(client: &mut Client, airline: &Airline, meter: &str, screen: &Screen) -> Result<()> {
    let months = client.query(
        "SELECT aggregated_value::int8 FROM billing.meter_event_summaries($1, $2, $3, $4, 'month', NULL, 'America/New_York')",
        &[&meter, &airline.carrier, &month_start(0)?, &month_start(12)?],
    )?;
    let values = months.iter().map(|row| row.get::<_, Option<i64>>(0).unwrap_or(0));
    bars(MONTHS.into_iter().zip(values).collect(), screen);
    Ok(())
}

/// The year's slots by airport, which the meter keeps apart.
pub fn slots_by_airport(client: &mut Client, airline: &Airline, count: &Count, screen: &Screen) -> Result<()> {
    let mut slots = Vec::new();
    for airport in count.airports(&airline.carrier) {
        let year = client.query_one(
            "SELECT aggregated_value::int8 FROM billing.meter_event_summaries('slots', $1, $2, $3, NULL, $4)",
            &[
                &airline.carrier,
                &month_start(0)?,
                &month_start(12)?,
                &json!({ "airport": airport }),
            ],
        )?;
        slots.push((airport, year.get(0)));
    }
    bars(slots, screen);
    Ok(())
}

fn bars(values: Vec<(&str, i64)>, screen: &Screen) {
    let most = values.iter().map(|(_, value)| *value).max().unwrap_or(0).max(1);
    for (label, value) in values {
        let bar = "█".repeat(usize::try_from(value * BAR / most).unwrap_or(0));
        screen.line(&format!("  {label:<10} {bar} {}", grouped(value)));
    }
}

/// The year of each airline, as the invoices have it.
pub fn totals(client: &mut Client, airlines: &[Airline], count: &Count, screen: &Screen) -> Result<()> {
    screen.line(&format!(
        "  {:<31}{:>8}{:>12}{:>13}{:>10}{:>18}",
        "", "airports", "departures", "miles", "invoices", "billed, USD"
    ));
    let rows = client.query(
        "SELECT i.customer, count(DISTINCT i.id), sum(l.amount)::int8,
                coalesce(sum(l.quantity) FILTER (WHERE l.price = 'price_departures'), 0)::int8,
                coalesce(sum(l.quantity) FILTER (WHERE l.price = 'price_miles'), 0)::int8
         FROM billing.invoices i JOIN billing.invoice_lines l ON l.invoice = i.id GROUP BY i.customer ORDER BY 3 DESC",
        &[],
    )?;
    for row in &rows {
        let carrier: &str = row.get(0);
        let name = airlines.iter().find(|airline| airline.carrier == carrier);
        screen.line(&format!(
            "  {carrier} {:<28}{:>8}{:>12}{:>13}{:>10}{:>18}",
            name.map_or("", |airline| airline.name.as_str()),
            count.airports(carrier).len(),
            grouped(row.get(3)),
            grouped(row.get(4)),
            grouped(row.get(1)),
            money(row.get(2))
        ));
    }
    Ok(())
}
