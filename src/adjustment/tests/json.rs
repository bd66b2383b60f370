//! The form in which SQL hands an invoice over.

use serde_json::{Value, json};

use super::*;

fn read(value: &Value) -> Result<Invoice, String> {
    serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())
}

fn sample() -> Value {
    json!({
        "created": "1970-02-01T00:00:00+00:00",
        "tax_exempt": "none",
        "lines": [{
            "amount": 1000, "discountable": true, "item": "si_1", "product": null, "price": "call", "metered": true,
            "period_end": "1970-02-01T00:00:00.000001+00:00", "tax_rates": ["txr_1"],
        }],
        "discounts": [
            {"id": "di_1", "percent_off": 12.5, "amount_off": null, "products": ["api"], "item": "si_1", "end_at": null},
            {"id": "di_2", "amount_off": 5, "end_at": "1970-04-01T00:00:00+00:00"},
        ],
        "credit_grants": [{
            "id": "credgr_1", "balance": 7, "prices": null, "priority": 50, "category": "promotional",
            "effective_at": "1970-01-01T00:00:00+00:00", "expires_at": null, "created": "1970-01-01T00:00:00+00:00",
        }],
        "tax_rates": [{"id": "txr_1", "percentage": 7.6250, "inclusive": false}],
    })
}

#[test]
fn an_invoice_is_read_as_it_stands() {
    let invoice = read(&sample()).unwrap();
    assert_eq!(invoice.lines[0].period_end, day(31) + TimeDelta::microseconds(1));
    assert_eq!(invoice.discounts[0].off, Off::Percent(percent("12.5")));
    assert_eq!(invoice.discounts[1].off, Off::Amount(5));
    assert_eq!(invoice.credit_grants[0].category, Category::Promotional);
    assert_eq!(invoice.tax_rates[0].percentage, percent("7.625"));
}

#[test]
fn what_breaks_a_rule_is_refused_by_name() {
    let refused = |path: &str, value: Value, word: &str| {
        let mut invoice = sample();
        *invoice.pointer_mut(path).unwrap() = value;
        let error = read(&invoice).unwrap_err();
        assert!(error.contains(word), "{path}: {error}");
    };
    refused("/created", json!("yesterday"), "invalid characters");
    refused("/tax_exempt", json!("maybe"), "maybe");
    refused("/lines/0/amount", json!(1.5), "1.5");
    refused("/lines/0/amount", json!(9_223_372_036_854_775_808_u64), "expected i64");
    refused("/discounts/0/percent_off", json!(100.00001), "at most 4 decimal places");
    refused("/discounts/0/amount_off", json!(5), "needs percent_off or amount_off");
    refused("/discounts/1/amount_off", json!(0), "is 0");
    refused("/discounts/1/amount_off", json!(-1), "is -1");
    refused(
        "/discounts/1/amount_off",
        json!(null),
        "needs percent_off or amount_off",
    );
    refused("/tax_rates/0/percentage", json!(-1), "from 0 to 100");
    refused("/lines/0", json!({"amount": 1}), "missing field");
    let mut extra = sample();
    extra["lines"][0]["colour"] = json!("red");
    assert!(read(&extra).unwrap_err().contains("colour"));
}
