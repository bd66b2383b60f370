//! What ingest must know of the catalog: the meters and customers that events name.

use std::collections::{HashMap, HashSet};

use pgrx::prelude::*;

use crate::pg::error::{Result, error};
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::types::Formula;

#[derive(Debug)]
pub struct Meter {
    pub event_name: String,
    pub active: bool,
    pub formula: Formula,
    /// Payload key of the customer; `None`: `customer`, or Stripe's `stripe_customer_id`.
    pub customer_key: Option<String>,
    pub value_key: String,
    /// Payload keys that every event must carry, and that buckets are split by.
    pub dimension_keys: Vec<String>,
}

/// The meters among `event_names` that exist.
pub fn load(event_names: HashSet<&str>) -> Result<HashMap<String, Meter>> {
    const LOAD: Statement = Statement {
        sql: "SELECT event_name, status = 'active', aggregation, customer_key, value_key, dimension_keys
              FROM billing.meters WHERE event_name = ANY ($1)",
        types: &[PgBuiltInOids::TEXTARRAYOID],
    };
    let names: Vec<&str> = event_names.into_iter().collect();
    let meters = spi::fetch(&LOAD, &[arg(names)], Sees::Latest, |row| {
        let event_name: String = row.required(1)?;
        let formula: String = row.required(3)?;
        Ok(Meter {
            active: row.required(2)?,
            formula: Formula::from_name(&formula).ok_or_else(|| {
                error(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    format!("unknown aggregation {formula}"),
                )
            })?,
            customer_key: row.get(4),
            value_key: row.required(5)?,
            dimension_keys: row.required(6)?,
            event_name,
        })
    })?;
    Ok(meters
        .into_iter()
        .map(|meter| (meter.event_name.clone(), meter))
        .collect())
}

/// The ids among `customers` that exist.
pub fn known_customers(customers: HashSet<&str>) -> Result<HashSet<String>> {
    const KNOWN: Statement = Statement {
        sql: "SELECT id FROM billing.customers WHERE id = ANY ($1)",
        types: &[PgBuiltInOids::TEXTARRAYOID],
    };
    let ids: Vec<&str> = customers.into_iter().collect();
    Ok(spi::fetch(&KNOWN, &[arg(ids)], Sees::Latest, |row| row.required(1))?
        .into_iter()
        .collect())
}
