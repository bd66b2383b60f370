//! The currencies that Stripe charges in.

use serde_json::Value;

use super::object::{Object, shown};
use super::{Invalid, Kind};

/// ISO 4217 codes, sorted. Those that were replaced (such as `hrk`) stay: old prices have them.
const CURRENCIES: &[&str] = &[
    "aed", "afn", "all", "amd", "ang", "aoa", "ars", "aud", "awg", "azn", "bam", "bbd", "bdt", "bgn", "bhd", "bif",
    "bmd", "bnd", "bob", "brl", "bsd", "btn", "bwp", "byn", "byr", "bzd", "cad", "cdf", "chf", "clp", "cny", "cop",
    "crc", "cve", "czk", "djf", "dkk", "dop", "dzd", "eek", "egp", "etb", "eur", "fjd", "fkp", "gbp", "gel", "ghs",
    "gip", "gmd", "gnf", "gtq", "gyd", "hkd", "hnl", "hrk", "htg", "huf", "idr", "ils", "inr", "isk", "jmd", "jod",
    "jpy", "kes", "kgs", "khr", "kmf", "krw", "kwd", "kyd", "kzt", "lak", "lbp", "lkr", "lrd", "lsl", "ltl", "lvl",
    "mad", "mdl", "mga", "mkd", "mmk", "mnt", "mop", "mro", "mru", "mur", "mvr", "mwk", "mxn", "myr", "mzn", "nad",
    "ngn", "nio", "nok", "npr", "nzd", "omr", "pab", "pen", "pgk", "php", "pkr", "pln", "pyg", "qar", "ron", "rsd",
    "rub", "rwf", "sar", "sbd", "scr", "sek", "sgd", "shp", "sle", "sll", "sos", "srd", "std", "stn", "svc", "szl",
    "thb", "tjs", "tnd", "top", "try", "ttd", "twd", "tzs", "uah", "ugx", "usd", "uyu", "uzs", "vef", "ves", "vnd",
    "vuv", "wst", "xaf", "xcd", "xcg", "xof", "xpf", "yer", "zar", "zmw",
];

/// Those without a smaller unit, as Stripe lists them. The króna (`isk`) and the Ugandan shilling (`ugx`) have none either,
/// but Stripe writes their amounts with two places, always 00, as it did when they still had one.
const WHOLE: &[&str] = &[
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
];

/// Those whose smaller unit is a thousandth, as Stripe lists them.
const THOUSANDTHS: &[&str] = &["bhd", "jod", "kwd", "omr", "tnd"];

const HINT: &str = "Give a three-letter ISO 4217 code in lowercase, such as usd.";

/// The code in lowercase, when it is a known one.
pub(super) fn known(code: &str) -> Option<String> {
    let code = code.to_ascii_lowercase();
    CURRENCIES.binary_search(&code.as_str()).is_ok().then_some(code)
}

/// Decimal places of the minor unit in which a currency's amounts are given, by its code in any case: 0, 2 or 3.
///
/// # Errors
/// A code that Stripe does not know.
pub fn exponent(code: &str) -> Result<i32, Invalid> {
    let known = known(code).ok_or_else(|| Invalid {
        kind: Kind::Invalid,
        object: "currency",
        field: String::new(),
        value: Some(shown(&Value::from(code))),
        rule: "is not a currency that Stripe knows".to_owned(),
        hint: Some(HINT.to_owned()),
    })?;
    Ok(match known.as_str() {
        code if WHOLE.contains(&code) => 0,
        code if THOUSANDTHS.contains(&code) => 3,
        _ => 2,
    })
}

/// Takes `currency`: a known code in any case, lowercase from here on.
pub(super) fn take(object: &mut Object) -> Result<Option<String>, Invalid> {
    const FIELD: &str = "currency";
    let given = object.get(FIELD).cloned();
    let Some(code) = object.text(FIELD, usize::MAX)? else {
        return Ok(None);
    };
    match known(&code) {
        Some(code) => Ok(Some(code)),
        None => Err(unknown(object, FIELD, given.as_ref())),
    }
}

/// The error for a code that is no currency.
pub(super) fn unknown(object: &Object, field: &str, value: Option<&Value>) -> Invalid {
    object
        .error(field, value, "is not a currency that Stripe knows")
        .with_hint(HINT)
}
