//! A test's own database, on the cluster that all tests of one binary share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, Config};

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::install::PgInstall;
use crate::options::Options;
use crate::toolchain;

/// The installation under test: the major version in PG_BILLING_TEST_PG, or else the newest there is.
pub fn install_under_test() -> Result<PgInstall> {
    let mut found = toolchain::installs();
    let Ok(major) = std::env::var("PG_BILLING_TEST_PG") else {
        return found
            .pop()
            .ok_or_else(|| Error::new("no PostgreSQL to test on: `cargo test-all` fetches it"));
    };
    found
        .into_iter()
        .find(|install| install.major.to_string() == major)
        .ok_or_else(|| {
            let where_to = crate::place::toolchain();
            Error::new(format!(
                "no PostgreSQL {major} in {}: `cargo test-all` fetches it",
                where_to.display()
            ))
        })
}

/// A cluster of its own on the installation under test, for tests that crash, restart or configure it.
pub fn cluster_under_test(options: &Options) -> Result<Cluster> {
    Cluster::start(&install_under_test()?, options)
}

/// The cluster that all tests of this binary share; it is started by the first that asks.
pub fn shared_cluster() -> Result<&'static Cluster> {
    static SHARED: OnceLock<std::result::Result<Cluster, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let options = Options::default().set("max_prepared_transactions", "10");
        cluster_under_test(&options).map_err(|error| error.to_string())
    });
    shared.as_ref().map_err(Error::new)
}

/// A database that is dropped, with whoever is connected, when it goes out of scope.
#[derive(Debug)]
pub struct Database<'c> {
    cluster: &'c Cluster,
    name: String,
}

impl Database<'static> {
    /// A new database with the extension on the shared cluster.
    pub fn shared() -> Result<Self> {
        Self::with_extension(shared_cluster()?)
    }
}

impl<'c> Database<'c> {
    /// A new database with the extension installed.
    pub fn with_extension(cluster: &'c Cluster) -> Result<Self> {
        let database = Self::empty(cluster)?;
        database.connect()?.batch_execute("CREATE EXTENSION pg_billing")?;
        Ok(database)
    }

    /// A new database without the extension.
    pub fn empty(cluster: &'c Cluster) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster
            .connect("postgres")?
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))?;
        Ok(Self { cluster, name })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    pub fn config(&self) -> Config {
        self.cluster.config("postgres", &self.name)
    }

    pub fn connect(&self) -> Result<Client> {
        self.cluster.connect(&self.name)
    }

    pub fn connect_as(&self, user: &str) -> Result<Client> {
        self.cluster.connect_as(user, &self.name)
    }

    pub fn psql(&self, sql: &str) -> Result<String> {
        self.cluster.psql(&self.name, &[], sql)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // A stopped cluster takes its databases with it.
        if let Ok(mut client) = self.cluster.connect("postgres") {
            let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}
