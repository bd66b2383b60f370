//! A private cluster: its own folder, its own free port, gone when it is dropped or when this process ends.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::account::Account;
use crate::error::{Context, Error, Result};
use crate::install::PgInstall;
use crate::options::{Options, line};
use crate::{guard, place};

/// No server here needs anywhere near this long; it bounds the wait for one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(10);
/// A port that was free a moment ago may be taken by the time the server binds it.
const PORTS_TRIED: usize = 5;

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// waits for clients to leave
    Smart,
    /// rolls back what is open, writes a checkpoint
    Fast,
    /// as a crash of the server: the next start recovers from the log
    Immediate,
}

/// A running (or stopped) server with its data. Clients reach it as superuser `postgres` through the socket in its
/// folder, which others cannot enter, and through 127.0.0.1 with [`Cluster::password`].
#[derive(Debug)]
pub struct Cluster {
    install: PgInstall,
    port: u16,
    password: String,
    server: Mutex<Option<Child>>,
    dir: TempDir,
}

impl Cluster {
    /// Makes a new cluster and starts it; returns when it takes connections.
    pub fn start(install: &PgInstall, options: &Options) -> Result<Self> {
        let mut cluster = Self::empty(install, new_password()?)?;
        let secret = cluster.dir.path().join("password");
        cluster.write(&secret, &cluster.password)?;
        let mut initdb = install.server_command("initdb")?;
        initdb.arg("--pgdata").arg(cluster.data()).arg("--pwfile").arg(&secret);
        initdb.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        initdb.args(["--encoding=UTF8", "--no-locale", "--no-sync"]);
        run(&mut initdb, "initdb")?;
        cluster.configure_and_launch(options)?;
        Ok(cluster)
    }

    /// A hot standby that streams from `primary`; returns when it takes (read-only) connections.
    pub fn standby_of(primary: &Cluster, options: &Options) -> Result<Self> {
        let mut cluster = Self::empty(&primary.install, primary.password.clone())?;
        let mut copy = primary.install.server_command("pg_basebackup")?;
        copy.arg("--pgdata")
            .arg(cluster.data())
            .arg("--host")
            .arg(primary.dir.path());
        copy.args(["--port", &primary.port.to_string(), "--username=postgres"]);
        copy.args([
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        run(&mut copy, "pg_basebackup")?;
        cluster.configure_and_launch(options)?;
        Ok(cluster)
    }

    fn empty(install: &PgInstall, password: String) -> Result<Self> {
        let dir = place::fresh("pg_billing-")?;
        if let Some(account) = Account::for_servers()? {
            account.own(dir.path())?;
        }
        guard::watch(dir.path())?;
        Ok(Self {
            install: install.clone(),
            port: 0,
            password,
            server: Mutex::new(None),
            dir,
        })
    }

    fn configure_and_launch(&mut self, options: &Options) -> Result<()> {
        for attempt in 1.. {
            self.port = free_port()?;
            let own = [
                ("port", self.port.to_string()),
                ("listen_addresses", "127.0.0.1".to_owned()),
                ("unix_socket_directories", self.dir.path().display().to_string()),
            ];
            let own: String = own.iter().map(|(name, value)| line(name, value)).collect();
            self.configure(&format!("{}{own}", options.lines()))?;
            match self.launch() {
                Err(_) if attempt < PORTS_TRIED && self.log().contains("Address already in use") => {
                    // The next attempt's log must not be judged by this one's.
                    self.write(&self.log_path(), "")?;
                }
                launched => return launched,
            }
        }
        Ok(())
    }

    /// Changes a setting for the next start or reload.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        self.configure(&line(name, value))
    }

    fn configure(&self, lines: &str) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut file = File::options()
            .append(true)
            .open(&path)
            .context(|| format!("cannot open {}", path.display()))?;
        file.write_all(lines.as_bytes())
            .context(|| format!("cannot write {}", path.display()))
    }

    pub fn install(&self) -> &PgInstall {
        &self.install
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of `postgres` for connections through 127.0.0.1.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The folder of the socket, as libpq's `host`.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// What the server has logged since the cluster was made.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Connection settings, for callers that add some of their own.
    pub fn config(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.dir.path())
            .port(self.port)
            .user(user)
            .dbname(database);
        config
    }

    pub fn connect(&self, database: &str) -> Result<Client> {
        self.connect_as("postgres", database)
    }

    pub fn connect_as(&self, user: &str, database: &str) -> Result<Client> {
        Ok(self.config(user, database).connect(NoTls)?)
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The postmaster's process id, `None` when stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Child::id)
    }

    /// Starts the stopped server again; after a crash it recovers first.
    pub fn launch(&self) -> Result<()> {
        let mut server = self.server();
        if server.is_some() {
            return Err(Error::new("the server runs already"));
        }
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.context(|| "cannot open the server's log".to_owned())?;
        let errors = log.try_clone().context(|| "cannot open the server's log".to_owned())?;
        let mut command = self.install.server_command("postgres")?;
        command
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        // Ctrl-C is for the caller: the server ends by way of the guard, in order.
        command.process_group(0);
        let mut child = command.spawn().context(|| "cannot start the server".to_owned())?;
        let ready = self.await_connections(&mut child);
        if ready.is_err() {
            // It has ended already, or it hangs; either way it must not outlive the failed start.
            let _ = child.kill();
            let _ = child.wait();
            return ready;
        }
        *server = Some(child);
        Ok(())
    }

    fn await_connections(&self, child: &mut Child) -> Result<()> {
        let mut config = self.config("postgres", "postgres");
        config.connect_timeout(Duration::from_secs(5));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Error::new(format!(
                    "the server did not start ({status}):\n{}",
                    self.last_of_log()
                )));
            }
            match config.connect(NoTls) {
                Ok(_) => return Ok(()),
                Err(error) if error.code().is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW) => {
                    return Err(error.into());
                }
                Err(_) if Instant::now() < deadline => std::thread::sleep(GLANCE),
                Err(_) => {
                    return Err(Error::new(format!(
                        "the server takes no connections after {} s:\n{}",
                        PATIENCE.as_secs(),
                        self.last_of_log()
                    )));
                }
            }
        }
    }

    fn last_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Stops the server and waits for its end; a stopped one stays as it is.
    pub fn stop(&self, how: Stop) -> Result<()> {
        let mut server = self.server();
        let Some(mut child) = server.take() else { return Ok(()) };
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        send(child.id(), signal)?;
        let deadline = Instant::now() + PATIENCE;
        while child
            .try_wait()
            .context(|| "cannot await the server's end".to_owned())?
            .is_none()
        {
            if Instant::now() > deadline {
                *server = Some(child);
                return Err(Error::new(format!(
                    "the server runs on {} s after it was told to stop",
                    PATIENCE.as_secs()
                )));
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    pub fn restart(&self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.launch()
    }

    /// kill -9 of the postmaster; returns when its orphaned backends are gone too, so that `launch` may follow.
    pub fn kill(&self) -> Result<()> {
        let Some(mut child) = self.server().take() else {
            return Err(Error::new("no server runs"));
        };
        child
            .kill()
            .and_then(|()| child.wait())
            .context(|| "cannot kill the server".to_owned())?;
        let deadline = Instant::now() + PATIENCE;
        while !self.processes().is_empty() {
            if Instant::now() > deadline {
                return Err(Error::new("backends outlive their killed postmaster"));
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// kill -9 of one backend, on which the postmaster ends all others and recovers; returns when they have ended and it takes
    /// connections again.
    pub fn crash(&self, backend: i32) -> Result<()> {
        let mut server = self.server();
        let child = server.as_mut().ok_or_else(|| Error::new("no server runs"))?;
        let postmaster = child.id();
        let doomed = self.processes();
        send(backend.unsigned_abs(), Signal::KILL)?;
        // Until the postmaster has noticed, it goes on taking connections, only to end them.
        let deadline = Instant::now() + PATIENCE;
        let lives = |pid: &u32| *pid != postmaster && doomed.contains(pid);
        while self.processes().iter().any(lives) {
            if Instant::now() > deadline {
                return Err(Error::new("backends outlive a crash"));
            }
            std::thread::sleep(GLANCE);
        }
        self.await_connections(child)
    }

    /// Every process of a server works in its data directory.
    fn processes(&self) -> Vec<u32> {
        let data = self.data();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data))
            .filter_map(|process| process.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Waits until this standby has replayed all that `primary` has committed by now.
    pub fn catch_up_with(&self, primary: &Cluster) -> Result<()> {
        // What is written and not flushed may stay with the primary for seconds, until somebody commits.
        let written: String = primary
            .connect("postgres")?
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])?
            .get(0);
        let mut standby = self.connect("postgres")?;
        let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        let deadline = Instant::now() + PATIENCE;
        while !standby.query_one(replayed, &[&written])?.get::<_, bool>(0) {
            if Instant::now() > deadline {
                return Err(Error::new(format!(
                    "the standby did not reach {written}:\n{}",
                    self.last_of_log()
                )));
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Writes a file that only the servers' account can read.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
        match Account::for_servers()? {
            Some(account) => account.own(path),
            None => Ok(()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The folder goes with `dir`; a server that does not stop is left to the guard.
        let _ = self.stop(Stop::Immediate);
    }
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let target = target.ok_or_else(|| Error::new(format!("{pid} is no process")))?;
    rustix::process::kill_process(target, signal).context(|| format!("cannot signal process {pid}"))
}

fn run(command: &mut Command, name: &str) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!(
        "{name} failed ({}): {}",
        output.status,
        said.trim()
    )))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context(|| "no free port on 127.0.0.1".to_owned())?;
    Ok(listener
        .local_addr()
        .context(|| "no free port on 127.0.0.1".to_owned())?
        .port())
}

fn new_password() -> Result<String> {
    let mut bytes = [0_u8; 16];
    let mut random = File::open("/dev/urandom").context(|| "no random numbers".to_owned())?;
    std::io::Read::read_exact(&mut random, &mut bytes).context(|| "no random numbers".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
