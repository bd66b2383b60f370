//! The negative control: what must never happen, done on purpose to the extension's own functions, is found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use postgres::Client;

use super::super::books::{assert_same_books, books};
use super::super::play::connect;
use super::super::{generate, quiet_cluster};
use super::play::{happen, ready, told};
use super::story::Changing;
use super::{assert_holds, model};

/// What finds it: the model, or what holds of every history.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Model,
    Itself,
    Both,
}

/// What is done to which function.
struct Sabotage {
    what: &'static str,
    function: &'static str,
    from: &'static str,
    to: &'static str,
    found: By,
}

const fn sabotage(
    what: &'static str,
    function: &'static str,
    from: &'static str,
    to: &'static str,
    found: By,
) -> Sabotage {
    Sabotage {
        what,
        function,
        from,
        to,
        found,
    }
}

const ALL: [Sabotage; 10] = [
    sabotage(
        "late usage is billed as a whole",
        "late_usage_lines",
        "greatest(r.amount - b.amount,",
        "greatest(r.amount,",
        By::Both,
    ),
    sabotage(
        "usage given back is forgotten",
        "late_usage_lines",
        "OR r.amount < b.amount AND b.asked > 0",
        "",
        By::Both,
    ),
    sabotage(
        "usage at a former price is forgotten",
        "keep_usage",
        "u.start < keep_usage.as_of",
        "false",
        By::Both,
    ),
    sabotage(
        "usage of an item that is removed goes on",
        "usage_lines",
        "least($2, x.ends_at)",
        "$2",
        By::Both,
    ),
    sabotage(
        "the ledger of credit is a cent off",
        "apply_credits",
        "'credits_applied', (a.used ->> 'amount')::bigint,",
        "'credits_applied', (a.used ->> 'amount')::bigint + 1,",
        By::Itself,
    ),
    sabotage(
        "unused time is kept",
        "credit_unused",
        "c.amount <> 0",
        "false",
        By::Model,
    ),
    sabotage(
        "unused time is given back by its list price",
        "adjusted_lines",
        "coalesce(b.discount_amount - r.charge_credited_discount, 0)",
        "0",
        By::Model,
    ),
    sabotage(
        "unused time of a charge on the same invoice is given back by its list price",
        "adjusted_lines",
        "coalesce(r.places, '[]')",
        "'[]'::jsonb",
        By::Model,
    ),
    sabotage(
        "remaining time is charged as a whole period",
        "charge_remaining",
        "tstzrange(part_start, part_end), w.whole)",
        "w.whole, w.whole)",
        By::Model,
    ),
    sabotage(
        "a coupon of today is not on today's invoice",
        "adjusted_lines",
        "ELSE x.start_at <= d.created",
        "ELSE x.start_at < d.created",
        By::Model,
    ),
];

fn commit(client: &mut Client, sabotage: &Sabotage) {
    let sql = "SELECT pg_get_functiondef(p.oid) FROM pg_proc p
               WHERE p.pronamespace = 'billing'::regnamespace AND p.proname = $1";
    let definition: String = client.query_one(sql, &[&sabotage.function]).unwrap().get(0);
    let changed = definition.replace(sabotage.from, sabotage.to);
    assert_ne!(changed, definition, "{}: nothing to replace", sabotage.what);
    client.batch_execute(&changed).unwrap();
}

fn goes_wrong(check: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(check)).is_err()
}

#[test]
fn what_must_never_happen_would_be_found() {
    const SEED: u64 = 11;
    let changing = Changing::new(SEED, 6);
    let expected = told(&changing, &model::invoices(&changing));
    // First nothing is done, and nothing found.
    for sabotage in std::iter::once(None).chain(ALL.iter().map(Some)) {
        let database = ready(quiet_cluster(), &changing);
        let mut client = connect(&database);
        if let Some(sabotage) = sabotage {
            commit(&mut client, sabotage);
        }
        for run in 0..changing.history.runs.len() {
            happen(&mut client, &changing, run, |_, _| ());
            generate(&mut client, changing.history.runs[run]);
        }
        let (what, found) = sabotage.map_or(("nothing", None), |sabotage| (sabotage.what, Some(sabotage.found)));
        let wrong = goes_wrong(|| assert_same_books(what, &books(&mut client), &expected));
        let expected = matches!(found, Some(By::Model | By::Both));
        assert_eq!(wrong, expected, "by the model: {what}");
        let wrong = goes_wrong(|| assert_holds(&mut client, &changing));
        let expected = matches!(found, Some(By::Itself | By::Both));
        assert_eq!(wrong, expected, "without the model: {what}");
    }
}
