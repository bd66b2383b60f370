//! Discounts, credit and tax: from the amounts of an invoice's lines to what is owed, in this order. Whole minor units, exact before
//! each rounding; every rounding is half away from zero, once for a line and a discount or rate.

mod adjusted;
mod correction;
mod credit;
mod discount;
mod invoice;
mod percent;
mod tax;

pub use adjusted::{Adjusted, AdjustedLine, Tax, Unknown};
pub use correction::{Correction, Part};
pub use credit::{Category, Grant};
pub use discount::{Discount, Off};
pub use invoice::{Invoice, Line};
pub use percent::{NotAPercentage, Percent};
pub use tax::{Exemption, TaxRate, Taxability};

#[cfg(test)]
mod tests;

/// What lines below zero take back of earlier ones, discounts in their order, credit in the order of the grants, then tax on what is left.
///
/// # Errors
/// A line names a tax rate or a line that the invoice does not have.
pub fn adjust(invoice: &Invoice) -> Result<Adjusted, Unknown> {
    let mut lines: Vec<AdjustedLine> = invoice.lines.iter().map(AdjustedLine::of).collect();
    for discount in &invoice.discounts {
        discount::apply(discount, invoice, &mut lines);
    }
    for (nth, line) in invoice.lines.iter().enumerate() {
        let mut billed = line.corrects.clone().unwrap_or_default();
        for place in &line.reverses {
            let other = place.checked_sub(1).filter(|other| *other < lines.len());
            let other = other.ok_or(Unknown::Line(*place))?;
            billed.add(invoice.lines[other].amount, &lines[other]);
        }
        correction::apply(line, &billed, &mut lines[nth]);
    }
    credit::apply(invoice, &mut lines);
    for (line, adjusted) in std::iter::zip(&invoice.lines, &mut lines) {
        adjusted.taxes = tax::taxes(line, adjusted.rest, invoice)?;
    }
    Ok(Adjusted { lines })
}

/// `numerator / denominator` rounded half away from zero, the denominator being positive. Numerators are products of an amount and a
/// percentage, so twice of them is far from the end of i128.
fn round(numerator: i128, denominator: i128) -> i128 {
    let rounded = (2 * numerator.abs() + denominator) / (2 * denominator);
    if numerator < 0 { -rounded } else { rounded }
}
