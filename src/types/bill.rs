//! What is put on a bill by hand: the create parameters of Stripe's invoices, invoice items and credit notes. They are
//! checked field by field, and handed on to SQL as normalised JSON.

use std::ops::RangeInclusive;

use serde_json::{Map, Number, Value, json};

use super::object::{Object, Shape};
use super::subscription::DAYS_UNTIL_DUE;
use super::{Invalid, currency, json as text, metadata, time, to_object};
use crate::pricing::plain_string;

/// Longest id, in characters.
const ID: usize = 255;
/// Longest description or memo, in characters.
const TEXT: usize = 5000;
/// Items that may be put on one invoice (Stripe's limit).
const LINES: usize = 250;
/// Tax rates of one line (Stripe's limit).
const TAX_RATES: usize = 10;

const ANY: RangeInclusive<i64> = i64::MIN..=i64::MAX;
const NOT_NEGATIVE: RangeInclusive<i64> = 0..=i64::MAX;

/// What an amount of money comes from; an item has one of these.
const SOURCES: [&str; 4] = ["amount", "price", "unit_amount", "unit_amount_decimal"];

const ITEM: Shape = Shape {
    fields: &[
        "amount",
        "currency",
        "customer",
        "description",
        "discountable",
        "invoice",
        "metadata",
        "period",
        "price",
        "quantity",
        "subscription",
        "tax_rates",
        "unit_amount",
        "unit_amount_decimal",
    ],
    accepted: &[],
    not_supported: &["discounts", "price_data", "pricing", "tax_behavior", "tax_code"],
};

/// A line of a one-off invoice: an item without what the invoice says.
const LINE: Shape = Shape {
    fields: &[
        "amount",
        "description",
        "discountable",
        "metadata",
        "period",
        "price",
        "quantity",
        "tax_rates",
        "unit_amount",
        "unit_amount_decimal",
    ],
    ..ITEM
};

const CHANGE: Shape = LINE;

const PERIOD: Shape = Shape {
    fields: &["end", "start"],
    accepted: &[],
    not_supported: &[],
};

const INVOICE: Shape = Shape {
    fields: &[
        "auto_advance",
        "collection_method",
        "currency",
        "customer",
        "days_until_due",
        "default_tax_rates",
        "description",
        "lines",
        "metadata",
        "pending_invoice_items_behavior",
    ],
    accepted: &[],
    not_supported: &[
        "account_tax_ids",
        "automatic_tax",
        "discounts",
        "due_date",
        "from_invoice",
        "shipping_cost",
        "subscription",
    ],
};

const CREDIT_NOTE: Shape = Shape {
    fields: &[
        "amount",
        "credit_amount",
        "invoice",
        "lines",
        "memo",
        "metadata",
        "out_of_band_amount",
        "reason",
        "refund_amount",
    ],
    accepted: &[],
    not_supported: &["effective_at", "email_type", "refund", "refunds", "shipping_cost"],
};

const CREDIT_NOTE_LINE: Shape = Shape {
    fields: &["amount", "invoice_line_item", "type"],
    accepted: &[],
    not_supported: &[
        "description",
        "quantity",
        "tax_amounts",
        "tax_rates",
        "unit_amount",
        "unit_amount_decimal",
    ],
};

/// Reads the JSON of one of `invoice_item`, `invoice_item_change`, `invoice` and `credit_note` and returns it normalised:
/// unknown fields refused, nulls left out, times in ISO 8601, unit amounts and quantities as decimals in plain digits.
/// `None`: no such kind.
///
/// # Errors
/// The field, its value and the rule that it breaks.
pub fn normalised_bill(kind: &str, object: &str) -> Result<Option<String>, Invalid> {
    let fields = match kind {
        "invoice_item" => read_item("invoice item", object, &ITEM)?,
        "invoice_item_change" => read_change(object)?,
        "invoice" => read_invoice(object)?,
        "credit_note" => read_credit_note(object)?,
        _ => return Ok(None),
    };
    Ok(Some(Value::Object(fields).to_string()))
}

fn open(name: &'static str, object: &str, shape: &Shape) -> Result<Object, Invalid> {
    let object = Object::open(name, "", text::parse(name, object)?, shape)?;
    object.refuse_unsupported(shape)?;
    Ok(object)
}

fn read_item(name: &'static str, object: &str, shape: &Shape) -> Result<Map<String, Value>, Invalid> {
    let mut object = open(name, object, shape)?;
    let mut fields = charge(&mut object, true)?;
    fields.extend(to_object([
        ("currency", currency::take(&mut object)?.map(Value::String)),
        ("customer", Some(Value::String(object.required_text("customer", ID)?))),
        ("invoice", object.id("invoice", ID)?.map(Value::String)),
        ("subscription", object.id("subscription", ID)?.map(Value::String)),
    ]));
    Ok(fields)
}

fn read_change(object: &str) -> Result<Map<String, Value>, Invalid> {
    charge(&mut open("change of an invoice item", object, &CHANGE)?, false)
}

/// The fields of an item that an invoice's own line has too. `whole`: it must say what it costs.
fn charge(object: &mut Object, whole: bool) -> Result<Map<String, Value>, Invalid> {
    let given: Vec<&str> = SOURCES.into_iter().filter(|field| object.has(field)).collect();
    match given.as_slice() {
        [] if whole => {
            return Err(object.missing("amount", "or price, unit_amount or unit_amount_decimal is required"));
        }
        [] | [_] => {}
        [first, second, ..] => {
            return Err(object.error(second, object.get(second), format!("cannot stand beside \"{first}\"")));
        }
    }
    if object.has("amount") {
        object.refuse("quantity", "cannot stand beside \"amount\", which is the whole of it")?;
    }
    let unit = match object.integer("unit_amount", ANY)? {
        Some(unit) => Some(unit.to_string()),
        None => signed_decimal(object, "unit_amount_decimal")?,
    };
    let quantity = object
        .decimal("quantity")?
        .map(|quantity| Value::String(plain_string(&quantity)));
    let period = object
        .object("period", &PERIOD)?
        .map(|mut period| {
            let start = time::take(&mut period, "start")?.ok_or_else(|| period.missing("start", "is required"))?;
            let end = time::take(&mut period, "end")?.ok_or_else(|| period.missing("end", "is required"))?;
            if end < start {
                return Err(period.error("end", Some(&time::print(end)), "must not be before \"start\""));
            }
            Ok(json!({"start": time::print(start), "end": time::print(end)}))
        })
        .transpose()?;
    Ok(to_object([
        ("amount", object.integer("amount", ANY)?.map(|amount| json!(amount))),
        ("description", object.text("description", TEXT)?.map(Value::String)),
        ("discountable", object.boolean("discountable")?.map(Value::Bool)),
        ("metadata", metadata::print(&metadata::take(object)?)),
        ("period", period),
        ("price", object.id("price", ID)?.map(Value::String)),
        ("quantity", quantity),
        ("tax_rates", ids(object, "tax_rates")?),
        ("unit_amount", unit.map(Value::String)),
    ]))
}

fn read_invoice(object: &str) -> Result<Map<String, Value>, Invalid> {
    let mut object = open("invoice", object, &INVOICE)?;
    let collection = [
        ("charge_automatically", "charge_automatically"),
        ("send_invoice", "send_invoice"),
    ];
    let behavior = [("exclude", "exclude"), ("include", "include")];
    let lines = object.array("lines")?;
    if let Some(lines) = lines.as_ref().filter(|lines| lines.len() > LINES) {
        return Err(object.missing(
            "lines",
            format!("has {} items, and an invoice at most {LINES}", lines.len()),
        ));
    }
    let lines = lines
        .map(|lines| {
            let lines = lines.into_iter().enumerate().map(|(index, line)| {
                let mut line = object.element("lines", index, line, &LINE)?;
                line.refuse_unsupported(&LINE)?;
                charge(&mut line, true).map(Value::Object)
            });
            lines.collect::<Result<Vec<_>, _>>().map(Value::Array)
        })
        .transpose()?;
    let days = object.integer("days_until_due", 0..=DAYS_UNTIL_DUE)?;
    Ok(to_object([
        ("auto_advance", object.boolean("auto_advance")?.map(Value::Bool)),
        (
            "collection_method",
            object.choice("collection_method", &collection)?.map(|word| json!(word)),
        ),
        ("currency", currency::take(&mut object)?.map(Value::String)),
        ("customer", Some(Value::String(object.required_text("customer", ID)?))),
        ("days_until_due", days.map(|days| Value::Number(Number::from(days)))),
        ("default_tax_rates", ids(&mut object, "default_tax_rates")?),
        ("description", object.text("description", TEXT)?.map(Value::String)),
        ("lines", lines),
        ("metadata", metadata::print(&metadata::take(&mut object)?)),
        (
            "pending_invoice_items_behavior",
            object
                .choice("pending_invoice_items_behavior", &behavior)?
                .map(|word| json!(word)),
        ),
    ]))
}

fn read_credit_note(object: &str) -> Result<Map<String, Value>, Invalid> {
    let mut object = open("credit note", object, &CREDIT_NOTE)?;
    let reasons = ["duplicate", "fraudulent", "order_change", "product_unsatisfactory"].map(|reason| (reason, reason));
    let lines = object
        .array("lines")?
        .map(|lines| {
            let lines = lines.into_iter().enumerate().map(|(index, line)| {
                let mut line = object.element("lines", index, line, &CREDIT_NOTE_LINE)?;
                line.refuse_unsupported(&CREDIT_NOTE_LINE)?;
                line.choice("type", &[("invoice_line_item", ())])?;
                let id = line.required_text("invoice_line_item", ID)?;
                let amount = line.integer("amount", ANY)?;
                let amount = amount.ok_or_else(|| line.missing("amount", "is required"))?;
                Ok(json!({"amount": amount, "invoice_line_item": id}))
            });
            lines.collect::<Result<Vec<_>, Invalid>>().map(Value::Array)
        })
        .transpose()?;
    match (lines.is_some(), object.has("amount")) {
        (true, true) => return Err(object.error("amount", object.get("amount"), "cannot stand beside \"lines\"")),
        (false, false) => return Err(object.missing("lines", "or amount is required")),
        _ => {}
    }
    let invoice = object
        .id("invoice", ID)?
        .ok_or_else(|| object.missing("invoice", "is required"))?;
    let mut amount =
        |field: &str| -> Result<_, Invalid> { Ok(object.integer(field, NOT_NEGATIVE)?.map(|amount| json!(amount))) };
    let amounts = [
        ("amount", amount("amount")?),
        ("credit_amount", amount("credit_amount")?),
        ("out_of_band_amount", amount("out_of_band_amount")?),
        ("refund_amount", amount("refund_amount")?),
    ];
    let mut fields = to_object(amounts);
    fields.extend(to_object([
        ("invoice", Some(Value::String(invoice))),
        ("lines", lines),
        ("memo", object.text("memo", TEXT)?.map(Value::String)),
        ("metadata", metadata::print(&metadata::take(&mut object)?)),
        ("reason", object.choice("reason", &reasons)?.map(|reason| json!(reason))),
    ]));
    Ok(fields)
}

/// A decimal as [`Object::decimal`] takes it, but for a minus sign before it.
fn signed_decimal(object: &mut Object, field: &str) -> Result<Option<String>, Invalid> {
    let negative = match object.get(field) {
        Some(Value::String(text)) => text.starts_with('-'),
        Some(Value::Number(number)) => number.to_string().starts_with('-'),
        _ => false,
    };
    if negative {
        object.drop_sign(field);
    }
    let value = object.decimal(field)?.map(|value| plain_string(&value));
    Ok(value.map(|value| {
        if negative && value != "0" {
            format!("-{value}")
        } else {
            value
        }
    }))
}

fn ids(object: &mut Object, field: &str) -> Result<Option<Value>, Invalid> {
    let Some(values) = object.array(field)? else {
        return Ok(None);
    };
    if values.len() > TAX_RATES {
        return Err(object.missing(field, format!("has {} ids, of at most {TAX_RATES}", values.len())));
    }
    for value in &values {
        if value.as_str().is_none_or(str::is_empty) {
            return Err(object.error(field, Some(value), "must be an id"));
        }
    }
    Ok(Some(Value::Array(values)))
}
