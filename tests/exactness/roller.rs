//! A client that folds, in every way a person could, beside the worker and others of its kind.

use std::time::Duration;

use super::finding::Kind;
use super::stage::Stage;
use super::transaction::Stop;
use crate::dice::Dice;

pub fn keep_rolling(stage: &Stage, number: usize) {
    let mut dice = stage.dice(1000 + number);
    while stage.is_folding() {
        match roll(stage, &mut dice) {
            Ok(()) => {}
            Err(Stop::Broken) => {
                if let Err(problem) = stage.expect_kill() {
                    stage.board.report(Kind::Error, format!("roller {number}: {problem}"));
                }
            }
            Err(stop) => stage.board.report(Kind::Error, format!("roller {number}: {stop:?}")),
        }
    }
}

/// One connection's life.
fn roll(stage: &Stage, dice: &mut Dice) -> Result<(), Stop> {
    let mut client = stage.connect("roller")?;
    while stage.is_folding() {
        match dice.below(10) {
            0..6 => client.batch_execute("SELECT billing.roll_up()")?,
            6 => {
                client.batch_execute("BEGIN; SELECT billing.roll_up()")?;
                pause(dice, 60);
                client.batch_execute(if dice.one_in(2) { "COMMIT" } else { "ROLLBACK" })?;
            }
            7 => client.batch_execute(
                "BEGIN; SAVEPOINT s; SELECT billing.roll_up(); ROLLBACK TO SAVEPOINT s; SELECT billing.roll_up(); COMMIT",
            )?,
            _ => {
                client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM billing.meters")?;
                pause(dice, 20);
                // Another roll-up may have ended since its snapshot was taken.
                match client.batch_execute("SELECT billing.roll_up()").map_err(Stop::from) {
                    Ok(()) => client.batch_execute("COMMIT")?,
                    Err(Stop::Conflict) => client.batch_execute("ROLLBACK")?,
                    Err(stop) => return Err(stop),
                }
            }
        }
        pause(dice, 100);
    }
    Ok(())
}

fn pause(dice: &mut Dice, most: usize) {
    std::thread::sleep(Duration::from_millis(dice.below(most) as u64));
}
