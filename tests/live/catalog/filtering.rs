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
