//! One private PostgreSQL installation: where its programs are and how they are run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::account::Account;
use crate::error::{Context, Error, Result};
use crate::{guard, place};

#[derive(Debug, Clone)]
pub struct PgInstall {
    pub major: u32,
    /// The folder that holds all of it; programs find their libraries and shared files relative to themselves.
    root: PathBuf,
    bin: PathBuf,
}

impl PgInstall {
    /// The installation below `root`, or `None` if there is no complete one.
    pub(crate) fn at(major: u32, root: &Path, bin: &str) -> Option<Self> {
        let install = Self {
            major,
            root: root.to_owned(),
            bin: PathBuf::from(bin),
        };
        ["postgres", "initdb", "psql", "pg_config"]
            .iter()
            .all(|name| install.program(name).exists())
            .then_some(install)
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join(&self.bin).join(name)
    }

    pub fn pg_config(&self) -> PathBuf {
        self.program("pg_config")
    }

    /// The full version, such as "18.6".
    pub fn version(&self) -> Result<String> {
        let output = self.command("postgres").arg("--version").output();
        let output = output.context(|| format!("cannot run {}", self.program("postgres").display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace().nth(2).map(str::to_owned).ok_or_else(|| {
            Error::new(format!(
                "PostgreSQL {} does not start: {}",
                self.major,
                String::from_utf8_lossy(&output.stderr)
            ))
        })
    }

    /// A client program of this installation, run as the caller and away from the caller's own PostgreSQL settings.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        command.env("LC_ALL", "C").env("PGAPPNAME", name);
        if let Some(libraries) = self.libraries() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// A server program of this installation, run as the account for servers.
    pub(crate) fn server_command(&self, name: &str) -> Result<Command> {
        let mut command = self.reachable()?.command(name);
        if let Some(account) = Account::for_servers()? {
            account.run(&mut command);
        }
        // The caller's folder may be closed to that account.
        command.current_dir("/");
        Ok(command)
    }

    /// Debian's programs carry no path to their libraries; the wheel's do.
    pub(crate) fn libraries(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.root.join("usr/lib")).ok()?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
    }

    /// This installation where the account for servers can read it: a clone in a folder that is closed to others is
    /// copied, once for each process, to a place that is not.
    fn reachable(&self) -> Result<PgInstall> {
        static COPIES: Mutex<Option<HashMap<PathBuf, PathBuf>>> = Mutex::new(None);
        let Some(account) = Account::for_servers()? else {
            return Ok(self.clone());
        };
        let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
        let copies = copies.get_or_insert_with(HashMap::new);
        let root = match copies.get(&self.root) {
            Some(root) => root.clone(),
            None => {
                let root = if account.can_read(&self.root) {
                    self.root.clone()
                } else {
                    self.copy_out()?
                };
                copies.insert(self.root.clone(), root.clone());
                root
            }
        };
        Ok(Self { root, ..self.clone() })
    }

    fn copy_out(&self) -> Result<PathBuf> {
        let dir = place::fresh("pg_billing-server-")?.keep();
        guard::watch(&dir)?;
        let root = dir.join("install");
        let copy = "cp -R -- \"$1\" \"$2\" && chmod a+x \"$3\" && chmod -R a+rX \"$2\"";
        let output = Command::new("sh")
            .args(["-c", copy, "sh"])
            .args([&self.root, &root, &dir])
            .output();
        let output = output.context(|| format!("cannot copy {}", self.root.display()))?;
        if output.status.success() {
            return Ok(root);
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(format!(
            "cannot copy PostgreSQL {} out of {}: {why}",
            self.major,
            self.root.display()
        )))
    }
}
