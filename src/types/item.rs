//! The items of a subscription: a price each, and how many.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use super::object::{Object, Shape};
use super::{Invalid, metadata, terms, to_object};

/// Items that a subscription may have (Stripe's limit).
pub(super) const ITEMS: usize = 20;
/// Longest id, in characters.
pub(super) const ID_LENGTH: usize = 255;

/// One item of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Ids of coupons, at most 20.
    pub discounts: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    /// Id of the price.
    pub price: String,
    /// `None`: not said, so 1 where the price is licensed. A metered price has none.
    pub quantity: Option<i64>,
    /// Ids, at most 10, in place of the subscription's.
    pub tax_rates: Vec<String>,
    /// Usage of this much within a period is invoiced at once; above 0.
    pub usage_gte: Option<i64>,
    /// Fields of a returned item that are not built yet, as JSON.
    pub unsupported: BTreeMap<String, String>,
}

const ITEM: Shape = Shape {
    fields: &[
        "billing_thresholds",
        "discounts",
        "metadata",
        "price",
        "quantity",
        "tax_rates",
    ],
    accepted: &[
        "billed_until",
        "created",
        "current_period_end",
        "current_period_start",
        "id",
        "object",
        "plan",
        "subscription",
    ],
    not_supported: &["price_data"],
};

/// Stripe's form of a list inside an object.
const LIST: Shape = Shape {
    fields: &["data", "has_more"],
    accepted: &["object", "total_count", "url"],
    not_supported: &[],
};

/// Takes `items`: an array as in requests, or a list object as Stripe returns it.
pub(super) fn take(subscription: &mut Object, returned: bool) -> Result<Vec<Item>, Invalid> {
    const FIELD: &str = "items";
    let values = if subscription.get(FIELD).is_some_and(Value::is_object) {
        let list = subscription.object(FIELD, &LIST)?;
        list.map_or(Ok(None), |mut list| {
            if list.boolean("has_more")?.unwrap_or(false) {
                return Err(list
                    .error(
                        "has_more",
                        Some(&json!(true)),
                        "must be false: the list is only a part of the items",
                    )
                    .with_hint("Fetch the subscription's items and put all of them into the list."));
            }
            list.array("data")
        })?
    } else {
        subscription.array(FIELD)?
    };
    let values = values.filter(|values| !values.is_empty());
    let values = values.ok_or_else(|| subscription.missing(FIELD, "must have at least one item"))?;
    if values.len() > ITEMS {
        let rule = format!("must have at most {ITEMS} items, not {}", values.len());
        return Err(subscription.missing(FIELD, rule));
    }
    let mut items = Vec::with_capacity(values.len());
    let mut prices = BTreeSet::new();
    for (index, value) in values.into_iter().enumerate() {
        let mut object = subscription.element(FIELD, index, value, &ITEM)?;
        let item = read(&mut object, returned)?;
        if !prices.insert(item.price.clone()) {
            let price = Value::String(item.price);
            return Err(object.error("price", Some(&price), "is already the price of another item"));
        }
        items.push(item);
    }
    Ok(items)
}

fn read(item: &mut Object, returned: bool) -> Result<Item, Invalid> {
    let mut unsupported = item.take_unsupported(&ITEM, returned)?;
    let is_metered = item
        .get("price")
        .and_then(|price| price.pointer("/recurring/usage_type"))
        .is_some_and(|usage_type| usage_type == "metered");
    if is_metered {
        item.refuse("quantity", "must be absent: the price is metered")?;
    }
    Ok(Item {
        discounts: terms::discounts(item, &mut unsupported, returned)?,
        metadata: metadata::take(item)?,
        price: item
            .id("price", ID_LENGTH)?
            .ok_or_else(|| item.missing("price", "is required"))?,
        quantity: item.integer("quantity", 0..=i64::MAX)?,
        tax_rates: terms::tax_rates(item, "tax_rates")?,
        usage_gte: terms::usage_gte(item)?,
        unsupported,
    })
}

impl Item {
    pub(super) fn print(&self) -> Value {
        let mut fields = to_object([
            (
                "billing_thresholds",
                self.usage_gte.map(|usage_gte| json!({ "usage_gte": usage_gte })),
            ),
            ("discounts", terms::print_discounts(&self.discounts)),
            ("metadata", metadata::print(&self.metadata)),
            ("price", Some(json!(self.price))),
            (
                "quantity",
                self.quantity.map(|quantity| Value::Number(Number::from(quantity))),
            ),
            ("tax_rates", terms::print_tax_rates(&self.tax_rates)),
        ]);
        fields.extend(print_unsupported(&self.unsupported));
        Value::Object(fields)
    }
}

/// The fields that [`Object::take_unsupported`] kept, as they stood.
pub(super) fn print_unsupported(fields: &BTreeMap<String, String>) -> Map<String, Value> {
    // Text that is no JSON cannot come from reading an object, only from bytes that somebody made up.
    fields
        .iter()
        .map(|(field, text)| (field.clone(), serde_json::from_str(text).unwrap_or(Value::Null)))
        .collect()
}
