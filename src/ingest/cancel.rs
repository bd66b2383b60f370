//! Taking a recorded event back: Stripe's meter event adjustment of type `cancel`, at any age.

use std::rc::Rc;

use pgrx::prelude::*;
use pgrx::{AnyNumeric, JsonB};
use serde_json::Value;

use super::check::{Event, Identifier};
use super::meters;
use super::pending::Pending;
use super::submitted::Dimensions;
use crate::pg::catalog;
use crate::pg::error::{Result, error, required};
use crate::pg::numeric::to_decimal;
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::pg::text::{Text, TextRef};
use crate::pg::time::Micros;
use crate::pricing::Quantity;

#[pg_extern(sql = false)]
fn cancel_meter_event(event_name: Option<Text>, customer: Option<Text>, identifier: Option<Text>) -> Result<bool> {
    // An identifier that was used again after its window names the later event, cancelled or not: cancelling twice must not take
    // the earlier one too.
    const CANCEL: Statement = Statement {
        sql: "UPDATE billing.meter_events e SET cancelled_at = pg_catalog.clock_timestamp()
              WHERE e.customer = $1 AND e.event_name = $2 AND e.identifier = $3 AND e.cancelled_at IS NULL
                AND e.received_at = (SELECT pg_catalog.max(l.received_at) FROM billing.meter_events l
                                     WHERE l.customer = $1 AND l.event_name = $2 AND l.identifier = $3)
              RETURNING e.value, e.\"timestamp\", e.dimensions",
        types: &[PgBuiltInOids::TEXTOID, PgBuiltInOids::TEXTOID, PgBuiltInOids::TEXTOID],
    };
    let event_name = required("event_name", event_name)?.0;
    let customer = required("customer", customer)?.0;
    let identifier = required("identifier", identifier)?.0;
    catalog::take_in_changes();
    let Some(meter) = meters::meter(&event_name)? else {
        return Ok(false);
    };
    let cancelled = spi::fetch(
        &CANCEL,
        &[
            arg(customer.as_str()),
            arg(event_name.as_str()),
            arg(identifier.as_str()),
        ],
        Sees::Own,
        |row| {
            let value: AnyNumeric = row.required(1)?;
            let stored: Option<JsonB> = row.get(3);
            Ok(Event {
                meter: Rc::clone(&meter),
                customer: TextRef::of(&customer),
                identifier: Identifier::Given(TextRef::of(&identifier)),
                value: to_decimal(&value)
                    .and_then(|value| Quantity::from_decimal(&value))
                    .ok_or_else(|| {
                        error(
                            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                            format!("stored value {value} is no quantity"),
                        )
                    })?,
                given_value: None,
                timestamp: Micros::from_pg(row.required(2)?),
                timestamp_given: true,
                dimensions: texts(stored),
            })
        },
    )?;
    let mut pending = Pending::default();
    for event in &cancelled {
        pending.take_back(event);
    }
    if !cancelled.is_empty() {
        pending.write()?;
    }
    Ok(!cancelled.is_empty())
}

/// Stored dimensions are an object of texts.
fn texts(stored: Option<JsonB>) -> Dimensions {
    let Some(JsonB(Value::Object(object))) = stored else {
        return Dimensions::new();
    };
    let text = |(key, value): (String, Value)| value.as_str().map(|text| (key, text.to_owned()));
    object.into_iter().filter_map(text).collect()
}
