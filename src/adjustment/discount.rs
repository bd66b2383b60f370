//! Discounts: a percentage of what is left of each line, or an amount spread over lines.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{AdjustedLine, Invoice, Line, Percent, round};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Discount {
    pub id: String,
    pub off: Off,
    /// Only lines of these products; `None`: of all, and of none.
    pub products: Option<Vec<String>>,
    /// Only lines of this subscription item.
    pub item: Option<String>,
    /// See [`Discount::covers`].
    pub end_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Off {
    Percent(Percent),
    /// Minor units off all lines together.
    Amount(i64),
}

/// A discount as JSON has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: String,
    percent_off: Option<Percent>,
    amount_off: Option<i64>,
    products: Option<Vec<String>>,
    item: Option<String>,
    end_at: Option<DateTime<Utc>>,
}

impl TryFrom<Fields> for Discount {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Discount, String> {
        let off = match (fields.percent_off, fields.amount_off) {
            (Some(percent), None) => Off::Percent(percent),
            (None, Some(amount)) if amount > 0 => Off::Amount(amount),
            (None, Some(amount)) => return Err(format!("amount_off of discount {:?} is {amount}", fields.id)),
            _ => return Err(format!("discount {:?} needs percent_off or amount_off", fields.id)),
        };
        Ok(Discount {
            id: fields.id,
            off,
            products: fields.products,
            item: fields.item,
            end_at: fields.end_at,
        })
    }
}

impl Discount {
    /// Whether it may take something off a line of an invoice created at a time. One that ends covers the invoices created before,
    /// and on later ones the service that ended by then: three months of usage, billed at the end of each, are three.
    fn covers(&self, line: &Line, created: DateTime<Utc>) -> bool {
        line.discountable
            && self.end_at.is_none_or(|end| created < end || line.period_end <= end)
            && self.item.as_ref().is_none_or(|item| line.item.as_ref() == Some(item))
            && self
                .products
                .as_ref()
                .is_none_or(|products| line.product.as_ref().is_some_and(|product| products.contains(product)))
    }
}

pub(super) fn apply(discount: &Discount, invoice: &Invoice, lines: &mut [AdjustedLine]) {
    let covered: Vec<usize> = (0..lines.len())
        .filter(|&i| lines[i].rest > 0 && discount.covers(&invoice.lines[i], invoice.created))
        .collect();
    let rests: Vec<i64> = covered.iter().map(|&i| lines[i].rest).collect();
    let amounts = match discount.off {
        Off::Percent(percent) => rests
            .iter()
            .map(|rest| portion(*rest, percent.millionths(), Percent::WHOLE, round))
            .collect(),
        Off::Amount(amount) => spread(amount, &rests),
    };
    for (i, amount) in std::iter::zip(covered, amounts) {
        lines[i].discount(&discount.id, amount);
    }
}

/// An amount, not more than there is, in proportion to what is left of each line, rounded down; the remainder goes to the last line
/// (Stripe), and where that has too little left, to the one before.
pub(super) fn spread(amount: i64, rests: &[i64]) -> Vec<i64> {
    let whole: i128 = rests.iter().map(|rest| i128::from(*rest)).sum();
    let amount = i128::from(amount).min(whole);
    let mut parts: Vec<i64> = rests
        .iter()
        .map(|rest| portion(*rest, amount, whole, |numerator, denominator| numerator / denominator))
        .collect();
    let mut remainder = amount - parts.iter().map(|part| i128::from(*part)).sum::<i128>();
    for (part, rest) in std::iter::zip(&mut parts, rests).rev() {
        let more = remainder.min(i128::from(*rest - *part));
        remainder -= more;
        *part = part.saturating_add(i64::try_from(more).unwrap_or(0));
    }
    parts
}

/// `rest × numerator / denominator`, which is between zero and `rest`, made whole by `rounded`.
fn portion(rest: i64, numerator: i128, denominator: i128, rounded: fn(i128, i128) -> i128) -> i64 {
    i64::try_from(rounded(i128::from(rest) * numerator, denominator)).unwrap_or(rest)
}
