use serde_json::{Value, json};

use super::super::{EventTimeWindow, Formula, Kind, Meter, StripeObject};
use super::{refusal, valid, with};

fn returned() -> Value {
    json!({
        "id": "mtr_61Q",
        "object": "billing.meter",
        "created": 1735689600,
        "customer_mapping": { "event_payload_key": "account", "type": "by_id" },
        "default_aggregation": { "formula": "sum" },
        "display_name": "Gigabytes stored",
        "event_name": "storage",
        "event_time_window": null,
        "livemode": false,
        "status": "inactive",
        "status_transitions": { "deactivated_at": 1735689700 },
        "updated": 1735689700,
        "value_settings": { "event_payload_key": "gigabytes" },
    })
}

fn minimal() -> Value {
    json!({ "event_name": "calls", "default_aggregation": { "formula": "count" } })
}

#[test]
fn a_returned_meter_is_read_as_it_stands() {
    let meter: Meter = valid(&returned());
    assert_eq!(
        meter,
        Meter {
            customer_key: Some("account".into()),
            formula: Formula::Sum,
            dimension_keys: vec![],
            display_name: Some("Gigabytes stored".into()),
            event_name: "storage".into(),
            event_time_window: None,
            value_key: "gigabytes".into(),
        }
    );
    assert_eq!(
        meter.to_json(),
        r#"{"customer_mapping":{"event_payload_key":"account","type":"by_id"},"default_aggregation":{"formula":"sum"},"#
            .to_owned()
            + r#""display_name":"Gigabytes stored","event_name":"storage","value_settings":{"event_payload_key":"gigabytes"}}"#
    );
}

#[test]
fn defaults_leave_the_customer_key_open() {
    let meter: Meter = valid(&minimal());
    assert_eq!(
        (meter.customer_key.as_deref(), meter.value_key.as_str()),
        (None, "value")
    );
    assert_eq!(
        meter.to_json(),
        r#"{"default_aggregation":{"formula":"count"},"event_name":"calls","value_settings":{"event_payload_key":"value"}}"#
    );
    let nulls = json!({ "customer_mapping": null, "dimension_payload_keys": null, "display_name": null });
    let mut object = minimal();
    object
        .as_object_mut()
        .unwrap()
        .extend(nulls.as_object().unwrap().clone());
    assert_eq!(valid::<Meter>(&object), meter);
}

#[test]
fn every_formula_and_window_is_read() {
    for (word, formula) in [
        ("sum", Formula::Sum),
        ("count", Formula::Count),
        ("last", Formula::Last),
        ("max", Formula::Max),
        ("min", Formula::Min),
        ("unique_count", Formula::UniqueCount),
        ("weighted_sum", Formula::WeightedSum),
    ] {
        let object = with(&minimal(), json!({ "default_aggregation": { "formula": word } }));
        assert_eq!(valid::<Meter>(&object).formula, formula);
    }
    for (word, window) in [("hour", EventTimeWindow::Hour), ("day", EventTimeWindow::Day)] {
        let object = with(&minimal(), json!({ "event_time_window": word }));
        assert_eq!(valid::<Meter>(&object).event_time_window, Some(window));
    }
}

#[test]
fn dimension_keys_keep_their_order() {
    let object = with(&minimal(), json!({ "dimension_payload_keys": ["region", "airport"] }));
    assert_eq!(valid::<Meter>(&object).dimension_keys, ["region", "airport"]);
    assert_eq!(
        valid::<Meter>(&with(&minimal(), json!({ "dimension_payload_keys": [] }))),
        valid(&minimal())
    );
}

#[test]
fn lengths_count_characters() {
    valid::<Meter>(&with(
        &minimal(),
        json!({ "event_name": "é".repeat(100), "display_name": "é".repeat(250) }),
    ));
}

#[test]
fn what_stripe_refuses_is_refused() {
    let long = "x".repeat(101);
    let cases = [
        (
            json!({ "event_name": null }),
            "field \"event_name\": is required".to_owned(),
        ),
        (json!({ "event_name": "" }), "field \"event_name\": is required".into()),
        (
            json!({ "event_name": 5 }),
            "field \"event_name\", value 5: must be a string".into(),
        ),
        (
            json!({ "event_name": long }),
            format!(
                "field \"event_name\", value \"{}…: must have at most 100 characters",
                &long[..99]
            ),
        ),
        (
            json!({ "default_aggregation": null }),
            "field \"default_aggregation\": is required".into(),
        ),
        (
            json!({ "default_aggregation": {} }),
            "field \"default_aggregation.formula\": is required".into(),
        ),
        (
            json!({ "default_aggregation": "sum" }),
            "field \"default_aggregation\", value \"sum\": must be a JSON object".into(),
        ),
        (
            json!({ "default_aggregation": { "formula": "average" } }),
            "field \"default_aggregation.formula\", value \"average\": must be one of \"sum\", \"count\", \"last\", \
             \"max\", \"min\", \"unique_count\", \"weighted_sum\""
                .into(),
        ),
        (
            json!({ "customer_mapping": { "type": "by_name", "event_payload_key": "c" } }),
            "field \"customer_mapping.type\", value \"by_name\": must be \"by_id\"".into(),
        ),
        (
            json!({ "customer_mapping": { "type": "by_id" } }),
            "field \"customer_mapping.event_payload_key\": is required".into(),
        ),
        (
            json!({ "value_settings": {} }),
            "field \"value_settings.event_payload_key\": is required".into(),
        ),
        (
            json!({ "event_time_window": "week" }),
            "field \"event_time_window\", value \"week\": must be one of \"hour\", \"day\"".into(),
        ),
        (
            json!({ "dimension_payload_keys": "region" }),
            "field \"dimension_payload_keys\", value \"region\": must be an array".into(),
        ),
        (
            json!({ "dimension_payload_keys": ["region", ""] }),
            "field \"dimension_payload_keys[1]\", value \"\": must be a string of 1 to 100 characters".into(),
        ),
        (
            json!({ "dimension_payload_keys": ["region", "region"] }),
            "field \"dimension_payload_keys[1]\", value \"region\": is given twice".into(),
        ),
        (
            json!({ "object": "price" }),
            "field \"object\", value \"price\": must be \"billing.meter\"".into(),
        ),
        (
            json!({ "event_nmae": "x" }),
            "field \"event_nmae\", value \"x\": is not a field of the meter".into(),
        ),
        (
            json!({ "value_settings": { "event_payload_key": "v", "unit": "GB" } }),
            "field \"value_settings.unit\", value \"GB\": is not a field of \"value_settings\"".into(),
        ),
    ];
    for (changes, message) in cases {
        let error = refusal::<Meter>(&with(&minimal(), changes));
        assert_eq!(
            (error.to_string(), error.kind),
            (format!("invalid meter: {message}"), Kind::Invalid)
        );
    }
}

#[test]
fn the_hint_of_an_unknown_field_lists_the_known_ones() {
    let error = refusal::<Meter>(&with(&minimal(), json!({ "name": "x" })));
    assert_eq!(
        error.hint.as_deref(),
        Some(
            "Fields that have a meaning here: customer_mapping, default_aggregation, dimension_payload_keys, \
             display_name, event_name, event_time_window, value_settings."
        )
    );
}
