use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;
use proptest::prelude::*;

use super::*;

fn line() -> impl Strategy<Value = Line> {
    let amount = prop_oneof![4 => -2_000..20_000_i64, 1 => any::<i64>()];
    (amount, 0..8_u8, 0..3_u8, any::<bool>(), 0..4_i64).prop_map(|(amount, discountable, kind, metered, late)| Line {
        amount,
        discountable: discountable > 0,
        item: Some(format!("si_{kind}")),
        product: (kind > 0).then(|| format!("prod_{kind}")),
        price: Some(format!("price_{kind}")),
        metered,
        period_end: day(29 + late),
        tax_rates: vec![],
        corrects: None,
        reverses: vec![],
    })
}

fn some_discount() -> impl Strategy<Value = Discount> {
    let off = prop_oneof![
        (0..=1_000_000_u32).prop_map(|millionths| Off::Percent(Percent::from_millionths(millionths).unwrap())),
        (1..30_000_i64).prop_map(Off::Amount),
        (1..i64::MAX).prop_map(Off::Amount),
    ];
    (
        off,
        0..5_u8,
        0..5_u8,
        prop::option::weighted(0.2, 28..34_i64),
        any::<u32>(),
    )
        .prop_map(|(off, product, item, end, id)| Discount {
            id: format!("di_{id}"),
            off,
            products: (product < 3).then(|| vec![format!("prod_{product}")]),
            item: (item < 3).then(|| format!("si_{item}")),
            end_at: end.map(day),
        })
}

fn some_grant() -> impl Strategy<Value = Grant> {
    let balance = prop_oneof![1..10_000_i64, 1..i64::MAX];
    let times = (0..3_i64, prop::option::of(32..35_i64), 0..3_i64);
    (balance, 0..6_u8, 49..52_i32, any::<bool>(), times, any::<u64>()).prop_map(
        |(balance, price, priority, paid, (effective, expires, created), id)| Grant {
            id: format!("credgr_{id}"),
            balance,
            prices: (price < 3).then(|| vec![format!("price_{price}")]),
            priority,
            category: if paid { Category::Paid } else { Category::Promotional },
            effective_at: day(effective),
            expires_at: expires.map(day),
            created: day(created),
        },
    )
}

fn some_invoice() -> impl Strategy<Value = Invoice> {
    let rates = prop::collection::vec((0..=1_000_000_u32, any::<bool>()), 0..4);
    (
        prop::collection::vec(line(), 1..7),
        prop::collection::vec(some_discount(), 0..5),
        prop::collection::vec(some_grant(), 0..5),
        rates,
    )
        .prop_map(|(mut lines, discounts, credit_grants, rates)| {
            let tax_rates: Vec<TaxRate> = rates
                .into_iter()
                .enumerate()
                .map(|(place, (millionths, inclusive))| TaxRate {
                    id: place.to_string(),
                    percentage: Percent::from_millionths(millionths).unwrap(),
                    inclusive,
                })
                .collect();
            for line in &mut lines {
                line.tax_rates = tax_rates.iter().map(|rate| rate.id.clone()).collect();
            }
            Invoice {
                discounts,
                credit_grants,
                tax_rates,
                ..invoice(&lines)
            }
        })
}

fn total(parts: &[(String, i64)]) -> i128 {
    parts.iter().map(|(_, amount)| i128::from(*amount)).sum()
}

/// Whether a whole number is the quotient rounded half away from zero, by what that means.
fn is_rounded(whole: i64, numerator: i128, denominator: i128) -> bool {
    let error = 2 * (i128::from(whole) * denominator - numerator);
    let away = (error > 0) == (numerator > 0);
    error.abs() < denominator || error.abs() == denominator && away
}

proptest! {
    /// Each line is what is left of it and what was taken off, to the unit, and nothing goes below zero or over a balance.
    #[test]
    fn everything_adds_up(invoice in some_invoice()) {
        let adjusted = lines(&invoice);
        prop_assert_eq!(adjusted.len(), invoice.lines.len());
        for (line, adjusted) in std::iter::zip(&invoice.lines, &adjusted) {
            let off = total(&adjusted.discounts) + total(&adjusted.credits);
            prop_assert_eq!(i128::from(line.amount), i128::from(adjusted.rest) + off);
            prop_assert!(adjusted.discounts.iter().chain(&adjusted.credits).all(|(_, amount)| *amount > 0));
            prop_assert!(line.amount > 0 && adjusted.rest >= 0 || line.amount <= 0 && adjusted.rest == line.amount);
            prop_assert!(line.discountable || adjusted.discounts.is_empty());
            prop_assert!(line.metered || adjusted.credits.is_empty());
        }
        for grant in &invoice.credit_grants {
            let used = adjusted.iter().flat_map(|line| &line.credits).filter(|(id, _)| *id == grant.id);
            prop_assert!(used.map(|(_, amount)| i128::from(*amount)).sum::<i128>() <= i128::from(grant.balance));
        }
        let rest: i128 = adjusted.iter().map(|line| i128::from(line.rest)).sum();
        let paid: i128 = adjusted.iter().map(|line| total(&line.credits)).sum();
        prop_assert!(paid == 0 || rest >= 0, "credit turned into {rest}");
    }

    /// An amount off is taken off in full, or as far as there is anything.
    #[test]
    fn an_amount_off_is_taken_off_once_and_whole(amounts in prop::collection::vec(-50..3_000_i64, 1..8), off in 1..9_000_i64) {
        let lines: Vec<Line> = amounts.iter().map(|amount| seat(*amount)).collect();
        let mut invoice = invoice(&lines);
        invoice.discounts = vec![discount("di", Off::Amount(off))];
        let taken: i64 = discounted(&invoice).iter().flatten().sum();
        let there: i64 = amounts.iter().filter(|amount| **amount > 0).sum();
        prop_assert_eq!(taken, off.min(there));
        // All but those that bear the remainder have their share, rounded down.
        let positive = amounts.iter().filter(|amount| **amount > 0).count();
        let close = std::iter::zip(&amounts, discounted(&invoice)).filter(|(amount, _)| **amount > 0).all(|(amount, parts)| {
            let part: i64 = parts.iter().sum();
            let share = amount * taken / there.max(1);
            share <= part && part < share + positive.max(1) as i64
        });
        prop_assert!(close);
    }

    /// Whoever lists the grants, in whatever order, each pays the same.
    #[test]
    fn the_order_of_the_list_of_grants_means_nothing(invoice in some_invoice(), seed in any::<u64>()) {
        let mut shuffled = invoice.clone();
        let len = shuffled.credit_grants.len();
        for i in (1..len).rev() {
            shuffled.credit_grants.swap(i, (seed as usize).wrapping_mul(i + 7) % (i + 1));
        }
        prop_assert_eq!(lines(&invoice), lines(&shuffled));
        shuffled.credit_grants.reverse();
        prop_assert_eq!(lines(&invoice), lines(&shuffled));
    }

    /// More credit never pays less, and all of it is used before a line that it may pay for is left.
    #[test]
    fn credit_is_used_up_before_anything_is_left_to_pay(amounts in prop::collection::vec(1..500_i64, 1..6), balances in prop::collection::vec(1..700_i64, 1..5)) {
        let mut invoice = invoice(&amounts.iter().map(|amount| usage(*amount)).collect::<Vec<_>>());
        invoice.credit_grants = balances.iter().enumerate().map(|(n, balance)| grant(&n.to_string(), *balance)).collect();
        let used: i128 = lines(&invoice).iter().map(|line| total(&line.credits)).sum();
        let (owed, there): (i64, i64) = (amounts.iter().sum(), balances.iter().sum());
        prop_assert_eq!(used, i128::from(owed.min(there)));
    }

    /// 20 % and then an amount is never cheaper than the amount and then 20 %: the percentage is then of less.
    #[test]
    fn a_percentage_first_takes_no_less_off(amount in 1..100_000_i64, off in 1..100_000_i64, millionths in 0..=1_000_000_u32) {
        let percent = Off::Percent(Percent::from_millionths(millionths).unwrap());
        let left = |offs: [Off; 2]| {
            let mut invoice = invoice(&[seat(amount)]);
            invoice.discounts = offs.iter().map(|off| discount("di", *off)).collect();
            lines(&invoice)[0].rest
        };
        prop_assert!(left([percent, Off::Amount(off)]) <= left([Off::Amount(off), percent]));
    }

    /// One rate: tax within and what it is of are the whole amount, and the same tax on top of that is it again, to the rounding.
    #[test]
    fn inclusive_and_exclusive_agree(amount in any::<i64>(), millionths in 0..=1_000_000_u32) {
        let taxes = |amount, inclusive| {
            let mut invoice = invoice(&[seat(amount)]);
            invoice.lines[0].tax_rates = vec!["txr".into()];
            let percentage = Percent::from_millionths(millionths).unwrap();
            invoice.tax_rates = vec![TaxRate { id: "txr".into(), percentage, inclusive }];
            taxes_of(&invoice)[0][0]
        };
        let (within, taxable) = taxes(amount, true);
        prop_assert_eq!(i128::from(within) + i128::from(taxable), i128::from(amount));
        let (on_top, of) = taxes(taxable, false);
        prop_assert_eq!(of, taxable);
        prop_assert!((i128::from(on_top) - i128::from(within)).abs() <= 1, "{within} within, {on_top} on top");
        let (millionths, amount) = (i128::from(millionths), i128::from(amount));
        prop_assert!(is_rounded(within, amount * millionths, 1_000_000 + millionths));
        prop_assert!(is_rounded(on_top, i128::from(taxable) * millionths, 1_000_000));
    }

    /// Usage given back in any steps takes back what was taken off it: never more on the way, and at the end exactly all.
    #[test]
    fn what_is_given_back_in_steps_is_what_was_charged(
        amount in prop_oneof![3 => 1..2_000_i64, 1 => 1..i64::MAX],
        shares in (0..=1_000_i128, 0..=1_000_i128, 0..=1_000_i128, 0..=1_000_i128),
        steps in prop::collection::vec(0..=1_000_i128, 0..8),
    ) {
        let of = |whole: i64, share: i128| i64::try_from(i128::from(whole) * share / 1_000).unwrap();
        let discount = of(amount, shares.0);
        let credit = of(amount - discount, shares.1);
        // Of each kind two, what is left of them after every step.
        let mut discounts = [of(discount, shares.2), discount - of(discount, shares.2)];
        let mut credits = [of(credit, shares.3), credit - of(credit, shares.3)];
        let mut left = amount;
        for step in steps.into_iter().map(Some).chain([None]) {
            let back = step.map_or(left, |share| of(left, share));
            let [discount, credit] = [discounts, credits].map(|parts| parts.iter().sum::<i64>());
            let parts = |amounts: [i64; 2]| {
                std::iter::zip(["a", "b"], amounts).map(|(id, amount)| Part { id: id.into(), amount }).collect()
            };
            let given = &lines(&invoice(&[Line {
                corrects: Some(Correction {
                    amount: left,
                    discount_amount: discount,
                    credit_amount: credit,
                    discounts: parts(discounts),
                    credits: parts(credits),
                }),
                ..usage(-back)
            }]))[0];
            prop_assert_eq!(i128::from(given.rest), -i128::from(back) - total(&given.discounts) - total(&given.credits));
            prop_assert!(given.rest <= 0, "asks for {} for usage given back", given.rest);
            let take = |left: &mut [i64; 2], taken: &[(String, i64)]| {
                for (id, amount) in taken {
                    left[usize::from(id == "b")] += amount;
                }
            };
            take(&mut discounts, &given.discounts);
            take(&mut credits, &given.credits);
            left -= back;
            prop_assert!(discounts.iter().chain(&credits).all(|part| *part >= 0), "{discounts:?} {credits:?}");
            let off = discounts.iter().sum::<i64>() + credits.iter().sum::<i64>();
            prop_assert!(off <= left, "{off} taken off {left}");
            if left > 0 && back > 0 {
                let kept = discounts.iter().sum::<i64>();
                prop_assert!(is_rounded(kept, i128::from(discount) * i128::from(left), i128::from(left) + i128::from(back)));
            }
        }
        prop_assert_eq!((left, discounts, credits), (0, [0, 0], [0, 0]));
    }

    /// Tax of what is given back is the tax of what was charged.
    #[test]
    fn tax_is_symmetrical(amount in 0..i64::MAX, rates in prop::collection::vec((0..=1_000_000_u32, any::<bool>()), 1..5)) {
        let texts: Vec<(String, bool)> = rates
            .iter()
            .map(|(millionths, inclusive)| (BigDecimal::new(BigInt::from(*millionths), 4).to_plain_string(), *inclusive))
            .collect();
        let rates: Vec<(&str, bool)> = texts.iter().map(|(text, inclusive)| (text.as_str(), *inclusive)).collect();
        let up = taxes_of(&taxed(invoice(&[seat(amount)]), &rates));
        let down = taxes_of(&taxed(invoice(&[seat(-amount)]), &rates));
        let mirrored: Vec<_> = down[0].iter().map(|(amount, taxable)| (-amount, -taxable)).collect();
        prop_assert_eq!(&up[0], &mirrored);
    }
}
