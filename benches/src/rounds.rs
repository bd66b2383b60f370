//! Contenders that take turns, and what their figures come to.

use harness::Result;
use serde::Serialize;

/// One contender: its name, and its turn, which returns one figure, or what a figure can be made of later.
pub struct Contender<'a, T = f64> {
    name: &'static str,
    turn: Box<dyn FnMut() -> Result<T> + 'a>,
}

impl<'a, T> Contender<'a, T> {
    pub fn new(name: &'static str, turn: impl FnMut() -> Result<T> + 'a) -> Self {
        Self {
            name,
            turn: Box::new(turn),
        }
    }
}

/// What a contender's turns came to, one for each round.
#[derive(Debug, Serialize)]
pub struct Series<T = f64> {
    pub contender: &'static str,
    pub samples: Vec<T>,
}

impl Series {
    pub fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// Median distance from the median, in percent of it.
    pub fn spread(&self) -> f64 {
        let middle = self.median();
        let distances: Vec<f64> = self.samples.iter().map(|sample| (sample - middle).abs()).collect();
        100.0 * median(&distances) / middle
    }

    /// This contender's figure by the other's, round by round: what slows the machine for a while slows both.
    pub fn by(&self, other: &Series) -> Vec<f64> {
        self.samples
            .iter()
            .zip(&other.samples)
            .map(|(mine, theirs)| mine / theirs)
            .collect()
    }
}

/// A B C, A B C, … The first round warms up and is not kept.
pub fn alternate(rounds: usize, contenders: Vec<Contender>) -> Result<Vec<Series>> {
    let mut series = take_turns(1 + rounds, contenders)?;
    for Series { samples, .. } in &mut series {
        samples.remove(0);
    }
    Ok(series)
}

/// All of the rounds are kept. Each begins with another contender, so that nobody always comes after the same one.
pub fn take_turns<T>(rounds: usize, mut contenders: Vec<Contender<T>>) -> Result<Vec<Series<T>>> {
    let mut series: Vec<Series<T>> = contenders
        .iter()
        .map(|contender| Series {
            contender: contender.name,
            samples: Vec::new(),
        })
        .collect();
    let count = contenders.len();
    for round in 0..rounds {
        for place in 0..count {
            let turn = (round + place) % count;
            series[turn].samples.push((contenders[turn].turn)()?);
        }
    }
    Ok(series)
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}
