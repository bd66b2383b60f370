//! Building pg_billing and installing it into a private PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::installs;
use crate::error::{Context, Error, Result};
use crate::install::PgInstall;
use crate::{place, progress};

/// What `cargo pgrx install` passes to cargo. Lints get the same: under other rustflags cargo would build pgrx, and
/// bindgen's output with it, a second time.
const RUSTFLAGS: &str = r#"target.'cfg(all(target_family = "unix", not(target_os = "macos")))'.rustflags = ["-C", "link-arg=-Wl,--no-gc-sections"]"#;

/// The tools that build the extension.
#[derive(Debug)]
pub struct Extension {
    libclang: PathBuf,
    cargo_pgrx: PathBuf,
    pgrx_home: PathBuf,
    compiler_headers: PathBuf,
}

impl Extension {
    pub(super) fn new(toolchain: &Path, libclang: PathBuf, cargo_pgrx: PathBuf) -> Result<Self> {
        let pgrx_home = toolchain.join("pgrx-home");
        fs::create_dir_all(&pgrx_home).context(|| format!("cannot make {}", pgrx_home.display()))?;
        let configs = installs()
            .iter()
            .map(|install| format!("pg{} = {:?}\n", install.major, install.pg_config()))
            .fold("[configs]\n".to_owned(), |text, line| text + &line);
        let file = pgrx_home.join("config.toml");
        // pgrx builds anew when this file is newer than its last build, so it is written only if it changes.
        if fs::read_to_string(&file).ok().as_ref() != Some(&configs) {
            fs::write(&file, configs).context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self {
            libclang,
            cargo_pgrx,
            pgrx_home,
            compiler_headers: compiler_headers()?,
        })
    }

    /// Builds the extension for `install` and puts it there; what is up to date is left alone.
    pub fn install(&self, install: &PgInstall) -> Result<()> {
        let mut command = Command::new(&self.cargo_pgrx);
        command.args(["pgrx", "install", "--release", "--no-default-features"]);
        command
            .arg("--features")
            .arg(format!("pg{}", install.major))
            .arg("--pg-config")
            .arg(install.pg_config());
        progress::quietly(
            &format!("building pg_billing for PostgreSQL {}", install.major),
            self.equip(&mut command),
        )
    }

    /// clippy on the extension as it is built for `install`.
    pub fn clippy(&self, install: &PgInstall) -> Command {
        let mut command = Command::new("cargo");
        command.args([
            "clippy",
            "--quiet",
            "--release",
            "--package",
            "pg_billing",
            "--lib",
            "--no-default-features",
        ]);
        command
            .arg("--features")
            .arg(format!("pg{}", install.major))
            .args(["--config", RUSTFLAGS]);
        command.args(["--", "--deny", "warnings"]);
        self.equip(&mut command);
        command
    }

    fn equip<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        undisturbed(command).current_dir(place::project());
        command
            .env("PGRX_HOME", &self.pgrx_home)
            .env("LIBCLANG_PATH", &self.libclang);
        // PyPI's libclang comes without the compiler's own headers (stddef.h …); gcc's serve as well.
        command.env(
            "BINDGEN_EXTRA_CLANG_ARGS",
            format!("-isystem {}", self.compiler_headers.display()),
        );
        command.env("PGRX_BINDGEN_NO_DETECT_INCLUDES", "1")
    }
}

fn compiler_headers() -> Result<PathBuf> {
    let gcc = Command::new("gcc").arg("-print-file-name=include").output();
    let output = gcc.map_err(|_| Error::new("gcc is missing, whose linker and headers build the extension"))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// A nested cargo without what the outer `cargo run` has set for this program, which would set builds off anew.
pub fn undisturbed(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_"];
        if of_package
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("PGRX_PG_CONFIG_PATH")
        .env_remove("PGRX_PG_CONFIG_AS_ENV")
}
