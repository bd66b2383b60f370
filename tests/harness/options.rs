//! What a cluster is started with.

/// Settings of one cluster, on top of those that make tests quick.
#[derive(Debug, Clone, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
}

impl Options {
    /// Any setting of postgresql.conf; the last value given for a name wins.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn preload(self, library: &str) -> Self {
        self.set("shared_preload_libraries", library)
    }

    /// Writes reach the disk before a commit returns, as in production. Without it a crash of the machine would lose
    /// data, but a crash of the server does not, so most tests go without.
    pub fn durable(self) -> Self {
        self.set("fsync", "on").set("full_page_writes", "on")
    }

    pub(crate) fn lines(&self) -> String {
        let quick = [
            ("fsync", "off"),
            ("full_page_writes", "off"),
            // each test has its own database, and each of those its own background worker
            ("max_connections", "200"),
            ("max_worker_processes", "64"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
        ];
        let quick = quick.iter().map(|(name, value)| (*name, *value));
        let chosen = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        quick.chain(chosen).map(|(name, value)| line(name, value)).collect()
    }
}

pub(crate) fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}
