//! `billing.price`: what a quantity costs, in which currency, and how often.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use super::object::{Object, Shape, word};
use super::{Invalid, StripeObject, currency, model, to_object};
use crate::calendar::Interval;
use crate::pricing::Model;

/// Longest `lookup_key`, in characters (Stripe's limit).
const LOOKUP_KEY_LENGTH: usize = 200;
const NICKNAME_LENGTH: usize = 500;
/// Longest id or event name, in characters.
const ID_LENGTH: usize = 255;

/// Whether the price already holds its tax. Kept for Stripe's sake; there are no taxes yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaxBehavior {
    Unspecified,
    Inclusive,
    Exclusive,
}

const TAX_BEHAVIORS: &[(&str, TaxBehavior)] = &[
    ("unspecified", TaxBehavior::Unspecified),
    ("inclusive", TaxBehavior::Inclusive),
    ("exclusive", TaxBehavior::Exclusive),
];

/// When a price is charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charge {
    OneTime,
    Recurring(Recurring),
}

/// A price's `recurring`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recurring {
    pub interval: Interval,
    /// At least 1; at most three years in all (Stripe's limit).
    pub interval_count: u32,
    pub usage: Usage,
}

/// Where the quantity comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Usage {
    /// The subscription item says it.
    Licensed,
    /// A meter, by its event name or id, counts it.
    Metered { meter: String },
}

/// A validated price. All amounts are in the currency's minor unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    pub active: bool,
    /// ISO 4217, three lowercase letters.
    pub currency: String,
    pub charge: Charge,
    pub lookup_key: Option<String>,
    pub model: Model,
    pub nickname: Option<String>,
    /// Id of the product.
    pub product: Option<String>,
    pub tax_behavior: TaxBehavior,
}

const PRICE: Shape = Shape {
    fields: &[
        "active",
        "billing_scheme",
        "currency",
        "lookup_key",
        "nickname",
        "product",
        "recurring",
        "tax_behavior",
        "tiers",
        "tiers_mode",
        "transform_quantity",
        "type",
        "unit_amount",
        "unit_amount_decimal",
    ],
    accepted: &["created", "expand", "id", "livemode", "metadata", "object"],
    not_supported: &[
        "currency_options",
        "custom_unit_amount",
        "product_data",
        "transfer_lookup_key",
    ],
};

/// `trial_period_days` has a meaning only through a subscription's `trial_from_plan`, which is not supported.
const RECURRING: Shape = Shape {
    fields: &["interval", "interval_count", "meter", "usage_type"],
    accepted: &["trial_period_days"],
    not_supported: &["aggregate_usage"],
};

const INTERVALS: &[(&str, Interval)] = &[
    ("day", Interval::Day),
    ("week", Interval::Week),
    ("month", Interval::Month),
    ("year", Interval::Year),
];

impl StripeObject for Price {
    const NAME: &'static str = "price";

    fn read(value: Value) -> Result<Self, Invalid> {
        let mut price = Object::open(Self::NAME, "", value, &PRICE)?;
        let returned = price.is_returned("price")?;
        let currency = currency::take(&mut price)?.ok_or_else(|| price.missing("currency", "is required"))?;
        if is_only(price.get("currency_options"), &currency) {
            price.take("currency_options");
        }
        price.refuse_unsupported(&PRICE)?;
        Ok(Self {
            active: price.boolean("active")?.unwrap_or(true),
            charge: charge(&mut price)?,
            model: model::take(&mut price, returned)?,
            lookup_key: price.text("lookup_key", LOOKUP_KEY_LENGTH)?,
            nickname: price.text("nickname", NICKNAME_LENGTH)?,
            product: price.id("product", ID_LENGTH)?,
            tax_behavior: price
                .choice("tax_behavior", TAX_BEHAVIORS)?
                .unwrap_or(TaxBehavior::Unspecified),
            currency,
        })
    }

    fn print(&self) -> Map<String, Value> {
        let (kind, recurring) = match &self.charge {
            Charge::OneTime => ("one_time", None),
            Charge::Recurring(recurring) => ("recurring", Some(recurring.print())),
        };
        let mut fields = to_object([
            ("active", Some(json!(self.active))),
            ("currency", Some(json!(self.currency))),
            ("lookup_key", self.lookup_key.clone().map(Value::String)),
            ("nickname", self.nickname.clone().map(Value::String)),
            ("product", self.product.clone().map(Value::String)),
            ("recurring", recurring),
            ("tax_behavior", Some(json!(word(TAX_BEHAVIORS, self.tax_behavior)))),
            ("type", Some(json!(kind))),
        ]);
        fields.extend(model::print(&self.model));
        fields
    }
}

impl Recurring {
    fn print(&self) -> Value {
        let (usage_type, meter) = match &self.usage {
            Usage::Licensed => ("licensed", None),
            Usage::Metered { meter } => ("metered", Some(json!(meter))),
        };
        Value::Object(to_object([
            ("interval", Some(json!(self.interval.as_str()))),
            ("interval_count", Some(Value::Number(Number::from(self.interval_count)))),
            ("meter", meter),
            ("usage_type", Some(json!(usage_type))),
        ]))
    }
}

/// Whether `currency_options` repeats the price's own currency and has no other.
fn is_only(options: Option<&Value>, currency: &str) -> bool {
    options
        .and_then(Value::as_object)
        .is_some_and(|options| options.keys().all(|key| key == currency))
}

fn charge(price: &mut Object) -> Result<Charge, Invalid> {
    let recurring = price.object("recurring", &RECURRING)?;
    let kind = price.get("type").cloned();
    let is_recurring = price.choice("type", &[("one_time", false), ("recurring", true)])?;
    match (recurring, is_recurring) {
        (None, Some(true)) => Err(price.missing("recurring", "is required when type is \"recurring\"")),
        (Some(_), Some(false)) => {
            Err(price.error("type", kind.as_ref(), "must be \"recurring\" when recurring is given"))
        }
        (None, _) => Ok(Charge::OneTime),
        (Some(recurring), _) => Ok(Charge::Recurring(read_recurring(recurring)?)),
    }
}

fn read_recurring(mut recurring: Object) -> Result<Recurring, Invalid> {
    recurring.refuse_unsupported(&RECURRING)?;
    let interval = recurring
        .choice("interval", INTERVALS)?
        .ok_or_else(|| recurring.missing("interval", "is required"))?;
    let interval_count = recurring
        .integer("interval_count", 1..=i64::from(interval.max_count()))
        .map_err(|error| error.with_hint("No billing interval is longer than three years."))?
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(1);
    let metered = recurring
        .choice("usage_type", &[("licensed", false), ("metered", true)])?
        .unwrap_or(false);
    let usage = if metered {
        let meter = recurring
            .text("meter", ID_LENGTH)?
            .ok_or_else(|| recurring.missing("meter", "is required when usage_type is \"metered\""))?;
        Usage::Metered { meter }
    } else {
        recurring.refuse("meter", "must be absent unless usage_type is \"metered\"")?;
        Usage::Licensed
    };
    Ok(Recurring {
        interval,
        interval_count,
        usage,
    })
}
