use super::*;

fn with_discounts(lines: &[Line], offs: &[Off]) -> Invoice {
    let mut invoice = invoice(lines);
    invoice.discounts = std::iter::zip('a'.., offs)
        .map(|(id, off)| discount(&id.to_string(), *off))
        .collect();
    invoice
}

fn percent_off(text: &str) -> Off {
    Off::Percent(percent(text))
}

/// Stripe, billing/subscriptions/prorations: 5.00 off lines of 10.00 and 20.00 are 1.66 and 3.34.
#[test]
fn an_amount_is_spread_in_proportion_with_the_remainder_on_the_last_line() {
    let spread = |amounts: &[i64], off| {
        let lines: Vec<Line> = amounts.iter().map(|amount| seat(*amount)).collect();
        discounted(&with_discounts(&lines, &[Off::Amount(off)]))
    };
    assert_eq!(spread(&[1000, 2000], 500), [[166], [334]]);
    assert_eq!(spread(&[2000, 1000], 500), [[333], [167]]);
    // 100 over three equal lines: 33, 33 and the rest.
    assert_eq!(spread(&[1000, 1000, 1000], 100), [[33], [33], [34]]);
    // A yen or a fils is as whole as a cent: 10 off 7 + 7 + 7 are 3, 3, 4.
    assert_eq!(spread(&[7, 7, 7], 10), [[3], [3], [4]]);
    // 20 of 21 over 10, 10, 1: 9 and 9, and the last would bear 2 of its 1. The line before bears the other.
    assert_eq!(spread(&[10, 10, 1], 20), [[9], [10], [1]]);
    // A line that gets nothing has no entry.
    assert_eq!(spread(&[1, 1000], 5), [vec![], vec![5]]);
}

#[test]
fn no_more_is_taken_off_than_there_is() {
    let invoice = with_discounts(&[seat(300), seat(200)], &[Off::Amount(900), Off::Amount(100)]);
    assert_eq!(discounted(&invoice), [[300], [200]]);
    assert_eq!(lines(&invoice).iter().map(|line| line.rest).sum::<i64>(), 0);
    let all = with_discounts(
        &[seat(i64::MAX), seat(i64::MAX)],
        &[percent_off("100"), percent_off("50")],
    );
    assert_eq!(discounted(&all), [[i64::MAX], [i64::MAX]]);
}

/// Stripe, coupons: 20 % and then 5.00 is not 5.00 and then 20 %.
#[test]
fn order_matters() {
    let line = [seat(3000)];
    let (fifth, five) = (percent_off("20"), Off::Amount(500));
    // 3000 - 600 - 500 = 1900; 3000 - 500 - 500 = 2000.
    assert_eq!(discounted(&with_discounts(&line, &[fifth, five])), [[600, 500]]);
    assert_eq!(discounted(&with_discounts(&line, &[five, fifth])), [[500, 500]]);
}

#[test]
fn a_percentage_is_of_what_is_left_of_each_line_and_rounded_there() {
    // 12.5 % of 99 = 12.375 and of 100 = 12.5; then 33.3333 % of 87 = 28.999971 and of 87.
    let invoice = with_discounts(&[seat(99), seat(100)], &[percent_off("12.5"), percent_off("33.3333")]);
    assert_eq!(discounted(&invoice), [[12, 29], [13, 29]]);
    // 0.0001 % of 1,000,000 = 1, and of 499,999 less than a half.
    assert_eq!(
        discounted(&with_discounts(
            &[seat(1_000_000), seat(499_999)],
            &[percent_off("0.0001")]
        )),
        [vec![1], vec![]]
    );
}

#[test]
fn what_is_below_zero_or_not_discountable_is_left_alone() {
    let fixed = Line {
        discountable: false,
        ..seat(1000)
    };
    let lines = [seat(-400), fixed, seat(1000), seat(0)];
    assert_eq!(
        discounted(&with_discounts(&lines, &[Off::Amount(1500), percent_off("50")])),
        [vec![], vec![], vec![1000], vec![]]
    );
}

#[test]
fn a_discount_keeps_to_its_products_and_its_item() {
    let of = |product: Option<&str>, item: &str, amount| Line {
        product: product.map(str::to_owned),
        item: Some(item.to_owned()),
        ..seat(amount)
    };
    let mut invoice = invoice(&[
        of(Some("api"), "si_1", 1000),
        of(Some("support"), "si_2", 500),
        of(None, "si_2", 500),
    ]);
    let mut by_product = discount("api only", percent_off("10"));
    by_product.products = Some(vec!["api".into(), "other".into()]);
    let mut by_item = discount("item", Off::Amount(101));
    by_item.item = Some("si_2".into());
    invoice.discounts = vec![by_item, by_product];
    assert_eq!(discounted(&invoice), [[100], [50], [51]]);
}

/// Three months from 1 January, on usage billed at the end of each month, are January, February and March; in advance too.
#[test]
fn a_discount_that_ends_covers_the_service_until_then() {
    let mut repeating = discount("repeating", percent_off("50"));
    repeating.end_at = Some(day(90));
    let at = |created: i64, usage_end: i64| {
        let usage = Line {
            period_end: day(usage_end),
            ..usage(100)
        };
        let seat = Line {
            period_end: day(created + 30),
            ..seat(100)
        };
        let mut invoice = invoice(&[usage, seat]);
        invoice.created = day(created);
        invoice.discounts = vec![repeating.clone()];
        discounted(&invoice)
    };
    assert_eq!(at(59, 59), [[50], [50]]);
    // Created when it ends: the service that ended by then, and not the one to come.
    assert_eq!(at(90, 90), [vec![50], vec![]]);
    assert_eq!(at(120, 120), [Vec::<i64>::new(), vec![]]);
    // Late usage of a month that was covered.
    assert_eq!(at(120, 59), [vec![50], vec![]]);
}

#[test]
fn credit_pays_line_after_line_and_runs_out_in_the_middle_of_one() {
    let mut invoice = invoice(&[usage(300), seat(1000), usage(500), usage(100)]);
    invoice.credit_grants = vec![grant("g", 450)];
    let from_g = |amount| vec![("g".to_owned(), amount)];
    assert_eq!(paid(&invoice), [from_g(300), vec![], from_g(150), vec![]]);
}

/// Stripe, credit grants: priority, expiry (none last), promotional before paid, effective, created.
#[test]
fn grants_are_used_in_stripes_order() {
    let expiring = |id: &str, at| Grant {
        expires_at: Some(day(at)),
        ..grant(id, 10)
    };
    let promotional = |id: &str| Grant {
        category: Category::Promotional,
        ..grant(id, 10)
    };
    let expected = [
        Grant {
            priority: 0,
            ..grant("1 first priority", 10)
        },
        Grant {
            category: Category::Paid,
            ..expiring("2 expires first", 40)
        },
        Grant {
            category: Category::Promotional,
            ..expiring("3 expires later, promotional", 50)
        },
        expiring("4 expires later, paid", 50),
        promotional("5 never expires, promotional"),
        Grant {
            created: day(9),
            ..grant("6 effective first", 10)
        },
        Grant {
            effective_at: day(1),
            created: day(1),
            ..grant("7 created first", 10)
        },
        Grant {
            effective_at: day(1),
            created: day(2),
            ..grant("8 a", 10)
        },
        Grant {
            effective_at: day(1),
            created: day(2),
            ..grant("8 b", 10)
        },
        Grant {
            priority: 100,
            category: Category::Promotional,
            ..expiring("9 last priority", 32)
        },
    ];
    let mut invoice = invoice(&[usage(95)]);
    invoice.credit_grants = expected.iter().rev().cloned().collect();
    let used: Vec<(String, i64)> = expected
        .iter()
        .map(|grant| (grant.id.clone(), if grant.priority == 100 { 5 } else { 10 }))
        .collect();
    assert_eq!(paid(&invoice), [used]);
}

#[test]
fn credit_keeps_to_its_prices_and_comes_after_discounts() {
    let other = Line {
        price: Some("other".into()),
        ..usage(1000)
    };
    let mut invoice = invoice(&[usage(1000), other, seat(1000)]);
    invoice.discounts = vec![discount("half", percent_off("50"))];
    let narrow = Grant {
        prices: Some(vec!["other".into(), "seat".into()]),
        priority: 1,
        ..grant("narrow", 700)
    };
    invoice.credit_grants = vec![grant("wide", 200), narrow];
    // 500 left of each: the narrow one pays all of "other" and nothing licensed, the wide one 200 of "call".
    assert_eq!(
        paid(&invoice),
        [vec![("wide".to_owned(), 200)], vec![("narrow".to_owned(), 500)], vec![]]
    );
}

/// Usage of 100, of which an earlier month's 30 is taken back: credit pays 70. And where the invoice is below zero, none.
#[test]
fn credit_pays_no_more_than_the_invoice_comes_to() {
    let mut corrected = invoice(&[usage(100), usage(-30), seat(500)]);
    corrected.credit_grants = vec![grant("g", 1000)];
    assert_eq!(paid(&corrected), [vec![("g".to_owned(), 70)], vec![], vec![]]);
    let mut below = invoice(&[usage(100), seat(-60)]);
    below.credit_grants = vec![grant("g", 1000)];
    assert_eq!(paid(&below), [vec![("g".to_owned(), 40)], vec![]]);
    below.lines[1].amount = -500;
    assert_eq!(paid(&below), [vec![], vec![]]);
}

/// Stripe, tax rates: 10 % on 6.00 is 0.60 on top, or 0.55 of the 6.00 (600 × 10 / 110 = 54.55).
#[test]
fn tax_comes_on_top_or_is_within() {
    assert_eq!(taxes_of(&taxed(invoice(&[seat(600)]), &[("10", false)])), [[(60, 600)]]);
    assert_eq!(taxes_of(&taxed(invoice(&[seat(600)]), &[("10", true)])), [[(55, 545)]]);
    // 19 % within 119 is 19.
    assert_eq!(taxes_of(&taxed(invoice(&[seat(119)]), &[("19", true)])), [[(19, 100)]]);
}

#[test]
fn inclusive_rates_are_taken_out_together() {
    // 1130 hold 100 of 10 % and 30 of 3 %; taken out one after the other they would be 103 and 30.
    let both = taxed(invoice(&[seat(1130)]), &[("10", true), ("3", true)]);
    assert_eq!(taxes_of(&both), [[(100, 1000), (30, 1000)]]);
    // An exclusive rate is of the 1000, too.
    let mixed = taxed(invoice(&[seat(1130)]), &[("10", true), ("3", true), ("5", false)]);
    assert_eq!(taxes_of(&mixed), [[(100, 1000), (30, 1000), (50, 1000)]]);
}

/// Stripe, support: 0.0645 and 0.7265 are rounded to 0.06 and 0.73 and then added: 0.79, where the sum would be 0.791.
#[test]
fn tax_is_rounded_by_line_and_rate() {
    let lines = taxed(
        invoice(&[seat(86), seat(969), seat(10)]),
        &[("7.5", false), ("5", false)],
    );
    // 6.45 and 72.675 at 7.5 %; 4.3 and 48.45 at 5 %; and halves away from zero: 0.75, 0.5.
    assert_eq!(
        taxes_of(&lines),
        [[(6, 86), (4, 86)], [(73, 969), (48, 969)], [(1, 10), (1, 10)]]
    );
    assert_eq!(super::lines(&lines)[1].tax_amount(), Some(121));
}

/// What is given back had its tax, to the same cent.
#[test]
fn tax_of_a_line_below_zero_is_below_zero() {
    for rate in [("19", true), ("19", false), ("7.6250", false)] {
        let up = taxes_of(&taxed(invoice(&[seat(333)]), &[rate]));
        let down = taxes_of(&taxed(invoice(&[seat(-333)]), &[rate]));
        assert_eq!(down, [[(-up[0][0].0, -up[0][0].1)]]);
    }
}

#[test]
fn tax_is_of_what_discounts_and_credit_leave() {
    let mut invoice = taxed(invoice(&[usage(1000)]), &[("19", true)]);
    invoice.discounts = vec![discount("fifth", percent_off("20"))];
    // 800 left, which hold 127.73 of tax.
    assert_eq!(taxes_of(&invoice), [[(128, 672)]]);
    invoice.credit_grants = vec![grant("g", 681)];
    // 119 left, which hold 19.
    assert_eq!(taxes_of(&invoice), [[(19, 100)]]);
    invoice.credit_grants = vec![grant("g", 800)];
    assert_eq!(taxes_of(&invoice), [[(0, 0)]]);
}

#[test]
fn the_exempt_owe_nothing_and_it_is_said_why() {
    for (exemption, reason) in [
        (Exemption::Exempt, "customer_exempt"),
        (Exemption::Reverse, "reverse_charge"),
    ] {
        let mut exempt = taxed(invoice(&[seat(600)]), &[("10", false), ("10", true)]);
        exempt.tax_exempt = exemption;
        for tax in &lines(&exempt)[0].taxes {
            assert_eq!((tax.amount, tax.taxable, tax.taxability.reason()), (0, 600, reason));
        }
    }
    let zero = taxed(invoice(&[seat(600)]), &[("0", false), ("10", false)]);
    let reasons: Vec<_> = lines(&zero)[0]
        .taxes
        .iter()
        .map(|tax| tax.taxability.reason())
        .collect();
    assert_eq!(reasons, ["zero_rated", "standard_rated"]);
}

#[test]
fn taxes_that_bigint_cannot_hold_together_are_said_to_be_beyond_it() {
    let line = |amount| taxed(invoice(&[seat(amount)]), &[("100", false), ("100", false)]);
    assert_eq!(lines(&line(i64::MAX / 2))[0].tax_amount(), Some(i64::MAX - 1));
    assert_eq!(lines(&line(i64::MAX))[0].tax_amount(), None);
    assert_eq!(lines(&line(i64::MIN))[0].tax_amount(), None);
    let one = taxed(invoice(&[seat(i64::MIN)]), &[("100", false)]);
    assert_eq!(lines(&one)[0].tax_amount(), Some(i64::MIN));
}

/// 5.00 off 10.00 and 20.00 are 1.66 and 3.34. Of the 20.00 a quarter is given back: three quarters keep 2.505, rounded 2.51.
#[test]
fn what_is_given_back_of_a_line_takes_its_share_of_what_that_has_got_here() {
    let back = |amount| Line {
        reverses: vec![2],
        ..seat(amount)
    };
    let given = |of: &[Line]| lines(&with_discounts(of, &[Off::Amount(500), percent_off("50")]));
    let all = given(&[seat(1000), seat(2000), back(-500)]);
    let parts = |line: &AdjustedLine| line.discounts.clone();
    // Half of what 1.66 and 3.34 leave: 4.17 and 8.33, so 11.67 off 20.00; three quarters of it are 8.7525.
    assert_eq!(parts(&all[1]), [("a".into(), 334), ("b".into(), 833)]);
    assert_eq!(parts(&all[2]), [("a".into(), -83), ("b".into(), -209)]);
    assert_eq!(all[2].rest, -208);
    let gone = given(&[seat(1000), seat(2000), back(-2000)]);
    assert_eq!(gone[1].rest + gone[2].rest, 0);
    // In two steps: half of it keeps 5.84 of 11.67, and the rest takes those.
    let again = Line {
        reverses: vec![2, 3],
        ..seat(-1000)
    };
    let steps = given(&[seat(1000), seat(2000), back(-1000), again]);
    let taken_back = |line: &AdjustedLine| line.discounts.iter().map(|(_, amount)| amount).sum::<i64>();
    assert_eq!((taken_back(&steps[2]), taken_back(&steps[3])), (-583, -584));
    // What asks for something gives nothing back.
    assert_eq!(parts(&given(&[seat(1000), seat(0), back(10)])[2]).len(), 2);
}

#[test]
fn a_line_that_is_not_there_is_not_reversed() {
    for place in [0, 2] {
        let line = Line {
            reverses: vec![place],
            ..seat(-1)
        };
        assert_eq!(adjust(&invoice(&[line])), Err(Unknown::Line(place)));
    }
}

#[test]
fn a_rate_that_nobody_describes_is_an_error() {
    let mut invoice = invoice(&[seat(1)]);
    invoice.lines[0].tax_rates.push("txr_1".into());
    assert_eq!(adjust(&invoice), Err(Unknown::TaxRate("txr_1".into())));
}

#[test]
fn percentages_have_four_places() {
    let read = |text: &str| text.parse::<Percent>().map(Percent::millionths);
    assert_eq!(read("0"), Ok(0));
    assert_eq!(read("0.0001"), Ok(1));
    assert_eq!(read("7.6250"), Ok(76_250));
    assert_eq!(read("100.0000"), Ok(1_000_000));
    assert_eq!(read("1e2"), Ok(1_000_000));
    for text in [
        "100.0001",
        "0.00001",
        "-1",
        "-0.5",
        "1e9",
        "1e-9",
        "x",
        "",
        "NaN",
        "1e999999999",
    ] {
        assert_eq!(read(text), Err(NotAPercentage), "{text}");
    }
}
