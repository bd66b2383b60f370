//! A client that asks without end, on the primary or on its standby, whether summaries and events agree.

use std::time::Duration;

use postgres::Client;

use super::finding::Kind;
use super::question::Question;
use super::stage::Stage;
use super::transaction::Stop;
use crate::dice::Dice;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// each question in a snapshot of its own
    ReadCommitted,
    /// several questions in one snapshot, while the world goes on
    RepeatableRead,
}

#[derive(Debug, Clone, Copy)]
pub struct Reader {
    pub number: usize,
    pub level: Level,
    pub on_standby: bool,
}

impl Reader {
    /// Returns how many of its checks counted any events.
    pub fn keep_asking(self, stage: &Stage) -> u64 {
        let mut dice = stage.dice(2000 + self.number);
        let mut telling = 0;
        while !stage.board.is_over() {
            match self.ask(stage, &mut dice, &mut telling) {
                Ok(()) => {}
                Err(Stop::Broken) => {
                    if let Err(problem) = stage.expect_kill() {
                        stage.board.report(Kind::Error, format!("{self:?}: {problem}"));
                    }
                }
                // What replay must remove may be what a query on a standby needs.
                Err(Stop::Conflict | Stop::Deadlock) if self.on_standby => {}
                Err(stop) => stage.board.report(Kind::Error, format!("{self:?}: {stop:?}")),
            }
        }
        telling
    }

    /// One connection's life.
    fn ask(self, stage: &Stage, dice: &mut Dice, telling: &mut u64) -> Result<(), Stop> {
        let mut client = if self.on_standby {
            stage.connect_to_standby()?
        } else {
            stage.connect("reader")?
        };
        while !stage.board.is_over() {
            stage.board.await_events();
            match self.level {
                Level::ReadCommitted => self.check(stage, &mut client, dice, telling)?,
                Level::RepeatableRead => {
                    // The snapshot first, and then the partitions: whatever it shows is in one that is known.
                    client
                        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT FROM billing.meters")?;
                    for _ in 0..1 + dice.below(6) {
                        std::thread::sleep(Duration::from_millis(dice.below(50) as u64));
                        self.check(stage, &mut client, dice, telling)?;
                    }
                    client.batch_execute("COMMIT")?;
                }
            }
        }
        Ok(())
    }

    fn check(self, stage: &Stage, client: &mut Client, dice: &mut Dice, telling: &mut u64) -> Result<(), Stop> {
        let (events, wrong) = Question::any(&stage.world, dice).ask(client)?;
        if let Some(wrong) = wrong {
            stage.board.report(Kind::Summary, format!("{self:?}: {wrong}"));
        }
        *telling += u64::from(events > 0);
        stage.checked();
        Ok(())
    }
}
