//! The event of a number.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::catalog::{CUSTOMERS, METERS, formula, name};
use crate::dice::Dice;

/// Microseconds since 1970 in UTC.
pub type Micros = i64;
pub const SECOND: Micros = 1_000_000;
pub const HOUR: Micros = 3600 * SECOND;
pub const DAY: Micros = 24 * HOUR;

#[derive(Debug, Clone)]
pub struct Event {
    pub meter: usize,
    pub customer: &'static str,
    pub identifier: String,
    pub thousandths: i64,
    /// `None`: the sender leaves it to the server.
    pub at: Option<Micros>,
    pub dimensions: BTreeMap<&'static str, String>,
}

/// All events that a run can send.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub seed: u64,
    /// When the run began: timestamps lie around it.
    pub start: Micros,
}

impl World {
    /// Two neighbours share their identifier and differ in meter or customer: one request may feed several meters.
    pub fn event(&self, number: u32) -> Event {
        let mut shared = self.dice(u64::from(number / 2) << 1);
        let mut own = self.dice(u64::from(number) << 1 | 1);
        // Of identifiers that ascend and of random ones, which meet the index in different places.
        let identifier = match shared.below(2) {
            0 => format!("{:010}-{}", number / 2, number / 2),
            _ => format!("{:016x}-{}", shared.seed(), number / 2),
        };
        let mut meter = shared.below(METERS);
        let mut customer = if shared.one_in(2) {
            0
        } else {
            shared.below(CUSTOMERS.len())
        };
        let other_meter = shared.one_in(2);
        if number % 2 == 1 {
            if other_meter {
                meter = (meter + 1) % METERS;
            } else {
                customer = (customer + 1) % CUSTOMERS.len();
            }
        }
        Event {
            meter,
            customer: CUSTOMERS[customer],
            identifier,
            thousandths: if formula(meter) == "unique_count" {
                1000
            } else {
                thousandths(&mut own)
            },
            at: self.timestamp(&mut own),
            dimensions: dimensions(meter, &mut own),
        }
    }

    /// The number of the event with this identity.
    pub fn number(&self, customer: &str, event_name: &str, identifier: &str) -> Option<u32> {
        let pair: u32 = identifier.rsplit('-').next()?.parse().ok()?;
        [pair.checked_mul(2)?, pair.checked_mul(2)?.checked_add(1)?]
            .into_iter()
            .find(|number| {
                let event = self.event(*number);
                event.customer == customer && name(event.meter) == event_name && event.identifier == identifier
            })
    }

    fn dice(&self, of: u64) -> Dice {
        Dice::new(Dice::new(self.seed ^ of.wrapping_mul(0x9e37_79b9_7f4a_7c15)).seed())
    }

    /// Within `billing.max_event_age` and `billing.max_event_lead` for longer than a run lasts.
    fn timestamp(&self, dice: &mut Dice) -> Option<Micros> {
        let at = self.start
            + match dice.below(20) {
                0..4 => return None,
                4..14 => dice.between(-2 * HOUR, 0),
                14..17 => dice.between(-2 * DAY, 0),
                17 => dice.between(-34 * DAY, 0),
                18 => dice.between(0, 240 * SECOND),
                _ => dice.between(-DAY, 0).div_euclid(HOUR) * HOUR,
            };
        Some(match dice.below(6) {
            0 | 1 => at.div_euclid(SECOND) * SECOND,
            2 if at < self.start - 2 * HOUR => at.div_euclid(HOUR) * HOUR,
            3 if at < self.start - 2 * DAY => at.div_euclid(DAY) * DAY,
            _ => at,
        })
    }
}

fn thousandths(dice: &mut Dice) -> i64 {
    match dice.below(4) {
        0 => 1000,
        1 => dice.between(0, 100) * 1000,
        2 => dice.between(-50_000, 50_000),
        _ => dice.between(-1_000_000_000_000, 10_000_000_000_000),
    }
}

fn dimensions(meter: usize, dice: &mut Dice) -> BTreeMap<&'static str, String> {
    let mut dimensions = BTreeMap::new();
    if formula(meter) == "unique_count" {
        dimensions.insert("seat", format!("s{}", dice.below(500)));
    }
    if meter >= METERS / 2 || dice.one_in(8) {
        dimensions.insert("region", (*dice.of(&["eu", "us", "ü\"'"])).to_owned());
        dimensions.insert("tier", dice.below(2).to_string());
    }
    // Declared by no meter.
    if dice.one_in(4) {
        dimensions.insert("note", (*dice.of(&["", "x"])).to_owned());
    }
    dimensions
}

impl Event {
    pub fn event_name(&self) -> String {
        name(self.meter)
    }

    pub fn value(&self) -> String {
        let magnitude = self.thousandths.unsigned_abs();
        let sign = if self.thousandths < 0 { "-" } else { "" };
        format!("{sign}{}.{:03}", magnitude / 1000, magnitude % 1000)
    }

    pub fn timestamp(&self) -> Option<DateTime<Utc>> {
        self.at.map(instant)
    }

    pub fn json(&self) -> Option<Value> {
        (!self.dimensions.is_empty()).then(|| json!(self.dimensions))
    }

    /// As Stripe's API takes it; whole seconds may come as a number.
    pub fn stripe(&self) -> Value {
        let mut payload = json!(self.dimensions);
        payload["customer"] = json!(self.customer);
        if formula(self.meter) != "unique_count" {
            payload["value"] = json!(self.value());
        }
        let mut event = json!({"event_name": self.event_name(), "identifier": self.identifier, "payload": payload});
        match self.at {
            Some(at) if at % SECOND == 0 => event["timestamp"] = json!(at / SECOND),
            Some(at) => event["timestamp"] = json!(instant(at).to_rfc3339()),
            None => {}
        }
        event
    }
}

pub fn instant(at: Micros) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at).unwrap_or_default()
}

/// Of decimal text; `None` when it has more than three decimals, which no event has.
pub fn in_thousandths(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (kept, rest) = fraction.split_at(fraction.len().min(3));
    if rest.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let thousandths: i128 = format!("{kept:0<3}").parse().ok()?;
    Some(sign * (whole * 1000 + thousandths))
}
