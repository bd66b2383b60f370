//! What is put on a bill by hand.

use serde_json::{Value, json};

use super::with;
use crate::types::{Invalid, Kind, normalised_bill};

fn read(kind: &str, object: &Value) -> Result<Value, Invalid> {
    normalised_bill(kind, &object.to_string()).map(|text| serde_json::from_str(&text.unwrap()).unwrap())
}

fn refused(kind: &str, object: &Value) -> Invalid {
    read(kind, object).expect_err(&object.to_string())
}

#[test]
fn an_item_is_normalised() {
    let item = json!({"customer": "acme", "currency": "USD", "unit_amount_decimal": "-0.250", "quantity": 2.0, "metadata": {},
        "description": "", "subscription": {"id": "sub", "status": "active"}, "tax_rates": ["a"], "discountable": false,
        "period": {"start": 0, "end": "2024-01-01T01:00:00+01:00"}, "invoice": null});
    assert_eq!(
        read("invoice_item", &item).unwrap(),
        json!({"customer": "acme", "currency": "usd", "unit_amount": "-0.25", "quantity": "2", "subscription": "sub",
            "tax_rates": ["a"], "discountable": false,
            "period": {"start": "1970-01-01T00:00:00Z", "end": "2024-01-01T00:00:00Z"}})
    );
    let whole = json!({"customer": "acme", "amount": i64::MIN});
    assert_eq!(read("invoice_item", &whole).unwrap(), whole);
    let unit = json!({"customer": "acme", "unit_amount": -7});
    assert_eq!(read("invoice_item", &unit).unwrap()["unit_amount"], "-7");
    let zero = json!({"customer": "acme", "unit_amount_decimal": "-0"});
    assert_eq!(read("invoice_item", &zero).unwrap()["unit_amount"], "0");
}

#[test]
fn an_item_that_contradicts_itself_is_refused_by_field() {
    let item = json!({"customer": "acme", "amount": 5});
    for (changes, field) in [
        (json!({"customer": null}), "customer"),
        (json!({"amount": null}), "amount"),
        (json!({"amount": "5"}), "amount"),
        (json!({"amount": 5.5}), "amount"),
        (json!({"unit_amount": 1}), "unit_amount"),
        (json!({"price": "p"}), "price"),
        (json!({"quantity": 1}), "quantity"),
        (
            json!({"amount": null, "unit_amount_decimal": "--1"}),
            "unit_amount_decimal",
        ),
        (
            json!({"amount": null, "unit_amount_decimal": "1e3"}),
            "unit_amount_decimal",
        ),
        (
            json!({"amount": null, "unit_amount_decimal": 1, "quantity": "-1"}),
            "quantity",
        ),
        (json!({"period": {"start": 5}}), "period.end"),
        (json!({"period": {"start": 5, "end": 4}}), "period.end"),
        (json!({"period": {"start": 5, "end": 6, "middle": 5}}), "period.middle"),
        (json!({"tax_rates": [""]}), "tax_rates"),
        (json!({"currency": "dollar"}), "currency"),
        (json!({"shape": "round"}), "shape"),
    ] {
        let invalid = refused("invoice_item", &with(&item, changes.clone()));
        assert_eq!(
            (invalid.kind, invalid.field.as_str()),
            (Kind::Invalid, field),
            "{changes}"
        );
    }
    let invalid = refused("invoice_item", &with(&item, json!({"discounts": [{"coupon": "c"}]})));
    assert_eq!(
        (invalid.kind, invalid.field.as_str()),
        (Kind::NotSupported, "discounts")
    );
    assert_eq!(refused("invoice_item", &json!([])).kind, Kind::Malformed);
}

#[test]
fn lines_are_named_by_their_place() {
    let invoice = json!({"customer": "acme", "lines": [{"amount": 1}, {"amount": 1, "quantity": 2}]});
    assert_eq!(refused("invoice", &invoice).field, "lines[1].quantity");
    let invoice = json!({"customer": "acme", "lines": [{"amount": 1, "customer": "acme"}]});
    assert_eq!(refused("invoice", &invoice).field, "lines[0].customer");
    let lines: Vec<Value> = (0..251).map(|amount| json!({"amount": amount})).collect();
    assert_eq!(
        refused("invoice", &json!({"customer": "acme", "lines": lines})).field,
        "lines"
    );
    let whole = json!({"customer": "acme", "lines": [{"amount": 1}], "auto_advance": true, "days_until_due": 3,
        "collection_method": "send_invoice", "pending_invoice_items_behavior": "include", "metadata": {"a": "b"}});
    assert_eq!(read("invoice", &whole).unwrap(), whole);
}

#[test]
fn a_credit_note_has_lines_or_an_amount() {
    let line = json!({"invoice_line_item": "il", "amount": -3});
    let note = json!({"invoice": "in", "lines": [line], "reason": "duplicate", "refund_amount": 2});
    assert_eq!(read("credit_note", &note).unwrap(), note);
    for (changes, field) in [
        (json!({"invoice": null}), "invoice"),
        (json!({"lines": null}), "lines"),
        (json!({"amount": 3}), "amount"),
        (json!({"lines": [{"amount": 3}]}), "lines[0].invoice_line_item"),
        (json!({"lines": [{"invoice_line_item": "il"}]}), "lines[0].amount"),
        (json!({"refund_amount": -1}), "refund_amount"),
        (json!({"reason": "rain"}), "reason"),
    ] {
        assert_eq!(
            refused("credit_note", &with(&note, changes.clone())).field,
            field,
            "{changes}"
        );
    }
}

#[test]
fn a_change_says_only_what_changes() {
    assert_eq!(read("invoice_item_change", &json!({})).unwrap(), json!({}));
    let change = json!({"quantity": "3", "description": "x"});
    assert_eq!(read("invoice_item_change", &change).unwrap(), change);
    assert_eq!(
        refused("invoice_item_change", &json!({"currency": "usd"})).field,
        "currency"
    );
    assert_eq!(normalised_bill("poem", "{}"), Ok(None));
}
