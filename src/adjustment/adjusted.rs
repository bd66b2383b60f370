//! What comes of the lines.

use std::fmt;

use super::{Line, Taxability};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjusted {
    /// As many as the invoice has, in its order.
    pub lines: Vec<AdjustedLine>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdjustedLine {
    /// By discount, in the order in which they applied; none of zero. Below zero on a line below zero.
    pub discounts: Vec<(String, i64)>,
    /// By grant, in the order in which they were used; none of zero. Below zero on a line below zero.
    pub credits: Vec<(String, i64)>,
    /// In the order in which the line names the rates.
    pub taxes: Vec<Tax>,
    /// The amount less discounts and credit.
    pub rest: i64,
}

/// A line's tax by one rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tax {
    pub rate: String,
    pub inclusive: bool,
    pub amount: i64,
    /// What the percentage is of, to the minor unit.
    pub taxable: i64,
    pub taxability: Taxability,
}

impl AdjustedLine {
    pub(super) fn of(line: &Line) -> AdjustedLine {
        AdjustedLine {
            discounts: Vec::new(),
            credits: Vec::new(),
            taxes: Vec::new(),
            rest: line.amount,
        }
    }

    /// Takes an amount off that is not more than what is left.
    pub(super) fn discount(&mut self, discount: &str, amount: i64) {
        if amount > 0 {
            self.rest -= amount;
            self.discounts.push((discount.to_owned(), amount));
        }
    }

    /// Pays an amount that is not more than what is left.
    pub(super) fn pay(&mut self, grant: &str, amount: i64) {
        if amount > 0 {
            self.rest -= amount;
            self.credits.push((grant.to_owned(), amount));
        }
    }

    /// Takes back an amount that a discount had taken off, so that less is given back.
    pub(super) fn take_discount_back(&mut self, discount: &str, amount: i64) {
        if amount > 0 {
            self.rest += amount;
            self.discounts.push((discount.to_owned(), -amount));
        }
    }

    /// Takes back an amount that a grant had paid, likewise.
    pub(super) fn take_credit_back(&mut self, grant: &str, amount: i64) {
        if amount > 0 {
            self.rest += amount;
            self.credits.push((grant.to_owned(), -amount));
        }
    }

    /// Inclusive and exclusive together. `None` beyond `bigint`: each tax fits, several together may not.
    pub fn tax_amount(&self) -> Option<i64> {
        self.taxes
            .iter()
            .try_fold(0_i64, |sum, tax| sum.checked_add(tax.amount))
    }
}

/// What a line names and the invoice does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    TaxRate(String),
    Line(usize),
}

impl fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::TaxRate(id) => write!(
                formatter,
                "tax rate {id:?} of a line is not among the invoice's tax_rates"
            ),
            Unknown::Line(place) => write!(formatter, "there is no line {place} for another one to reverse"),
        }
    }
}

impl std::error::Error for Unknown {}
