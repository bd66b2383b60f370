//! Discounts, credit and tax of an invoice, and the JSON of the objects that they come from.

use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};

use crate::adjustment::{self, AdjustedLine, Invoice, Tax};
use crate::pg::error::{Result, error};
use crate::pg::jsonb::Item;
use crate::pg::text::Text;
use crate::types;

#[pg_extern(sql = false)]
fn normalised_object(kind: Text, object: Item) -> Result<JsonB> {
    let text = object.to_string();
    let normalised = match kind.0.as_str() {
        "coupon" => types::coupon(&text)?,
        "tax_rate" => types::tax_rate(&text)?,
        "credit_grant" => types::credit_grant(&text)?,
        "credit_grant_changes" => types::credit_grant_changes(&text)?,
        other => return Err(invalid(format!("there is no object \"{other}\""))),
    };
    Ok(JsonB(normalised))
}

type Row = (i64, i64, Option<JsonB>, i64, Option<JsonB>, Option<i64>, Option<JsonB>);

// The columns stand in the signature, where pgrx reads them.
#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn adjust_amounts(
    invoice: Item,
) -> Result<
    TableIterator<
        'static,
        (
            name!(line, i64),
            name!(discount_amount, i64),
            name!(discount_amounts, Option<JsonB>),
            name!(credit_amount, i64),
            name!(credit_amounts, Option<JsonB>),
            name!(tax_amount, Option<i64>),
            name!(taxes, Option<JsonB>),
        ),
    >,
> {
    let invoice: Invoice =
        serde_json::from_str(&invoice.to_string()).map_err(|problem| invalid(format!("invalid invoice: {problem}")))?;
    let adjusted = adjustment::adjust(&invoice).map_err(|unknown| invalid(unknown.to_string()))?;
    let rows: Vec<Row> = std::iter::zip(1.., &adjusted.lines)
        .map(|(line, adjusted)| row(line, adjusted))
        .collect();
    Ok(TableIterator::new(rows))
}

fn row(line: i64, adjusted: &AdjustedLine) -> Row {
    // Parts of one amount, so their sums fit.
    let sum = |parts: &[(String, i64)]| parts.iter().map(|(_, amount)| amount).sum();
    let list = |name: &str, parts: &[(String, i64)]| {
        array(
            parts
                .iter()
                .map(|(id, amount)| json!({name: id, "amount": amount}))
                .collect(),
        )
    };
    (
        line,
        sum(&adjusted.discounts),
        list("discount", &adjusted.discounts),
        sum(&adjusted.credits),
        list("credit_grant", &adjusted.credits),
        adjusted.tax_amount(),
        array(adjusted.taxes.iter().map(tax).collect()),
    )
}

fn tax(tax: &Tax) -> Value {
    json!({
        "tax_rate": tax.rate,
        "amount": tax.amount,
        "tax_behavior": if tax.inclusive { "inclusive" } else { "exclusive" },
        "taxable_amount": tax.taxable,
        "taxability_reason": tax.taxability.reason(),
    })
}

/// NULL where there is nothing.
fn array(values: Vec<Value>) -> Option<JsonB> {
    (!values.is_empty()).then_some(JsonB(Value::Array(values)))
}

fn invalid(message: String) -> pgrx::pg_sys::panic::ErrorReport {
    error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
        .set_hint("The function's comment (\\df+) says what it takes.")
}
