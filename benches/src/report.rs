//! What was measured, and whether it reaches its targets.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use chrono::Utc;
use harness::{Context, Result, place};
use serde::Serialize;

use crate::machine::{self, Machine};
use crate::plan::Plan;
use crate::rounds::{Series, median};
use crate::table;

#[derive(Debug, Serialize, Clone)]
pub struct Report {
    pub date: String,
    pub commit: String,
    pub machine: Machine,
    pub quick: bool,
    /// as many as the row has had
    pub rounds: usize,
    /// since the run began
    pub seconds: f64,
    pub servers: Vec<OnServer>,
    #[serde(skip)]
    started: Instant,
}

#[derive(Debug, Serialize, Clone)]
pub struct OnServer {
    pub postgresql: String,
    pub cases: Vec<Case>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub enum Unit {
    #[serde(rename = "per second")]
    PerSecond,
    #[serde(rename = "milliseconds")]
    Milliseconds,
    #[serde(rename = "bytes per event")]
    Bytes,
    #[serde(rename = "KiB")]
    Kibibytes,
}

#[derive(Debug, Serialize, Clone)]
pub struct Case {
    pub row: &'static str,
    pub case: String,
    pub unit: Unit,
    pub contenders: Vec<Figures>,
    pub ratios: Vec<Ratio>,
}

#[derive(Debug, Serialize, Clone)]
pub struct Figures {
    pub contender: &'static str,
    pub median: f64,
    pub spread_percent: f64,
    pub samples: Vec<f64>,
}

#[derive(Debug, Serialize, Clone)]
pub struct Ratio {
    pub of: &'static str,
    pub to: &'static str,
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
    #[serde(flatten)]
    pub target: Target,
    pub must_met: Option<bool>,
    pub aim_met: Option<bool>,
}

/// What a ratio has to reach.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Target {
    pub must: Option<f64>,
    pub aim: Option<f64>,
    /// less is better
    pub at_most: bool,
}

impl Target {
    pub const NONE: Target = Target {
        must: None,
        aim: None,
        at_most: false,
    };

    pub fn must(must: f64) -> Self {
        Self {
            must: Some(must),
            ..Self::NONE
        }
    }

    pub fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }

    pub fn at_most(self) -> Self {
        Self { at_most: true, ..self }
    }

    pub fn sign(self) -> &'static str {
        if self.at_most { "≤" } else { "≥" }
    }

    fn is_met(self, bound: Option<f64>, ratio: f64) -> Option<bool> {
        bound.map(|bound| if self.at_most { ratio <= bound } else { ratio >= bound })
    }
}

/// Which contender is judged by which.
pub type Judged = (&'static str, &'static str, Target);

impl Report {
    pub fn new(plan: &Plan) -> Result<Self> {
        if plan.quick {
            println!(
                "QUICK: short slices and small tables. The figures are noisy, and kept out of the committed results."
            );
        }
        Ok(Self {
            date: Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            commit: machine::commit(),
            machine: Machine::this(),
            quick: plan.quick,
            rounds: 0,
            seconds: 0.0,
            servers: Vec::new(),
            started: Instant::now(),
        })
    }

    pub fn begin(&mut self, postgresql: String) {
        println!("\n==== PostgreSQL {postgresql}");
        self.servers.push(OnServer {
            postgresql,
            cases: Vec::new(),
        });
    }

    pub fn add(&mut self, row: &'static str, case: String, unit: Unit, series: Vec<Series>, judged: &[Judged]) {
        let find = |name: &str| series.iter().find(|series| series.contender == name);
        let ratios = judged.iter().filter_map(|(of, to, target)| {
            let rounds = find(of)?.by(find(to)?);
            let middle = median(&rounds);
            Some(Ratio {
                of,
                to,
                median: middle,
                least: rounds.iter().copied().fold(f64::INFINITY, f64::min),
                greatest: rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                target: *target,
                must_met: target.is_met(target.must, middle),
                aim_met: target.is_met(target.aim, middle),
            })
        });
        let case = Case {
            row,
            case,
            unit,
            ratios: ratios.collect(),
            contenders: series
                .into_iter()
                .map(|series| Figures {
                    contender: series.contender,
                    median: series.median(),
                    spread_percent: series.spread(),
                    samples: series.samples,
                })
                .collect(),
        };
        print!("{}", table::of_case(&case));
        if let Some(server) = self.servers.last_mut() {
            server.cases.push(case);
        }
    }

    /// Keeps what was measured of a row: a full run's with the project, anything less in the target folder.
    pub fn keep(&self, row: &str, plan: &Plan) -> Result<PathBuf> {
        let mut report = self.clone();
        report.seconds = self.started.elapsed().as_secs_f64();
        for server in &mut report.servers {
            server.cases.retain(|case| case.row == row);
            let figures = server.cases.iter().flat_map(|case| &case.contenders);
            let rounds = figures.map(|figures| figures.samples.len()).max().unwrap_or(0);
            report.rounds = report.rounds.max(rounds);
        }
        let folder = match plan.is_full() {
            true => place::project().join("benches/results"),
            false => place::target().join("benches"),
        };
        report.write_to(&folder.join(row))
    }

    fn write_to(&self, file: &Path) -> Result<PathBuf> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).context(|| format!("cannot make {}", folder.display()))?;
        }
        let (data, markdown) = (file.with_extension("json"), file.with_extension("md"));
        let json = serde_json::to_string_pretty(self).context(|| "the results make no JSON".to_owned())?;
        fs::write(&data, json + "\n").context(|| format!("cannot write {}", data.display()))?;
        fs::write(&markdown, table::of_report(self)).context(|| format!("cannot write {}", markdown.display()))?;
        Ok(markdown)
    }
}
