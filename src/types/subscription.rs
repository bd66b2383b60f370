//! `billing.subscription`: which prices a customer pays, from when on, and how.

use std::collections::BTreeMap;

use chrono::serde::ts_microseconds_option;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use super::choices::{
    COLLECTION_METHODS, CollectionMethod, PAYMENT_BEHAVIORS, PRORATION_BEHAVIORS, PaymentBehavior, ProrationBehavior,
    TrialEndBehavior, print_trial_settings, refuse_pending, trial_settings,
};
use super::item::{self, Item};
use super::object::{Object, Shape, is_blank, join, word};
use super::terms::{self, AnchorConfig, CancelAt, Pause, Thresholds};
use super::{Invalid, Kind, StripeObject, currency, metadata, time, to_object};

/// Longest id, in characters.
const ID_LENGTH: usize = 255;
pub(super) const DESCRIPTION_LENGTH: usize = 500;
/// Longest trial, in days (Stripe's limit: two years).
const TRIAL_DAYS: i64 = 730;
pub(super) const DAYS_UNTIL_DUE: i64 = 3650;

/// A validated subscription. Times are UTC, to the microsecond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Never together with `billing_cycle_anchor_config`, `start_date` or a trial.
    #[serde(with = "ts_microseconds_option")]
    pub backdate_start_date: Option<DateTime<Utc>>,
    #[serde(with = "ts_microseconds_option")]
    pub billing_cycle_anchor: Option<DateTime<Utc>>,
    /// With an anchor only in an object that Stripe returned: there the anchor's day is cut to the length of its month.
    pub billing_cycle_anchor_config: Option<AnchorConfig>,
    pub billing_thresholds: Option<Thresholds>,
    /// Never together with `cancel_at_period_end`.
    pub cancel_at: Option<CancelAt>,
    pub cancel_at_period_end: bool,
    pub collection_method: CollectionMethod,
    /// ISO 4217, three lowercase letters; `None`: that of the prices.
    pub currency: Option<String>,
    /// Id of the customer, 1 to 255 characters.
    pub customer: String,
    /// Given if and only if invoices are sent.
    pub days_until_due: Option<u32>,
    pub default_payment_method: Option<String>,
    /// Ids, at most 10.
    pub default_tax_rates: Vec<String>,
    pub description: Option<String>,
    /// Ids of coupons, at most 20.
    pub discounts: Vec<String>,
    /// 1 to 20, in the order given, each with another price.
    pub items: Vec<Item>,
    pub metadata: BTreeMap<String, String>,
    pub pause_collection: Option<Pause>,
    pub payment_behavior: Option<PaymentBehavior>,
    pub proration_behavior: ProrationBehavior,
    #[serde(with = "ts_microseconds_option")]
    pub start_date: Option<DateTime<Utc>>,
    /// Never together with `trial_period_days`.
    #[serde(with = "ts_microseconds_option")]
    pub trial_end: Option<DateTime<Utc>>,
    /// 1 to 730.
    pub trial_period_days: Option<u32>,
    pub trial_settings: TrialEndBehavior,
    /// Fields of a returned object that are not built yet, as JSON: see [`Subscription::refuse_unsupported`].
    pub unsupported: BTreeMap<String, String>,
}

/// Fields of requests that change no amount.
pub(super) const IN_REQUESTS: &[&str] = &[
    "application_fee_percent",
    "cancellation_details",
    "default_source",
    "expand",
    "invoice_settings",
    "off_session",
    "on_behalf_of",
    "payment_settings",
    "transfer_data",
];

const SUBSCRIPTION: Shape = Shape {
    fields: &[
        "backdate_start_date",
        "billing_cycle_anchor",
        "billing_cycle_anchor_config",
        "billing_thresholds",
        "cancel_at",
        "cancel_at_period_end",
        "collection_method",
        "currency",
        "customer",
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
        "start_date",
        "trial_end",
        "trial_period_days",
        "trial_settings",
    ],
    // Who is paid, by which means, what invoices look like, and what happened so far: none of it changes an amount.
    // Proration follows Stripe's flexible billing mode whatever billing_mode says.
    accepted: &join::<27>(
        IN_REQUESTS,
        &[
            "application",
            "billing_mode",
            "canceled_at",
            "created",
            "current_period_end",
            "current_period_start",
            "customer_account",
            "ended_at",
            "id",
            "latest_invoice",
            "livemode",
            "next_pending_invoice_item_invoice",
            "object",
            "pending_setup_intent",
            "presentment_details",
            "status",
            "test_clock",
            "trial_start",
        ],
    ),
    not_supported: &[
        "add_invoice_items",
        "automatic_tax",
        "billing_schedules",
        "coupon",
        "discount",
        "managed_payments",
        "pending_invoice_item_interval",
        "pending_update",
        "plan",
        "promotion_code",
        "quantity",
        "schedule",
        "tax_percent",
        "trial_from_plan",
    ],
};

impl StripeObject for Subscription {
    const NAME: &'static str = "subscription";

    fn read(value: Value) -> Result<Self, Invalid> {
        let mut subscription = Object::open(Self::NAME, "", value, &SUBSCRIPTION)?;
        let returned = subscription.is_returned("subscription")?;
        forget_defaults(&mut subscription, returned);
        let mut unsupported = subscription.take_unsupported(&SUBSCRIPTION, returned)?;

        let (cancel_at, cancel_at_period_end) = cancellation(&mut subscription, returned)?;
        let (collection_method, days_until_due) = collection(&mut subscription)?;
        let backdate_start_date = backdate(&mut subscription)?;
        let start_date = time::take(&mut subscription, "start_date")?;
        let (trial_end, trial_period_days) = trial(&mut subscription, start_date)?;
        let (billing_cycle_anchor, billing_cycle_anchor_config) = anchor(&mut subscription, returned)?;
        Ok(Self {
            backdate_start_date,
            billing_cycle_anchor,
            billing_cycle_anchor_config,
            billing_thresholds: terms::thresholds(&mut subscription)?,
            cancel_at,
            cancel_at_period_end,
            collection_method,
            currency: currency::take(&mut subscription)?,
            customer: subscription
                .id("customer", ID_LENGTH)?
                .ok_or_else(|| subscription.missing("customer", "is required"))?,
            days_until_due,
            default_payment_method: subscription.id("default_payment_method", ID_LENGTH)?,
            default_tax_rates: terms::tax_rates(&mut subscription, "default_tax_rates")?,
            description: subscription.text("description", DESCRIPTION_LENGTH)?,
            discounts: terms::discounts(&mut subscription, &mut unsupported, returned)?,
            items: item::take(&mut subscription, returned)?,
            metadata: metadata::take(&mut subscription)?,
            pause_collection: terms::pause(&mut subscription)?,
            payment_behavior: payment_behavior(&mut subscription, collection_method)?,
            proration_behavior: subscription
                .choice("proration_behavior", PRORATION_BEHAVIORS)?
                .unwrap_or(ProrationBehavior::CreateProrations),
            start_date,
            trial_end,
            trial_period_days,
            trial_settings: trial_settings(&mut subscription)?,
            unsupported,
        })
    }

    fn print(&self) -> Map<String, Value> {
        let days = |days| Value::Number(Number::from(days));
        // Only a returned object may have them; so the text has to say that it is one.
        let is_returned = !self.unsupported.is_empty()
            || self.billing_cycle_anchor.is_some() && self.billing_cycle_anchor_config.is_some()
            || self.items.iter().any(|item| !item.unsupported.is_empty());
        let mut fields = to_object([
            ("backdate_start_date", self.backdate_start_date.map(time::print)),
            ("billing_cycle_anchor", self.billing_cycle_anchor.map(time::print)),
            (
                "billing_cycle_anchor_config",
                self.billing_cycle_anchor_config.as_ref().map(AnchorConfig::print),
            ),
            (
                "billing_thresholds",
                self.billing_thresholds.as_ref().map(Thresholds::print),
            ),
            ("cancel_at", self.cancel_at.map(CancelAt::print)),
            ("cancel_at_period_end", Some(json!(self.cancel_at_period_end))),
            (
                "collection_method",
                Some(json!(word(COLLECTION_METHODS, self.collection_method))),
            ),
            ("currency", self.currency.clone().map(Value::String)),
            ("customer", Some(json!(self.customer))),
            ("days_until_due", self.days_until_due.map(days)),
            (
                "default_payment_method",
                self.default_payment_method.clone().map(Value::String),
            ),
            ("default_tax_rates", terms::print_tax_rates(&self.default_tax_rates)),
            ("description", self.description.clone().map(Value::String)),
            ("discounts", terms::print_discounts(&self.discounts)),
            ("items", Some(self.items.iter().map(Item::print).collect())),
            ("metadata", metadata::print(&self.metadata)),
            ("object", is_returned.then(|| json!("subscription"))),
            ("pause_collection", self.pause_collection.as_ref().map(Pause::print)),
            (
                "payment_behavior",
                self.payment_behavior
                    .map(|behavior| json!(word(PAYMENT_BEHAVIORS, behavior))),
            ),
            (
                "proration_behavior",
                Some(json!(word(PRORATION_BEHAVIORS, self.proration_behavior))),
            ),
            ("start_date", self.start_date.map(time::print)),
            ("trial_end", self.trial_end.map(time::print)),
            ("trial_period_days", self.trial_period_days.map(days)),
            (
                "trial_settings",
                Some(self.trial_settings)
                    .filter(|behavior| *behavior != TrialEndBehavior::CreateInvoice)
                    .and_then(print_trial_settings),
            ),
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
                hint: Some(Invalid::instead_of(&field).to_owned()),
                field,
                value: Some(value.clone()),
                rule: "is not supported yet".to_owned(),
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
    if !returned {
        return;
    }
    // What was asked for at its creation has been done.
    subscription.take("payment_behavior");
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

fn cancellation(subscription: &mut Object, returned: bool) -> Result<(Option<CancelAt>, bool), Invalid> {
    const FIELD: &str = "cancel_at";
    let given = subscription.get(FIELD).cloned();
    let at = terms::cancel_at(subscription)?;
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

/// What a start is that is invoiced at once: from `start_date` on period after period is.
fn backdate(subscription: &mut Object) -> Result<Option<DateTime<Utc>>, Invalid> {
    const FIELD: &str = "backdate_start_date";
    for other in [
        "start_date",
        "billing_cycle_anchor_config",
        "trial_end",
        "trial_period_days",
    ] {
        if subscription.has(other) {
            subscription.refuse(FIELD, &format!("must not be given together with {other}"))?;
        }
    }
    time::take(subscription, FIELD)
}

fn anchor(subscription: &mut Object, returned: bool) -> Result<(Option<DateTime<Utc>>, Option<AnchorConfig>), Invalid> {
    const FIELD: &str = "billing_cycle_anchor_config";
    if subscription.has("billing_cycle_anchor") && !returned {
        subscription.refuse(FIELD, "must not be given together with billing_cycle_anchor")?;
    }
    Ok((
        time::take(subscription, "billing_cycle_anchor")?,
        terms::anchor_config(subscription)?,
    ))
}

fn payment_behavior(subscription: &mut Object, method: CollectionMethod) -> Result<Option<PaymentBehavior>, Invalid> {
    const FIELD: &str = "payment_behavior";
    refuse_pending(subscription)?;
    let given = subscription.get(FIELD).cloned();
    match subscription.choice(FIELD, PAYMENT_BEHAVIORS)? {
        Some(PaymentBehavior::DefaultIncomplete) if method == CollectionMethod::SendInvoice => Err(subscription.error(
            FIELD,
            given.as_ref(),
            "must not be given when collection_method is \"send_invoice\"",
        )),
        behavior => Ok(behavior),
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

pub(super) fn days(
    subscription: &mut Object,
    field: &str,
    range: std::ops::RangeInclusive<i64>,
) -> Result<Option<u32>, Invalid> {
    Ok(subscription
        .integer(field, range)?
        .and_then(|days| u32::try_from(days).ok()))
}
