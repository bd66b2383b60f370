//! Tax: by each rate of a line, on what discounts and credit have left of it.

use serde::Deserialize;

use super::{Invoice, Line, Percent, Tax, Unknown, round};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaxRate {
    pub id: String,
    pub percentage: Percent,
    /// The amount holds the tax already; else it comes on top.
    pub inclusive: bool,
}

/// Whether the customer owes tax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exemption {
    None,
    Exempt,
    /// The customer owes it to the tax office itself.
    Reverse,
}

/// Why a tax is what it is, in Stripe's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taxability {
    StandardRated,
    ZeroRated,
    CustomerExempt,
    ReverseCharge,
}

impl Taxability {
    pub fn reason(self) -> &'static str {
        match self {
            Taxability::StandardRated => "standard_rated",
            Taxability::ZeroRated => "zero_rated",
            Taxability::CustomerExempt => "customer_exempt",
            Taxability::ReverseCharge => "reverse_charge",
        }
    }
}

/// The taxes of a line of which `rest` is left. Below zero they are below zero: what is given back had its tax, too.
pub(super) fn taxes(line: &Line, rest: i64, invoice: &Invoice) -> Result<Vec<Tax>, Unknown> {
    let rates: Vec<&TaxRate> = line
        .tax_rates
        .iter()
        .map(|id| {
            let known = invoice.tax_rates.iter().find(|rate| rate.id == *id);
            known.ok_or_else(|| Unknown::TaxRate(id.clone()))
        })
        .collect::<Result<_, _>>()?;
    let exempt = match invoice.tax_exempt {
        Exemption::None => None,
        Exemption::Exempt => Some(Taxability::CustomerExempt),
        Exemption::Reverse => Some(Taxability::ReverseCharge),
    };
    // Inclusive rates are taken out together: the amount is the whole and all of them. Exclusive ones are of the same whole.
    let inclusive = rates.iter().filter(|rate| rate.inclusive);
    let divisor = Percent::WHOLE + inclusive.map(|rate| rate.percentage.millionths()).sum::<i128>();
    let mut taxes: Vec<Tax> = rates
        .iter()
        .map(|rate| {
            let amount = match exempt {
                None => round(i128::from(rest) * rate.percentage.millionths(), divisor),
                Some(_) => 0,
            };
            Tax {
                rate: rate.id.clone(),
                inclusive: rate.inclusive,
                // Not more than the whole, which is not more than the rest.
                amount: i64::try_from(amount).unwrap_or(rest),
                taxable: rest,
                taxability: exempt.unwrap_or(match rate.percentage.millionths() {
                    0 => Taxability::ZeroRated,
                    _ => Taxability::StandardRated,
                }),
            }
        })
        .collect();
    let within: i128 = taxes
        .iter()
        .filter(|tax| tax.inclusive)
        .map(|tax| i128::from(tax.amount))
        .sum();
    let taxable = i64::try_from(i128::from(rest) - within).unwrap_or(rest);
    for tax in &mut taxes {
        tax.taxable = taxable;
    }
    Ok(taxes)
}
