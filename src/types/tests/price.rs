mod currency_options;
mod own_fields;
mod read;
mod refused;

use serde_json::{Value, json};

use super::super::{Kind, Price};
use super::{refusal, with};
use crate::pricing::Dec;

fn dec(text: &str) -> Dec {
    text.parse().unwrap()
}

fn per_unit() -> Value {
    json!({ "currency": "usd", "unit_amount": 1000 })
}

fn monthly() -> Value {
    with(&per_unit(), json!({ "recurring": { "interval": "month" } }))
}

fn metered() -> Value {
    let recurring = json!({ "interval": "month", "usage_type": "metered", "meter": "calls" });
    with(&per_unit(), json!({ "recurring": recurring }))
}

fn tiered() -> Value {
    json!({
        "currency": "usd",
        "billing_scheme": "tiered",
        "tiers_mode": "graduated",
        "tiers": [{ "up_to": 10, "unit_amount": 7 }, { "up_to": "inf", "unit_amount_decimal": "6.5" }],
    })
}

/// As the API returns it: every field there, amounts in both forms.
fn returned() -> Value {
    json!({
        "id": "price_1Qd",
        "object": "price",
        "active": true,
        "billing_scheme": "per_unit",
        "created": 1735689600,
        "currency": "usd",
        "custom_unit_amount": null,
        "livemode": false,
        "lookup_key": null,
        "metadata": { "plan": "pro" },
        "nickname": null,
        "product": "prod_RWb",
        "recurring": {
            "interval": "month", "interval_count": 1, "meter": null, "trial_period_days": null, "usage_type": "licensed"
        },
        "tax_behavior": "unspecified",
        "tiers_mode": null,
        "transform_quantity": null,
        "type": "recurring",
        "unit_amount": 1000,
        "unit_amount_decimal": "1000",
    })
}

fn returned_tiered() -> Value {
    let tier = |up_to: Value, flat: Value, unit: Value, unit_decimal: &str| {
        json!({
            "flat_amount": flat,
            "flat_amount_decimal": flat.as_i64().map(|flat| flat.to_string()),
            "unit_amount": unit,
            "unit_amount_decimal": unit_decimal,
            "up_to": up_to,
        })
    };
    with(
        &returned(),
        json!({
            "billing_scheme": "tiered",
            "recurring": {
                "interval": "month", "interval_count": 1, "meter": "mtr_61Q", "trial_period_days": null,
                "usage_type": "metered"
            },
            "tiers": [
                tier(json!(1000), json!(500), json!(0), "0"),
                tier(Value::Null, Value::Null, Value::Null, "0.25"),
            ],
            "tiers_mode": "volume",
            "unit_amount": null,
            "unit_amount_decimal": null,
        }),
    )
}

fn refused(base: &Value, cases: Vec<(Value, &str)>) {
    for (changes, message) in cases {
        let error = refusal::<Price>(&with(base, changes));
        assert_eq!(
            (error.to_string(), error.kind),
            (format!("invalid price: {message}"), Kind::Invalid)
        );
    }
}
