//! Stripe's worked examples and stated rules, each with its source; and small cases worked out by hand.

use super::*;

/// docs.stripe.com/products-prices/pricing-models, "Tiered pricing": 1–5 at 7, 6–10 at 6.50, from 11 at 6.
pub(super) const TIERS: [(&str, &str, &str); 3] = [("5", "7", ""), ("10", "6.5", ""), ("", "6", "")];

/// docs.stripe.com/products-prices/pricing-models, "Flat fees with tiers".
pub(super) const FLAT_TIERS: [(&str, &str, &str); 5] = [
    ("5", "5", "10"),
    ("10", "4", "20"),
    ("15", "3", "30"),
    ("20", "2", "40"),
    ("", "1", "50"),
];

#[test]
fn stripe_example_volume() {
    let model = tiered(TiersMode::Volume, &TIERS);
    bills(&model, "5", "35");
    bills(&model, "6", "39");
    bills(&model, "20", "120");
    bills(&model, "25", "150");
}

#[test]
fn stripe_example_graduated() {
    let model = tiered(TiersMode::Graduated, &TIERS);
    bills(&model, "5", "35");
    bills(&model, "6", "41.5");
    bills(&model, "20", "127.5");
    bills(&model, "25", "157.5");
}

/// Volume 12 × 3 + 30; graduated (5 × 5 + 10) + (5 × 4 + 20) + (2 × 3 + 30).
#[test]
fn stripe_example_flat_amounts() {
    bills(&tiered(TiersMode::Volume, &FLAT_TIERS), "12", "66");
    bills(&tiered(TiersMode::Graduated, &FLAT_TIERS), "12", "111");
}

/// Stripe bills the first tier's flat amount without any usage, in both modes; a negative total counts as zero.
#[test]
fn no_usage_bills_the_first_flat_amount() {
    for mode in [TiersMode::Volume, TiersMode::Graduated] {
        for quantity in ["0", "-1", "-0.000000000001"] {
            bills(&tiered(mode, &FLAT_TIERS), quantity, "10");
            bills(&tiered(mode, &TIERS), quantity, "0");
        }
    }
    bills(&per_unit("7"), "-3", "0");
    bills(&package("7", 5, Round::Up), "-3", "0");
}

/// Stripe's way to bill a fee only when there is usage: a first tier of one unit.
#[test]
fn fee_from_the_first_unit() {
    let model = tiered(TiersMode::Graduated, &[("1", "1000", ""), ("", "4", "")]);
    bills(&model, "0", "0");
    bills(&model, "1", "1000");
    bills(&model, "11", "1040");
}

/// docs.stripe.com/billing/subscriptions/quantities, "Transform quantities": 10 USD per started hour of 150 minutes is 30
/// USD; packages of 5 users; rounded down, only full packages bill.
#[test]
fn stripe_example_packages() {
    bills(&package("1000", 60, Round::Up), "150", "3000");
    bills(&package("1", 5, Round::Up), "6", "2");
    bills(&package("1", 5, Round::Down), "6", "1");
    bills(&package("1", 5, Round::Down), "4.999999999999", "0");
    for (quantity, up, down) in [
        ("0", "0", "0"),
        ("5", "1", "1"),
        ("5.000000000001", "2", "1"),
        ("1e3", "200", "200"),
    ] {
        bills(&package("1", 5, Round::Up), quantity, up);
        bills(&package("1", 5, Round::Down), quantity, down);
    }
}

/// docs.stripe.com/billing/subscriptions/usage-based/implementation-guide: 0.04 USD per 100 tokens.
#[test]
fn stripe_example_pay_as_you_go() {
    let model = package("4", 100, Round::Up);
    bills(&model, "100", "4");
    bills(&model, "101", "8");
    bills(&model, "1000000", "40000");
}

/// docs.stripe.com/billing/subscriptions/decimal-amounts: 30 units at 0.05 cents are 1.5 cents, billed as 2.
#[test]
fn stripe_example_decimal_amount() {
    bills(&per_unit("0.05"), "30", "1.5");
    assert_eq!(round_minor(&amount(&per_unit("0.05"), &dec("30"))), Some(2));
}

/// One unit more can cost less: 10,000 at 0.50 and 10,001 at 0.40 (in dollars as Stripe writes it).
#[test]
fn stripe_example_volume_drop() {
    let model = tiered(TiersMode::Volume, &[("10000", "0.50", ""), ("", "0.40", "")]);
    bills(&model, "10000", "5000");
    bills(&model, "10001", "4000.4");
}

/// Between 5 and 6 there is no hole although Stripe writes the tiers as 1–5 and 6–10: 5 × 7 + 0.5 × 6.5.
#[test]
fn fractions_between_tiers() {
    bills(&tiered(TiersMode::Graduated, &TIERS), "5.5", "38.25");
    bills(&tiered(TiersMode::Volume, &TIERS), "5.5", "35.75");
    bills(
        &tiered(TiersMode::Volume, &TIERS),
        "5.000000000000001",
        "32.5000000000000065",
    );
    bills(
        &tiered(TiersMode::Graduated, &[("0.5", "2", ""), ("", "4", "")]),
        "0.75",
        "2",
    );
}

/// Validation lets no such price in; should one be met, usage beyond its last tier is billed rather than lost.
#[test]
fn last_tier_has_no_end() {
    let tiers = [("5", "7", ""), ("10", "6", "1")];
    bills(&tiered(TiersMode::Graduated, &tiers), "20", "126");
    bills(&tiered(TiersMode::Volume, &tiers), "20", "121");
}
