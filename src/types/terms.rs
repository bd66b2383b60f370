//! Parts that subscriptions, changes of them and phases of their schedules have in common.

use std::collections::BTreeMap;

use chrono::serde::ts_microseconds_option;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::object::{Object, Shape, is_blank, word};
use super::{Invalid, time, to_object};

const ID_LENGTH: usize = 255;
/// Tax rates of a line (Stripe's limit).
const TAX_RATES: usize = 10;
/// Discounts of a subscription or an item (Stripe's limit).
const DISCOUNTS: usize = 20;

/// Usage that is worth an invoice before the period ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Minor units, above 0.
    pub amount_gte: i64,
    pub reset_billing_cycle_anchor: bool,
}

const THRESHOLDS: Shape = Shape {
    fields: &["amount_gte", "reset_billing_cycle_anchor"],
    accepted: &[],
    not_supported: &[],
};

impl Thresholds {
    pub(super) fn print(&self) -> Value {
        json!({ "amount_gte": self.amount_gte, "reset_billing_cycle_anchor": self.reset_billing_cycle_anchor })
    }
}

pub(super) fn thresholds(object: &mut Object) -> Result<Option<Thresholds>, Invalid> {
    let Some(mut given) = part(object, "billing_thresholds", &THRESHOLDS)? else {
        return Ok(None);
    };
    let amount_gte = given
        .integer("amount_gte", 1..=i64::MAX)?
        .ok_or_else(|| given.missing("amount_gte", "is required"))?;
    Ok(Some(Thresholds {
        amount_gte,
        reset_billing_cycle_anchor: given.boolean("reset_billing_cycle_anchor")?.unwrap_or(false),
    }))
}

const ITEM_THRESHOLDS: Shape = Shape {
    fields: &["usage_gte"],
    accepted: &[],
    not_supported: &[],
};

/// The threshold of an item.
pub(super) fn usage_gte(item: &mut Object) -> Result<Option<i64>, Invalid> {
    let Some(mut given) = part(item, "billing_thresholds", &ITEM_THRESHOLDS)? else {
        return Ok(None);
    };
    given
        .integer("usage_gte", 1..=i64::MAX)?
        .ok_or_else(|| given.missing("usage_gte", "is required"))
        .map(Some)
}

/// What becomes of invoices while their collection is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PauseBehavior {
    KeepAsDraft,
    MarkUncollectible,
    Void,
}

const PAUSE_BEHAVIORS: &[(&str, PauseBehavior)] = &[
    ("keep_as_draft", PauseBehavior::KeepAsDraft),
    ("mark_uncollectible", PauseBehavior::MarkUncollectible),
    ("void", PauseBehavior::Void),
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub behavior: PauseBehavior,
    #[serde(with = "ts_microseconds_option")]
    pub resumes_at: Option<DateTime<Utc>>,
}

const PAUSE: Shape = Shape {
    fields: &["behavior", "resumes_at"],
    accepted: &[],
    not_supported: &[],
};

impl Pause {
    pub(super) fn print(&self) -> Value {
        Value::Object(to_object([
            ("behavior", Some(json!(word(PAUSE_BEHAVIORS, self.behavior)))),
            ("resumes_at", self.resumes_at.map(time::print)),
        ]))
    }
}

pub(super) fn pause(object: &mut Object) -> Result<Option<Pause>, Invalid> {
    let Some(mut given) = part(object, "pause_collection", &PAUSE)? else {
        return Ok(None);
    };
    Ok(Some(Pause {
        behavior: given
            .choice("behavior", PAUSE_BEHAVIORS)?
            .ok_or_else(|| given.missing("behavior", "is required"))?,
        resumes_at: time::take(&mut given, "resumes_at")?,
    }))
}

/// When billing periods begin: on this day (the last one of a shorter month), at this time of day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorConfig {
    /// 1 to 31.
    pub day_of_month: u8,
    /// 1 to 12.
    pub month: Option<u8>,
    /// `None`: as the start's, also below.
    pub hour: Option<u8>,
    pub minute: Option<u8>,
    pub second: Option<u8>,
}

const ANCHOR_CONFIG: Shape = Shape {
    fields: &["day_of_month", "hour", "minute", "month", "second"],
    accepted: &[],
    not_supported: &[],
};

impl AnchorConfig {
    pub(super) fn print(&self) -> Value {
        Value::Object(to_object([
            ("day_of_month", Some(json!(self.day_of_month))),
            ("hour", self.hour.map(|hour| json!(hour))),
            ("minute", self.minute.map(|minute| json!(minute))),
            ("month", self.month.map(|month| json!(month))),
            ("second", self.second.map(|second| json!(second))),
        ]))
    }
}

pub(super) fn anchor_config(object: &mut Object) -> Result<Option<AnchorConfig>, Invalid> {
    let Some(mut given) = part(object, "billing_cycle_anchor_config", &ANCHOR_CONFIG)? else {
        return Ok(None);
    };
    let mut number = |field: &str, range| {
        given
            .integer(field, range)
            .map(|number| number.and_then(|number| u8::try_from(number).ok()))
    };
    let (day, month) = (number("day_of_month", 1..=31)?, number("month", 1..=12)?);
    let (hour, minute, second) = (
        number("hour", 0..=23)?,
        number("minute", 0..=59)?,
        number("second", 0..=59)?,
    );
    Ok(Some(AnchorConfig {
        day_of_month: day.ok_or_else(|| given.missing("day_of_month", "is required"))?,
        month,
        hour,
        minute,
        second,
    }))
}

/// When a subscription is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelAt {
    Time(#[serde(with = "chrono::serde::ts_microseconds")] DateTime<Utc>),
    /// The end of the current period of the item whose period ends first.
    MinPeriodEnd,
    /// … last.
    MaxPeriodEnd,
}

impl CancelAt {
    pub(super) fn print(self) -> Value {
        match self {
            CancelAt::Time(at) => time::print(at),
            CancelAt::MinPeriodEnd => json!("min_period_end"),
            CancelAt::MaxPeriodEnd => json!("max_period_end"),
        }
    }
}

pub(super) fn cancel_at(object: &mut Object) -> Result<Option<CancelAt>, Invalid> {
    const FIELD: &str = "cancel_at";
    let word = match object.get(FIELD).and_then(Value::as_str) {
        Some("min_period_end") => CancelAt::MinPeriodEnd,
        Some("max_period_end") => CancelAt::MaxPeriodEnd,
        Some("max_billed_until") => return Err(object.unsupported(FIELD, &json!("max_billed_until"))),
        _ => return Ok(time::take(object, FIELD)?.map(CancelAt::Time)),
    };
    object.take(FIELD);
    Ok(Some(word))
}

/// Ids of tax rates, or the objects that Stripe puts in their place.
pub(super) fn tax_rates(object: &mut Object, field: &str) -> Result<Vec<String>, Invalid> {
    let given = elements(object, field, TAX_RATES)?;
    let mut rates: Vec<String> = Vec::with_capacity(given.len());
    for (index, value) in given.into_iter().enumerate() {
        let rate = id(object, &format!("{field}[{index}]"), value)?;
        if rates.contains(&rate) {
            return Err(object.error(&format!("{field}[{index}]"), Some(&json!(rate)), "is given twice"));
        }
        rates.push(rate);
    }
    Ok(rates)
}

pub(super) fn print_tax_rates(rates: &[String]) -> Option<Value> {
    (!rates.is_empty()).then(|| json!(rates))
}

/// Ids of coupons. An object that Stripe returned holds its discounts, from whose ids no coupon can be told: those are
/// kept in `unsupported`, unless they are expanded.
pub(super) fn discounts(
    object: &mut Object,
    unsupported: &mut BTreeMap<String, String>,
    returned: bool,
) -> Result<Vec<String>, Invalid> {
    const FIELD: &str = "discounts";
    let given = elements(object, FIELD, DISCOUNTS)?;
    let mut coupons: Vec<String> = Vec::with_capacity(given.len());
    for (index, value) in given.iter().enumerate() {
        let path = format!("{FIELD}[{index}]");
        let coupon = ["/coupon", "/source/coupon"]
            .iter()
            .find_map(|pointer| value.pointer(pointer))
            .filter(|coupon| !coupon.is_null());
        let Some(coupon) = coupon else {
            let names_another = value.get("discount").or(value.get("promotion_code")).is_some();
            if returned {
                unsupported.insert(FIELD.to_owned(), json!(given).to_string());
                return Ok(Vec::new());
            } else if names_another {
                return Err(object.unsupported(&path, value));
            }
            return Err(object.error(&path, Some(value), "must be an object with \"coupon\""));
        };
        let coupon = id(object, &format!("{path}.coupon"), coupon.clone())?;
        if coupons.contains(&coupon) {
            return Err(object.error(&path, Some(&json!(coupon)), "is given twice"));
        }
        coupons.push(coupon);
    }
    Ok(coupons)
}

pub(super) fn print_discounts(coupons: &[String]) -> Option<Value> {
    (!coupons.is_empty()).then(|| coupons.iter().map(|coupon| json!({ "coupon": coupon })).collect())
}

/// An object that says something; Stripe's requests have an empty text for none.
fn part(object: &mut Object, field: &str, shape: &Shape) -> Result<Option<Object>, Invalid> {
    if object.get(field).is_some_and(is_blank) {
        object.take(field);
    }
    object.object(field, shape)
}

fn elements(object: &mut Object, field: &str, most: usize) -> Result<Vec<Value>, Invalid> {
    if object.get(field).is_some_and(is_blank) {
        object.take(field);
    }
    let given = object.array(field)?.unwrap_or_default();
    if given.len() > most {
        return Err(object.missing(field, format!("must have at most {most} elements, not {}", given.len())));
    }
    Ok(given)
}

fn id(object: &Object, path: &str, value: Value) -> Result<String, Invalid> {
    let text = value.get("id").unwrap_or(&value).as_str().map(str::to_owned);
    match text {
        Some(text) if (1..=ID_LENGTH).contains(&text.chars().count()) => Ok(text),
        _ => Err(object.error(path, Some(&value), "must be an id, or an object with an id")),
    }
}
