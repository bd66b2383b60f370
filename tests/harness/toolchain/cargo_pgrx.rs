//! cargo-pgrx from crates.io, in the version of the pgrx that the extension uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{extension::undisturbed, make};
use crate::error::Result;
use crate::progress;

const VERSION: &str = "0.18.1";

/// The program `cargo-pgrx`.
pub fn provision(toolchain: &Path) -> Result<PathBuf> {
    let dir = toolchain.join("cargo-pgrx");
    make(&dir, VERSION, |partial| {
        let mut install = Command::new("cargo");
        // --debug: it copies a few files and reads one section of a library, and builds in half the time this way.
        install.args([
            "install",
            "cargo-pgrx",
            "--version",
            &format!("={VERSION}"),
            "--locked",
            "--debug",
            "--root",
        ]);
        install.arg(partial);
        // Outside the project: its workspace and its cargo configuration are not for this tool.
        undisturbed(&mut install)
            .current_dir("/")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_BUILD_TARGET_DIR");
        progress::quietly(
            &format!("building cargo-pgrx {VERSION} (some minutes, once)"),
            &mut install,
        )
    })?;
    Ok(dir.join("bin/cargo-pgrx"))
}
