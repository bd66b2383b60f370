//! A customer's usage as states that still merge: from buckets and queue, and from events where those do not serve.

mod buckets;
mod events;
mod filter;
mod pending;
mod state;

use std::collections::BTreeSet;

use pgrx::prelude::*;

use crate::pg::array::Elements;
use crate::pg::catalog;
use crate::pg::error::Result;
use crate::pg::jsonb::Item;
use crate::pg::returned::{Returned, arguments};
use crate::pg::spi::{Arg, value};
use crate::pg::text::TextRef;
use crate::pg::time::{MICROS_PER_HOUR, Micros};
use crate::types::Formula;
use filter::Filter;
use state::Windows;

/// More hours than this are read in one pass over the events, which costs less than that many look-ups.
const MOST_LOOK_UPS: usize = 24;

/// Whose usage of what.
struct Asked<'a> {
    event_name: pg_sys::Datum,
    customer: pg_sys::Datum,
    aggregation: Arg,
    formula: Formula,
    value_key: Arg,
    /// The bounds of the windows as they were given.
    bounds: Arg,
    filter: Option<Filter<'a>>,
    /// The filter as it was given.
    given_filter: Arg,
    received_before: Arg,
}

impl Asked<'_> {
    fn admits(&self, dimensions: Arg) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.admits(value::<Item>(dimensions)))
    }
}

/// `billing.usage_states()`.
#[pg_extern(sql = false)]
fn usage_states(fcinfo: pg_sys::FunctionCallInfo) -> Result<()> {
    let [
        event_name,
        customer,
        aggregation,
        value_key,
        dimension_keys,
        given_bounds,
        given_filter,
        received_before,
    ] = arguments(fcinfo);
    let returned = Returned::by(fcinfo);
    let formula = value::<TextRef>(aggregation).and_then(|name| Formula::from_name(name.text));
    let bounds: Vec<Micros> =
        value::<Elements<Micros>>(given_bounds).map_or(Vec::new(), |bounds| bounds.iter().collect());
    let (Some(event_name), Some(customer), Some(formula), 2..) = (event_name, customer, formula, bounds.len()) else {
        return Ok(());
    };
    let mut windows = Windows::new(bounds, formula == Formula::UniqueCount, returned);
    let asked = Asked {
        event_name,
        customer,
        aggregation,
        formula,
        value_key,
        bounds: given_bounds,
        filter: value::<Item>(given_filter).map(Filter::of),
        given_filter,
        received_before,
    };
    // Whatever others have done to the tables that this transaction had locked.
    catalog::take_in_changes();
    let whole = (windows.start(), windows.end());
    if !only_of(&asked.filter, value(dimension_keys)) {
        events::read(&asked, &mut windows, &[whole], None)?;
    } else {
        let hours = cut_hours(&asked, &windows)?;
        buckets::read(&asked, &mut windows, &hours)?;
        if received_before.is_none() {
            pending::read(&asked, &mut windows, &hours)?;
        }
        let until = |hour: Micros| hour.saturating_add(MICROS_PER_HOUR).min(whole.1);
        let ranges: Vec<(Micros, Micros)> = match (hours.first(), hours.last()) {
            (Some(first), Some(last)) if hours.len() > MOST_LOOK_UPS => vec![(*first.max(&whole.0), until(*last))],
            _ => hours.iter().map(|hour| (*hour.max(&whole.0), until(*hour))).collect(),
        };
        events::read(
            &asked,
            &mut windows,
            &ranges,
            (hours.len() > MOST_LOOK_UPS).then_some(&hours),
        )?;
    }
    windows.give();
    Ok(())
}

/// Whether the filter has keys of these alone, which are what buckets know.
fn only_of(filter: &Option<Filter>, known: Option<Elements<TextRef>>) -> bool {
    filter
        .iter()
        .flat_map(Filter::keys)
        .all(|key| known.is_some_and(|known| known.iter().any(|known| known.text == key)))
}

/// The hours that are read from the events: those that a bound cuts, and those of which a cancelled event is yet to be taken out.
fn cut_hours(asked: &Asked, windows: &Windows) -> Result<BTreeSet<Micros>> {
    let mut hours: BTreeSet<Micros> = windows
        .bounds()
        .iter()
        .filter(|bound| **bound != bound.hour())
        .map(|bound| bound.hour())
        .collect();
    let subtracts = matches!(asked.formula, Formula::Sum | Formula::Count | Formula::WeightedSum);
    if !subtracts && asked.received_before.is_none() {
        pending::rebuilds(asked, windows, &mut hours)?;
    }
    Ok(hours)
}
