//! Taking prices, products and meters off offer, and back.

use super::{PRICE, database, metered, text, truth};
use crate::refusal::Refusal;

#[test]
fn archiving_takes_off_offer_and_activating_takes_it_back() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,"lookup_key":"k","recurring":{"interval":"month"}}', 'prod', 'old');"#,
        )
        .unwrap();
    let subscribe = r#"SELECT billing.create_subscription(format('{"customer":"%s","items":[{"price":"%s"}]}', $1::text, $2::text)::billing.subscription)"#;
    let kept = text(&mut client, subscribe, &[&"c", &"old"]);
    let second = r#"SELECT billing.create_price('{"currency":"usd","unit_amount":2,"lookup_key":"k","recurring":{"interval":"month"}}', id => 'new')"#;
    Refusal::of(&mut client, second, &[]).says("23505", &["prices_lookup_key_key"]);
    for _ in 0..2 {
        assert_eq!(
            text(&mut client, "SELECT billing.archive_price('old', '2024-05-01Z')", &[]),
            "old"
        );
        assert!(truth(
            &mut client,
            "SELECT NOT active AND archived_at = '2024-05-01Z' AND price::jsonb -> 'active' = 'false' FROM billing.prices WHERE id = 'old'"
        ));
    }
    // The first archiving stays when it is archived again.
    text(&mut client, "SELECT billing.archive_price('old', '2025-05-01Z')", &[]);
    assert!(truth(
        &mut client,
        "SELECT archived_at = '2024-05-01Z' FROM billing.prices WHERE id = 'old'"
    ));
    assert_eq!(text(&mut client, second, &[]), "new");
    Refusal::of(&mut client, "SELECT billing.activate_price('old')", &[]).says("23505", &["prices_lookup_key_key"]);
    Refusal::of(&mut client, subscribe, &[&"c", &"old"])
        .says("55000", &["price \"old\"", "archived"])
        .hints();
    Refusal::of(&mut client, subscribe, &[&"c", &"none"])
        .says("23503", &["price \"none\""])
        .hints();
    Refusal::of(&mut client, subscribe, &[&"nobody", &"new"])
        .says("23503", &["customer \"nobody\""])
        .hints();
    // Those that have it keep it.
    assert!(truth(
        &mut client,
        &format!("SELECT status = 'active' FROM billing.subscriptions WHERE id = '{kept}'")
    ));
    text(&mut client, "SELECT billing.archive_price('new')", &[]);
    for _ in 0..2 {
        assert_eq!(text(&mut client, "SELECT billing.activate_price('old')", &[]), "old");
        assert!(truth(
            &mut client,
            "SELECT active AND archived_at IS NULL FROM billing.prices WHERE id = 'old'"
        ));
    }
    text(&mut client, subscribe, &[&"c", &"old"]);

    for _ in 0..2 {
        assert_eq!(text(&mut client, "SELECT billing.archive_product('prod')", &[]), "prod");
        assert!(truth(&mut client, "SELECT NOT active FROM billing.products"));
    }
    assert_eq!(
        text(&mut client, "SELECT billing.activate_product('prod')", &[]),
        "prod"
    );
    assert!(truth(&mut client, "SELECT active FROM billing.products"));

    let id = text(&mut client, "SELECT id FROM billing.meters", &[]);
    for by in ["calls", &id, "calls"] {
        assert_eq!(text(&mut client, "SELECT billing.deactivate_meter($1)", &[&by]), id);
        assert!(truth(
            &mut client,
            "SELECT status = 'inactive' AND deactivated_at = max(deactivated_at) OVER () FROM billing.meters"
        ));
    }
    Refusal::of(&mut client, PRICE, &[&metered("calls"), &None::<&str>, &None::<&str>])
        .says("55000", &["meter \"calls\"", "(archived_meter)"])
        .hints();
    Refusal::of(&mut client, "SELECT billing.record_meter_event('calls', 'c', 1)", &[])
        .says("55000", &["(archived_meter)"]);
    for by in [&id, "calls"] {
        assert_eq!(text(&mut client, "SELECT billing.reactivate_meter($1)", &[&by]), id);
    }
    assert!(truth(
        &mut client,
        "SELECT status = 'active' AND deactivated_at IS NULL FROM billing.meters"
    ));
    text(&mut client, PRICE, &[&metered("calls"), &None::<&str>, &None::<&str>]);
}
