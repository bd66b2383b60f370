//! NULL in every argument.

use super::database;
use crate::refusal::Refusal;

/// Each call with every argument given, and for each argument whether it may be NULL.
const NULLS: &[(&str, &[(&str, bool)])] = &[
    (
        "create_customer",
        &[("'x'", false), ("'n'", true), ("'e'", true), ("'{}'::jsonb", false)],
    ),
    (
        "create_product",
        &[
            ("'x'", false),
            ("'n'", false),
            ("'d'", true),
            ("'u'", true),
            ("'{}'::jsonb", false),
            ("'t'", true),
            ("'s'", true),
            ("'l'", true),
            ("true", false),
        ],
    ),
    ("update_product", &[("'prod'", false), ("'{}'::jsonb", false)]),
    ("transfer_lookup_key", &[("'p'", false), ("'k'", false)]),
    (
        "create_meter",
        &[(
            r#"'{"event_name":"x","default_aggregation":{"formula":"sum"}}'::billing.meter"#,
            false,
        )],
    ),
    (
        "create_price",
        &[
            (r#"'{"currency":"usd","unit_amount":1}'::billing.price"#, false),
            ("'prod'", true),
            ("'new'", true),
        ],
    ),
    ("archive_price", &[("'p'", false), ("now()", false)]),
    ("activate_price", &[("'p'", false)]),
    ("archive_product", &[("'prod'", false)]),
    ("activate_product", &[("'prod'", false)]),
    ("deactivate_meter", &[("'calls'", false), ("now()", false)]),
    ("reactivate_meter", &[("'calls'", false)]),
    (
        "create_alert",
        &[
            ("'calls'", false),
            ("5", false),
            ("'c'", true),
            ("'one_time'", false),
            ("'t'", true),
        ],
    ),
    ("activate_alert", &[("'a'", false)]),
    ("deactivate_alert", &[("'a'", false)]),
    ("archive_alert", &[("'a'", false)]),
    (
        "create_subscription",
        &[
            (
                r#"'{"customer":"c","items":[{"price":"p"}]}'::billing.subscription"#,
                false,
            ),
            ("'s'", true),
            ("now()", false),
        ],
    ),
    (
        "update_subscription",
        &[("'sub'", false), ("'{}'::jsonb", false), ("now()", false)],
    ),
    (
        "cancel_subscription",
        &[("'sub'", false), ("true", false), ("now()", false)],
    ),
    ("finalize_invoice", &[("'in'", false), ("now()", false)]),
    ("void_invoice", &[("'in'", false), ("now()", false)]),
    ("mark_invoice_paid", &[("'in'", false), ("now()", false)]),
    ("mark_invoice_uncollectible", &[("'in'", false), ("now()", false)]),
    ("generate_invoices", &[("now()", false)]),
];

#[test]
fn null_is_refused_by_name_or_means_nothing_given() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            r#"SELECT billing.create_customer('c'), billing.create_product('prod', 'P');
               SELECT billing.create_meter('{"event_name":"calls","default_aggregation":{"formula":"sum"}}');
               SELECT billing.create_price('{"currency":"usd","unit_amount":1,"recurring":{"interval":"month"}}', id => 'p');
               SELECT billing.create_subscription('{"customer":"c","items":[{"price":"p"}]}', 'sub');"#,
        )
        .unwrap();
    for (function, arguments) in NULLS {
        for (place, (_, may_be_null)) in arguments.iter().enumerate() {
            let given: Vec<&str> = (0..arguments.len())
                .map(|at| if at == place { "NULL" } else { arguments[at].0 })
                .collect();
            let call = format!("SELECT billing.{function}({})::text", given.join(", "));
            let names: Vec<String> = client
                .query_one("SELECT proargnames FROM pg_proc WHERE proname = $1", &[function])
                .unwrap()
                .get(0);
            client.batch_execute("BEGIN").unwrap();
            if *may_be_null {
                client
                    .query(&call, &[])
                    .unwrap_or_else(|error| panic!("{call}: {error:?}"));
            } else {
                let refusal = Refusal::of(&mut client, &call, &[]).says("22004", &[&format!("\"{}\"", names[place])]);
                assert!(refusal.message.to_lowercase().contains("null"), "{refusal:?}");
            }
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}
