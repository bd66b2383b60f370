//! What `create_subscription_schedule` and `update_subscription_schedule` take: phases, one after another.

use serde_json::{Map, Value, json};

use super::choices::{COLLECTION_METHODS, CollectionMethod, PRORATION_BEHAVIORS};
use super::item;
use super::object::{Object, Shape, is_blank, word};
use super::subscription::{self, DAYS_UNTIL_DUE, DESCRIPTION_LENGTH};
use super::terms::{self, Thresholds};
use super::{Invalid, currency, json, metadata, time, to_object};
use crate::calendar::Interval;

const NAME: &str = "subscription schedule";
/// Phases that a schedule may have (Stripe's limit).
const PHASES: usize = 10;

const CREATED: Shape = Shape {
    fields: &[
        "customer",
        "default_settings",
        "end_behavior",
        "from_subscription",
        "metadata",
        "phases",
        "start_date",
    ],
    accepted: &["expand"],
    not_supported: &["billing_mode"],
};
const UPDATED: Shape = Shape {
    fields: &[
        "default_settings",
        "end_behavior",
        "metadata",
        "phases",
        "proration_behavior",
    ],
    accepted: &["expand"],
    not_supported: &[],
};
const PHASE: Shape = Shape {
    fields: &[
        "billing_cycle_anchor",
        "billing_thresholds",
        "collection_method",
        "currency",
        "default_payment_method",
        "default_tax_rates",
        "description",
        "discounts",
        "duration",
        "end_date",
        "invoice_settings",
        "items",
        "iterations",
        "metadata",
        "proration_behavior",
        "start_date",
        "trial",
        "trial_end",
    ],
    accepted: &["application_fee_percent", "on_behalf_of", "transfer_data"],
    not_supported: &["add_invoice_items", "automatic_tax", "coupon", "trial_continuation"],
};
const DURATION: Shape = Shape {
    fields: &["interval", "interval_count"],
    accepted: &[],
    not_supported: &[],
};
const SETTINGS: Shape = Shape {
    fields: &[
        "billing_cycle_anchor",
        "billing_thresholds",
        "collection_method",
        "default_payment_method",
        "description",
        "invoice_settings",
    ],
    accepted: &["application_fee_percent", "on_behalf_of", "transfer_data"],
    not_supported: &["automatic_tax"],
};
const INVOICE_SETTINGS: Shape = Shape {
    fields: &["days_until_due"],
    accepted: &["account_tax_ids", "issuer"],
    not_supported: &[],
};
const END_BEHAVIORS: &[(&str, &str)] = &[("release", "release"), ("cancel", "cancel")];
const ANCHORS: &[(&str, &str)] = &[("automatic", "automatic"), ("phase_start", "phase_start")];
const INTERVALS: &[(&str, Interval)] = &[
    ("day", Interval::Day),
    ("week", Interval::Week),
    ("month", Interval::Month),
    ("year", Interval::Year),
];

/// The schedule that a text describes, validated and normalised: times as ISO 8601, ids in place of objects, and
/// `days_until_due` out of its `invoice_settings`. `update`: the text is of an update, not of a creation.
///
/// # Errors
/// As those of [`super::StripeObject::parse`].
pub fn schedule(text: &str, update: bool) -> Result<String, Invalid> {
    let shape = if update { &UPDATED } else { &CREATED };
    let mut given = Object::open(NAME, "", json::parse(NAME, text)?, shape)?;
    if !update && given.has("from_subscription") {
        for field in ["customer", "default_settings", "end_behavior", "phases", "start_date"] {
            given.refuse(field, "must not be given together with from_subscription")?;
        }
    }
    let start = if given.get("start_date").is_some_and(|start| start == "now") {
        given.take("start_date");
        None
    } else {
        time::take(&mut given, "start_date")?.map(time::print)
    };
    let metadata = if update {
        metadata::changes(&mut given)?
    } else {
        metadata::print(&metadata::take(&mut given)?)
    };
    let settings = given.object("default_settings", &SETTINGS)?;
    let settings = settings.map_or(Ok(None), |mut settings| {
        settings.refuse_unsupported(&SETTINGS)?;
        shared(&mut settings).map(Some)
    })?;
    let behavior = given.choice("proration_behavior", PRORATION_BEHAVIORS)?;
    let printed = to_object([
        ("customer", given.id("customer", item::ID_LENGTH)?.map(Value::String)),
        ("default_settings", settings.map(Value::Object)),
        (
            "end_behavior",
            given.choice("end_behavior", END_BEHAVIORS)?.map(|word| json!(word)),
        ),
        (
            "from_subscription",
            given.id("from_subscription", item::ID_LENGTH)?.map(Value::String),
        ),
        ("metadata", metadata),
        ("phases", phases(&mut given)?),
        (
            "proration_behavior",
            behavior.map(|behavior| json!(word(PRORATION_BEHAVIORS, behavior))),
        ),
        ("start_date", start),
    ]);
    if !update && !printed.contains_key("from_subscription") {
        for field in ["customer", "phases"] {
            if !printed.contains_key(field) {
                return Err(given.missing(field, "is required"));
            }
        }
    }
    Ok(Value::Object(printed).to_string())
}

fn phases(given: &mut Object) -> Result<Option<Value>, Invalid> {
    const FIELD: &str = "phases";
    let Some(values) = given.array(FIELD)? else {
        return Ok(None);
    };
    if !(1..=PHASES).contains(&values.len()) {
        let rule = format!("must have 1 to {PHASES} phases, not {}", values.len());
        return Err(given.missing(FIELD, rule));
    }
    let mut phases = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let mut object = given.element(FIELD, index, value, &PHASE)?;
        phases.push(phase(&mut object)?);
    }
    Ok(Some(Value::Array(phases)))
}

fn phase(given: &mut Object) -> Result<Value, Invalid> {
    given.refuse_unsupported(&PHASE)?;
    let ways = ["duration", "end_date", "iterations"];
    if let Some(twice) = ways.iter().filter(|way| given.has(way)).nth(1) {
        given.refuse(twice, "must not be given together with another end of the phase")?;
    }
    let trial = given.boolean("trial")?.unwrap_or(false);
    if trial {
        given.refuse("trial_end", "must not be given together with trial")?;
    }
    let mut phase = shared(given)?;
    let behavior = given.choice("proration_behavior", PRORATION_BEHAVIORS)?;
    phase.extend(to_object([
        ("currency", currency::take(given)?.map(Value::String)),
        (
            "default_tax_rates",
            terms::print_tax_rates(&terms::tax_rates(given, "default_tax_rates")?),
        ),
        (
            "discounts",
            terms::print_discounts(&terms::discounts(given, &mut std::collections::BTreeMap::new(), false)?),
        ),
        ("duration", duration(given)?),
        ("end_date", time::take(given, "end_date")?.map(time::print)),
        (
            "items",
            Some(item::take(given, false)?.iter().map(item::Item::print).collect()),
        ),
        (
            "iterations",
            given.integer("iterations", 1..=1200)?.map(|count| json!(count)),
        ),
        ("metadata", metadata::print(&metadata::take(given)?)),
        (
            "proration_behavior",
            behavior.map(|behavior| json!(word(PRORATION_BEHAVIORS, behavior))),
        ),
        ("start_date", time::take(given, "start_date")?.map(time::print)),
        ("trial", Some(json!(true)).filter(|_| trial)),
        ("trial_end", time::take(given, "trial_end")?.map(time::print)),
    ]));
    Ok(Value::Object(phase))
}

fn duration(given: &mut Object) -> Result<Option<Value>, Invalid> {
    let Some(mut duration) = given.object("duration", &DURATION)? else {
        return Ok(None);
    };
    let interval = duration
        .choice("interval", INTERVALS)?
        .ok_or_else(|| duration.missing("interval", "is required"))?;
    let most = i64::from(interval.max_count());
    let count = duration.integer("interval_count", 1..=most)?.unwrap_or(1);
    Ok(Some(json!({ "interval": interval.as_str(), "interval_count": count })))
}

/// What a phase may say and else takes from `default_settings`.
fn shared(given: &mut Object) -> Result<Map<String, Value>, Invalid> {
    if given.get("invoice_settings").is_some_and(is_blank) {
        given.take("invoice_settings");
    }
    let days = given
        .object("invoice_settings", &INVOICE_SETTINGS)?
        .map_or(Ok(None), |mut settings| {
            subscription::days(&mut settings, "days_until_due", 0..=DAYS_UNTIL_DUE)
        })?;
    let method = given.choice("collection_method", COLLECTION_METHODS)?;
    if method == Some(CollectionMethod::SendInvoice) && days.is_none() {
        return Err(given.missing(
            "invoice_settings.days_until_due",
            "is required when collection_method is \"send_invoice\"",
        ));
    } else if method != Some(CollectionMethod::SendInvoice)
        && let Some(days) = days
    {
        return Err(given.error(
            "invoice_settings.days_until_due",
            Some(&json!(days)),
            "must be absent unless collection_method is \"send_invoice\"",
        ));
    }
    Ok(to_object([
        (
            "billing_cycle_anchor",
            given.choice("billing_cycle_anchor", ANCHORS)?.map(|word| json!(word)),
        ),
        (
            "billing_thresholds",
            terms::thresholds(given)?.as_ref().map(Thresholds::print),
        ),
        (
            "collection_method",
            method.map(|method| json!(word(COLLECTION_METHODS, method))),
        ),
        ("days_until_due", days.map(|days| json!(days))),
        (
            "default_payment_method",
            given.id("default_payment_method", item::ID_LENGTH)?.map(Value::String),
        ),
        (
            "description",
            given.text("description", DESCRIPTION_LENGTH)?.map(Value::String),
        ),
    ]))
}
