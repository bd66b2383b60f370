//! Who the servers run as: PostgreSQL refuses to run as root, so root hands them to an unprivileged account.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{Gid, Uid};

use crate::error::{Context, Error, Result};

#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// The account for servers: `None` when the caller is a plain user and simply stays itself.
    pub fn for_servers() -> Result<Option<&'static Account>> {
        static CHOSEN: OnceLock<Option<Account>> = OnceLock::new();
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        match CHOSEN.get_or_init(|| Self::named("postgres").or_else(|| Self::named("nobody"))) {
            Some(account) => Ok(Some(account)),
            None => Err(Error::new(
                "PostgreSQL refuses to run as root, and this machine has neither an account 'postgres' nor 'nobody' to run it as",
            )),
        }
    }

    fn named(name: &str) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        let fields = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|f| f[0] == name)?;
        let number = |index: usize| {
            fields
                .get(index)
                .and_then(|id| id.parse::<u32>().ok())
                .filter(|id| *id != 0)
        };
        Some(Self {
            name: name.to_owned(),
            uid: number(2)?,
            gid: number(3)?,
        })
    }

    /// Drops root for the child; the standard library clears the supplementary groups along with it.
    pub fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    pub fn own(&self, path: &Path) -> Result<()> {
        rustix::fs::chown(path, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
            .context(|| format!("cannot hand {} to the account '{}'", path.display(), self.name))
    }

    /// Whether this account can pass through every folder down to `dir` and through `dir` itself.
    pub fn can_enter(&self, dir: &Path) -> bool {
        let mut test = Command::new("test");
        self.run(test.arg("-x").arg(dir).current_dir("/"));
        test.status().is_ok_and(|status| status.success())
    }

    /// Whether this account can read everything below `tree`, from the root directory down.
    pub fn can_read(&self, tree: &Path) -> bool {
        let mut find = Command::new("find");
        find.arg(tree).args([
            "(",
            "!",
            "-readable",
            "-o",
            "-type",
            "d",
            "!",
            "-executable",
            ")",
            "-print",
            "-quit",
        ]);
        self.run(find.current_dir("/"));
        find.output()
            .is_ok_and(|found| found.status.success() && found.stdout.is_empty())
    }
}
