//! Playing a changing history on a database, and reading back what billing has made of it.

use harness::{Cluster, Database};
use postgres::Client;

use super::super::books::Told;
use super::super::play::{connect, create, open, shown, usage};
use super::super::prices;
use super::super::story::Micros;
use super::model::{Invoice, Line};
use super::story::{Behavior, COUPONS, Change, Changing, Contested, Duration, Grant, ItemChange, Off, TAX_RATES, What};

fn percent(millionths: i64) -> String {
    format!("{}.{:04}", millionths / 10_000, millionths % 10_000)
}

fn discounts(coupons: &[usize]) -> String {
    let list: Vec<String> = coupons
        .iter()
        .map(|n| format!(r#"{{"coupon": "coupon {n}"}}"#))
        .collect();
    format!("[{}]", list.join(", "))
}

/// A database with what a history begins with.
pub fn ready<'c>(cluster: &'c Cluster, changing: &Changing) -> Database<'c> {
    let database = open(cluster, &changing.history);
    let mut sql = String::new();
    for (n, coupon) in COUPONS.iter().enumerate() {
        let off = match coupon.off {
            Off::Millionths(millionths) => format!(r#""percent_off": {}"#, percent(millionths)),
            Off::Cents(cents) => format!(r#""currency": "usd", "amount_off": {cents}"#),
        };
        let duration = match coupon.duration {
            Duration::Forever => r#""forever""#.to_owned(),
            Duration::Once => r#""once""#.to_owned(),
            Duration::Months(months) => format!(r#""repeating", "duration_in_months": {months}"#),
        };
        sql += &format!(r#"SELECT billing.create_coupon('{{{off}, "duration": {duration}}}', 'coupon {n}');"#);
    }
    for (n, rate) in TAX_RATES.iter().enumerate() {
        sql += &format!(
            r#"SELECT billing.create_tax_rate('{{"display_name": "Tax", "percentage": {}, "inclusive": false}}', 'tax {n}');"#,
            percent(*rate)
        );
    }
    for (customer, coupons) in changing.customer_coupons.iter().enumerate() {
        sql += &format!(
            "SELECT billing.set_discounts('customer', 'c{customer}', '{}', '2000-01-01');",
            discounts(coupons)
        );
    }
    connect(&database).batch_execute(&sql).unwrap();
    database
}

fn created(changing: &Changing, place: usize) -> String {
    let more = format!(
        r#", "discounts": {}, "default_tax_rates": {}"#,
        discounts(&changing.coupons[place]),
        taxes(&changing.tax_rates[place])
    );
    create(&changing.history.subscriptions[place], &more)
}

fn granted(grant: &Grant) -> String {
    let prices: Vec<String> = prices::all()
        .filter(|price| grant.pays_for(price))
        .take(20)
        .map(|price| format!(r#"{{"id": "{}"}}"#, price.id()))
        .collect();
    let expires = grant
        .expires_at
        .map_or(String::new(), |at| format!(r#", "expires_at": "{}""#, shown(at)));
    format!(
        r#"SELECT billing.create_credit_grant('{{"customer": "c{}", "priority": {}, "effective_at": "{}"{expires},
               "amount": {{"type": "monetary", "monetary": {{"currency": "usd", "value": {}}}}},
               "applicability_config": {{"scope": {{"prices": [{}]}}}}}}', as_of => '{}');"#,
        grant.customer,
        grant.priority,
        shown(grant.effective_at),
        grant.amount,
        prices.join(", "),
        shown(grant.created)
    )
}

fn taxes(rates: &[usize]) -> String {
    let list: Vec<String> = rates.iter().map(|n| format!(r#""tax {n}""#)).collect();
    format!("[{}]", list.join(", "))
}

/// A call, of which `what` is the function and the arguments between the subscription and the time.
fn changed(subscription: &str, change: &Change) -> String {
    let at = shown(change.at);
    let updated =
        |fields: String| format!("SELECT billing.update_subscription('{subscription}', '{{{fields}}}', '{at}');");
    let item = |n: usize| {
        format!(
            "'id', (SELECT i.id FROM billing.subscription_items i WHERE i.subscription = '{subscription}'
                    ORDER BY i.created, i.id OFFSET {n} LIMIT 1)"
        )
    };
    let priced = |price: &prices::Price, quantity: i64| match price.source {
        None => format!("'price', '{}', 'quantity', {quantity}", price.id()),
        Some(_) => format!("'price', '{}'", price.id()),
    };
    match &change.what {
        What::Coupons(coupons) => format!(
            "SELECT billing.set_discounts('subscription', '{subscription}', '{}', '{at}');",
            discounts(coupons)
        ),
        What::Cancel { prorate, invoice_now } => format!(
            "SELECT billing.cancel_subscription('{subscription}', as_of => '{at}', prorate => {prorate},
                                                invoice_now => {invoice_now});"
        ),
        What::TaxRates(rates) => updated(format!(r#""default_tax_rates": {}"#, taxes(rates))),
        What::Threshold { amount_gte, resets } => updated(format!(
            r#""billing_thresholds": {{"amount_gte": {amount_gte}, "reset_billing_cycle_anchor": {resets}}}"#
        )),
        What::PauseCollection { behavior, resumes_at } => {
            let resumes = resumes_at.map_or(String::new(), |at| format!(r#", "resumes_at": "{}""#, shown(at)));
            updated(format!(r#""pause_collection": {{"behavior": "{behavior}"{resumes}}}"#))
        }
        What::ResumeCollection => updated(r#""pause_collection": """#.to_owned()),
        What::Anchor(behavior) => updated(format!(
            r#""billing_cycle_anchor": "now", "proration_behavior": "{}""#,
            behavior.name()
        )),
        What::Pause => format!("SELECT billing.pause_subscription('{subscription}', '{at}');"),
        What::Resume { anchor, behavior } => format!(
            "SELECT billing.resume_subscription('{subscription}', '{anchor}', '{}', '{at}');",
            behavior.name()
        ),
        What::CancelAtPeriodEnd => format!("SELECT billing.cancel_subscription('{subscription}', true, '{at}');"),
        What::Items { items, behavior, since } => {
            let items: Vec<String> = items
                .iter()
                .map(|change| {
                    let fields = match *change {
                        ItemChange::Quantity(n, quantity) => format!("{}, 'quantity', {quantity}", item(n)),
                        ItemChange::Swap(n, price, quantity) => format!("{}, {}", item(n), priced(price, quantity)),
                        ItemChange::Add(price, quantity) => priced(price, quantity),
                        ItemChange::Remove(n) => format!("{}, 'deleted', true", item(n)),
                    };
                    format!("jsonb_build_object({fields})")
                })
                .collect();
            let since = match since {
                Some(since) if *behavior != Behavior::None => format!(", 'proration_date', '{}'", shown(*since)),
                _ => String::new(),
            };
            format!(
                "SELECT billing.update_subscription('{subscription}', jsonb_build_object(
                     'items', jsonb_build_array({}), 'proration_behavior', '{}'{since}), '{at}');",
                items.join(", "),
                behavior.name()
            )
        }
    }
}

/// What happens before a run: usage, and then by its time all that changes what is billed, each after something else.
pub fn happen(client: &mut Client, changing: &Changing, run: usize, mut before: impl FnMut(&mut Client, Micros)) {
    let history = &changing.history;
    let mut sql: Vec<(Micros, String)> = Vec::new();
    for (place, subscription) in history.subscriptions.iter().enumerate() {
        sql.push((subscription.start, created(changing, place)));
    }
    for grant in &changing.grants {
        sql.push((grant.created, granted(grant)));
    }
    for change in &changing.changes {
        let subscription = &history.subscriptions[change.subscription];
        sql.push((change.at, changed(&subscription.id, change)));
    }
    sql.retain(|(at, _)| history.run_at(*at) == Some(run));
    sql.sort_by_key(|(at, _)| *at);
    client.batch_execute(&usage(history, run)).unwrap();
    for (at, sql) in sql {
        before(client, at);
        if let Err(error) = client.batch_execute(&sql) {
            panic!("at {}: {error:?}\n{sql}", shown(at));
        }
    }
}

pub fn told(changing: &Changing, invoices: &[Invoice]) -> Vec<Told> {
    let tell = |line: &Line| {
        format!(
            "{} {} {} – {}: {} tenths, {}, discount {}, credit {}, tax {}",
            line.kind,
            line.price,
            shown(line.start),
            shown(line.end),
            line.tenths,
            line.amount,
            line.discount,
            line.credit,
            line.tax
        )
    };
    let mut told: Vec<Told> = std::iter::zip(1.., invoices)
        .map(|(number, invoice)| {
            let mut lines: Vec<String> = invoice.lines.iter().map(tell).collect();
            lines.sort();
            let due = invoice.total() + invoice.starting - invoice.ending;
            Told {
                subscription: changing.history.subscriptions[invoice.subscription].id.clone(),
                reason: invoice.reason.to_owned(),
                created: invoice.created,
                finalized_at: invoice.finalized_at,
                lines,
                total: invoice.total(),
                settled: invoice
                    .finalized_at
                    .map(|_| (number, invoice.starting, invoice.ending, due)),
            }
        })
        .collect();
    told.sort();
    told
}

/// Without what depends on the order in which invoices became final: their numbers, which of them used up a balance, and what is
/// contested.
pub fn unordered(mut books: Vec<Told>, contested: &Contested) -> Vec<Told> {
    books.retain(|invoice| !contested.coupons.contains(&invoice.subscription));
    for invoice in &mut books {
        invoice.settled = invoice.settled.map(|_| (0, 0, 0, 0));
        let uncertain = if contested.drafts && invoice.finalized_at.is_none() {
            Some(", discount")
        } else {
            contested.credit.contains(&invoice.subscription).then_some(", credit")
        };
        if let Some(from) = uncertain {
            invoice.total = 0;
            for line in &mut invoice.lines {
                line.truncate(line.find(from).unwrap_or(line.len()));
            }
        }
        invoice.lines.sort();
    }
    books.sort();
    books
}

/// The first invoice that is due by a time is what was shown of it just before it was made.
#[track_caller]
pub fn assert_preview_holds(client: &mut Client, until: Micros) {
    const SHOWN: &str =
        "SELECT coalesce(array_agg(concat_ws(' ', l.kind, l.subscription_item, l.price, l.quantity, l.amount,
            l.discount_amount, l.credit_amount, l.tax_amount, l.period_start, l.period_end)), '{}') FROM";
    let due = "SELECT s.id, s.next_invoice_at::text, (s.next_invoice_at - interval '1 microsecond')::text
               FROM billing.subscriptions s WHERE s.next_invoice_at <= $1::text::timestamptz
               ORDER BY s.next_invoice_at, s.id LIMIT 1";
    if let Some(row) = client.query_opt(due, &[&shown(until)]).unwrap() {
        let (subscription, at, before): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let run = |client: &mut Client, at: &str| {
            client
                .execute(&format!("SELECT billing.generate_invoices('{at}')"), &[])
                .unwrap();
        };
        run(client, &before);
        let lines = |client: &mut Client, of: String| -> Vec<String> {
            let mut lines: Vec<String> = client.query_one(&format!("{SHOWN} {of}"), &[]).unwrap().get(0);
            lines.sort();
            lines
        };
        let preview = lines(client, format!("billing.preview_invoice('{subscription}', '{at}') l"));
        run(client, &at);
        let made = lines(
            client,
            format!(
                "billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
                 WHERE i.subscription = '{subscription}' AND i.created = '{at}' AND i.billing_reason = 'subscription_cycle'"
            ),
        );
        assert_eq!(preview, made, "preview of {subscription} at {at}");
    }
    client
        .execute(&format!("SELECT billing.generate_invoices('{}')", shown(until)), &[])
        .unwrap();
}
