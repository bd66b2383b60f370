//! Private PostgreSQL for tests and the demo: what has to be fetched, the extension built into it, clusters of it.
//!
//! Nothing here touches another installation or cluster: servers are copies in `target/toolchain`, clusters live in
//! fresh folders, and both commands work as root (servers are then handed to an unprivileged account) and as anyone.

mod account;
mod client;
mod cluster;
mod database;
mod dice;
mod error;
#[path = "../exactness/mod.rs"]
pub mod exactness;
mod guard;
mod install;
mod options;
pub mod place;
pub mod progress;
pub mod toolchain;

pub use cluster::{Cluster, Stop};
pub use database::{Database, cluster_under_test, install_under_test, shared_cluster};
pub use dice::Dice;
pub use error::{Context, Error, Result};
pub use install::PgInstall;
pub use options::Options;
pub use toolchain::installs;
