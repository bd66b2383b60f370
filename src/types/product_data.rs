//! A price's `product_data`: the product to make together with the price.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::object::{Object, Shape};
use super::{Invalid, metadata, to_object};

/// Longest texts, in characters (Stripe's limits).
const ID_LENGTH: usize = 255;
const NAME_LENGTH: usize = 250;
const STATEMENT_DESCRIPTOR_LENGTH: usize = 22;
const TAX_CODE_LENGTH: usize = 255;
const UNIT_LABEL_LENGTH: usize = 12;

/// A product that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductData {
    pub active: bool,
    /// `None`: one is made.
    pub id: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// 1 to 250 characters.
    pub name: String,
    pub statement_descriptor: Option<String>,
    pub tax_code: Option<String>,
    pub unit_label: Option<String>,
}

const PRODUCT_DATA: Shape = Shape {
    fields: &[
        "active",
        "id",
        "metadata",
        "name",
        "statement_descriptor",
        "tax_code",
        "unit_label",
    ],
    accepted: &[],
    not_supported: &[],
};

/// Takes `product_data`.
pub(super) fn take(price: &mut Object) -> Result<Option<ProductData>, Invalid> {
    const FIELD: &str = "product_data";
    let Some(mut data) = price.object(FIELD, &PRODUCT_DATA)? else {
        return Ok(None);
    };
    price.refuse("product", "must not be given together with product_data")?;
    Ok(Some(ProductData {
        active: data.boolean("active")?.unwrap_or(true),
        id: data.text("id", ID_LENGTH)?,
        metadata: metadata::take(&mut data)?,
        name: data.required_text("name", NAME_LENGTH)?,
        statement_descriptor: data.text("statement_descriptor", STATEMENT_DESCRIPTOR_LENGTH)?,
        tax_code: data.text("tax_code", TAX_CODE_LENGTH)?,
        unit_label: data.text("unit_label", UNIT_LABEL_LENGTH)?,
    }))
}

impl ProductData {
    pub(super) fn print(&self) -> Value {
        let text = |text: &Option<String>| text.clone().map(Value::String);
        Value::Object(to_object([
            ("active", Some(json!(self.active))),
            ("id", text(&self.id)),
            ("metadata", metadata::print(&self.metadata)),
            ("name", Some(json!(self.name))),
            ("statement_descriptor", text(&self.statement_descriptor)),
            ("tax_code", text(&self.tax_code)),
            ("unit_label", text(&self.unit_label)),
        ]))
    }
}
