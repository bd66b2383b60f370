//! What is measured, and for how long.

use harness::{Context, Result};
use lexopt::{Arg, ValueExt};

use crate::rows;

const USAGE: &str = "cargo bench-all [--quick] [--only ROW]... [--pg MAJOR] [--installed]

  --quick       short slices and small tables, for development: noisy, and kept apart from the committed results
  --only ROW    only this row of the table
  --pg MAJOR    only this PostgreSQL
  --installed   what was built last, without building
A full run of a row replaces its committed results; anything less is written to the target folder.";

#[derive(Debug)]
pub struct Plan {
    pub quick: bool,
    /// measure what is installed, without building
    pub installed: bool,
    pg: Option<u32>,
    only: Vec<String>,
}

impl Plan {
    pub fn from_arguments() -> Result<Self> {
        Self::parse(lexopt::Parser::from_env())
            .context(|| format!("{USAGE}\n  ROW is one of: {}\n", rows::names().join(", ")))
    }

    fn parse(mut arguments: lexopt::Parser) -> std::result::Result<Self, lexopt::Error> {
        let mut plan = Self {
            quick: false,
            installed: false,
            pg: None,
            only: Vec::new(),
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Long("quick") => plan.quick = true,
                Arg::Long("installed") => plan.installed = true,
                Arg::Long("pg") => plan.pg = Some(arguments.value()?.parse()?),
                Arg::Long("only") => {
                    let row = arguments.value()?.string()?;
                    if !rows::names().contains(&row.as_str()) {
                        return Err(format!("there is no row \"{row}\"").into());
                    }
                    plan.only.push(row);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(plan)
    }

    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }

    /// The oldest and the newest, unless one was asked for.
    pub fn measures_on(&self, major: u32) -> bool {
        match self.pg {
            Some(pg) => pg == major,
            None => [15, 18].contains(&major),
        }
    }

    /// Only such a run replaces committed results; what is installed may have been built from other code.
    pub fn is_full(&self) -> bool {
        !self.quick && !self.installed && self.pg.is_none()
    }

    /// Turns that count; one more comes before them, to warm up.
    pub fn rounds(&self) -> usize {
        self.choose(5, 3)
    }

    /// `full`, or what serves for a glance.
    pub fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}
