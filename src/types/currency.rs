//! The currencies that Stripe charges in.

use super::Invalid;
use super::object::Object;

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

/// Takes `currency`: a known code in any case, lowercase from here on.
pub(super) fn take(object: &mut Object) -> Result<Option<String>, Invalid> {
    const FIELD: &str = "currency";
    let given = object.get(FIELD).cloned();
    let Some(code) = object.text(FIELD, usize::MAX)? else {
        return Ok(None);
    };
    match known(&code) {
        Some(code) => Ok(Some(code)),
        None => Err(object
            .error(FIELD, given.as_ref(), "is not a currency that Stripe knows")
            .with_hint("Give a three-letter ISO 4217 code in lowercase, such as usd.")),
    }
}

/// The code in lower case, if Stripe knows it.
pub(super) fn known(code: &str) -> Option<String> {
    let code = code.to_ascii_lowercase();
    CURRENCIES.binary_search(&code.as_str()).is_ok().then_some(code)
}
