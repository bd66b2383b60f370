//! What recorded events add to `usage_pending`: one row per (customer, meter, dimensions, hour), already aggregated.

use std::collections::{BTreeMap, BTreeSet};

use bigdecimal::BigDecimal;
use pgrx::prelude::*;

use super::check::Event;
use super::meters::Meter;
use super::submitted::Dimensions;
use crate::pg::error::{Result, error};
use crate::pg::numeric::from_decimal;
use crate::pg::spi::{self, Statement, arg};
use crate::pg::time::Micros;
use crate::types::Formula;

#[derive(Default)]
pub struct Pending(BTreeMap<Key, Usage>);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    customer: String,
    event_name: String,
    hour: Micros,
    /// Only the meter's own dimension keys.
    dimensions: Dimensions,
}

/// The mergeable state of each aggregation; an event adds to its meter's only.
#[derive(Default)]
struct Usage {
    event_count: i64,
    sum: Option<BigDecimal>,
    time_sum: Option<BigDecimal>,
    max: Option<BigDecimal>,
    min: Option<BigDecimal>,
    last: Option<(Micros, Micros, String, BigDecimal)>,
    distinct: Option<BTreeSet<String>>,
    rebuild: bool,
}

impl Pending {
    pub fn add(&mut self, event: &Event, meter: &Meter, received_at: Micros) {
        let usage = self.usage(event, meter);
        usage.event_count += 1;
        let value = &event.value;
        match meter.formula {
            Formula::Count => {}
            Formula::Sum => add_to(&mut usage.sum, value.clone()),
            Formula::WeightedSum => {
                add_to(&mut usage.sum, value.clone());
                add_to(
                    &mut usage.time_sum,
                    value * BigDecimal::from(event.timestamp.unix_micros()),
                );
            }
            Formula::Max => usage.max = usage.max.take().max(Some(value.clone())),
            Formula::Min => {
                usage.min = Some(
                    usage
                        .min
                        .take()
                        .map_or_else(|| value.clone(), |least| least.min(value.clone())),
                );
            }
            Formula::Last => {
                let this = (event.timestamp, received_at, event.identifier.clone(), value.clone());
                let later = usage
                    .last
                    .as_ref()
                    .is_none_or(|last| (last.0, last.1, &last.2) < (this.0, this.1, &this.2));
                if later {
                    usage.last = Some(this);
                }
            }
            Formula::UniqueCount => {
                usage
                    .distinct
                    .get_or_insert_default()
                    .extend(event.dimensions.get(&meter.value_key).cloned());
            }
        }
    }

    /// Takes a cancelled event back out: by the negative where sums can, by recomputing its hour where they cannot.
    pub fn take_back(&mut self, event: &Event, meter: &Meter) {
        let usage = self.usage(event, meter);
        let value = -event.value.clone();
        match meter.formula {
            Formula::Count => usage.event_count -= 1,
            Formula::Sum => {
                usage.event_count -= 1;
                add_to(&mut usage.sum, value);
            }
            Formula::WeightedSum => {
                usage.event_count -= 1;
                add_to(
                    &mut usage.time_sum,
                    &value * BigDecimal::from(event.timestamp.unix_micros()),
                );
                add_to(&mut usage.sum, value);
            }
            Formula::Max | Formula::Min | Formula::Last | Formula::UniqueCount => usage.rebuild = true,
        }
    }

    fn usage(&mut self, event: &Event, meter: &Meter) -> &mut Usage {
        let split = |key: &String| event.dimensions.get_key_value(key).map(|(k, v)| (k.clone(), v.clone()));
        let key = Key {
            customer: event.customer.clone(),
            event_name: event.event_name.clone(),
            hour: event.timestamp.hour(),
            dimensions: meter.dimension_keys.iter().filter_map(split).collect(),
        };
        self.0.entry(key).or_default()
    }

    pub fn write(self) -> Result<()> {
        const WRITE: Statement = Statement {
            sql: "INSERT INTO billing.usage_pending (customer, event_name, dimensions, hour, event_count, value_sum,
                    value_time_sum, value_max, value_min, last_value, last_timestamp, last_received_at, last_identifier,
                    distinct_values, rebuild)
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            types: &[
                PgBuiltInOids::TEXTOID,
                PgBuiltInOids::TEXTOID,
                PgBuiltInOids::JSONBOID,
                PgBuiltInOids::TIMESTAMPTZOID,
                PgBuiltInOids::INT8OID,
                PgBuiltInOids::NUMERICOID,
                PgBuiltInOids::NUMERICOID,
                PgBuiltInOids::NUMERICOID,
                PgBuiltInOids::NUMERICOID,
                PgBuiltInOids::NUMERICOID,
                PgBuiltInOids::TIMESTAMPTZOID,
                PgBuiltInOids::TIMESTAMPTZOID,
                PgBuiltInOids::TEXTOID,
                PgBuiltInOids::TEXTARRAYOID,
                PgBuiltInOids::BOOLOID,
            ],
        };
        let numeric = |value: &Option<BigDecimal>| value.as_ref().map(from_decimal).transpose();
        for (key, usage) in self.0 {
            let (last_timestamp, last_received, last_identifier, last_value) = match usage.last {
                Some((at, received, identifier, value)) => (Some(at), Some(received), Some(identifier), Some(value)),
                None => (None, None, None, None),
            };
            spi::execute(
                &WRITE,
                &[
                    arg(key.customer),
                    arg(key.event_name),
                    arg(jsonb(&key.dimensions)?),
                    Some(key.hour.datum()),
                    arg(usage.event_count),
                    arg(numeric(&usage.sum)?),
                    arg(numeric(&usage.time_sum)?),
                    arg(numeric(&usage.max)?),
                    arg(numeric(&usage.min)?),
                    arg(numeric(&last_value)?),
                    last_timestamp.map(Micros::datum),
                    last_received.map(Micros::datum),
                    arg(last_identifier),
                    arg(usage.distinct.map(|values| values.into_iter().collect::<Vec<String>>())),
                    arg(usage.rebuild),
                ],
            )?;
        }
        Ok(())
    }
}

pub fn jsonb(dimensions: &Dimensions) -> Result<pgrx::JsonB> {
    serde_json::to_value(dimensions)
        .map(pgrx::JsonB)
        .map_err(|problem| error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, problem.to_string()))
}

fn add_to(sum: &mut Option<BigDecimal>, value: BigDecimal) {
    *sum = Some(sum.take().map_or_else(|| value.clone(), |so_far| so_far + &value));
}
