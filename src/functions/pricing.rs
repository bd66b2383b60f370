//! Amounts: exact, and rounded once.

use bigdecimal::BigDecimal;
use pgrx::AnyNumeric;
use pgrx::datum::{Range, RangeBound, TimestampWithTimeZone};
use pgrx::prelude::*;

use crate::calendar;
use crate::pg::error::{Result, error};
use crate::pg::numeric::{from_decimal, to_decimal};
use crate::pg::time::finite;
use crate::pricing::{self, Part, Round, TiersMode};
use crate::types::{self, Price, StripeObject};

#[pg_extern(sql = false)]
fn price_amount(price: &[u8], quantity: AnyNumeric) -> Result<AnyNumeric> {
    from_decimal(&amount(price, &quantity)?)
}

#[pg_extern(sql = false)]
fn price_line_amount(price: &[u8], quantity: AnyNumeric) -> Result<i64> {
    pricing::round_minor(&amount(price, &quantity)?).ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            "the amount is out of range for bigint",
        )
        .set_hint("Amounts are minor units of the currency, at most 9,223,372,036,854,775,807.")
    })
}

/// `None`: beyond bigint.
#[pg_extern(sql = false)]
fn price_fitting_amount(price: &[u8], quantity: AnyNumeric) -> Result<Option<i64>> {
    Ok(pricing::round_minor(&amount(price, &quantity)?))
}

fn amount(price: &[u8], quantity: &AnyNumeric) -> Result<BigDecimal> {
    Ok(Price::from_bytes(price)?.amount(&decimal("quantity", quantity)?))
}

#[pg_extern(sql = false)]
fn price_in_currency(price: &[u8], currency: &str) -> Result<Vec<u8>> {
    Ok(Price::from_bytes(price)?.in_currency(currency)?.to_bytes()?)
}

#[pg_extern(sql = false)]
#[expect(clippy::type_complexity, reason = "the columns of a table function")]
fn price_steps(
    price: &[u8],
    quantity: AnyNumeric,
) -> Result<
    TableIterator<
        'static,
        (
            name!(part, &'static str),
            name!(quantity, AnyNumeric),
            name!(tier_from, Option<AnyNumeric>),
            name!(tier_up_to, Option<AnyNumeric>),
            name!(unit_amount, Option<AnyNumeric>),
            name!(flat_amount, Option<AnyNumeric>),
            name!(amount, AnyNumeric),
            name!(note, String),
        ),
    >,
> {
    let steps = Price::from_bytes(price)?.explain(&decimal("quantity", &quantity)?);
    let optional = |value: &Option<BigDecimal>| value.as_ref().map(shown).transpose();
    let rows = steps.iter().map(|step| {
        Ok((
            word(step.part),
            shown(&step.quantity)?,
            optional(&step.from)?,
            optional(&step.up_to)?,
            optional(&step.unit_amount)?,
            optional(&step.flat_amount)?,
            shown(&step.amount)?,
            note(step.part),
        ))
    });
    Ok(TableIterator::new(rows.collect::<Result<Vec<_>>>()?))
}

/// Without zeros at the end of the fraction: for people.
fn shown(value: &BigDecimal) -> Result<AnyNumeric> {
    from_decimal(&pricing::normalise(value))
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Unit => "unit",
        Part::Package { .. } => "package",
        Part::Tier { .. } => "tier",
        Part::Minimum => "minimum",
        Part::Maximum => "maximum",
    }
}

fn note(part: Part) -> String {
    match part {
        Part::Unit => "every unit at one price".to_owned(),
        Part::Package { divide_by, round } => {
            let rest = match round {
                Round::Up => "one begun counts whole",
                Round::Down => "one not full does not count",
            };
            format!("packages of {divide_by}: {rest}")
        }
        Part::Tier { place, mode } => {
            let units = match mode {
                TiersMode::Graduated => "the units that fall in it",
                TiersMode::Volume => "every unit, as the whole quantity falls in it",
            };
            format!("tier {place}: {units}")
        }
        Part::Minimum => "raised to the least that a period costs".to_owned(),
        Part::Maximum => "lowered to the most that a period costs".to_owned(),
    }
}

#[pg_extern(sql = false)]
fn currency_exponent(currency: &str) -> Result<i32> {
    Ok(types::currency_exponent(currency)?)
}

#[pg_extern(sql = false)]
fn prorated_amount(
    amount: AnyNumeric,
    part: Range<TimestampWithTimeZone>,
    whole: Range<TimestampWithTimeZone>,
) -> Result<i64> {
    Ok(calendar::prorate(
        &decimal("amount", &amount)?,
        bounds("part", part)?,
        bounds("whole", whole)?,
    )?)
}

fn bounds(name: &str, range: Range<TimestampWithTimeZone>) -> Result<std::ops::Range<chrono::DateTime<chrono::Utc>>> {
    match (range.lower(), range.upper()) {
        (Some(RangeBound::Inclusive(lower)), Some(RangeBound::Exclusive(upper))) => {
            Ok(finite(name, *lower)?..finite(name, *upper)?)
        }
        _ => Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("argument \"{name}\" must be a bounded range [start, end)"),
        )),
    }
}

fn decimal(name: &str, value: &AnyNumeric) -> Result<BigDecimal> {
    to_decimal(value).ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("argument \"{name}\" must be a finite number, got {value}"),
        )
        .set_hint("NaN and infinity have no amount.")
    })
}
