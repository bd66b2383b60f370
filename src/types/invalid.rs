//! Why a text or bytes are no value of a type.

use std::fmt;

/// What is wrong with a value, by the SQLSTATE that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The text is no JSON object: 22P02.
    Malformed,
    /// A field is unknown, missing, of the wrong type, out of range or contradicts another: 22023.
    Invalid,
    /// A field has a meaning in Stripe that is not built yet: 0A000.
    NotSupported,
    /// The stored bytes are no value of the type: XX001.
    Binary,
}

/// Why a text or bytes are no value of a type. `Display` is the message; the hint is apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub kind: Kind,
    /// `meter`, `price` or `subscription`.
    pub object: &'static str,
    /// Path of the field, such as `tiers[1].up_to`; empty when the object as a whole is meant.
    pub field: String,
    /// The offending value as JSON, shortened; `None` when the field is missing.
    pub value: Option<String>,
    pub rule: String,
    pub hint: Option<String>,
}

impl Invalid {
    /// What to do about a field of [`Kind::NotSupported`]. Of those that Stripe has retired: what has taken their place.
    pub(super) fn instead_of(field: &str) -> &'static str {
        match field.rsplit('.').next().unwrap_or(field) {
            "coupon" | "discount" | "promotion_code" => {
                "Use \"discounts\": [{\"coupon\": \"…\"}], with the id of a row of billing.coupons."
            }
            "plan" | "quantity" => "Use \"items\": [{\"price\": \"…\", \"quantity\": …}].",
            "tax_percent" => "Use \"default_tax_rates\", with ids of rows of billing.tax_rates.",
            "trial_from_plan" => "Use \"trial_period_days\" or \"trial_end\".",
            _ => "Leave the field out: it would change what is billed, and nothing here bills by it.",
        }
    }

    pub(super) fn binary(object: &'static str, rule: String) -> Self {
        Self {
            kind: Kind::Binary,
            object,
            field: String::new(),
            value: None,
            rule,
            hint: None,
        }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Binary => write!(formatter, "invalid stored {}", self.object)?,
            _ => write!(formatter, "invalid {}", self.object)?,
        }
        if !self.field.is_empty() {
            write!(formatter, ": field \"{}\"", self.field)?;
        }
        if let Some(value) = &self.value {
            write!(formatter, ", value {value}")?;
        }
        write!(formatter, ": {}", self.rule)
    }
}

impl std::error::Error for Invalid {}
