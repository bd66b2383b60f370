//! Stripe's tax_rate object, normalised.

use serde_json::{Value, json};

use super::coupon::percent;
use super::object::{Object, Shape};
use super::{Invalid, json as text, metadata, to_object};

const NAME: &str = "tax_rate";
/// Longest id, in characters.
const ID_LENGTH: usize = 255;
/// Longest display_name and jurisdiction, in characters (Stripe's limit).
const NAME_LENGTH: usize = 50;
const DESCRIPTION_LENGTH: usize = 500;

const TAX_RATE: Shape = Shape {
    fields: &[
        "active",
        "country",
        "description",
        "display_name",
        "id",
        "inclusive",
        "jurisdiction",
        "metadata",
        "percentage",
        "state",
    ],
    // What kind of tax it is changes no amount.
    accepted: &[
        "created",
        "effective_percentage",
        "expand",
        "jurisdiction_level",
        "livemode",
        "object",
        "rate_type",
        "tax_type",
    ],
    not_supported: &["flat_amount"],
};

/// Reads a tax rate from its JSON text: Stripe's create parameters, or an object that Stripe returned.
///
/// # Errors
/// The field, its value and the rule that it breaks.
pub fn tax_rate(json: &str) -> Result<Value, Invalid> {
    let mut rate = Object::open(NAME, "", text::parse(NAME, json)?, &TAX_RATE)?;
    rate.is_returned(NAME)?;
    rate.refuse_unsupported(&TAX_RATE)?;
    let percentage = percent(&mut rate, "percentage")?.ok_or_else(|| rate.missing("percentage", "is required"))?;
    let inclusive = rate
        .boolean("inclusive")?
        .ok_or_else(|| rate.missing("inclusive", "is required"))?;
    Ok(Value::Object(to_object([
        ("active", Some(json!(rate.boolean("active")?.unwrap_or(true)))),
        ("country", rate.text("country", 2)?.map(Value::String)),
        (
            "description",
            rate.text("description", DESCRIPTION_LENGTH)?.map(Value::String),
        ),
        (
            "display_name",
            Some(json!(rate.required_text("display_name", NAME_LENGTH)?)),
        ),
        ("id", rate.text("id", ID_LENGTH)?.map(Value::String)),
        ("inclusive", Some(json!(inclusive))),
        (
            "jurisdiction",
            rate.text("jurisdiction", NAME_LENGTH)?.map(Value::String),
        ),
        ("metadata", metadata::print(&metadata::take(&mut rate)?)),
        ("percentage", Some(json!(percentage))),
        ("state", rate.text("state", NAME_LENGTH)?.map(Value::String)),
    ])))
}
