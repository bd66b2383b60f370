//! `billing.price`: what a quantity costs, in which currency, and how often.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use super::currency_options::Form;
use super::object::{Object, Shape, shown, word};
use super::{
    CurrencyOption, DimensionFilters, Invalid, Kind, ProductData, StripeObject, currency, currency_options,
    dimension_filters, model, product_data, to_object,
};
use crate::calendar::Interval;
use crate::pricing::{self, Bounds, Dec, Model};

/// Longest `lookup_key`, in characters (Stripe's limit).
const LOOKUP_KEY_LENGTH: usize = 200;
const NICKNAME_LENGTH: usize = 500;
/// Longest id or event name, in characters.
const ID_LENGTH: usize = 255;

/// Whether the price already holds its tax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaxBehavior {
    Unspecified,
    Inclusive,
    Exclusive,
}

pub(super) const TAX_BEHAVIORS: &[(&str, TaxBehavior)] = &[
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
    /// What a period costs at least and at most; none for a one-time price.
    pub bounds: Bounds,
    /// ISO 4217, three lowercase letters.
    pub currency: String,
    /// What it costs in other currencies, by their codes.
    pub currency_options: BTreeMap<String, CurrencyOption>,
    pub charge: Charge,
    /// Which of the meter's usage is billed: all where it is empty, as it is unless the price is metered.
    pub dimension_filters: DimensionFilters,
    pub lookup_key: Option<String>,
    pub model: Model,
    pub nickname: Option<String>,
    /// Id of the product; `None` where there is product data.
    pub product: Option<String>,
    /// The product to make together with the price. Whoever makes the price makes it, and keeps the price without this.
    pub product_data: Option<ProductData>,
    pub tax_behavior: TaxBehavior,
    /// The lookup key is taken from the price that has it. Whoever makes the price does so, and keeps it without this.
    pub transfer_lookup_key: bool,
}

const PRICE: Shape = Shape {
    fields: &[
        "active",
        "billing_scheme",
        "currency",
        "currency_options",
        "dimension_filters",
        "lookup_key",
        "maximum_amount",
        "minimum_amount",
        "nickname",
        "product",
        "product_data",
        "recurring",
        "tax_behavior",
        "tiers",
        "tiers_mode",
        "transfer_lookup_key",
        "transform_quantity",
        "type",
        "unit_amount",
        "unit_amount_decimal",
    ],
    accepted: &["created", "expand", "id", "livemode", "metadata", "object"],
    not_supported: &["custom_unit_amount"],
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
        price.refuse_unsupported(&PRICE).map_err(|error| {
            never(error).with_hint("An amount that the customer chooses is a matter of a checkout, not of a price.")
        })?;
        let charge = charge(&mut price)?;
        let form = Form {
            returned,
            recurring: charge != Charge::OneTime,
        };
        let own = CurrencyOption {
            model: model::take(&mut price, returned)?,
            bounds: currency_options::bounds(&mut price, form)?,
            tax_behavior: price
                .choice("tax_behavior", TAX_BEHAVIORS)?
                .unwrap_or(TaxBehavior::Unspecified),
        };
        let currency_options = currency_options::take(&mut price, &currency, &own, form)?;
        let product_data = product_data::take(&mut price)?;
        let (lookup_key, transfer_lookup_key) = lookup_key(&mut price)?;
        Ok(Self {
            active: price.boolean("active")?.unwrap_or(true),
            bounds: own.bounds,
            currency,
            currency_options,
            dimension_filters: filters(&mut price, &charge)?,
            charge,
            lookup_key,
            model: own.model,
            nickname: price.text("nickname", NICKNAME_LENGTH)?,
            product: price.id("product", ID_LENGTH)?,
            product_data,
            tax_behavior: own.tax_behavior,
            transfer_lookup_key,
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
            ("currency_options", currency_options::print(&self.currency_options)),
            ("dimension_filters", dimension_filters::print(&self.dimension_filters)),
            ("lookup_key", self.lookup_key.clone().map(Value::String)),
            ("nickname", self.nickname.clone().map(Value::String)),
            ("product", self.product.clone().map(Value::String)),
            ("product_data", self.product_data.as_ref().map(ProductData::print)),
            ("recurring", recurring),
            ("tax_behavior", Some(json!(word(TAX_BEHAVIORS, self.tax_behavior)))),
            ("transfer_lookup_key", self.transfer_lookup_key.then_some(json!(true))),
            ("type", Some(json!(kind))),
        ]);
        fields.extend(to_object(currency_options::print_bounds(&self.bounds)));
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

impl Price {
    /// What a quantity costs in a period: exact, unrounded, in minor units of the price's own currency.
    pub fn amount(&self, quantity: &Dec) -> Dec {
        self.bounds.clamp(pricing::amount(&self.model, quantity))
    }

    /// The steps to that amount, which they add up to.
    pub fn explain(&self, quantity: &Dec) -> Vec<pricing::Step> {
        pricing::explain(&self.model, &self.bounds, quantity)
    }

    /// The price as it is in one of its currencies, which then is its only one. The code may be in any case.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a currency that it has no amounts in, naming those that it has.
    pub fn in_currency(mut self, currency: &str) -> Result<Self, Invalid> {
        let code = currency.to_ascii_lowercase();
        let mut options = std::mem::take(&mut self.currency_options);
        if code == self.currency {
            return Ok(self);
        }
        let Some(option) = options.remove(&code) else {
            let others = options.keys().map(String::as_str);
            let currencies: Vec<&str> = std::iter::once(self.currency.as_str()).chain(others).collect();
            return Err(Invalid {
                kind: Kind::Invalid,
                object: Self::NAME,
                field: "currency".to_owned(),
                value: Some(shown(&json!(currency))),
                rule: format!("the price has amounts in {} only", currencies.join(", ")),
                hint: Some(
                    "Bill in one of these, or create a price with the currency among its currency_options.".to_owned(),
                ),
            });
        };
        Ok(Self {
            bounds: option.bounds,
            currency: code,
            model: option.model,
            tax_behavior: option.tax_behavior,
            ..self
        })
    }
}

/// The error for what is not going to be supported.
fn never(error: Invalid) -> Invalid {
    Invalid {
        rule: "is not supported".to_owned(),
        ..error
    }
}

fn lookup_key(price: &mut Object) -> Result<(Option<String>, bool), Invalid> {
    const FIELD: &str = "transfer_lookup_key";
    let key = price.text("lookup_key", LOOKUP_KEY_LENGTH)?;
    let transfer = price.boolean(FIELD)?.unwrap_or(false);
    if transfer && key.is_none() {
        return Err(price.error(FIELD, Some(&json!(true)), "must be absent unless lookup_key is given"));
    }
    Ok((key, transfer))
}

fn filters(price: &mut Object, charge: &Charge) -> Result<DimensionFilters, Invalid> {
    const FIELD: &str = "dimension_filters";
    let given = price.get(FIELD).cloned();
    let filters = dimension_filters::take(price)?;
    match charge {
        Charge::Recurring(Recurring {
            usage: Usage::Metered { .. },
            ..
        }) => Ok(filters),
        _ if filters.is_empty() => Ok(filters),
        _ => {
            let rule = "must be absent unless usage_type is \"metered\": it selects usage";
            Err(price.error(FIELD, given.as_ref(), rule))
        }
    }
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
    recurring.refuse_unsupported(&RECURRING).map_err(|error| {
        never(error).with_hint("The meter says how usage is aggregated: see its default_aggregation.")
    })?;
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
