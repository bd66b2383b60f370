//! What `update_subscription` takes: the fields to change, in the form of Stripe's update request.

use serde_json::{Map, Number, Value, json};

use super::choices::{self, COLLECTION_METHODS, PAYMENT_BEHAVIORS, PRORATION_BEHAVIORS};
use super::item::{self, ITEMS};
use super::object::{Object, Shape, word};
use super::subscription::{self, DAYS_UNTIL_DUE, DESCRIPTION_LENGTH, IN_REQUESTS};
use super::terms::{self, CancelAt, Pause, Thresholds};
use super::{Invalid, json, metadata, time};

const NAME: &str = "changes";

const CHANGES: Shape = Shape {
    fields: &[
        "billing_cycle_anchor",
        "billing_thresholds",
        "cancel_at",
        "cancel_at_period_end",
        "collection_method",
        "days_until_due",
        "default_payment_method",
        "default_tax_rates",
        "description",
        "discounts",
        "items",
        "metadata",
        "pause_collection",
        "payment_behavior",
        "proration_behavior",
        "proration_date",
        "trial_end",
        "trial_settings",
    ],
    accepted: IN_REQUESTS,
    not_supported: &[
        "add_invoice_items",
        "automatic_tax",
        "billing_schedules",
        "coupon",
        "managed_payments",
        "pending_invoice_item_interval",
        "promotion_code",
        "trial_from_plan",
    ],
};

const CHANGED_ITEM: Shape = Shape {
    fields: &[
        "billing_thresholds",
        "clear_usage",
        "deleted",
        "discounts",
        "id",
        "metadata",
        "price",
        "quantity",
        "tax_rates",
    ],
    accepted: &["object"],
    not_supported: &["price_data"],
};

/// The changes that a text asks for, validated and normalised: times as ISO 8601, ids in place of objects. A field that is
/// to be cleared, which Stripe writes as null or as an empty text, is there as null; one that stays is not there.
///
/// # Errors
/// As those of [`super::StripeObject::parse`].
pub fn changes(text: &str) -> Result<String, Invalid> {
    let mut given = Object::open(NAME, "", json::parse(NAME, text)?, &CHANGES)?;
    given.refuse_unsupported(&CHANGES)?;
    if given.has("proration_date")
        && given
            .get("proration_behavior")
            .is_some_and(|behavior| behavior == "none")
    {
        given.refuse(
            "proration_date",
            "must not be given together with proration_behavior \"none\"",
        )?;
    }
    let mut changes = Map::new();
    terms_of(&mut given, &mut changes)?;
    let at_period_end = given.boolean("cancel_at_period_end")?;
    if at_period_end == Some(true) && changes.get("cancel_at").is_some_and(|at| !at.is_null()) {
        return Err(given.error(
            "cancel_at_period_end",
            Some(&json!(true)),
            "must not be given together with cancel_at",
        ));
    }
    put(
        &mut changes,
        "cancel_at_period_end",
        at_period_end.map(|end| json!(end)),
    );
    put(&mut changes, "items", items(&mut given)?);
    Ok(Value::Object(changes).to_string())
}

fn terms_of(given: &mut Object, changes: &mut Map<String, Value>) -> Result<(), Invalid> {
    let anchor = given.choice("billing_cycle_anchor", &[("now", "now"), ("unchanged", "unchanged")])?;
    put(changes, "billing_cycle_anchor", anchor.map(|anchor| json!(anchor)));
    clearable(given, changes, "billing_thresholds", |object| {
        Ok(terms::thresholds(object)?.as_ref().map(Thresholds::print))
    })?;
    clearable(given, changes, "cancel_at", |object| {
        Ok(terms::cancel_at(object)?.map(CancelAt::print))
    })?;
    let method = given.choice("collection_method", COLLECTION_METHODS)?;
    put(
        changes,
        "collection_method",
        method.map(|method| json!(word(COLLECTION_METHODS, method))),
    );
    clearable(given, changes, "days_until_due", |object| {
        let days = subscription::days(object, "days_until_due", 0..=DAYS_UNTIL_DUE)?;
        Ok(days.map(|days| json!(days)))
    })?;
    clearable(given, changes, "default_payment_method", |object| {
        Ok(object.id("default_payment_method", item::ID_LENGTH)?.map(Value::String))
    })?;
    clearable(given, changes, "default_tax_rates", |object| {
        Ok(terms::print_tax_rates(&terms::tax_rates(object, "default_tax_rates")?))
    })?;
    clearable(given, changes, "description", |object| {
        Ok(object.text("description", DESCRIPTION_LENGTH)?.map(Value::String))
    })?;
    clearable(given, changes, "discounts", discounts)?;
    clearable(given, changes, "metadata", metadata::changes)?;
    clearable(given, changes, "pause_collection", |object| {
        Ok(terms::pause(object)?.as_ref().map(Pause::print))
    })?;
    choices::refuse_pending(given)?;
    given.choice("payment_behavior", PAYMENT_BEHAVIORS)?;
    let behavior = given.choice("proration_behavior", PRORATION_BEHAVIORS)?;
    put(
        changes,
        "proration_behavior",
        behavior.map(|behavior| json!(word(PRORATION_BEHAVIORS, behavior))),
    );
    let date = time::take(given, "proration_date")?;
    put(changes, "proration_date", date.map(time::print));
    let end = if given.get("trial_end").is_some_and(|end| end == "now") {
        given.take("trial_end")
    } else {
        time::take(given, "trial_end")?.map(time::print)
    };
    put(changes, "trial_end", end);
    if given.has("trial_settings") {
        let behavior = choices::trial_settings(given)?;
        put(changes, "trial_settings", choices::print_trial_settings(behavior));
    }
    Ok(())
}

fn items(given: &mut Object) -> Result<Option<Value>, Invalid> {
    const FIELD: &str = "items";
    let Some(values) = given.array(FIELD)? else {
        return Ok(None);
    };
    if values.len() > 2 * ITEMS {
        let rule = format!("must have at most {} items, not {}", 2 * ITEMS, values.len());
        return Err(given.missing(FIELD, rule));
    }
    let mut items = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let mut object = given.element(FIELD, index, value, &CHANGED_ITEM)?;
        let item = changed_item(&mut object)?;
        let id = item.get("id");
        if id.is_some() && items.iter().any(|other: &Value| other.get("id") == id) {
            return Err(object.error("id", id, "is already the id of another item"));
        }
        items.push(Value::Object(item));
    }
    Ok(Some(Value::Array(items)))
}

fn changed_item(given: &mut Object) -> Result<Map<String, Value>, Invalid> {
    given.refuse_unsupported(&CHANGED_ITEM)?;
    let mut item = Map::new();
    put(&mut item, "id", given.text("id", item::ID_LENGTH)?.map(Value::String));
    let deleted = given.boolean("deleted")?.unwrap_or(false);
    if deleted {
        for field in ["price", "quantity", "tax_rates", "discounts", "billing_thresholds"] {
            given.refuse(field, "must not be given of an item that is deleted")?;
        }
        put(&mut item, "deleted", Some(json!(true)));
    }
    if !item.contains_key("id") {
        if deleted {
            return Err(given.missing("id", "is required to delete an item"));
        } else if !given.has("price") {
            return Err(given.missing("price", "is required of an item without \"id\""));
        }
    }
    // Usage belongs to its meter, so there is none to clear (as in Stripe since meters).
    given.boolean("clear_usage")?;
    clearable(given, &mut item, "billing_thresholds", |object| {
        Ok(terms::usage_gte(object)?.map(|usage_gte| json!({ "usage_gte": usage_gte })))
    })?;
    clearable(given, &mut item, "discounts", discounts)?;
    clearable(given, &mut item, "metadata", metadata::changes)?;
    put(
        &mut item,
        "price",
        given.id("price", item::ID_LENGTH)?.map(Value::String),
    );
    let quantity = given.integer("quantity", 0..=i64::MAX)?;
    put(
        &mut item,
        "quantity",
        quantity.map(|quantity| Value::Number(Number::from(quantity))),
    );
    clearable(given, &mut item, "tax_rates", |object| {
        Ok(terms::print_tax_rates(&terms::tax_rates(object, "tax_rates")?))
    })?;
    Ok(item)
}

fn discounts(object: &mut Object) -> Result<Option<Value>, Invalid> {
    let coupons = terms::discounts(object, &mut std::collections::BTreeMap::new(), false)?;
    Ok(terms::print_discounts(&coupons))
}

fn put(changes: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        changes.insert(field.to_owned(), value);
    }
}

/// A field that null, an empty text and an empty list clear.
fn clearable(
    given: &mut Object,
    changes: &mut Map<String, Value>,
    field: &str,
    read: impl FnOnce(&mut Object) -> Result<Option<Value>, Invalid>,
) -> Result<(), Invalid> {
    if given.names(field) {
        if given.get(field).is_some_and(|value| value == "") {
            given.take(field);
        }
        let value = read(given)?.unwrap_or(Value::Null);
        changes.insert(field.to_owned(), value);
    }
    Ok(())
}
