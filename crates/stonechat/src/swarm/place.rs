//! Where the server under load is, and how its admin API is reached.

use std::net::{SocketAddr, ToSocketAddrs};

use stonechat_gateway::admin::Secret;
use stonechat_swarm::Admin;

use crate::cli::{ConfigArgs, SwarmArgs};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::node_file::{self, NodeFile};

/// Where to connect.
pub(super) fn server(
    swarm: &SwarmArgs,
    settings: &Settings,
    node: Option<&NodeFile>,
) -> Result<SocketAddr, Failure> {
    let url = swarm.url.clone().unwrap_or_else(|| {
        node.map_or_else(
            || node_file::client_url(settings.server.listen, settings.server.tls_cert.is_some()),
            NodeFile::client_url,
        )
    });
    let Some(address) = url.strip_prefix("ws://") else {
        let text = format!("{url}: a swarm speaks ws:// only; point it at a listener without TLS");
        return Err(Failure::new(Exit::Config, text));
    };
    let address = address.split('/').next().unwrap_or_default();
    let found = address.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(found)) => Ok(found),
        _ => Err(Failure::new(
            Exit::Config,
            format!("{url}: there is no such address; expected ws://HOST:PORT"),
        )),
    }
}

/// The admin API, with its secret.
pub(super) fn admin(
    swarm: &SwarmArgs,
    args: &ConfigArgs,
    settings: &Settings,
    node: Option<&NodeFile>,
) -> Result<Admin, Failure> {
    let base = swarm.admin.clone().unwrap_or_else(|| {
        let tls = node.map_or(settings.admin.tls_cert.is_some(), |node| node.admin_tls);
        let running = args.admin_listen.or(node.map(|node| node.admin_listen));
        node_file::admin_url(running.unwrap_or(settings.admin.listen), tls)
    });
    if !base.starts_with("http://") {
        let text = format!(
            "{base}: a swarm asks the admin API by http:// only; run it on the server's machine, \
             with admin.tls_cert left out"
        );
        return Err(Failure::new(Exit::Config, text));
    }
    let secret = match &swarm.admin_secret {
        Some(secret) => secret.clone(),
        None => Secret::load(settings.data_dir())
            .map_err(|error| {
                let failure = Failure::from(error);
                let hint =
                    "give it by STONECHAT_ADMIN_SECRET, or the --data-dir of a running server";
                Failure::new(failure.exit(), format!("{failure}; {hint}"))
            })?
            .expose()
            .to_owned(),
    };
    let base = base.trim_end_matches('/').trim_end_matches("/admin/v1");
    Ok(Admin {
        base: format!("{base}/admin/v1"),
        bearer: format!("Bearer {}", secret.trim()),
    })
}

/// The server's process, when it is the one that runs from the data directory.
pub(super) fn pid(swarm: &SwarmArgs, node: Option<&NodeFile>) -> Option<u32> {
    let own = swarm.url.is_none() && swarm.admin.is_none();
    swarm
        .server_pid
        .or(node.filter(|_| own).map(|node| node.pid))
}
