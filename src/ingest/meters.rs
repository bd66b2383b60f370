//! What ingest must know of the catalog: the meters and customers that events name. Looked up once per backend, and kept until
//! billing.meters changes or a customer is deleted.

use std::collections::HashSet;
use std::rc::Rc;

use foldhash::HashMap;
use pgrx::prelude::*;

use crate::customer_ids::CustomerIds;
use crate::pg::catalog::{self, Kept};
use crate::pg::error::{Result, error};
use crate::pg::lookup::Lookup;
use crate::pg::owner::as_owner;
use crate::pg::prefetch::prefetch;
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::pg::text::{KeptText, TextRef};
use crate::types::Formula;

/// A few megabytes; past that the memory starts anew.
const MOST_CUSTOMERS: usize = 50_000;
/// After so many looked up one by one all are read at once, if they fit: that costs about as much as looking up a thousand.
const MANY_LOOK_UPS: usize = 200;

#[derive(Debug)]
pub struct Meter {
    pub event_name: KeptText,
    pub active: bool,
    pub formula: Formula,
    /// Payload key of the customer; `None`: `customer`, or Stripe's `stripe_customer_id`.
    pub customer_key: Option<String>,
    pub value_key: String,
    /// Payload keys that every event must carry, and that buckets are split by.
    pub dimension_keys: Vec<String>,
}

thread_local! {
    static METERS: Kept<HashMap<String, Rc<Meter>>> = Kept::of_rows();
    static CUSTOMERS: Kept<Customers> = Kept::of_rows();
}

#[derive(Default)]
struct Customers {
    known: CustomerIds,
    looked_up: usize,
    /// Whether reading all of them was tried.
    read: bool,
}

/// The meter of that event name.
pub fn meter(event_name: &str) -> Result<Option<Rc<Meter>>> {
    let known = METERS.with(|kept| kept.with(|meters| meters.get(event_name).cloned()));
    match known {
        Some(meter) => Ok(Some(meter)),
        None => load_meter(event_name),
    }
}

fn load_meter(event_name: &str) -> Result<Option<Rc<Meter>>> {
    const LOAD: Statement = Statement {
        sql: "SELECT event_name, status = 'active', aggregation, customer_key, value_key, dimension_keys, xmin
              FROM billing.meters WHERE event_name = $1",
        types: &[PgBuiltInOids::TEXTOID],
    };
    let since = catalog::watch_rows(c"meters")?;
    let read = |row: &spi::Row| {
        let formula: String = row.required(3)?;
        let meter = Meter {
            event_name: KeptText::of(&row.required::<String>(1)?),
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
        };
        Ok((Rc::new(meter), catalog::is_own(row.required(7)?)))
    };
    let found = as_owner(|| spi::fetch(&LOAD, &[arg(event_name)], Sees::Latest, read))?;
    Ok(found.into_iter().next().map(|(meter, own)| {
        // What this transaction wrote may yet be rolled back.
        if !own {
            METERS.with(|kept| {
                kept.keep(since, |meters| {
                    meters.insert(event_name.to_owned(), Rc::clone(&meter));
                })
            });
        }
        meter
    }))
}

/// That the customer will be asked for soon.
pub fn anticipate(customer: TextRef) {
    CUSTOMERS.with(|kept| kept.with(|customers| customers.known.place_of(customer.text).map(prefetch)));
}

pub fn customer_exists(customer: TextRef) -> Result<bool> {
    if is_known(customer.text) {
        return Ok(true);
    }
    Ok(unknown_customers([customer].into_iter())?.is_empty())
}

fn is_known(customer: &str) -> bool {
    CUSTOMERS.with(|kept| kept.with(|customers| customers.known.contains(customer)))
}

/// Those of the customers that do not exist.
pub fn unknown_customers<'a>(customers: impl Iterator<Item = TextRef<'a>>) -> Result<HashSet<&'a str>> {
    let mut unknown = HashSet::new();
    let mut found = Vec::new();
    let mut lookup = None;
    let mut since = 0;
    for customer in customers {
        if is_known(customer.text) {
            continue;
        }
        let lookup = match &mut lookup {
            Some(lookup) => lookup,
            none => {
                since = catalog::watch_rows(c"customers")?;
                none.insert(Lookup::open(c"customers", c"customers_pkey")?)
            }
        };
        match lookup.creator(customer.datum()) {
            Some(creator) if catalog::is_own(creator) => {}
            Some(_) => found.push(customer.text.to_owned()),
            None => drop(unknown.insert(customer.text)),
        }
    }
    if let Some(lookup) = lookup {
        lookup.close();
    }
    if !found.is_empty() {
        keep_customers(since, found);
        let many = |customers: &Customers| !customers.read && customers.looked_up >= MANY_LOOK_UPS;
        if CUSTOMERS.with(|kept| kept.with(many)) {
            read_customers()?;
        }
    }
    Ok(unknown)
}

fn keep_customers(since: u64, found: Vec<String>) {
    CUSTOMERS.with(|kept| {
        kept.keep(since, |customers| {
            customers.looked_up += found.len();
            if customers.known.len() + found.len() > MOST_CUSTOMERS {
                customers.known = CustomerIds::default();
            }
            customers.known.extend(found);
        })
    });
}

/// Reads all customers, unless they are too many to keep.
fn read_customers() -> Result<()> {
    const READ: Statement = Statement {
        sql: "SELECT id, xmin FROM billing.customers LIMIT $1",
        types: &[PgBuiltInOids::INT8OID],
    };
    let since = catalog::watch_rows(c"customers")?;
    let read = |row: &spi::Row| Ok((row.required(1)?, catalog::is_own(row.required(2)?)));
    let most = MOST_CUSTOMERS as i64 + 1;
    let all: Vec<(String, bool)> = as_owner(|| spi::fetch(&READ, &[arg(most)], Sees::Latest, read))?;
    CUSTOMERS.with(|kept| {
        kept.keep(since, |customers| {
            customers.read = true;
            if all.len() <= MOST_CUSTOMERS {
                // What this transaction wrote may yet be rolled back.
                let committed = all.into_iter().filter(|(_, own)| !own);
                customers.known = committed.map(|(id, _)| id).collect();
            }
        })
    });
    Ok(())
}
