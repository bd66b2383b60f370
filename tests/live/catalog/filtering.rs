//! One meter priced differently by its dimensions.

use serde_json::{Value, json};

use super::{PRICE, database, meter, metered, text, truth};
use crate::refusal::Refusal;

fn filtered(meter: &str, filters: Value) -> Value {
    let mut price = metered(meter);
    price["dimension_filters"] = filters;
    price
}

#[test]
fn filters_name_declared_dimensions() {
    let (database, mut client) = database();
    let mut declared = meter("tokens");
    declared["dimension_payload_keys"] = json!(["region", "model"]);
    for definition in [&declared, &meter("plain")] {
        text(&mut client, "SELECT billing.create_meter($1::jsonb)", &[definition]);
    }
    let none = None::<&str>;
    let mut admin = database.connect().unwrap();
    admin.batch_execute("SET ROLE billing_admin").unwrap();
    let insert = "INSERT INTO billing.prices (price) VALUES ($1::jsonb) RETURNING id";
    for (meter, filters, words) in [
        (
            "tokens",
            json!({"planet": "mars"}),
            ["dimension_filters.planet", "\"tokens\""],
        ),
        (
            "tokens",
            json!({"region": "eu", "zone": ["a"]}),
            ["dimension_filters.zone", "\"tokens\""],
        ),
        (
            "plain",
            json!({"region": "eu"}),
            ["dimension_filters.region", "\"plain\""],
        ),
    ] {
        let price = filtered(meter, filters);
        Refusal::of(&mut client, PRICE, &[&price, &none, &none])
            .says("22023", &words)
            .hints();
        Refusal::of(&mut admin, insert, &[&price]).says("22023", &words).hints();
    }
    // By the event name or the id of the meter, in whatever form: the column is normalised, and follows the definition.
    let id = text(
        &mut client,
        "SELECT id FROM billing.meters WHERE event_name = 'tokens'",
        &[],
    );
    for (meter, filters, kept) in [
        ("tokens", json!({"region": "eu"}), json!({"region": ["eu"]})),
        (
            id.as_str(),
            json!({"region": ["us", "eu", "us"], "model": ["big"]}),
            json!({"model": ["big"], "region": ["eu", "us"]}),
        ),
    ] {
        let price = text(&mut client, PRICE, &[&filtered(meter, filters), &none, &none]);
        let row = client
            .query_one("SELECT dimension_filters, meter, price::jsonb -> 'dimension_filters' FROM billing.prices WHERE id = $1", &[&price])
            .unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), (kept.clone(), "tokens", kept));
        for change in ["NULL", r#"'{"region":["us"]}'"#] {
            let update = format!("UPDATE billing.prices SET dimension_filters = {change} WHERE id = $1");
            Refusal::of(&mut client, &update, &[&price])
                .says("23001", &[&price])
                .hints();
        }
    }
    let plain = text(&mut client, PRICE, &[&filtered("plain", json!({})), &none, &none]);
    let column = "INSERT INTO billing.prices (price, dimension_filters) VALUES ($1::jsonb, '{\"region\":[\"eu\"]}') RETURNING id";
    let by_orm = text(&mut admin, column, &[&metered("tokens")]);
    assert!(truth(
        &mut client,
        &format!(
            "SELECT count(*) = 2 FROM billing.prices WHERE id IN ('{plain}', '{by_orm}') AND dimension_filters IS NULL"
        )
    ));
    // Which usage is billed is part of what a price is.
    let price = filtered("tokens", json!({"region": "eu"}));
    for _ in 0..2 {
        assert_eq!(text(&mut client, PRICE, &[&price, &none, &"eu"]), "eu");
    }
    for other in [json!({"region": ["eu", "us"]}), json!({})] {
        Refusal::of(&mut client, PRICE, &[&filtered("tokens", other), &none, &"eu"]).says("23505", &["price \"eu\""]);
    }
}

#[test]
fn a_subscription_may_have_two_prices_on_one_meter() {
    let (_database, mut client) = database();
    let mut declared = meter("tokens");
    declared["dimension_payload_keys"] = json!(["region"]);
    text(&mut client, "SELECT billing.create_meter($1::jsonb)", &[&declared]);
    text(&mut client, "SELECT billing.create_customer('c')", &[]);
    for region in ["eu", "us"] {
        text(
            &mut client,
            PRICE,
            &[&filtered("tokens", json!({"region": region})), &None::<&str>, &region],
        );
    }
    let subscription = json!({"customer": "c", "items": [{"price": "eu"}, {"price": "us"}]});
    text(
        &mut client,
        "SELECT billing.create_subscription($1::jsonb, 'sub', '2024-01-01Z')",
        &[&subscription],
    );
    assert!(truth(
        &mut client,
        "SELECT count(*) = 2 FROM billing.subscription_items WHERE subscription = 'sub'"
    ));
}

/// Wherever usage is read from: buckets, the queue, events of the hours that a bound cuts, sets of texts, levels. Of each region n
/// events: asia 1, eu 2, us 3; the price is for eu and us, 1 a unit.
#[test]
fn a_filter_of_several_values_bills_all_of_them_from_every_source() {
    let (_database, mut client) = database();
    client
        .batch_execute("SET timezone = 'UTC'; SET billing.max_event_age = -1; SELECT billing.create_customer('c')")
        .unwrap();
    // Of unique_count the texts are 1 to 3 in us, 1 and 2 in eu; of weighted_sum the level is 5 from before the period on.
    for (formula, quantity, from) in [
        ("sum", "5", "2024-01-01 00:10"),
        ("count", "5", "2024-01-01 00:10"),
        ("max", "1", "2024-01-01 00:10"),
        ("unique_count", "3", "2024-01-01 00:10"),
        ("weighted_sum", "5", "2023-12-01 00:10"),
    ] {
        let mut declared = meter(formula);
        declared["dimension_payload_keys"] = json!(["region"]);
        declared["default_aggregation"] = json!({"formula": formula});
        if formula == "unique_count" {
            declared["value_settings"] = json!({"event_payload_key": "user"});
        }
        text(&mut client, "SELECT billing.create_meter($1::jsonb)", &[&declared]);
        let price = filtered(formula, json!({"region": ["eu", "us"]}));
        text(&mut client, PRICE, &[&price, &None::<&str>, &formula]);
        let definition = json!({"customer": "c", "items": [{"price": formula}]});
        text(
            &mut client,
            "SELECT billing.create_subscription($1::jsonb, $2, '2024-01-01 00:05Z')",
            &[&definition, &formula],
        );
        client
            .execute(
                "SELECT billing.record_meter_event($1, 'c', 1, region || n, $2::text::timestamptz + n * interval '5 minutes',
                     jsonb_build_object('region', region, 'user', n))
                 FROM unnest(ARRAY['asia', 'eu', 'us']) WITH ORDINALITY r (region, place), generate_series(1, place) n",
                &[&formula, &from],
            )
            .unwrap();
        let billed = "SELECT trim_scale(quantity)::text FROM billing.preview_invoice($1, '2024-02-01Z')";
        // Not rolled up yet, then in buckets, of which the period's bound cuts one.
        assert_eq!(text(&mut client, billed, &[&formula]), quantity, "{formula}, pending");
        client.batch_execute("SELECT billing.roll_up()").unwrap();
        assert_eq!(text(&mut client, billed, &[&formula]), quantity, "{formula}");
        let summary = "SELECT trim_scale(aggregated_value)::text FROM billing.meter_event_summaries(
                $1, 'c', '2024-01-01 00:05Z', '2024-02-01 00:05Z', dimensions => '{\"region\": [\"us\", \"eu\", \"us\"]}')";
        assert_eq!(text(&mut client, summary, &[&formula]), quantity, "{formula}, summary");
    }
    for (dimensions, refused) in [
        ("{\"region\": [null]}", true),
        ("{\"region\": {\"is\": \"eu\"}}", true),
        ("{\"region\": [[\"eu\"]]}", true),
        ("[]", true),
        ("{\"region\": []}", false),
    ] {
        let sql = "SELECT aggregated_value::text FROM billing.meter_event_summaries(
                       'sum', 'c', '2024-01-01Z', '2024-02-01Z', dimensions => $1::text::jsonb)";
        if refused {
            Refusal::of(&mut client, sql, &[&dimensions]).says("22023", &["object of texts"]);
        } else {
            assert_eq!(text(&mut client, sql, &[&dimensions]), "0");
        }
    }
}
