//! Taking a recorded event back: Stripe's meter event adjustment of type `cancel`, at any age.

use std::collections::HashSet;

use pgrx::prelude::*;
use pgrx::{AnyNumeric, JsonB};
use serde_json::Value;

use super::check::Event;
use super::meters;
use super::pending::Pending;
use super::submitted::{Dimensions, dimensions};
use crate::pg::error::{Result, error, required};
use crate::pg::leaf::see_new_partitions;
use crate::pg::numeric::to_decimal;
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::pg::text::Text;
use crate::pg::time::Micros;

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
    let meters = meters::load(HashSet::from([event_name.as_str()]))?;
    let Some(meter) = meters.get(&event_name) else {
        return Ok(false);
    };
    see_new_partitions();
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
                customer: customer.clone(),
                event_name: event_name.clone(),
                identifier: identifier.clone(),
                value: to_decimal(&value).ok_or_else(|| {
                    error(
                        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                        format!("stored value {value} is no number"),
                    )
                })?,
                timestamp: Micros::from_pg(row.required(2)?),
                timestamp_given: true,
                dimensions: match stored {
                    Some(JsonB(Value::Object(object))) => dimensions(object)?,
                    _ => Dimensions::new(),
                },
            })
        },
    )?;
    let mut pending = Pending::default();
    for event in &cancelled {
        pending.take_back(event, meter);
    }
    pending.write()?;
    Ok(!cancelled.is_empty())
}
