//! What this process leaves behind is cleared away however it ends: by return, panic, Ctrl-C or kill -9.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;

use crate::error::{Context, Error, Result};

/// Reads the directories to watch until its input ends, which the kernel sees to when this process is gone, then stops
/// their servers and removes them. The pid counts only if that process sits in the data directory: pids are reused.
/// Removing is tried again because an initdb that has lost its caller goes on writing for a moment.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
while IFS= read -r dir; do set -- "$@" "$dir"; done
for dir do
    pid=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null) || continue
    [ "$(readlink "/proc/$pid/cwd")" = "$dir/data" ] || continue
    kill -QUIT "$pid"
    tries=0
    while kill -0 "$pid" && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
done
for dir do
    tries=0
    until rm -rf -- "$dir" || [ "$tries" -ge 100 ]; do sleep 0.1; tries=$((tries + 1)); done
done
"#;

/// Clears `dir` away, and stops the server in `dir/data`, once this process has ended.
pub fn watch(dir: &Path) -> Result<()> {
    static INPUT: Mutex<Option<ChildStdin>> = Mutex::new(None);
    let mut input = INPUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if input.is_none() {
        *input = start()?;
    }
    match input.as_mut() {
        Some(pipe) => writeln!(pipe, "{}", dir.display()).context(|| "the process that cleans up is gone".to_owned()),
        None => Err(Error::new("the process that cleans up takes no input")),
    }
}

fn start() -> Result<Option<ChildStdin>> {
    // Its own process group, so that Ctrl-C at the terminal ends this process and not the one that cleans up after it.
    let child = Command::new("sh")
        .args(["-c", SCRIPT])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    Ok(child
        .context(|| "cannot start sh, which cleans up at the end".to_owned())?
        .stdin
        .take())
}
