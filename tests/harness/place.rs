//! Where things go: the project, its target folder, and fresh folders for clusters.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::account::Account;
use crate::error::{Context, Result};

/// A socket's path holds 107 bytes at most, of which PostgreSQL's own name and the folder's random end take some 45.
const LONGEST: usize = 60;

pub fn project() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Cargo's target folder, by the same variables that cargo itself reads.
pub fn target() -> PathBuf {
    let chosen = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"]
        .iter()
        .find_map(std::env::var_os);
    project().join(chosen.map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

/// The folder of everything that is fetched; PG_BILLING_TOOLCHAIN lets several target folders share one.
pub fn toolchain() -> PathBuf {
    std::env::var_os("PG_BILLING_TOOLCHAIN").map_or_else(|| target().join("toolchain"), PathBuf::from)
}

/// A new folder, closed to others, in a place that the servers' account can reach and whose path is short enough for a socket.
pub(crate) fn fresh(prefix: &str) -> Result<TempDir> {
    let account = Account::for_servers()?;
    let fits = |dir: &Path| {
        dir.as_os_str().len() <= LONGEST && dir.is_dir() && account.is_none_or(|account| account.can_enter(dir))
    };
    let usual = std::env::temp_dir();
    let parent = [usual.as_path(), Path::new("/tmp"), Path::new("/var/tmp")]
        .into_iter()
        .find(|dir| fits(dir));
    // Resolved, because the kernel names a process's folder by its real path.
    let parent = parent
        .unwrap_or(Path::new("/tmp"))
        .canonicalize()
        .context(|| "no folder for temporary files".to_owned())?;
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .context(|| format!("cannot make a folder for a cluster in {}", parent.display()))
}
