//! `billing.meter`: which events are counted, and how they become a quantity.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::object::{Object, Shape, word};
use super::{Invalid, StripeObject, to_object};

/// Longest `event_name` and payload key, in characters (Stripe's limits).
const KEY_LENGTH: usize = 100;
const DISPLAY_NAME_LENGTH: usize = 250;

/// Where events of this meter carry their value, unless the meter says otherwise.
const DEFAULT_VALUE_KEY: &str = "value";

/// `default_aggregation.formula`. Stripe knows the first three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Formula {
    Sum,
    Count,
    Last,
    Max,
    Min,
    UniqueCount,
    WeightedSum,
}

const FORMULAS: &[(&str, Formula)] = &[
    ("sum", Formula::Sum),
    ("count", Formula::Count),
    ("last", Formula::Last),
    ("max", Formula::Max),
    ("min", Formula::Min),
    ("unique_count", Formula::UniqueCount),
    ("weighted_sum", Formula::WeightedSum),
];

impl Formula {
    /// The formula of a name as Stripe writes it, such as `unique_count`.
    pub fn from_name(name: &str) -> Option<Formula> {
        FORMULAS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, formula)| *formula)
    }
}

/// Events are aggregated before they are sent: of each window only the one received last counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventTimeWindow {
    Hour,
    Day,
}

const WINDOWS: &[(&str, EventTimeWindow)] = &[("hour", EventTimeWindow::Hour), ("day", EventTimeWindow::Day)];

/// A validated meter. `Meter` knows no status: deactivating is a matter of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Payload key of the customer's id. `None`: the meter names none, so events may use `customer` or Stripe's
    /// `stripe_customer_id`.
    pub customer_key: Option<String>,
    pub formula: Formula,
    /// Payload keys that usage is also split by: distinct, in the order given; empty when there are none.
    pub dimension_keys: Vec<String>,
    pub display_name: Option<String>,
    /// 1 to 100 characters.
    pub event_name: String,
    pub event_time_window: Option<EventTimeWindow>,
    /// Payload key of the value; `value` unless the meter names another.
    pub value_key: String,
}

const METER: Shape = Shape {
    fields: &[
        "customer_mapping",
        "default_aggregation",
        "dimension_payload_keys",
        "display_name",
        "event_name",
        "event_time_window",
        "value_settings",
    ],
    accepted: &[
        "created",
        "expand",
        "id",
        "livemode",
        "metadata",
        "object",
        "status",
        "status_transitions",
        "updated",
    ],
    not_supported: &[],
};
const CUSTOMER_MAPPING: Shape = Shape {
    fields: &["event_payload_key", "type"],
    accepted: &[],
    not_supported: &[],
};
const DEFAULT_AGGREGATION: Shape = Shape {
    fields: &["formula"],
    accepted: &[],
    not_supported: &[],
};
const VALUE_SETTINGS: Shape = Shape {
    fields: &["event_payload_key"],
    accepted: &[],
    not_supported: &[],
};

impl StripeObject for Meter {
    const NAME: &'static str = "meter";

    fn read(value: Value) -> Result<Self, Invalid> {
        let mut meter = Object::open(Self::NAME, "", value, &METER)?;
        meter.is_returned("billing.meter")?;

        let event_name = meter.required_text("event_name", KEY_LENGTH)?;
        let formula = match meter.object("default_aggregation", &DEFAULT_AGGREGATION)? {
            Some(mut aggregation) => aggregation
                .choice("formula", FORMULAS)?
                .ok_or_else(|| aggregation.missing("formula", "is required"))?,
            None => return Err(meter.missing("default_aggregation", "is required")),
        };
        let customer_key = match meter.object("customer_mapping", &CUSTOMER_MAPPING)? {
            Some(mut mapping) => {
                mapping
                    .choice("type", &[("by_id", ())])?
                    .ok_or_else(|| mapping.missing("type", "is required"))?;
                Some(mapping.required_text("event_payload_key", KEY_LENGTH)?)
            }
            None => None,
        };
        let value_key = match meter.object("value_settings", &VALUE_SETTINGS)? {
            Some(mut settings) => settings.required_text("event_payload_key", KEY_LENGTH)?,
            None => DEFAULT_VALUE_KEY.to_owned(),
        };
        Ok(Self {
            customer_key,
            formula,
            dimension_keys: dimension_keys(&mut meter)?,
            display_name: meter.text("display_name", DISPLAY_NAME_LENGTH)?,
            event_name,
            event_time_window: meter.choice("event_time_window", WINDOWS)?,
            value_key,
        })
    }

    fn print(&self) -> Map<String, Value> {
        let customer_mapping = |key| json!({ "event_payload_key": key, "type": "by_id" });
        to_object([
            ("customer_mapping", self.customer_key.as_ref().map(customer_mapping)),
            (
                "default_aggregation",
                Some(json!({ "formula": word(FORMULAS, self.formula) })),
            ),
            (
                "dimension_payload_keys",
                (!self.dimension_keys.is_empty()).then(|| json!(self.dimension_keys)),
            ),
            ("display_name", self.display_name.clone().map(Value::String)),
            ("event_name", Some(json!(self.event_name))),
            (
                "event_time_window",
                self.event_time_window.map(|window| json!(word(WINDOWS, window))),
            ),
            ("value_settings", Some(json!({ "event_payload_key": self.value_key }))),
        ])
    }
}

fn dimension_keys(meter: &mut Object) -> Result<Vec<String>, Invalid> {
    const FIELD: &str = "dimension_payload_keys";
    let mut keys = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, value) in meter.array(FIELD)?.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        let key = match &value {
            Value::String(key) if !key.is_empty() && key.chars().count() <= KEY_LENGTH => key.clone(),
            _ => {
                let rule = format!("must be a string of 1 to {KEY_LENGTH} characters");
                return Err(meter.error(&field, Some(&value), rule));
            }
        };
        if !seen.insert(key.clone()) {
            return Err(meter.error(&field, Some(&value), "is given twice"));
        }
        keys.push(key);
    }
    Ok(keys)
}
