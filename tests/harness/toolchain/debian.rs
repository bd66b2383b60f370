//! PostgreSQL 15 out of Debian's or Ubuntu's packages, without installing them: the files are unpacked (or, of packages
//! that are installed, copied) into one tree of the project's. PostgreSQL finds its files relative to its programs, so
//! the tree works where it lies, the extension goes into it, and the system's own installation is never written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{LeftOut, is_made, make};
use crate::error::{Context, Error, Result};
use crate::install::PgInstall;
use crate::progress;

const BIN: &str = "usr/lib/postgresql/15/bin";
const PACKAGES: [&str; 4] = [
    "postgresql-15",
    "postgresql-client-15",
    "postgresql-server-dev-15",
    "libpq5",
];
const VERSION: &str = "15";

pub fn installed(toolchain: &Path) -> Option<PgInstall> {
    let dir = toolchain.join("postgresql-15");
    is_made(&dir, VERSION).then(|| PgInstall::at(15, &dir, BIN)).flatten()
}

pub fn provision(toolchain: &Path) -> Result<std::result::Result<PgInstall, LeftOut>> {
    let dir = toolchain.join("postgresql-15");
    if installed(toolchain).is_none() {
        if let Some(missing) = ["apt-get", "dpkg-query", "dpkg-deb"].iter().find(|tool| !exists(tool)) {
            return Ok(Err(LeftOut(format!(
                "PostgreSQL 15: it comes from Debian's or Ubuntu's packages, and this machine has no {missing}"
            ))));
        }
        // A stamp without a complete tree is worth nothing.
        let _ = fs::remove_file(dir.join(super::STAMP));
        if let Err(error) = make(&dir, VERSION, assemble) {
            return Ok(Err(LeftOut(format!("PostgreSQL 15: {error}"))));
        }
    }
    let install = installed(toolchain).ok_or_else(|| Error::new("Debian's packages hold no complete PostgreSQL 15"))?;
    Ok(Ok(install))
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn assemble(tree: &Path) -> Result<()> {
    let (present, absent): (Vec<&str>, Vec<&str>) = PACKAGES.iter().partition(|package| is_installed(package));
    for package in present {
        copy_installed(package, tree)?;
        progress::note(&format!("copying the installed {package}"), "done");
    }
    fetch(&absent, tree)?;
    let missing = missing_libraries(tree)?;
    if !missing.is_empty() {
        fetch(&library_packages(), tree)?;
        let missing = missing_libraries(tree)?;
        if !missing.is_empty() {
            return Err(Error::new(format!(
                "its programs lack the libraries {}",
                missing.join(", ")
            )));
        }
    }
    if !Path::new("/usr/share/zoneinfo").is_dir() {
        return Err(Error::new(
            "Debian's build reads /usr/share/zoneinfo, which this machine does not have (package tzdata)",
        ));
    }
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output();
    query.is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

fn copy_installed(package: &str, tree: &Path) -> Result<()> {
    let listed = succeed(Command::new("dpkg-query").args(["--listfiles", package]), "dpkg-query")?;
    for path in String::from_utf8_lossy(&listed.stdout).lines().map(Path::new) {
        let inside = path.strip_prefix("/").unwrap_or(path);
        // Documentation and translations may have been left out when the package was installed.
        if !inside.starts_with("usr/lib")
            && !inside.starts_with("usr/share/postgresql")
            && !inside.starts_with("usr/include")
        {
            continue;
        }
        let copy = tree.join(inside);
        let copied = match fs::symlink_metadata(path) {
            Ok(kind) if kind.is_dir() => fs::create_dir_all(&copy),
            Ok(kind) if kind.is_symlink() => fs::read_link(path).and_then(|to| std::os::unix::fs::symlink(to, &copy)),
            Ok(_) => fs::copy(path, &copy).map(drop),
            Err(_) => continue,
        };
        copied.context(|| format!("cannot copy {}", path.display()))?;
    }
    Ok(())
}

/// Downloads `packages` and unpacks them into `tree`; the files of packages are not kept.
fn fetch(packages: &[impl AsRef<str>], tree: &Path) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir_in(tree).context(|| format!("cannot write to {}", tree.display()))?;
    let names: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    download(&names, folder.path())?;
    let files = fs::read_dir(folder.path()).context(|| format!("cannot read {}", folder.path().display()))?;
    for file in files
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
    {
        succeed(
            Command::new("dpkg-deb").arg("--extract").arg(&file).arg(tree),
            "dpkg-deb",
        )?;
    }
    progress::note(&format!("fetching {}", names.join(", ")), "done");
    Ok(())
}

/// By the package lists of the machine, or, where those are empty or stale, by lists fetched for the project alone:
/// neither takes root.
fn download(names: &[&str], folder: &Path) -> Result<()> {
    let apt = |options: &[String]| {
        let mut apt = Command::new("apt-get");
        // apt's own account could not write to the folder
        apt.args(["--quiet", "-o", "APT::Sandbox::User=root"])
            .args(options)
            .current_dir(folder)
            .env("LC_ALL", "C");
        apt
    };
    if succeed(apt(&[]).arg("download").args(names), "apt-get download").is_ok() {
        return Ok(());
    }
    let lists = folder.join("lists");
    let cache = folder.join("cache");
    for made in [&lists, &cache] {
        fs::create_dir_all(made.join("partial")).context(|| format!("cannot make {}", made.display()))?;
    }
    let own = [
        "-o".to_owned(),
        format!("Dir::State::Lists={}", lists.display()),
        "-o".to_owned(),
        format!("Dir::Cache={}", cache.display()),
    ];
    succeed(apt(&own).arg("update"), "apt-get update")?;
    succeed(apt(&own).arg("download").args(names), "apt-get download").map(drop)
}

/// What apt would install beside the server on this machine, as far as it is libraries.
fn library_packages() -> Vec<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["--simulate", "--no-install-recommends", "install", "postgresql-15"])
        .env("LC_ALL", "C");
    let Ok(output) = apt.output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    let named = text
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    named
        .filter(|name| name.starts_with("lib"))
        .map(str::to_owned)
        .collect()
}

fn missing_libraries(tree: &Path) -> Result<Vec<String>> {
    let install = PgInstall::at(15, tree, BIN);
    let install = install.ok_or_else(|| Error::new("Debian's packages hold no complete PostgreSQL 15"))?;
    let programs: Vec<PathBuf> = ["postgres", "psql", "initdb"]
        .iter()
        .map(|name| install.program(name))
        .collect();
    let mut ldd = Command::new("ldd");
    ldd.args(programs).env("LC_ALL", "C");
    if let Some(libraries) = install.libraries() {
        ldd.env("LD_LIBRARY_PATH", libraries);
    }
    let output = ldd.output().context(|| "cannot run ldd".to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let missing = text.lines().filter(|line| line.contains("not found"));
    let mut names: Vec<String> = missing
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn succeed(command: &mut Command, name: &str) -> Result<Output> {
    let output = command.output().context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(output);
    }
    // apt says why in its lines marked E:, and the first of them is the cause.
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said
        .lines()
        .find_map(|line| line.strip_prefix("E: "))
        .or_else(|| said.lines().last())
        .unwrap_or_default();
    Err(Error::new(format!("{name} failed: {}", why.trim())))
}
