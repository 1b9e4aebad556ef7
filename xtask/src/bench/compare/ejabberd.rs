//! ejabberd on loopback, with data of its own, ended by its handle.
//!
//! The Erlang VM is started with the options of Debian's `ejabberdctl`, but not by it: that script wants
//! a user and a directory of the system, and a node that is known to `epmd`, which would outlive the
//! benchmark. A node without a name needs neither, and does the same work.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::node::Tls;

/// The configuration. What differs from Debian's file: one listener, no shapers, no limit on offline
/// messages or on what awaits an acknowledgement, passwords kept as they are (checking a token costs
/// our server no key derivation either), caches that hold all users, and only the modules that take part.
pub(super) fn config(port: u16, tls: Option<&Tls>) -> String {
    let (listener, certificates) = match tls {
        Some(tls) => (
            "    tls: true\n",
            format!("certfiles:\n  - \"{}\"\n", tls.both.display()),
        ),
        None => ("", String::new()),
    };
    format!(
        r#"hosts:
  - localhost
loglevel: error
log_rotate_count: 0
{certificates}listen:
  -
    port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 262144
    backlog: 1024
    shaper: none
    access: all
{listener}auth_method: internal
auth_password_format: plain
auth_cache_size: 100000
cache_size: 100000
shaper_rules:
  max_user_sessions: 10
  max_user_offline_messages: infinity
modules:
  mod_disco: {{}}
  mod_offline:
    access_max_user_messages: max_user_offline_messages
  mod_ping: {{}}
  mod_roster: {{}}
  mod_stream_mgmt:
    max_ack_queue: infinity
    resend_on_timeout: true
"#
    )
}

/// The command. `users` are registered, and written to disk so that no kill forgets them, before the
/// file `ready` appears; none when started again.
pub(super) fn command(
    dir: &Path,
    listen: SocketAddr,
    users: usize,
    tls: Option<&Tls>,
) -> Result<Command> {
    let spool = dir.join("spool");
    std::fs::create_dir_all(&spool)?;
    let file = dir.join("ejabberd.yml");
    std::fs::write(&file, config(listen.port(), tls))?;
    let spool = spool.to_str().context("the directory's name is text")?;
    let ready = dir.join("ready");
    let ready = ready.to_str().context("the directory's name is text")?;
    let eval = format!(
        "[ok = ejabberd_auth:try_register(list_to_binary([\"u\", integer_to_list(N)]), \
         <<\"localhost\">>, <<\"p\">>) || N <- lists:seq(0, {users} - 1)], \
         mnesia:dump_log(), [ok = dets:sync(T) || T <- dets:all()], \
         ok = file:write_file(\"{ready}\", <<\"ready\">>)."
    );
    let mut command = Command::new("erl");
    command
        .args(["+K", "true", "+P", "262144"])
        .args(["-env", "ERL_CRASH_DUMP_BYTES", "0"])
        .args(["-noinput", "-mnesia", "dir"])
        .arg(format!("\"{spool}\""))
        .args(["-s", "ejabberd", "-eval", &eval])
        .env("EJABBERD_CONFIG_PATH", &file)
        .env("EJABBERD_LOG_PATH", dir.join("ejabberd.log"))
        .env("ERL_MAX_PORTS", "65536")
        .env("ERL_LIBS", "/usr/lib/x86_64-linux-gnu")
        .env("HOME", dir);
    Ok(command)
}
