//! States of usage that merge, one for each window.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::pg::error::{Result, error};
use crate::pg::numeric::{Merge, NumericRef};
use crate::pg::returned::Returned;
use crate::pg::spi::{Arg, arg, value};
use crate::pg::text::TextRef;
use crate::pg::time::Micros;

/// The columns of a state, as buckets and queue have them.
const COLUMNS: [&CStr; STATE] = [
    c"event_count",
    c"value_sum",
    c"value_time_sum",
    c"value_max",
    c"value_min",
    c"last_value",
    c"last_timestamp",
    c"last_received_at",
    c"last_identifier",
];
pub const STATE: usize = 9;

/// Columns of a table, and behind them those of a state.
pub const fn with_state<const N: usize, const ALL: usize>(columns: [&'static CStr; N]) -> [&'static CStr; ALL] {
    let mut all = [c""; ALL];
    let mut nth = 0;
    while nth < ALL {
        all[nth] = if nth < N { columns[nth] } else { COLUMNS[nth - N] };
        nth += 1;
    }
    all
}

/// Where `last_event` stands among the columns of `billing.usage_states()`, from 1.
const LAST_EVENT: i32 = 7;

#[derive(Default)]
struct State {
    event_count: i64,
    sum: Option<NumericRef>,
    time_sum: Option<NumericRef>,
    max: Option<NumericRef>,
    min: Option<NumericRef>,
    last: Option<Last>,
}

struct Last {
    timestamp: Micros,
    received_at: Micros,
    identifier: String,
    value: Option<NumericRef>,
}

/// The windows between bounds, and what is known of the usage in each.
pub struct Windows {
    bounds: Vec<Micros>,
    states: Vec<State>,
    /// Only texts are wanted.
    texts: bool,
    returned: Returned,
}

impl Windows {
    /// Between ascending bounds, of which there are at least two.
    pub fn new(bounds: Vec<Micros>, texts: bool, returned: Returned) -> Windows {
        let windows = if texts { 0 } else { bounds.len() - 1 };
        Windows {
            states: (0..windows).map(|_| State::default()).collect(),
            bounds,
            texts,
            returned,
        }
    }

    pub fn bounds(&self) -> &[Micros] {
        &self.bounds
    }

    /// Whether usage is sets of texts.
    pub fn count_texts(&self) -> bool {
        self.texts
    }

    pub fn start(&self) -> Micros {
        self.bounds[0]
    }

    pub fn end(&self) -> Micros {
        self.bounds[self.bounds.len() - 1]
    }

    /// The window of a time within the bounds, from 1, as SQL's width_bucket() has it.
    pub fn of(&self, at: Micros) -> usize {
        self.bounds.partition_point(|bound| *bound <= at)
    }

    /// Adds a state, in the order of [`COLUMNS`], of a row that may go.
    pub fn add(&mut self, window: usize, columns: &[Arg]) -> Result<()> {
        let [count, sum, time_sum, max, min, last @ ..] = columns else {
            return Ok(());
        };
        let state = &mut self.states[window - 1];
        state.event_count = state
            .event_count
            .checked_add(value(*count).unwrap_or(0))
            .ok_or_else(|| {
                error(
                    PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                    "bigint out of range",
                )
            })?;
        Merge::Sum.add(&mut state.sum, *sum);
        Merge::Sum.add(&mut state.time_sum, *time_sum);
        Merge::Greatest.add(&mut state.max, *max);
        Merge::Least.add(&mut state.min, *min);
        state.add_last(last);
        Ok(())
    }

    /// Adds a text that was counted.
    pub fn add_text(&self, window: usize, text: pg_sys::Datum) {
        self.returned
            .put([arg(window as i32), None, None, None, None, None, None, Some(text)]);
    }

    /// Returns a state for each window, in order.
    pub fn give(self) {
        for (nth, state) in self.states.into_iter().enumerate() {
            let last = state.last.map(|last| {
                self.returned.composite(
                    LAST_EVENT,
                    [
                        Some(last.timestamp.datum()),
                        Some(last.received_at.datum()),
                        arg(last.identifier),
                        last.value.map(|value| value.0),
                    ],
                )
            });
            let [sum, time_sum, max, min] =
                [state.sum, state.time_sum, state.max, state.min].map(|value| value.map(|value| value.0));
            self.returned.put([
                arg(nth as i32 + 1),
                arg(state.event_count),
                sum,
                time_sum,
                max,
                min,
                last,
                None,
            ]);
        }
    }
}

impl State {
    fn add_last(&mut self, columns: &[Arg]) {
        let [number, timestamp, received_at, identifier] = columns else {
            return;
        };
        let Some(timestamp) = value::<Micros>(*timestamp) else {
            return;
        };
        let received_at = value(*received_at).unwrap_or(timestamp);
        let identifier = value::<TextRef>(*identifier).map_or("", |identifier| identifier.text);
        let later = self.last.as_ref().is_none_or(|last| {
            (last.timestamp, last.received_at, last.identifier.as_str()) < (timestamp, received_at, identifier)
        });
        if later {
            self.last = Some(Last {
                timestamp,
                received_at,
                identifier: identifier.to_owned(),
                value: number.map(|number| NumericRef(number).copied()),
            });
        }
    }
}
