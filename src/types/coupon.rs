//! Stripe's coupon object, normalised.

use serde_json::{Map, Value, json};

use super::object::{Object, Shape};
use super::{Invalid, currency, json as text, metadata, time, to_object};
use crate::adjustment::Percent;
use crate::pricing::{Dec, plain_string};

const NAME: &str = "coupon";
/// Longest id, in characters.
const ID_LENGTH: usize = 255;
/// Longest name, in characters (Stripe's limit).
const NAME_LENGTH: usize = 40;
/// As long as a timestamp lasts.
const MONTHS: i64 = 12_000;

const COUPON: Shape = Shape {
    fields: &[
        "amount_off",
        "applies_to",
        "currency",
        "currency_options",
        "duration",
        "duration_in_months",
        "id",
        "max_redemptions",
        "metadata",
        "name",
        "percent_off",
        "redeem_by",
    ],
    accepted: &["created", "expand", "livemode", "object", "times_redeemed", "valid"],
    not_supported: &["script"],
};

const APPLIES_TO: Shape = Shape {
    fields: &["products"],
    accepted: &[],
    not_supported: &[],
};

const OPTION: Shape = Shape {
    fields: &["amount_off"],
    accepted: &[],
    not_supported: &[],
};

const DURATIONS: &[(&str, &str)] = &[("once", "once"), ("repeating", "repeating"), ("forever", "forever")];

/// Reads a coupon from its JSON text: Stripe's create parameters, or an object that Stripe returned. The duration is said in the
/// result, percentages and amounts are decimal texts.
///
/// # Errors
/// The field, its value and the rule that it breaks.
pub fn coupon(json: &str) -> Result<Value, Invalid> {
    let mut coupon = Object::open(NAME, "", text::parse(NAME, json)?, &COUPON)?;
    coupon.is_returned(NAME)?;
    coupon.refuse_unsupported(&COUPON)?;
    let percent_off = percent(&mut coupon, "percent_off")?;
    if percent_off.as_deref() == Some("0") {
        return Err(coupon.error("percent_off", Some(&json!(0)), "must be greater than 0"));
    }
    let amount_off = coupon.integer("amount_off", 1..=i64::MAX)?;
    if percent_off.is_some() == amount_off.is_some() {
        return Err(match amount_off {
            Some(amount) => coupon.error(
                "amount_off",
                Some(&json!(amount)),
                "must not be given together with percent_off",
            ),
            None => coupon.missing("percent_off", "or amount_off is required"),
        });
    }
    if percent_off.is_some() {
        coupon.refuse("currency", "must be absent with percent_off")?;
        coupon.refuse("currency_options", "must be absent with percent_off")?;
    }
    let currency = currency::take(&mut coupon)?;
    if amount_off.is_some() && currency.is_none() {
        return Err(coupon.missing("currency", "is required with amount_off"));
    }
    let options = currency_options(&mut coupon, currency.as_deref(), amount_off)?;
    let duration = coupon.choice("duration", DURATIONS)?.unwrap_or("once");
    let months = coupon.integer("duration_in_months", 1..=MONTHS)?;
    if (duration == "repeating") != months.is_some() {
        return Err(match months {
            Some(months) => coupon.error(
                "duration_in_months",
                Some(&json!(months)),
                "must be absent unless duration is \"repeating\"",
            ),
            None => coupon.missing("duration_in_months", "is required when duration is \"repeating\""),
        });
    }
    Ok(Value::Object(to_object([
        ("amount_off", amount_off.map(Value::from)),
        (
            "applies_to",
            products(&mut coupon)?.map(|ids| json!({ "products": ids })),
        ),
        ("currency", currency.map(Value::String)),
        ("currency_options", options.map(Value::Object)),
        ("duration", Some(json!(duration))),
        ("duration_in_months", months.map(Value::from)),
        ("id", coupon.text("id", ID_LENGTH)?.map(Value::String)),
        (
            "max_redemptions",
            coupon.integer("max_redemptions", 1..=i64::MAX)?.map(Value::from),
        ),
        ("metadata", metadata::print(&metadata::take(&mut coupon)?)),
        ("name", coupon.text("name", NAME_LENGTH)?.map(Value::String)),
        ("percent_off", percent_off.map(Value::String)),
        ("redeem_by", time::take(&mut coupon, "redeem_by")?.map(time::print)),
    ])))
}

/// A percentage from 0 to 100 of at most four places, as plain digits.
pub(super) fn percent(object: &mut Object, field: &str) -> Result<Option<String>, Invalid> {
    let given = object.get(field).cloned();
    let Some(value): Option<Dec> = object.decimal(field)? else {
        return Ok(None);
    };
    let digits = plain_string(&value);
    match digits.parse::<Percent>() {
        Ok(_) => Ok(Some(digits)),
        Err(rule) => Err(object.error(field, given.as_ref(), rule.to_string())),
    }
}

/// Amounts in further currencies; Stripe repeats the coupon's own among them.
fn currency_options(
    coupon: &mut Object,
    currency: Option<&str>,
    amount_off: Option<i64>,
) -> Result<Option<Map<String, Value>>, Invalid> {
    const FIELD: &str = "currency_options";
    let given = coupon.take(FIELD);
    let Some(Value::Object(options)) = given else {
        return match given {
            None => Ok(None),
            Some(value) => Err(coupon.error(FIELD, Some(&value), "must be an object by currency")),
        };
    };
    let mut amounts = Map::new();
    for (code, option) in options {
        let path = format!("{FIELD}.{code}");
        let code =
            currency::known(&code).ok_or_else(|| coupon.error(&path, None, "is not a currency that Stripe knows"))?;
        let mut option = Object::open(NAME, &path, option, &OPTION)?;
        let given = option.get("amount_off").cloned();
        let amount = option
            .integer("amount_off", 1..=i64::MAX)?
            .ok_or_else(|| option.missing("amount_off", "is required"))?;
        if currency == Some(code.as_str()) {
            if amount_off != Some(amount) {
                return Err(option.error("amount_off", given.as_ref(), "must be the coupon's amount_off"));
            }
        } else {
            amounts.insert(code, json!({ "amount_off": amount }));
        }
    }
    Ok((!amounts.is_empty()).then_some(amounts))
}

fn products(coupon: &mut Object) -> Result<Option<Vec<String>>, Invalid> {
    let Some(mut applies_to) = coupon.object("applies_to", &APPLIES_TO)? else {
        return Ok(None);
    };
    let values = applies_to.array("products")?.unwrap_or_default();
    let mut products = Vec::new();
    for value in values {
        match value {
            Value::String(id) if !id.is_empty() && !products.contains(&id) => products.push(id),
            value => return Err(applies_to.error("products", Some(&value), "must be ids of products, each once")),
        }
    }
    Ok((!products.is_empty()).then_some(products))
}
