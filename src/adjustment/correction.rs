//! What a line that gives usage or unused time back takes back with it: the discounts and the credit of the lines that billed it.

use serde::Deserialize;

use super::discount::spread;
use super::{AdjustedLine, Line, round};

/// What stands billed of what a line corrects, and what discounts and credit made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// Minor units, before discounts and credit.
    pub amount: i64,
    /// What discounts took off that, all together.
    pub discount_amount: i64,
    /// What credit paid of the rest, all together.
    pub credit_amount: i64,
    /// What the discounts are made of. More than `discount_amount` where a credit note took back a part of them.
    pub discounts: Vec<Part>,
    /// What the credit is made of, likewise.
    pub credits: Vec<Part>,
}

/// A part by one discount or grant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub id: String,
    pub amount: i64,
}

impl Correction {
    /// With a line of the same invoice, and the discounts that it has got there. It has no credit yet.
    pub(super) fn add(&mut self, amount: i64, line: &AdjustedLine) {
        self.amount = self.amount.saturating_add(amount);
        for (id, amount) in &line.discounts {
            self.discount_amount = self.discount_amount.saturating_add(*amount);
            match self.discounts.iter_mut().find(|part| part.id == *id) {
                Some(part) => part.amount = part.amount.saturating_add(*amount),
                None => self.discounts.push(Part {
                    id: id.clone(),
                    amount: *amount,
                }),
            }
        }
    }
}

/// What stays billed keeps its share of the discounts, rounded, and of the credit for what they leave of it; all else goes with what is
/// given back. So whoever gives everything back, in however many steps, gives back what was charged, and never more on the way.
pub(super) fn apply(line: &Line, billed: &Correction, adjusted: &mut AdjustedLine) {
    if line.amount >= 0 || billed.amount <= 0 {
        return;
    }
    let amount = i128::from(billed.amount);
    let discount = i128::from(billed.discount_amount).clamp(0, amount);
    let charged = amount - discount;
    let credit = i128::from(billed.credit_amount).clamp(0, charged);

    let kept = (amount + i128::from(line.amount)).max(0);
    let kept_discount = round(discount * kept, amount);
    let kept_credit = match charged {
        0 => 0,
        _ => round(credit * (kept - kept_discount), charged),
    };
    for (part, back) in split(discount - kept_discount, &billed.discounts) {
        adjusted.take_discount_back(&part.id, back);
    }
    for (part, back) in split(credit - kept_credit, &billed.credits) {
        adjusted.take_credit_back(&part.id, back);
    }
}

/// An amount in proportion to parts, the remainder to the last; of none more than it has.
fn split(amount: i128, parts: &[Part]) -> impl Iterator<Item = (&Part, i64)> {
    let parts: Vec<&Part> = parts.iter().filter(|part| part.amount > 0).collect();
    let there: Vec<i64> = parts.iter().map(|part| part.amount).collect();
    let amounts = spread(i64::try_from(amount).unwrap_or(i64::MAX), &there);
    std::iter::zip(parts, amounts)
}
