//! The words that a subscription, a change of one and a schedule's phase choose from.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Invalid;
use super::object::{Object, Shape, word};

/// Who acts so that an invoice gets paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionMethod {
    ChargeAutomatically,
    SendInvoice,
}

pub(super) const COLLECTION_METHODS: &[(&str, CollectionMethod)] = &[
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

pub(super) const PRORATION_BEHAVIORS: &[(&str, ProrationBehavior)] = &[
    ("create_prorations", ProrationBehavior::CreateProrations),
    ("none", ProrationBehavior::None),
    ("always_invoice", ProrationBehavior::AlwaysInvoice),
];

/// Whether a subscription waits for its first invoice to be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaymentBehavior {
    AllowIncomplete,
    DefaultIncomplete,
}

pub(super) const PAYMENT_BEHAVIORS: &[(&str, PaymentBehavior)] = &[
    ("allow_incomplete", PaymentBehavior::AllowIncomplete),
    ("default_incomplete", PaymentBehavior::DefaultIncomplete),
];

/// What the end of a trial does to a subscription without a payment method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrialEndBehavior {
    CreateInvoice,
    Cancel,
    Pause,
}

const TRIAL_END_BEHAVIORS: &[(&str, TrialEndBehavior)] = &[
    ("create_invoice", TrialEndBehavior::CreateInvoice),
    ("cancel", TrialEndBehavior::Cancel),
    ("pause", TrialEndBehavior::Pause),
];
const TRIAL_SETTINGS: Shape = Shape {
    fields: &["end_behavior"],
    accepted: &[],
    not_supported: &[],
};
const END_BEHAVIOR: Shape = Shape {
    fields: &["missing_payment_method"],
    accepted: &[],
    not_supported: &[],
};

/// Refuses the behaviors that need a payment before anything is done.
pub(super) fn refuse_pending(object: &Object) -> Result<(), Invalid> {
    const FIELD: &str = "payment_behavior";
    match object.get(FIELD) {
        Some(value)
            if ["error_if_incomplete", "pending_if_incomplete"]
                .iter()
                .any(|word| value == *word) =>
        {
            Err(object.unsupported(FIELD, value))
        }
        _ => Ok(()),
    }
}

pub(super) fn print_trial_settings(behavior: TrialEndBehavior) -> Option<Value> {
    word(TRIAL_END_BEHAVIORS, behavior).map(|word| json!({ "end_behavior": { "missing_payment_method": word } }))
}

pub(super) fn trial_settings(subscription: &mut Object) -> Result<TrialEndBehavior, Invalid> {
    let settings = subscription.object("trial_settings", &TRIAL_SETTINGS)?;
    let end = settings.map_or(Ok(None), |mut settings| settings.object("end_behavior", &END_BEHAVIOR))?;
    let behavior = end.map_or(Ok(None), |mut end| {
        end.choice("missing_payment_method", TRIAL_END_BEHAVIORS)
    })?;
    Ok(behavior.unwrap_or(TrialEndBehavior::CreateInvoice))
}
