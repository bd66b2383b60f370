//! The three value types. Their text is the JSON object that Stripe's API uses for that object, normalised on output;
//! their stored form is a version byte followed by a compact encoding in which equal values have equal bytes.

mod bill;
mod change;
mod choices;
mod coupon;
mod credit_grant;
mod currency;
mod currency_options;
mod dimension_filters;
mod invalid;
mod item;
mod json;
mod metadata;
mod meter;
mod model;
mod object;
mod price;
mod product_data;
mod schedule;
mod subscription;
mod tax_rate;
mod terms;
mod time;

#[cfg(test)]
mod tests;

pub use bill::normalised_bill;
pub use change::changes;
pub use choices::{CollectionMethod, PaymentBehavior, ProrationBehavior, TrialEndBehavior};
pub use coupon::coupon;
pub use credit_grant::{credit_grant, credit_grant_changes};
pub use currency::exponent as currency_exponent;
pub use currency_options::CurrencyOption;
pub use dimension_filters::DimensionFilters;
pub use invalid::{Invalid, Kind};
pub use item::Item;
pub use meter::{EventTimeWindow, Formula, Meter};
pub use price::{Charge, Price, Recurring, TaxBehavior, Usage};
pub use product_data::ProductData;
pub use schedule::schedule;
pub use subscription::Subscription;
pub use tax_rate::tax_rate;
pub use terms::{AnchorConfig, CancelAt, Pause, PauseBehavior, Thresholds};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// First byte of the stored form. A later layout takes the next number and keeps reading this one.
const VERSION: u8 = 1;

/// A value type whose text is one of Stripe's objects.
pub trait StripeObject: Serialize + DeserializeOwned + PartialEq {
    /// What messages call it; also the name of the SQL type.
    const NAME: &'static str;

    /// Reads and validates the object that a text held.
    ///
    /// # Errors
    /// The field, its value and the rule that it breaks.
    fn read(object: Value) -> Result<Self, Invalid>;

    /// The fields of the normalised text; absent ones are left out.
    fn print(&self) -> Map<String, Value>;

    /// Reads a value from its JSON text: Stripe's create parameters, or an object that Stripe returned.
    ///
    /// # Errors
    /// [`Kind::Malformed`] when the text is no JSON object, [`Kind::Invalid`] when a field breaks a rule,
    /// [`Kind::NotSupported`] when a field asks for what is not built yet.
    fn parse(text: &str) -> Result<Self, Invalid> {
        Self::read(json::parse(Self::NAME, text)?)
    }

    /// The normalised JSON text, fields in Stripe's (alphabetical) order. [`StripeObject::parse`] reads it back as the
    /// same value.
    fn to_json(&self) -> String {
        Value::Object(self.print()).to_string()
    }

    /// The stored form: equal values have equal bytes.
    ///
    /// # Errors
    /// [`Kind::Binary`] when the encoder fails; it has no reason to.
    fn to_bytes(&self) -> Result<Vec<u8>, Invalid> {
        postcard::to_extend(self, vec![VERSION]).map_err(|error| Invalid::binary(Self::NAME, error.to_string()))
    }

    /// Reads the stored form as [`StripeObject::to_bytes`] wrote it; the rules of the fields are not checked again.
    ///
    /// # Errors
    /// [`Kind::Binary`] for bytes that are no such value.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let broken = |rule: String| Invalid::binary(Self::NAME, rule);
        let Some((&version, body)) = bytes.split_first() else {
            return Err(broken("is empty".to_owned()));
        };
        if version != VERSION {
            return Err(broken(format!(
                "has layout version {version}; this build reads version {VERSION}"
            )));
        }
        match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(broken(format!("has {} bytes too many", rest.len()))),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

/// `pairs` that have a value, as a JSON object.
fn to_object(pairs: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Map<String, Value> {
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}
