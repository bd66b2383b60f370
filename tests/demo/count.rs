//! The independent count: straight from the CSV file, by its own column `month`, with no database and no time zone.

use std::collections::{BTreeMap, BTreeSet};

use harness::Result;

use crate::flights::{Data, Table, known, number_in};

/// What one airline did in one month.
#[derive(Default)]
pub struct Usage {
    pub departures: i64,
    pub miles: i64,
    pub tail_numbers: BTreeSet<String>,
    /// By airport.
    pub slots: BTreeMap<String, i64>,
}

impl Usage {
    /// What the meter must say.
    pub fn of(&self, meter: &str) -> i64 {
        match meter {
            "departures" => self.departures,
            "miles" => self.miles,
            "aircraft" => self.tail_numbers.len() as i64,
            _ => self.slots.values().sum(),
        }
    }
}

#[derive(Default)]
pub struct Count {
    pub rows: i64,
    pub cancelled: i64,
    /// Departed, but without an air time.
    pub diverted: i64,
    pub without_tail_number: i64,
    usage: BTreeMap<String, [Usage; 12]>,
}

impl Count {
    /// The year of one airline, January first.
    pub fn year(&self, carrier: &str) -> &[Usage; 12] {
        static NOTHING: std::sync::LazyLock<[Usage; 12]> = std::sync::LazyLock::new(Default::default);
        self.usage.get(carrier).unwrap_or(&NOTHING)
    }

    pub fn airports(&self, carrier: &str) -> BTreeSet<&str> {
        let months = self.year(carrier).iter();
        months
            .flat_map(|month| month.slots.keys().map(String::as_str))
            .collect()
    }

    /// Events that the meters must have recorded: a slot for each row, less what they must have refused.
    pub fn recorded(&self) -> i64 {
        let departed = self.rows - self.cancelled;
        departed + (departed - self.diverted) + (self.rows - self.without_tail_number) + self.rows
    }

    pub fn rejected(&self) -> i64 {
        self.diverted + self.without_tail_number
    }
}

pub fn count(data: &Data) -> Result<Count> {
    let table = Table::open(&data.flights)?;
    let [month, carrier, airport] = table.columns(["month", "carrier", "origin"])?;
    let [departure, air_time, distance] = table.columns(["dep_time", "air_time", "distance"])?;
    let [tail_number] = table.columns(["tailnum"])?;
    let mut count = Count::default();
    for row in table.rows(|row| Ok(row.clone()))? {
        let year = count.usage.entry(row[carrier].to_owned()).or_default();
        let month = usize::try_from(number_in(&row[month])? - 1).ok();
        let Some(usage) = month.and_then(|index| year.get_mut(index)) else {
            return Err(harness::Error::new(format!("no month: {row:?}")));
        };
        count.rows += 1;
        *usage.slots.entry(row[airport].to_owned()).or_default() += 1;
        match known(&row[tail_number]) {
            Some(tail_number) => drop(usage.tail_numbers.insert(tail_number.to_owned())),
            None => count.without_tail_number += 1,
        }
        match (known(&row[departure]), known(&row[air_time])) {
            (None, _) => count.cancelled += 1,
            (Some(_), None) => (usage.departures, count.diverted) = (usage.departures + 1, count.diverted + 1),
            (Some(_), Some(_)) => {
                usage.departures += 1;
                usage.miles += number_in(&row[distance])?;
            }
        }
    }
    Ok(count)
}
