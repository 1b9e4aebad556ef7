//! Prosody on loopback, with data of its own, ended by its handle.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::node::Tls;

/// The configuration. What differs from Debian's file: one port, no servers, no limits on rates,
/// passwords kept as they are, only the modules that take part, and leave to run as root, which
/// containers do. `epoll` is Prosody's own default. What awaits an acknowledgement stays limited as it is
/// by default (500 stanzas, the oldest are then forgotten): Prosody sets that many places aside for each
/// session, so a greater limit would be charged to every idle connection.
pub(super) fn config(dir: &Path, port: u16, tls: Option<&Tls>) -> String {
    let mut text = format!(
        r#"daemonize = false
run_as_root = true
pidfile = "{0}/prosody.pid"
data_path = "{0}/data"
log = {{ error = "{0}/prosody.log" }}
network_backend = "epoll"
network_settings = {{ tcp_backlog = 1024 }}
modules_enabled = {{ "disco", "offline", "ping", "posix", "roster", "saslauth", "smacks", "tls" }}
modules_disabled = {{ "s2s" }}
c2s_interfaces = {{ "127.0.0.1" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
"#,
        dir.display()
    );
    match tls {
        Some(tls) => {
            let _ = writeln!(
                text,
                "c2s_ports = {{ }}\nc2s_direct_tls_ports = {{ {port} }}\n\
                 c2s_direct_tls_interfaces = {{ \"127.0.0.1\" }}\n\
                 c2s_direct_tls_ssl = {{ certificate = \"{0}\"; key = \"{1}\" }}",
                tls.certificate.display(),
                tls.key.display()
            );
        }
        None => {
            let _ = writeln!(text, "c2s_ports = {{ {port} }}");
        }
    }
    text.push_str("VirtualHost \"localhost\"\n");
    text
}

/// The command. Accounts of `users` are written first; none when started again.
pub(super) fn command(
    dir: &Path,
    listen: SocketAddr,
    users: usize,
    tls: Option<&Tls>,
) -> Result<Command> {
    let accounts = dir.join("data/localhost/accounts");
    std::fs::create_dir_all(&accounts)?;
    for user in 0..users {
        std::fs::write(
            accounts.join(format!("u{user}.dat")),
            "return {\n\t[\"password\"] = \"p\";\n};\n",
        )?;
    }
    let file = dir.join("prosody.cfg.lua");
    std::fs::write(&file, config(dir, listen.port(), tls))?;
    let mut command = Command::new("prosody");
    command.arg("-F").arg("--config").arg(&file);
    Ok(command)
}
