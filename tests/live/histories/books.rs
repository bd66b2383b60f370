//! What billing has made, as the models tell it too.

use std::collections::BTreeMap;

use postgres::Client;

use super::play::shown;
use super::story::Micros;

/// An invoice as both sides tell it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub subscription: String,
    pub reason: String,
    pub created: Micros,
    pub finalized_at: Option<Micros>,
    pub total: i64,
    pub lines: Vec<String>,
    /// Its place among all numbers, from 1, and the balances before and after it and what is due.
    pub settled: Option<(i64, i64, i64, i64)>,
}

/// All that billing has made.
pub fn books(client: &mut Client) -> Vec<Told> {
    const MICROS: &str = "CREATE OR REPLACE FUNCTION pg_temp.micros(at timestamptz) RETURNS bigint LANGUAGE sql
                          RETURN (extract(epoch FROM at) * 1000000)::bigint";
    client.batch_execute(MICROS).unwrap();
    let mut lines = BTreeMap::<String, Vec<String>>::new();
    let sql = "SELECT invoice, kind, price, pg_temp.micros(period_start), pg_temp.micros(period_end),
                      format('%s tenths, %s, discount %s, credit %s, tax %s', trim_scale(quantity * 10), amount, discount_amount,
                             credit_amount, tax_amount) FROM billing.invoice_lines";
    for row in client.query(sql, &[]).unwrap() {
        let line = format!(
            "{} {} {} – {}: {}",
            row.get::<_, &str>(1),
            row.get::<_, &str>(2),
            shown(row.get(3)),
            shown(row.get(4)),
            row.get::<_, &str>(5)
        );
        lines.entry(row.get(0)).or_default().push(line);
    }
    let sql = "SELECT id, subscription, billing_reason, pg_temp.micros(created), pg_temp.micros(finalized_at), total,
                      substr(number, 5)::bigint, starting_balance::bigint, ending_balance::bigint, amount_due
               FROM billing.invoices";
    let rows = client.query(sql, &[]).unwrap();
    let mut told: Vec<Told> = rows
        .iter()
        .map(|row| {
            let mut lines = lines.remove(row.get::<_, &str>(0)).unwrap_or_default();
            lines.sort();
            Told {
                subscription: row.get(1),
                reason: row.get(2),
                created: row.get(3),
                finalized_at: row.get(4),
                lines,
                total: row.get(5),
                settled: row
                    .get::<_, Option<i64>>(6)
                    .map(|number| (number, row.get(7), row.get(8), row.get(9))),
            }
        })
        .collect();
    told.sort();
    told
}

/// Both sorted. Shows all of the first subscription that differs.
#[track_caller]
pub fn assert_same_books(what: &str, found: &[Told], expected: &[Told]) {
    let same = std::iter::zip(found, expected).take_while(|(found, expected)| found == expected);
    let at = same.count();
    let Some(wrong) = found.get(at).into_iter().chain(expected.get(at)).min() else {
        return;
    };
    let of = |books: &[Told]| -> String {
        let of_it = books
            .iter()
            .filter(|invoice| invoice.subscription == wrong.subscription);
        of_it.map(show).collect()
    };
    panic!(
        "{what}: {}: found\n{}\nnot\n{}",
        wrong.subscription,
        of(found),
        of(expected)
    );
}

fn show(invoice: &Told) -> String {
    let lines: Vec<String> = invoice.lines.iter().map(|line| format!("    {line}\n")).collect();
    format!(
        "{} {} final {} total {} {:?}\n{}",
        invoice.reason,
        shown(invoice.created),
        invoice.finalized_at.map_or("never".to_owned(), shown),
        invoice.total,
        invoice.settled,
        lines.concat()
    )
}
