//! What is measured, what it costs, who is billed and what is watched.

use chrono::{DateTime, SecondsFormat, TimeZone, Utc};
use harness::{Error, Result};
use postgres::Client;
use serde_json::json;

use crate::flights::Airline;

pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub const METERS: [&str; 4] = [
    r#"{"event_name": "departures", "display_name": "Departures", "default_aggregation": {"formula": "count"}}"#,
    r#"{"event_name": "miles", "display_name": "Miles flown", "default_aggregation": {"formula": "sum"}}"#,
    r#"{"event_name": "aircraft", "display_name": "Aircraft in service",
        "default_aggregation": {"formula": "unique_count"}, "value_settings": {"event_payload_key": "tail_number"}}"#,
    r#"{"event_name": "slots", "display_name": "Airport slots",
        "default_aggregation": {"formula": "count"}, "dimension_payload_keys": ["airport"]}"#,
];

pub struct Price {
    pub id: &'static str,
    /// The product's name, which invoice lines carry.
    pub product: &'static str,
    /// The meter; `None`: licensed.
    pub meter: Option<&'static str>,
    /// For people.
    pub terms: &'static str,
    /// As Stripe's API writes it; amounts in cents.
    pub json: &'static str,
}

pub const PRICES: [Price; 5] = [
    Price {
        id: "price_counters",
        product: "Check-in counters",
        meter: None,
        terms: "monthly fee: $2,500 for each airport served, in advance",
        json: r#"{"currency": "usd", "unit_amount": 250000, "recurring": {"interval": "month"}}"#,
    },
    Price {
        id: "price_departures",
        product: "Departures",
        meter: Some("departures"),
        terms: "volume: all of a month's at one price, $45 down to $27.50",
        json: r#"{"currency": "usd", "billing_scheme": "tiered", "tiers_mode": "volume",
            "tiers": [{"up_to": 100, "unit_amount": 4500}, {"up_to": 1000, "unit_amount": 3800},
                      {"up_to": 4000, "unit_amount": 3150}, {"up_to": "inf", "unit_amount": 2750}],
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "departures"}}"#,
    },
    Price {
        id: "price_miles",
        product: "Air navigation, by the mile",
        meter: Some("miles"),
        terms: "graduated: $100 and 0.3525 cents a mile, down to 0.18375 cents",
        json: r#"{"currency": "usd", "billing_scheme": "tiered", "tiers_mode": "graduated",
            "tiers": [{"up_to": 100000, "unit_amount_decimal": "0.3525", "flat_amount": 10000},
                      {"up_to": 1000000, "unit_amount_decimal": "0.275"},
                      {"up_to": 5000000, "unit_amount_decimal": "0.2125"},
                      {"up_to": "inf", "unit_amount_decimal": "0.18375"}],
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "miles"}}"#,
    },
    Price {
        id: "price_aircraft",
        product: "Aircraft in service",
        meter: Some("aircraft"),
        terms: "per unit: $150 for each tail number of the month",
        json: r#"{"currency": "usd", "unit_amount": 15000,
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "aircraft"}}"#,
    },
    Price {
        id: "price_slots",
        product: "Airport slots",
        meter: Some("slots"),
        terms: "package: $99 for every 50 begun",
        json: r#"{"currency": "usd", "unit_amount": 9900, "transform_quantity": {"divide_by": 50, "round": "up"},
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "slots"}}"#,
    },
];

pub struct Alert {
    pub title: &'static str,
    pub event_name: &'static str,
    pub gte: i64,
    /// `None`: each customer, for itself.
    pub customer: Option<&'static str>,
    pub recurrence: &'static str,
}

pub const ALERTS: [Alert; 4] = [
    Alert {
        title: "5,000 departures in a month",
        event_name: "departures",
        gte: 5_000,
        customer: None,
        recurrence: "per_period",
    },
    Alert {
        title: "480 aircraft in a month",
        event_name: "aircraft",
        gte: 480,
        customer: Some("DL"),
        recurrence: "per_period",
    },
    Alert {
        title: "25 million miles",
        event_name: "miles",
        gte: 25_000_000,
        customer: None,
        recurrence: "one_time",
    },
    Alert {
        title: "50,000 slots",
        event_name: "slots",
        gte: 50_000,
        customer: Some("UA"),
        recurrence: "one_time",
    },
];

/// Where month `index` (0: January; 12: January 2014) begins: midnight in New York in winter, one o'clock in summer. No
/// flight is scheduled in that hour, so a billing month holds the flights of New York's calendar month.
pub fn month_start(index: usize) -> Result<DateTime<Utc>> {
    let (year, month) = (2013 + (index / 12) as i32, (index % 12) as u32 + 1);
    let start = Utc.with_ymd_and_hms(year, month, 1, 5, 0, 0).single();
    start.ok_or_else(|| Error::new(format!("no month {index} of 2013")))
}

/// Customers, meters, products, prices and alerts.
pub fn create(client: &mut Client, airlines: &[Airline]) -> Result<()> {
    for airline in airlines {
        client.query(
            "SELECT billing.create_customer($1, $2)",
            &[&airline.carrier, &airline.name],
        )?;
    }
    for meter in METERS {
        client.query("SELECT billing.create_meter($1::text::billing.meter)", &[&meter])?;
    }
    for price in PRICES {
        let product = price.id.replace("price_", "prod_");
        client.query("SELECT billing.create_product($1, $2)", &[&product, &price.product])?;
        client.query(
            "SELECT billing.create_price($1::text::billing.price, $2, $3)",
            &[&price.json, &product, &price.id],
        )?;
    }
    for alert in ALERTS {
        client.query(
            "SELECT billing.create_alert($1, $2::int8::numeric, $3, $4, $5)",
            &[
                &alert.event_name,
                &alert.gte,
                &alert.customer,
                &alert.recurrence,
                &alert.title,
            ],
        )?;
    }
    Ok(())
}

/// One subscription to everything, from the start of the year.
pub fn subscribe(client: &mut Client, carrier: &str, airports: i64) -> Result<()> {
    let items: Vec<_> = PRICES
        .iter()
        .map(|price| match price.meter {
            Some(_) => json!({"price": price.id}),
            None => json!({"price": price.id, "quantity": airports}),
        })
        .collect();
    let start = month_start(0)?;
    let subscription = json!({
        "customer": carrier,
        "items": items,
        "start_date": start.to_rfc3339_opts(SecondsFormat::Secs, true),
        "collection_method": "send_invoice",
        "days_until_due": 30,
    });
    client.query(
        "SELECT billing.create_subscription($1::text::billing.subscription, $2, $3)",
        &[&subscription.to_string(), &format!("sub_{carrier}"), &start],
    )?;
    Ok(())
}
