//! Random histories of changes: what is charged for licensed items always adds up.

use harness::Dice;

use super::open_shop;
use crate::invoices::assert_books_balance;
use crate::recording::{number, text};

/// The month costs what the quantities of its seconds cost, within the rounding of each line, however often they changed; and
/// nothing is ever given back that was not charged.
#[test]
fn prorations_add_up_to_what_was_used() {
    for seed in 0..6 {
        let mut dice = Dice::new(seed);
        let (_database, mut client) = open_shop();
        let client = &mut client;
        let item = text(client, "SELECT id FROM billing.subscription_items WHERE price = 'seat'");
        // (from which second of January on, price, quantity)
        let mut history: Vec<(i64, &str, i64)> = vec![(0, "seat", 1)];
        let mut second = 0;
        for _ in 0..12 {
            second += i64::try_from(dice.below(200_000)).unwrap() + 1;
            let &(_, price, _) = history.last().unwrap();
            let quantity = i64::try_from(dice.below(9)).unwrap();
            let (price, change) = if dice.below(3) == 0 {
                let other = if price == "seat" { "pro" } else { "seat" };
                (other, format!(r#""price": "{other}", "quantity": {quantity}"#))
            } else {
                (price, format!(r#""quantity": {quantity}"#))
            };
            let behavior = if dice.below(4) == 0 {
                "always_invoice"
            } else {
                "create_prorations"
            };
            client
                .batch_execute(&format!(
                    r#"SELECT billing.update_subscription('sub', '{{"items": [{{"id": "{item}", {change}}}], "proration_behavior": "{behavior}"}}',
                           '2024-01-01'::timestamptz + interval '{second} seconds')"#
                ))
                .unwrap();
            history.push((second, price, quantity));
        }
        client
            .batch_execute("SELECT billing.generate_invoices('2024-02-01 01:00')")
            .unwrap();
        let month = 31 * 86_400;
        let ends = history.iter().skip(1).map(|&(second, ..)| second).chain([month]);
        let exact: f64 = history
            .iter()
            .zip(ends)
            .map(|(&(start, price, quantity), end)| {
                let unit = if price == "seat" { 500 } else { 1500 };
                (unit * quantity * (end - start)) as f64 / month as f64
            })
            .sum();
        let charged = number(
            client,
            "SELECT sum(amount)::bigint FROM billing.invoice_lines WHERE subscription_item IS NOT NULL
             AND kind IN ('licensed', 'unused_time') AND period_start < '2024-02-01'",
        );
        let lines = number(client, "SELECT count(*) FROM billing.invoice_lines WHERE proration");
        assert!(
            (charged as f64 - exact).abs() <= lines as f64 / 2.0 + 0.5,
            "seed {seed}: {charged} charged, {exact} used, {lines} lines"
        );
        let below = number(
            client,
            "SELECT count(*) FROM billing.invoice_items x
             CROSS JOIN LATERAL billing.open_charges(x.subscription_item, '2024-01-31 23:59:59') c
             WHERE c.amount < 0",
        );
        assert_eq!(below, 0, "seed {seed}");
        assert_books_balance(client);
    }
}
