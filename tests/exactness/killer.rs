//! kill -9 of those who record and roll up, of the worker and of the postmaster by turns, while the others go on.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::finding::Kind;
use super::stage::Stage;
use crate::dice::Dice;
use crate::error::{Error, Result};

/// Far longer than a server needs to come to work again.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn keep_killing(stage: &Stage) {
    let mut dice = stage.dice(3000);
    while !stage.board.is_over() && stage.board.kills.load(SeqCst) < stage.plan.kills.count {
        if let Err(problem) = await_work(stage).and_then(|()| kill(stage, &mut dice)) {
            stage.board.report(Kind::Error, format!("the killer: {problem}"));
        }
    }
}

/// Something is to be acknowledged between two kills.
fn await_work(stage: &Stage) -> Result<()> {
    let before = stage.board.events.load(SeqCst);
    let deadline = Instant::now() + PATIENCE;
    while stage.board.events.load(SeqCst) < before + stage.plan.kills.events_between && !stage.board.is_over() {
        if Instant::now() > deadline {
            return Err(Error::new("nothing was recorded since the last kill"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn kill(stage: &Stage, dice: &mut Dice) -> Result<()> {
    let turn = stage.board.kills.load(SeqCst) as usize;
    let whom = ["recorder", "worker", "postmaster", "roller"][turn % 4];
    std::thread::sleep(Duration::from_millis(dice.below(150) as u64));
    let victim = match whom {
        "postmaster" => None,
        whom => match victim(stage, whom, dice)? {
            Some(pid) => Some(pid),
            // Not there in this moment: once more, when more is recorded.
            None => return Ok(()),
        },
    };
    stage.board.set_down(true);
    let killed = match victim {
        Some(pid) => stage.cluster.crash(pid),
        None => stage.cluster.kill().and_then(|()| stage.cluster.launch()),
    };
    stage.board.set_down(false);
    killed?;
    stage.board.kills.fetch_add(1, SeqCst);
    Ok(())
}

fn victim(stage: &Stage, whom: &str, dice: &mut Dice) -> Result<Option<i32>> {
    let sql = "SELECT pid FROM pg_stat_activity
               WHERE datname = $2 AND CASE $1 WHEN 'worker' THEN backend_type = 'pg_billing worker' ELSE application_name = $1 END";
    let rows = stage
        .cluster
        .connect("postgres")?
        .query(sql, &[&whom, &stage.database])?;
    Ok((!rows.is_empty()).then(|| rows[dice.below(rows.len())].get(0)))
}
