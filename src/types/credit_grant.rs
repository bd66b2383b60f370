//! Stripe's billing.credit_grant object, normalised.

use serde_json::{Value, json};

use super::object::{Object, Shape};
use super::{Invalid, currency, json as text, metadata, time, to_object};

const NAME: &str = "credit_grant";
/// Longest id, in characters.
const ID_LENGTH: usize = 255;
/// Longest name, in characters (Stripe's limit).
const NAME_LENGTH: usize = 100;
/// Prices that a grant may name (Stripe's limit).
const PRICES: usize = 20;
const PRIORITY: i64 = 50;

const CREDIT_GRANT: Shape = Shape {
    fields: &[
        "amount",
        "applicability_config",
        "category",
        "customer",
        "effective_at",
        "expires_at",
        "id",
        "metadata",
        "name",
        "priority",
    ],
    accepted: &[
        "created",
        "customer_account",
        "expand",
        "livemode",
        "object",
        "test_clock",
        "updated",
        "voided_at",
    ],
    not_supported: &[],
};

const AMOUNT: Shape = Shape {
    fields: &["monetary", "type"],
    accepted: &[],
    not_supported: &["custom_pricing_unit"],
};

const MONETARY: Shape = Shape {
    fields: &["currency", "value"],
    accepted: &[],
    not_supported: &[],
};

const APPLICABILITY: Shape = Shape {
    fields: &["scope"],
    accepted: &[],
    not_supported: &[],
};

const SCOPE: Shape = Shape {
    fields: &["price_type", "prices"],
    accepted: &[],
    not_supported: &["billable_items"],
};

const PRICE: Shape = Shape {
    fields: &["id"],
    accepted: &[],
    not_supported: &[],
};

const CHANGES: Shape = Shape {
    fields: &["expires_at", "metadata"],
    accepted: &["expand"],
    not_supported: &[],
};

/// Reads a credit grant from its JSON text: Stripe's create parameters, or an object that Stripe returned. Category and priority are
/// said in the result.
///
/// # Errors
/// The field, its value and the rule that it breaks.
pub fn credit_grant(json: &str) -> Result<Value, Invalid> {
    let mut grant = Object::open(NAME, "", text::parse(NAME, json)?, &CREDIT_GRANT)?;
    grant.is_returned("billing.credit_grant")?;
    let customer = grant
        .id("customer", ID_LENGTH)?
        .ok_or_else(|| grant.missing("customer", "is required"))?;
    let category = grant
        .choice("category", &[("paid", "paid"), ("promotional", "promotional")])?
        .unwrap_or("paid");
    Ok(Value::Object(to_object([
        ("amount", Some(amount(&mut grant)?)),
        ("applicability_config", Some(applicability(&mut grant)?)),
        ("category", Some(json!(category))),
        ("customer", Some(json!(customer))),
        ("effective_at", time::take(&mut grant, "effective_at")?.map(time::print)),
        ("expires_at", time::take(&mut grant, "expires_at")?.map(time::print)),
        ("id", grant.text("id", ID_LENGTH)?.map(Value::String)),
        ("metadata", metadata::print(&metadata::take(&mut grant)?)),
        ("name", grant.text("name", NAME_LENGTH)?.map(Value::String)),
        (
            "priority",
            Some(json!(grant.integer("priority", 0..=100)?.unwrap_or(PRIORITY))),
        ),
    ])))
}

/// Reads what may change of a credit grant; an `expires_at` of null, which takes the expiry away, stays in the result.
///
/// # Errors
/// The field, its value and the rule that it breaks.
pub fn credit_grant_changes(json: &str) -> Result<Value, Invalid> {
    let mut changes = Object::open(NAME, "", text::parse(NAME, json)?, &CHANGES)?;
    let named = changes.names("expires_at");
    let expires_at = time::take(&mut changes, "expires_at")?.map_or(Value::Null, time::print);
    Ok(Value::Object(to_object([
        ("expires_at", named.then_some(expires_at)),
        ("metadata", metadata::print(&metadata::take(&mut changes)?)),
    ])))
}

fn amount(grant: &mut Object) -> Result<Value, Invalid> {
    let mut amount = grant
        .object("amount", &AMOUNT)?
        .ok_or_else(|| grant.missing("amount", "is required"))?;
    amount.refuse_unsupported(&AMOUNT)?;
    amount
        .choice("type", &[("monetary", ())])?
        .ok_or_else(|| amount.missing("type", "is required"))?;
    let mut monetary = amount
        .object("monetary", &MONETARY)?
        .ok_or_else(|| amount.missing("monetary", "is required"))?;
    let currency = currency::take(&mut monetary)?.ok_or_else(|| monetary.missing("currency", "is required"))?;
    let value = monetary
        .integer("value", 1..=i64::MAX)?
        .ok_or_else(|| monetary.missing("value", "is required"))?;
    Ok(json!({ "type": "monetary", "monetary": { "currency": currency, "value": value } }))
}

fn applicability(grant: &mut Object) -> Result<Value, Invalid> {
    let mut config = grant
        .object("applicability_config", &APPLICABILITY)?
        .ok_or_else(|| grant.missing("applicability_config", "is required"))?;
    let mut scope = config
        .object("scope", &SCOPE)?
        .ok_or_else(|| config.missing("scope", "is required"))?;
    scope.refuse_unsupported(&SCOPE)?;
    let price_type = scope.choice("price_type", &[("metered", "metered")])?;
    let values = scope.array("prices")?.filter(|values| !values.is_empty());
    let scope = match (price_type, values) {
        (Some(price_type), None) => json!({ "price_type": price_type }),
        (None, Some(values)) if values.len() > PRICES => {
            let rule = format!("must have at most {PRICES} prices, not {}", values.len());
            return Err(scope.missing("prices", rule));
        }
        (None, Some(values)) => {
            let mut prices: Vec<Value> = Vec::new();
            for (index, value) in values.into_iter().enumerate() {
                let mut price = scope.element("prices", index, value, &PRICE)?;
                let id = json!({ "id": price.required_text("id", ID_LENGTH)? });
                if prices.contains(&id) {
                    return Err(price.error("id", id.get("id"), "is already one of the prices"));
                }
                prices.push(id);
            }
            json!({ "prices": prices })
        }
        _ => return Err(scope.missing("price_type", "or prices is required, and only one of them")),
    };
    Ok(json!({ "scope": scope }))
}
