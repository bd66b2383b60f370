//! Amounts worked out by hand from the rules, and what holds of every invoice.

mod examples;
mod json;
mod properties;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;

fn day(day: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(day)
}

/// A line of usage without product, item or rates; its period ends with day 31.
fn usage(amount: i64) -> Line {
    Line {
        amount,
        discountable: true,
        item: None,
        product: None,
        price: Some("call".into()),
        metered: true,
        period_end: day(31),
        tax_rates: vec![],
        corrects: None,
        reverses: vec![],
    }
}

/// A licensed line, in advance.
fn seat(amount: i64) -> Line {
    Line {
        price: Some("seat".into()),
        metered: false,
        period_end: day(59),
        ..usage(amount)
    }
}

fn invoice(lines: &[Line]) -> Invoice {
    Invoice {
        created: day(31),
        tax_exempt: Exemption::None,
        lines: lines.to_vec(),
        discounts: vec![],
        credit_grants: vec![],
        tax_rates: vec![],
    }
}

fn percent(text: &str) -> Percent {
    text.parse().unwrap()
}

fn discount(id: &str, off: Off) -> Discount {
    Discount {
        id: id.into(),
        off,
        products: None,
        item: None,
        end_at: None,
    }
}

fn grant(id: &str, balance: i64) -> Grant {
    Grant {
        id: id.into(),
        balance,
        prices: None,
        priority: 50,
        category: Category::Paid,
        effective_at: day(0),
        expires_at: None,
        created: day(0),
    }
}

/// The lines all bear the rates, given as (percentage, inclusive) and named by their place.
fn taxed(mut invoice: Invoice, rates: &[(&str, bool)]) -> Invoice {
    for (place, (percentage, inclusive)) in rates.iter().enumerate() {
        let id = place.to_string();
        invoice
            .lines
            .iter_mut()
            .for_each(|line| line.tax_rates.push(id.clone()));
        invoice.tax_rates.push(TaxRate {
            id,
            percentage: percent(percentage),
            inclusive: *inclusive,
        });
    }
    invoice
}

fn lines(invoice: &Invoice) -> Vec<AdjustedLine> {
    adjust(invoice).unwrap().lines
}

/// What each discount takes off each line.
fn discounted(invoice: &Invoice) -> Vec<Vec<i64>> {
    let amounts = |line: &AdjustedLine| line.discounts.iter().map(|(_, amount)| *amount).collect();
    lines(invoice).iter().map(amounts).collect()
}

/// What each grant pays of each line.
fn paid(invoice: &Invoice) -> Vec<Vec<(String, i64)>> {
    lines(invoice).into_iter().map(|line| line.credits).collect()
}

/// (amount, taxable amount) of each line's taxes.
fn taxes_of(invoice: &Invoice) -> Vec<Vec<(i64, i64)>> {
    let amounts = |line: &AdjustedLine| line.taxes.iter().map(|tax| (tax.amount, tax.taxable)).collect();
    lines(invoice).iter().map(amounts).collect()
}
