//! Currencies and their minor units.

use super::super::{Kind, currency_exponent};

/// docs.stripe.com/currencies: the zero-decimal and three-decimal currencies, the special cases, and a few others.
#[test]
fn exponents_are_those_that_stripe_lists() {
    for (exponent, codes) in [
        (0, "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf"),
        (3, "bhd jod kwd omr tnd"),
        (2, "usd eur gbp chf isk ugx huf twd Usd"),
    ] {
        for code in codes.split(' ') {
            assert_eq!(currency_exponent(code), Ok(exponent), "{code}");
        }
    }
    assert_eq!(currency_exponent("KWD"), Ok(3));
    for code in ["", "usx", "us", "usdd", " usd", "ﬁm"] {
        let error = currency_exponent(code).unwrap_err();
        assert_eq!(
            (error.kind, error.to_string()),
            (
                Kind::Invalid,
                format!("invalid currency, value \"{code}\": is not a currency that Stripe knows")
            )
        );
        assert!(error.hint.is_some());
    }
}
