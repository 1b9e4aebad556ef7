//! How a node is started: the one place that knows the names of configuration keys.
//!
//! Suites say what they mean (`unacked_max(8)`); a key that is renamed is mended here only.

use std::fmt::Write as _;

use crate::{Admin, Endpoint};

/// Options of a node under test. The defaults suit fast tests: loopback, free ports, JSON logs, and
/// rates that no test reaches by accident.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    settings: Vec<(String, String)>,
    pub(crate) flags: Vec<String>,
    pub(crate) shell_prelude: Option<String>,
    pub(crate) allowed_log: Vec<String>,
    /// Certificate of the admin listener, PEM.
    pub(crate) admin_cert: Option<String>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            flags: Vec::new(),
            shell_prelude: None,
            allowed_log: Vec::new(),
            admin_cert: None,
        }
        .set("log.format", "\"json\"")
        .messages_per_s(1_000_000)
        .messages_burst(1_000_000)
        .bytes_per_s(1_000_000_000)
        .bytes_burst(1_000_000_000)
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident => $key:literal;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(self, value: u64) -> Self { self.set($key, &value.to_string()) })*
    };
}

impl NodeOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key (dotted) to a TOML literal.
    #[must_use]
    pub fn set(mut self, key: &str, toml_literal: &str) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings
            .push((key.to_owned(), toml_literal.to_owned()));
        self
    }

    /// Adds a flag to `serve`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Allows the admin API to inject panics; their log lines are expected.
    #[must_use]
    pub fn fault_injection(self) -> Self {
        self.flag("--enable-fault-injection")
            .allow_log("panic")
            .allow_log("injected")
    }

    /// Shell commands run in the process that becomes the server, `ulimit` above all.
    #[must_use]
    pub fn shell_prelude(mut self, commands: &str) -> Self {
        self.shell_prelude = Some(commands.to_owned());
        self
    }

    /// Lines of level ERROR (or about panics) that contain `part` do not fail the test.
    #[must_use]
    pub fn allow_log(mut self, part: &str) -> Self {
        self.allowed_log.push(part.to_owned());
        self
    }

    /// Origins a browser may come from.
    #[must_use]
    pub fn origins_allowed(self, origins: &[&str]) -> Self {
        self.set("server.origins_allowed", &format!("{origins:?}"))
    }

    /// Certificate and key files.
    #[must_use]
    pub fn tls(self, cert: &std::path::Path, key: &std::path::Path) -> Self {
        self.set(
            "server.tls_cert",
            &format!("{:?}", cert.display().to_string()),
        )
        .set(
            "server.tls_key",
            &format!("{:?}", key.display().to_string()),
        )
    }

    /// Certificate and key files of the admin listener; the certificate has to be for 127.0.0.1.
    ///
    /// # Panics
    /// When the certificate cannot be read.
    #[must_use]
    pub fn admin_tls(mut self, cert: &std::path::Path, key: &std::path::Path) -> Self {
        self.admin_cert = Some(std::fs::read_to_string(cert).expect("the certificate is there"));
        self.set(
            "admin.tls_cert",
            &format!("{:?}", cert.display().to_string()),
        )
        .set("admin.tls_key", &format!("{:?}", key.display().to_string()))
    }

    /// The admin API of a node with these options.
    pub(crate) fn admin(&self, endpoint: &Endpoint, secret: Option<String>) -> Admin {
        let admin = Admin::new(&endpoint.admin_listen, secret);
        match &self.admin_cert {
            Some(pem) => admin.trusting(pem),
            None => admin,
        }
    }

    numbers! {
        /// Time a connection has for its `hello`.
        auth_deadline_ms => "server.auth_deadline_ms";
        /// Silence after which the server pings.
        heartbeat_ms => "server.heartbeat_ms";
        /// Time a write may take.
        write_deadline_ms => "server.write_deadline_ms";
        /// Connections at a time.
        connections_max => "limits.connections_max";
        /// Messages outstanding for a device.
        unacked_max => "limits.unacked_max";
        /// Devices of a user.
        devices_max => "limits.devices_max";
        /// Sessions at a time.
        sessions_max => "limits.sessions_max";
        /// Sustained messages per second of a user.
        messages_per_s => "limits.messages_per_s";
        /// Messages a user may send at once.
        messages_burst => "limits.messages_burst";
        /// Sustained bytes per second of a user.
        bytes_per_s => "limits.bytes_per_s";
        /// Bytes a user may send at once.
        bytes_burst => "limits.bytes_burst";
        /// Messages a mailbox holds.
        quota_messages => "storage.quota_messages";
        /// Bytes a mailbox holds.
        quota_bytes => "storage.quota_bytes";
        /// Time between two looks for expired messages.
        expire_interval_ms => "storage.expire_interval_ms";
        /// Offline queues.
        offline_queues => "limits.offline_queues";
        /// Time receipts and acknowledgements wait for company.
        coalesce_ms => "limits.coalesce_ms";
        /// Time a session outlives its last device.
        session_linger_ms => "limits.session_linger_ms";
    }

    /// The configuration file.
    pub(crate) fn toml(&self) -> String {
        self.settings
            .iter()
            .fold(String::new(), |mut out, (key, value)| {
                writeln!(out, "{key} = {value}").expect("a String takes every write");
                out
            })
    }
}
