//! `billing.subscription`: which prices a customer pays, from when on, and how.

use std::collections::BTreeMap;

use chrono::serde::ts_microseconds_option;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use super::item::{self, Item};
use super::object::{Object, Shape, is_blank, word};
use super::{Invalid, Kind, StripeObject, currency, metadata, time, to_object};

/// Longest id, in characters.
const ID_LENGTH: usize = 255;
const DESCRIPTION_LENGTH: usize = 500;
/// Longest trial, in days (Stripe's limit: two years).
const TRIAL_DAYS: i64 = 730;
const DAYS_UNTIL_DUE: i64 = 3650;

/// Who acts so that an invoice gets paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionMethod {
    ChargeAutomatically,
    SendInvoice,
}

const COLLECTION_METHODS: &[(&str, CollectionMethod)] = &[
    ("charge_automatically", CollectionMethod::ChargeAutomatically),
    ("send_invoice", CollectionMethod::SendInvoice),
];

/// What becomes of the part of a period before the billing cycle anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProrationBehavior {
    CreateProrations,
    None,
    AlwaysInvoice,
}

const PRORATION_BEHAVIORS: &[(&str, ProrationBehavior)] = &[
    ("create_prorations", ProrationBehavior::CreateProrations),
    ("none", ProrationBehavior::None),
    ("always_invoice", ProrationBehavior::AlwaysInvoice),
];

/// A validated subscription. Times are UTC, to the microsecond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    #[serde(with = "ts_microseconds_option")]
    pub billing_cycle_anchor: Option<DateTime<Utc>>,
    /// Never together with `cancel_at_period_end`.
    #[serde(with = "ts_microseconds_option")]
    pub cancel_at: Option<DateTime<Utc>>,
    pub cancel_at_period_end: bool,
    pub collection_method: CollectionMethod,
    /// ISO 4217, three lowercase letters; `None`: that of the prices.
    pub currency: Option<String>,
    /// Id of the customer, 1 to 255 characters.
    pub customer: String,
    /// Given if and only if invoices are sent.
    pub days_until_due: Option<u32>,
    pub description: Option<String>,
    /// 1 to 20, in the order given, each with another price.
    pub items: Vec<Item>,
    pub metadata: BTreeMap<String, String>,
    pub proration_behavior: ProrationBehavior,
    #[serde(with = "ts_microseconds_option")]
    pub start_date: Option<DateTime<Utc>>,
    /// Never together with `trial_period_days`.
    #[serde(with = "ts_microseconds_option")]
    pub trial_end: Option<DateTime<Utc>>,
    /// 1 to 730.
    pub trial_period_days: Option<u32>,
    /// Fields of a returned object that are not built yet, as JSON: see [`Subscription::refuse_unsupported`].
    pub unsupported: BTreeMap<String, String>,
}

const SUBSCRIPTION: Shape = Shape {
    fields: &[
        "billing_cycle_anchor",
        "cancel_at",
        "cancel_at_period_end",
        "collection_method",
        "currency",
        "customer",
        "days_until_due",
        "description",
        "items",
        "metadata",
        "proration_behavior",
        "start_date",
        "trial_end",
        "trial_period_days",
    ],
    // Who is paid, by which means, what invoices look like, and what happened so far: none of it changes an amount.
    // Proration follows Stripe's flexible billing mode whatever billing_mode says.
    accepted: &[
        "application",
        "application_fee_percent",
        "billing_mode",
        "canceled_at",
        "cancellation_details",
        "created",
        "current_period_end",
        "current_period_start",
        "customer_account",
        "default_payment_method",
        "default_source",
        "ended_at",
        "expand",
        "id",
        "invoice_settings",
        "latest_invoice",
        "livemode",
        "next_pending_invoice_item_invoice",
        "object",
        "off_session",
        "on_behalf_of",
        "payment_behavior",
        "payment_settings",
        "pending_setup_intent",
        "presentment_details",
        "status",
        "test_clock",
        "transfer_data",
        "trial_start",
    ],
    not_supported: &[
        "add_invoice_items",
        "automatic_tax",
        "backdate_start_date",
        "billing_cycle_anchor_config",
        "billing_schedules",
        "billing_thresholds",
        "coupon",
        "default_tax_rates",
        "discount",
        "discounts",
        "managed_payments",
        "pause_collection",
        "pending_invoice_item_interval",
        "pending_update",
        "plan",
        "promotion_code",
        "quantity",
        "schedule",
        "tax_percent",
        "trial_from_plan",
        "trial_settings",
    ],
};

impl StripeObject for Subscription {
    const NAME: &'static str = "subscription";

    fn read(value: Value) -> Result<Self, Invalid> {
        let mut subscription = Object::open(Self::NAME, "", value, &SUBSCRIPTION)?;
        let returned = subscription.is_returned("subscription")?;
        forget_defaults(&mut subscription, returned);
        let unsupported = subscription.take_unsupported(&SUBSCRIPTION, returned)?;

        let (cancel_at, cancel_at_period_end) = cancellation(&mut subscription, returned)?;
        let (collection_method, days_until_due) = collection(&mut subscription)?;
        let start_date = time::take(&mut subscription, "start_date")?;
        let (trial_end, trial_period_days) = trial(&mut subscription, start_date)?;
        Ok(Self {
            billing_cycle_anchor: time::take(&mut subscription, "billing_cycle_anchor")?,
            cancel_at,
            cancel_at_period_end,
            collection_method,
            currency: currency::take(&mut subscription)?,
            customer: subscription
                .id("customer", ID_LENGTH)?
                .ok_or_else(|| subscription.missing("customer", "is required"))?,
            days_until_due,
            description: subscription.text("description", DESCRIPTION_LENGTH)?,
            items: item::take(&mut subscription, returned)?,
            metadata: metadata::take(&mut subscription)?,
            proration_behavior: subscription
                .choice("proration_behavior", PRORATION_BEHAVIORS)?
                .unwrap_or(ProrationBehavior::CreateProrations),
            start_date,
            trial_end,
            trial_period_days,
            unsupported,
        })
    }

    fn print(&self) -> Map<String, Value> {
        let days = |days| Value::Number(Number::from(days));
        // Only a returned object may have them; so the text has to say that it is one.
        let is_returned = !self.unsupported.is_empty() || self.items.iter().any(|item| !item.unsupported.is_empty());
        let mut fields = to_object([
            ("billing_cycle_anchor", self.billing_cycle_anchor.map(time::print)),
            ("cancel_at", self.cancel_at.map(time::print)),
            ("cancel_at_period_end", Some(json!(self.cancel_at_period_end))),
            (
                "collection_method",
                Some(json!(word(COLLECTION_METHODS, self.collection_method))),
            ),
            ("currency", self.currency.clone().map(Value::String)),
            ("customer", Some(json!(self.customer))),
            ("days_until_due", self.days_until_due.map(days)),
            ("description", self.description.clone().map(Value::String)),
            ("items", Some(self.items.iter().map(Item::print).collect())),
            ("metadata", metadata::print(&self.metadata)),
            ("object", is_returned.then(|| json!("subscription"))),
            (
                "proration_behavior",
                Some(json!(word(PRORATION_BEHAVIORS, self.proration_behavior))),
            ),
            ("start_date", self.start_date.map(time::print)),
            ("trial_end", self.trial_end.map(time::print)),
            ("trial_period_days", self.trial_period_days.map(days)),
        ]);
        fields.extend(item::print_unsupported(&self.unsupported));
        fields
    }
}

impl Subscription {
    /// An object that Stripe returned can be read and kept whole even where it asks for what is not built yet. Whoever
    /// is about to bill by it calls this first: those fields mean money.
    ///
    /// # Errors
    /// [`Kind::NotSupported`] naming the first such field.
    pub fn refuse_unsupported(&self) -> Result<(), Invalid> {
        let of_items = self.items.iter().enumerate().flat_map(|(index, item)| {
            item.unsupported
                .iter()
                .map(move |(field, value)| (format!("items[{index}].{field}"), value))
        });
        let first = self
            .unsupported
            .iter()
            .map(|(field, value)| (field.clone(), value))
            .chain(of_items)
            .next();
        first.map_or(Ok(()), |(field, value)| {
            Err(Invalid {
                kind: Kind::NotSupported,
                object: Self::NAME,
                field,
                value: Some(value.clone()),
                rule: "is not supported yet".to_owned(),
                hint: None,
            })
        })
    }
}

/// Takes out what Stripe returns in every subscription and what changes nothing as it stands.
fn forget_defaults(subscription: &mut Object, returned: bool) {
    let at = |value: Option<&Value>, path: &str| value.and_then(|value| value.pointer(path)).cloned();
    let tax = at(subscription.get("automatic_tax"), "/enabled");
    if tax.is_none_or(|enabled| is_blank(&enabled)) {
        subscription.take("automatic_tax");
    }
    let end = at(
        subscription.get("trial_settings"),
        "/end_behavior/missing_payment_method",
    );
    if end.is_some_and(|behavior| behavior == "create_invoice") {
        subscription.take("trial_settings");
    }
    if !returned {
        return;
    }
    // The configuration has become the anchor. It says more only where its day was cut to the length of the month.
    let day = at(subscription.get("billing_cycle_anchor_config"), "/day_of_month");
    let anchor = subscription
        .get("billing_cycle_anchor")
        .and_then(|anchor| time::read(anchor).ok());
    if anchor.is_some_and(|anchor| day == Some(json!(anchor.day()))) {
        subscription.take("billing_cycle_anchor_config");
    }
    // Before 2020 these repeated the only item.
    subscription.take("plan");
    subscription.take("quantity");
}

fn cancellation(subscription: &mut Object, returned: bool) -> Result<(Option<DateTime<Utc>>, bool), Invalid> {
    const FIELD: &str = "cancel_at";
    let given = subscription.get(FIELD).cloned();
    if let Some(value) = &given
        && ["max_billed_until", "max_period_end", "min_period_end"]
            .iter()
            .any(|word| value == *word)
    {
        return Err(subscription.unsupported(FIELD, value));
    }
    let at = time::take(subscription, FIELD)?;
    let at_period_end = subscription.boolean("cancel_at_period_end")?.unwrap_or(false);
    match at {
        // A returned object says when its period ends.
        Some(_) if at_period_end && returned => Ok((None, true)),
        Some(_) if at_period_end => Err(subscription.error(
            FIELD,
            given.as_ref(),
            "must not be given together with cancel_at_period_end",
        )),
        at => Ok((at, at_period_end)),
    }
}

fn collection(subscription: &mut Object) -> Result<(CollectionMethod, Option<u32>), Invalid> {
    const FIELD: &str = "days_until_due";
    let method = subscription
        .choice("collection_method", COLLECTION_METHODS)?
        .unwrap_or(CollectionMethod::ChargeAutomatically);
    if method == CollectionMethod::ChargeAutomatically {
        subscription.refuse(FIELD, "must be absent unless collection_method is \"send_invoice\"")?;
        return Ok((method, None));
    }
    let days = days(subscription, FIELD, 0..=DAYS_UNTIL_DUE)?
        .ok_or_else(|| subscription.missing(FIELD, "is required when collection_method is \"send_invoice\""))?;
    Ok((method, Some(days)))
}

fn trial(
    subscription: &mut Object,
    start: Option<DateTime<Utc>>,
) -> Result<(Option<DateTime<Utc>>, Option<u32>), Invalid> {
    const FIELD: &str = "trial_end";
    let given = subscription.get(FIELD).cloned();
    if subscription.has("trial_period_days") {
        subscription.refuse(FIELD, "must not be given together with trial_period_days")?;
    }
    // Stripe's word for a trial that is over at once.
    if given.as_ref().is_some_and(|value| value == "now") {
        subscription.take(FIELD);
    }
    let end = time::take(subscription, FIELD)?;
    if let (Some(start), Some(end)) = (start, end) {
        if end < start {
            return Err(subscription.error(FIELD, given.as_ref(), "must not be before start_date"));
        }
        if end - start > TimeDelta::days(TRIAL_DAYS) {
            let rule = format!("must be at most {TRIAL_DAYS} days after start_date");
            return Err(subscription.error(FIELD, given.as_ref(), rule));
        }
    }
    Ok((end, days(subscription, "trial_period_days", 1..=TRIAL_DAYS)?))
}

fn days(subscription: &mut Object, field: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<u32>, Invalid> {
    Ok(subscription
        .integer(field, range)?
        .and_then(|days| u32::try_from(days).ok()))
}
