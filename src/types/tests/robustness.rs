//! Properties of any input: nothing panics, and what is read comes back unchanged from either form.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{
    Kind, Meter, Price, StripeObject, Subscription, coupon, credit_grant, credit_grant_changes, tax_rate,
};
use super::valid;

/// Names and values that the types look for, so that random objects get past the first check.
const WORDS: &str = "\
    active amount amount_off applicability_config billing_scheme billing_thresholds cancel_at count currency \
    currency_options customer customer_mapping data day default_aggregation dimension_filters display_name \
    divide_by duration eur event_name event_payload_key formula id inclusive inf interval interval_count items \
    maximum_amount metadata meter metered minimum_amount monetary month name now object per_unit percent_off \
    percentage price price_type product product_data quantity recurring round scope subscription tiered tiers \
    tiers_mode transfer_lookup_key transform_quantity trial_end type unit_amount unit_amount_decimal up up_to \
    usage_type usd value value_settings volume $serde_json::private::Number";

fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(WORDS.split(' ').collect::<Vec<_>>()).prop_map(str::to_owned), 1 => ".{0,8}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5i64..50).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
        "-?[0-9]{0,25}\\.?[0-9]{0,15}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(word(), inner, 0..8).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn amount(name: &'static str) -> impl Strategy<Value = Map<String, Value>> {
    let whole = (0..=i64::MAX).prop_map(move |amount| (name.to_owned(), json!(amount)));
    let decimal = "[0-9]{1,18}\\.[0-9]{1,12}0{0,3}".prop_map(move |amount| (format!("{name}_decimal"), json!(amount)));
    prop_oneof![whole, decimal].prop_map(|field| Map::from_iter([field]))
}

fn tiers() -> impl Strategy<Value = Value> {
    let ends = btree_set(1..i64::MAX, 0..6);
    (ends, vec((amount("unit_amount"), option::of(amount("flat_amount"))), 7)).prop_map(|(ends, amounts)| {
        let ends = ends.into_iter().map(Value::from).chain([json!("inf")]);
        let tiers = ends.zip(amounts).map(|(up_to, (mut tier, flat))| {
            tier.insert("up_to".to_owned(), up_to);
            tier.extend(flat.unwrap_or_default());
            Value::Object(tier)
        });
        tiers.collect()
    })
}

fn model() -> impl Strategy<Value = Map<String, Value>> {
    let transform = (1..=i64::MAX, prop::sample::select(vec!["up", "down"]))
        .prop_map(|(divide_by, round)| json!({ "divide_by": divide_by, "round": round }));
    let per_unit = (amount("unit_amount"), option::of(transform)).prop_map(|(mut price, transform)| {
        price.insert("transform_quantity".to_owned(), json!(transform));
        price
    });
    let tiered = (tiers(), prop::sample::select(vec!["graduated", "volume"])).prop_map(|(tiers, mode)| {
        let fields = json!({ "billing_scheme": "tiered", "tiers": tiers, "tiers_mode": mode });
        fields.as_object().cloned().unwrap_or_default()
    });
    prop_oneof![per_unit, tiered]
}

/// Bounds in ascending order, or none.
fn bounds() -> impl Strategy<Value = Map<String, Value>> {
    option::of((0..=i64::MAX, 0..=i64::MAX)).prop_map(|bounds| {
        let fields = bounds.map(|(a, b)| json!({ "minimum_amount": a.min(b), "maximum_amount": a.max(b) }));
        fields
            .and_then(|fields| fields.as_object().cloned())
            .unwrap_or_default()
    })
}

/// Options of a price with this model and these bounds: other amounts, and bounds where the price has some.
fn currency_options(
    model: Map<String, Value>,
    bounds: Map<String, Value>,
) -> impl Strategy<Value = (Map<String, Value>, Map<String, Value>, Value)> {
    let is_tiered = model.contains_key("tiers");
    let tiers = tiers().prop_map(|tiers| Map::from_iter([("tiers".to_owned(), tiers)]));
    let amounts = (amount("unit_amount"), tiers).prop_map(move |(unit, tiers)| if is_tiered { tiers } else { unit });
    let codes = btree_map(prop::sample::select(vec!["gbp", "CHF", "omr", "krw"]), amounts, 0..4);
    codes.prop_map(move |codes| {
        let options = codes.into_iter().map(|(code, mut option)| {
            option.extend(bounds.clone());
            (code.to_owned(), Value::Object(option))
        });
        (model.clone(), bounds.clone(), Value::Object(options.collect()))
    })
}

fn price() -> impl Strategy<Value = Value> {
    let interval = prop::sample::select(vec![("day", 1095), ("week", 156), ("month", 36), ("year", 3)]);
    let recurring = (interval, any::<u32>(), option::of("[a-z_.]{1,100}")).prop_map(|((interval, most), count, meter)| {
        let usage_type = if meter.is_some() { "metered" } else { "licensed" };
        json!({ "interval": interval, "interval_count": count % most + 1, "usage_type": usage_type, "meter": meter })
    });
    let terms = (model(), bounds()).prop_flat_map(|(model, bounds)| currency_options(model, bounds));
    let filters = btree_map("\\PC{1,100}", vec("\\PC{0,20}", 1..4), 0..3);
    let currency = prop::sample::select(vec!["usd", "EUR", "jpy", "kwd"]);
    (
        terms,
        currency,
        option::of(recurring),
        option::of("\\PC{1,200}"),
        option::of("\\PC{1,250}"),
        filters,
        any::<bool>(),
    )
        .prop_map(
            |((mut price, bounds, mut options), currency, recurring, key, product, filters, active)| {
                match &recurring {
                    Some(recurring) if recurring["usage_type"] == "metered" => {
                        price.insert("dimension_filters".to_owned(), json!(filters));
                    }
                    _ => (),
                }
                if recurring.is_some() {
                    price.extend(bounds);
                } else {
                    for option in options
                        .as_object_mut()
                        .into_iter()
                        .flat_map(|options| options.values_mut())
                    {
                        let fields = option.as_object_mut().unwrap();
                        fields.retain(|name, _| !name.ends_with("imum_amount"));
                    }
                }
                let fields = json!({
                    "currency": currency, "recurring": recurring, "active": active, "currency_options": options,
                    "transfer_lookup_key": active && key.is_some(), "lookup_key": key,
                    "product_data": product.map(|name| json!({ "name": name, "active": active })),
                });
                price.extend(fields.as_object().cloned().unwrap_or_default());
                Value::Object(price)
            },
        )
}

fn subscription() -> impl Strategy<Value = Value> {
    let time = || option::of(-62_135_596_800i64..=253_402_300_799);
    let items = btree_map("[a-z_]{1,20}", option::of(0..=i64::MAX), 1..=20);
    let metadata = btree_map("\\PC{1,40}", "\\PC{0,100}", 0..5);
    (
        items,
        metadata,
        time(),
        time(),
        time(),
        option::of(1..=730i64),
        any::<bool>(),
    )
        .prop_map(|(items, metadata, anchor, start, cancel_at, trial, send)| {
            let items = items
                .into_iter()
                .map(|(price, quantity)| json!({ "price": price, "quantity": quantity }));
            json!({
                "customer": "acme", "items": items.collect::<Vec<_>>(), "metadata": metadata,
                "billing_cycle_anchor": anchor, "start_date": start, "cancel_at": cancel_at, "trial_period_days": trial,
                "collection_method": if send { "send_invoice" } else { "charge_automatically" },
                "days_until_due": send.then_some(14),
            })
        })
}

fn never_panics(text: &str) {
    fn check<T: StripeObject + std::fmt::Debug>(text: &str) {
        if let Ok(value) = T::parse(text) {
            assert_eq!(T::parse(&value.to_json()).as_ref(), Ok(&value));
            assert_eq!(T::from_bytes(&value.to_bytes().unwrap()), Ok(value));
        }
    }
    check::<Meter>(text);
    check::<Price>(text);
    check::<Subscription>(text);
    for read in [coupon, tax_rate, credit_grant, credit_grant_changes] {
        if let Ok(value) = read(text) {
            assert_eq!(read(&value.to_string()), Ok(value));
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        never_panics(&text);
    }

    #[test]
    fn any_json_is_read_or_refused(json in any_json()) {
        never_panics(&json.to_string());
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
        if versioned && let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        let read = (Meter::from_bytes(&bytes), Price::from_bytes(&bytes), Subscription::from_bytes(&bytes));
        for printed in [read.0.map(|it| it.to_json()), read.1.map(|it| it.to_json()), read.2.map(|it| it.to_json())] {
            never_panics(&printed.unwrap_or_else(|error| error.to_string()));
        }
    }

    #[test]
    fn a_price_comes_back_unchanged(object in price()) {
        valid::<Price>(&object);
    }

    /// A currency's terms are the same whether it is the price's own or one of its options.
    #[test]
    fn a_price_in_a_currency_is_the_price_that_was_made_in_it(object in price()) {
        let price: Price = valid(&object);
        let own = price.clone().in_currency(&price.currency).unwrap();
        prop_assert!(own.currency_options.is_empty());
        prop_assert_eq!(Price { currency_options: price.currency_options.clone(), ..own.clone() }, price.clone());
        for (code, terms) in &price.currency_options {
            let there = price.clone().in_currency(&code.to_uppercase()).unwrap();
            let mut made = object.clone();
            for (field, value) in object["currency_options"].as_object().unwrap() {
                if field.to_lowercase() == *code {
                    let option = value.as_object().unwrap();
                    let fields = made.as_object_mut().unwrap();
                    fields.retain(|name, _| !name.starts_with("unit_amount") && !name.ends_with("imum_amount"));
                    fields.extend(option.clone());
                    fields.insert("currency".to_owned(), json!(code));
                    fields.remove("currency_options");
                }
            }
            prop_assert_eq!(&there, &valid::<Price>(&made));
            prop_assert_eq!((&there.model, there.bounds), (&terms.model, terms.bounds));
            prop_assert_eq!(there.clone().in_currency(code).unwrap(), there.clone());
            prop_assert!(there.in_currency(&price.currency).is_err());
        }
    }

    #[test]
    fn a_subscription_comes_back_unchanged(object in subscription()) {
        valid::<Subscription>(&object);
    }

    #[test]
    fn a_field_more_is_refused_and_a_byte_less_too(object in price(), cut in any::<prop::sample::Index>()) {
        let mut more = object.clone();
        more["surprise"] = json!(1);
        prop_assert_eq!(Price::parse(&more.to_string()).map_err(|error| error.field), Err("surprise".to_owned()));
        let bytes = valid::<Price>(&object).to_bytes().unwrap();
        let cut = cut.index(bytes.len());
        prop_assert_eq!(Price::from_bytes(&bytes[..cut]).map_err(|error| error.kind), Err(Kind::Binary));
    }

    #[test]
    fn a_changed_byte_never_panics(object in price(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = valid::<Price>(&object).to_bytes().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(price) = Price::from_bytes(&bytes) {
            never_panics(&price.to_json());
        }
    }
}

#[test]
fn foreign_bytes_are_named() {
    for (bytes, message) in [
        (&[][..], "invalid stored meter: is empty"),
        (
            &[9, 0],
            "invalid stored meter: has layout version 9; this build reads version 1",
        ),
        (&[1], "invalid stored meter: Hit the end of buffer, expected more data"),
    ] {
        let error = Meter::from_bytes(bytes).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind), (message, Kind::Binary));
    }
    let meter = json!({ "event_name": "calls", "default_aggregation": { "formula": "count" } });
    let mut bytes = valid::<Meter>(&meter).to_bytes().unwrap();
    bytes.push(0);
    assert_eq!(
        Meter::from_bytes(&bytes).unwrap_err().to_string(),
        "invalid stored meter: has 1 bytes too many"
    );
}
