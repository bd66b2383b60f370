//! What ingest must know of the catalog: the meters and customers that events name. Looked up once per backend, and kept until
//! billing.meters changes or a customer is deleted.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::prelude::*;

use crate::pg::catalog::{self, Kept};
use crate::pg::error::{Result, error};
use crate::pg::lookup::Lookup;
use crate::pg::owner::as_owner;
use crate::pg::spi::{self, Sees, Statement, arg};
use crate::pg::text::TextRef;
use crate::types::Formula;

/// A few megabytes; past that the memory starts anew.
const MOST_CUSTOMERS: usize = 50_000;
/// After so many looked up one by one all are read at once, if they fit: that costs about as much as looking up a thousand.
const MANY_LOOK_UPS: usize = 200;

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

thread_local! {
    static METERS: Kept<HashMap<String, Rc<Meter>>> = Kept::default();
    static CUSTOMERS: Kept<Customers> = Kept::default();
}

#[derive(Default)]
struct Customers {
    known: Ids,
    looked_up: usize,
    /// Whether reading all of them was tried.
    read: bool,
}

/// A set of ids. Those of up to 23 bytes stand in the table itself: a look elsewhere for each costs as much as finding its place.
#[derive(Default)]
struct Ids {
    short: HashSet<[u8; 24]>,
    long: HashSet<String>,
}

impl Ids {
    /// The bytes of a short id, and behind them how many they are.
    fn short(id: &str) -> Option<[u8; 24]> {
        let mut short = [0; 24];
        short[..23].get_mut(..id.len())?.copy_from_slice(id.as_bytes());
        short[23] = id.len() as u8;
        Some(short)
    }

    fn contains(&self, id: &str) -> bool {
        match Ids::short(id) {
            Some(short) => self.short.contains(&short),
            None => self.long.contains(id),
        }
    }

    fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }
}

impl Extend<String> for Ids {
    fn extend<T: IntoIterator<Item = String>>(&mut self, ids: T) {
        for id in ids {
            match Ids::short(&id) {
                Some(short) => self.short.insert(short),
                None => self.long.insert(id),
            };
        }
    }
}

impl FromIterator<String> for Ids {
    fn from_iter<T: IntoIterator<Item = String>>(ids: T) -> Ids {
        let mut set = Ids::default();
        set.extend(ids);
        set
    }
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
    catalog::relation(c"meters")?;
    let since = catalog::changes();
    let read = |row: &spi::Row| {
        let formula: String = row.required(3)?;
        let meter = Meter {
            event_name: row.required(1)?,
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
    let since = catalog::changes();
    for customer in customers {
        if is_known(customer.text) {
            continue;
        }
        let lookup = match &mut lookup {
            Some(lookup) => lookup,
            none => none.insert(Lookup::open(c"customers", c"customers_pkey")?),
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
                customers.known = Ids::default();
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
    let since = catalog::changes();
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
