//! What recorded events add to `usage_pending`: one row per (customer, meter, dimensions, hour), already aggregated.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys;

use super::check::{Event, Identifier};
use super::meters::Meter;
use super::submitted::Dimensions;
use crate::pg::catalog;
use crate::pg::error::Result;
use crate::pg::hash_partition;
use crate::pg::heap::Heap;
use crate::pg::jsonb;
use crate::pg::numeric::{NumericRef, from_quantity, from_total};
use crate::pg::shape::Shapes;
use crate::pg::spi::{Arg, arg};
use crate::pg::table::Table;
use crate::pg::text::TextRef;
use crate::pg::time::Micros;
use crate::pricing::{Quantity, Total};
use crate::types::Formula;

/// The columns of a row, in the order of [`Row::columns`].
const COLUMNS: [&CStr; 15] = [
    c"hour",
    c"customer",
    c"event_name",
    c"value_sum",
    c"dimensions",
    c"event_count",
    c"value_max",
    c"value_min",
    c"last_value",
    c"last_timestamp",
    c"last_received_at",
    c"last_identifier",
    c"distinct_values",
    c"value_time_sum",
    c"rebuild",
];

/// The partitions of the queue, in the order of their remainders.
const PARTS: [&CStr; 4] = [
    c"usage_pending_0",
    c"usage_pending_1",
    c"usage_pending_2",
    c"usage_pending_3",
];

#[derive(Default)]
pub struct Pending<'a> {
    rows: Vec<Row<'a>>,
    /// Where the rows of the latest customer and meter begin: events come sorted by them.
    run: usize,
    /// The same rows by hour and dimensions, once there are more than a few.
    of_run: HashMap<(Micros, Dimensions), usize>,
}

/// Up to this many rows are sooner looked through than hashed, and inserted one by one than together.
const FEW: usize = 4;

struct Row<'a> {
    customer: TextRef<'a>,
    meter: Rc<Meter>,
    hour: Micros,
    /// Only the meter's own dimension keys.
    dimensions: Dimensions,
    usage: Usage<'a>,
}

/// The mergeable state of each aggregation; an event adds to its meter's only.
#[derive(Default)]
struct Usage<'a> {
    event_count: i64,
    sum: Option<Total>,
    /// The sum as it came, of one event with a whole number: with places it may show zeros that sums do not.
    given_sum: Option<pg_sys::Datum>,
    time_sum: Option<Total>,
    max: Option<Quantity>,
    min: Option<Quantity>,
    last: Option<Last<'a>>,
    distinct: Option<BTreeSet<String>>,
    rebuild: bool,
}

struct Last<'a> {
    timestamp: Micros,
    received_at: Micros,
    identifier: Cow<'a, str>,
    value: Quantity,
}

impl<'a> Pending<'a> {
    /// Adds an event; those of one customer and meter must follow each other.
    pub fn add(&mut self, event: &Event<'a>, received_at: Micros) {
        let formula = event.meter.formula;
        let usage = self.usage(event);
        let is_first = usage.sum.is_none();
        usage.event_count += 1;
        let value = event.value;
        match formula {
            Formula::Count => {}
            Formula::Sum => {
                usage.sum.get_or_insert(Total::ZERO).add(value);
                let is_whole = |given: &pg_sys::Datum| NumericRef(*given).places() == 0;
                usage.given_sum = event.given_value.filter(|given| is_first && is_whole(given));
            }
            Formula::WeightedSum => {
                usage.sum.get_or_insert(Total::ZERO).add(value);
                let time = event.timestamp.unix_micros();
                usage.time_sum.get_or_insert(Total::ZERO).add_product(value, time);
            }
            Formula::Max => {
                if usage.max.is_none_or(|greatest| greatest.compare(&value).is_lt()) {
                    usage.max = Some(value);
                }
            }
            Formula::Min => {
                if usage.min.is_none_or(|least| least.compare(&value).is_gt()) {
                    usage.min = Some(value);
                }
            }
            Formula::Last => {
                let this = (event.timestamp, received_at, event.identifier.as_str());
                let later = usage
                    .last
                    .as_ref()
                    .is_none_or(|last| (last.timestamp, last.received_at, last.identifier.as_ref()) < this);
                if later {
                    usage.last = Some(Last {
                        timestamp: event.timestamp,
                        received_at,
                        identifier: match &event.identifier {
                            Identifier::Given(given) => Cow::Borrowed(given.text),
                            Identifier::Made(made) => Cow::Owned(made.clone()),
                        },
                        value,
                    });
                }
            }
            Formula::UniqueCount => {
                let counted = event.dimensions.get(&event.meter.value_key);
                usage.distinct.get_or_insert_default().extend(counted.cloned());
            }
        }
    }

    /// Takes a cancelled event back out: by the negative where sums can, by recomputing its hour where they cannot.
    pub fn take_back(&mut self, event: &Event<'a>) {
        let formula = event.meter.formula;
        let usage = self.usage(event);
        let value = -event.value;
        match formula {
            Formula::Count => usage.event_count -= 1,
            Formula::Sum => {
                usage.event_count -= 1;
                usage.sum.get_or_insert(Total::ZERO).add(value);
                usage.given_sum = None;
            }
            Formula::WeightedSum => {
                usage.event_count -= 1;
                usage.sum.get_or_insert(Total::ZERO).add(value);
                let time = event.timestamp.unix_micros();
                usage.time_sum.get_or_insert(Total::ZERO).add_product(value, time);
            }
            Formula::Max | Formula::Min | Formula::Last | Formula::UniqueCount => usage.rebuild = true,
        }
    }

    fn usage(&mut self, event: &Event<'a>) -> &mut Usage<'a> {
        let goes_on = self
            .rows
            .last()
            .is_some_and(|row| row.customer.text == event.customer.text && Rc::ptr_eq(&row.meter, &event.meter));
        if !goes_on {
            self.run = self.rows.len();
            self.of_run.clear();
        }
        let split = |key: &String| event.dimensions.get_key_value(key).map(|(k, v)| (k.clone(), v.clone()));
        let hour = event.timestamp.hour();
        let dimensions = match event.meter.dimension_keys.as_slice() {
            [] => Dimensions::new(),
            keys => keys.iter().filter_map(split).collect(),
        };
        let run = &self.rows[self.run..];
        let known = match run.len() {
            ..=FEW => run
                .iter()
                .position(|row| row.hour == hour && row.dimensions == dimensions)
                .map(|at| self.run + at),
            _ => {
                if self.of_run.is_empty() {
                    let key = |row: &Row| (row.hour, row.dimensions.clone());
                    self.of_run = run
                        .iter()
                        .enumerate()
                        .map(|(at, row)| (key(row), self.run + at))
                        .collect();
                }
                match self.of_run.entry((hour, dimensions.clone())) {
                    Entry::Occupied(known) => Some(*known.get()),
                    Entry::Vacant(new) => {
                        new.insert(self.rows.len());
                        None
                    }
                }
            }
        };
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row {
                customer: event.customer,
                meter: Rc::clone(&event.meter),
                hour,
                dimensions,
                usage: Usage::default(),
            });
            self.rows.len() - 1
        });
        &mut self.rows[at].usage
    }

    pub fn write(self) -> Result<()> {
        if let [row] = self.rows.as_slice() {
            return write(row.part(), &[row]);
        }
        let mut parts: [Vec<&Row>; PARTS.len()] = Default::default();
        for row in &self.rows {
            parts[row.part()].push(row);
        }
        for (part, rows) in parts.iter().enumerate() {
            if !rows.is_empty() {
                write(part, rows)?;
            }
        }
        Ok(())
    }
}

fn part_of(customer: pg_sys::Datum) -> usize {
    hash_partition::of_text(customer, PARTS.len())
}

/// The part of the queue that holds the rows of a customer.
pub fn part_with(customer: pg_sys::Datum) -> Result<pg_sys::Oid> {
    catalog::relation(PARTS[part_of(customer)])
}

/// Into a partition directly: routing rows there would cost as much as inserting them.
fn write(part: usize, rows: &[&Row]) -> Result<()> {
    thread_local!(static SHAPES: Shapes<{ COLUMNS.len() }> = Shapes::default());
    loop {
        let oid = catalog::relation(PARTS[part])?;
        if rows.len() <= FEW
            && let Some(mut heap) = Heap::open(oid, &SHAPES, &COLUMNS, 0)
        {
            for row in rows {
                heap.insert(&row.columns()?)?;
            }
            heap.close();
            return Ok(());
        }
        if let Some(mut table) = Table::open(oid, &COLUMNS)? {
            table.insert_many(rows.iter().map(|row| row.columns()), None)?;
            table.close();
            return Ok(());
        }
    }
}

impl Row<'_> {
    fn part(&self) -> usize {
        part_of(self.customer.datum())
    }

    fn columns(&self) -> Result<[Arg; COLUMNS.len()]> {
        let usage = &self.usage;
        let total = |value: &Option<Total>| value.as_ref().map(from_total).transpose();
        let quantity = |value: Option<Quantity>| value.map(from_quantity).transpose();
        let last = usage.last.as_ref();
        Ok([
            Some(self.hour.datum()),
            Some(self.customer.datum()),
            Some(self.meter.event_name.datum()),
            match usage.given_sum {
                None => total(&usage.sum)?,
                given => given,
            },
            Some(jsonb(&self.dimensions)),
            arg(usage.event_count),
            quantity(usage.max)?,
            quantity(usage.min)?,
            quantity(last.map(|last| last.value))?,
            last.map(|last| last.timestamp.datum()),
            last.map(|last| last.received_at.datum()),
            arg(last.map(|last| last.identifier.as_ref())),
            arg(usage
                .distinct
                .as_ref()
                .map(|values| values.iter().cloned().collect::<Vec<String>>())),
            total(&usage.time_sum)?,
            arg(usage.rebuild),
        ])
    }
}

pub fn jsonb(dimensions: &Dimensions) -> pg_sys::Datum {
    if dimensions.is_empty() {
        return jsonb::empty_object();
    }
    jsonb::object(dimensions.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}
