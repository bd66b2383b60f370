//! What there is to adjust.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{Correction, Discount, Exemption, Grant, TaxRate};

/// One invoice, in one currency: its lines, and what may change what they come to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoice {
    pub created: DateTime<Utc>,
    pub tax_exempt: Exemption,
    /// In their order, which decides who bears a remainder and who gets credit first.
    pub lines: Vec<Line>,
    /// Those in force, in the order in which they apply.
    pub discounts: Vec<Discount>,
    /// Those that may pay for this invoice, in any order.
    pub credit_grants: Vec<Grant>,
    /// All that lines name.
    pub tax_rates: Vec<TaxRate>,
}

/// A line, before anything is taken off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Minor units.
    pub amount: i64,
    /// A line below zero is never discounted, whatever this says.
    pub discountable: bool,
    /// The subscription item that it bills.
    pub item: Option<String>,
    pub product: Option<String>,
    pub price: Option<String>,
    /// It bills a subscription's usage, so credit may pay for it.
    pub metered: bool,
    pub period_end: DateTime<Utc>,
    /// Ids of the rates that it bears.
    pub tax_rates: Vec<String>,
    /// What it gives back a part of, when it is below zero and that is on other invoices.
    pub corrects: Option<Correction>,
    /// The lines of this invoice, counted from 1, that it gives back a part of: a charge, and what was given back of that before.
    #[serde(default)]
    pub reverses: Vec<usize>,
}
