//! `<data-dir>/node.json`: where the running node listens, for local commands
//! and tests. Written when ready, removed at a clean end; after a crash it is
//! left behind and the next start replaces it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the file within the data directory.
const FILE: &str = "node.json";

/// Where a running node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeFile {
    /// Its process id.
    pub(crate) pid: u32,
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Where the admin API is.
    pub(crate) admin_listen: SocketAddr,
    /// Clients connect by TLS.
    pub(crate) tls: bool,
    /// The admin API is reached by TLS.
    #[serde(default)]
    pub(crate) admin_tls: bool,
}

impl NodeFile {
    /// Writes the file in one step.
    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let beside = data_dir.join(format!("{FILE}.new"));
        fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
        fs::rename(beside, path(data_dir))
    }

    /// What the file says; `None` when there is none or it cannot be read.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        let bytes = fs::read(path(data_dir)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Removes the file, if it is there.
    pub(crate) fn remove(data_dir: &Path) {
        if let Err(error) = fs::remove_file(path(data_dir))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "node.json could not be removed");
        }
    }

    /// Where the admin API is, for a program on this machine.
    pub(crate) fn admin_url(&self) -> String {
        admin_url(self.admin_listen, self.admin_tls)
    }

    /// Where a client on this machine connects.
    pub(crate) fn client_url(&self) -> String {
        client_url(self.listen, self.tls)
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Server address for a client on this machine.
pub(crate) fn client_url(listen: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "wss" } else { "ws" };
    format!("{scheme}://{}", reachable(listen))
}

/// Address of the admin API for a program on this machine.
pub(crate) fn admin_url(listen: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", reachable(listen))
}

/// An address one can connect to: "all interfaces" is reached by the loopback one.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeFile::read(dir.path()), None);
        let node = NodeFile {
            pid: 7,
            listen: "0.0.0.0:1".parse().unwrap(),
            admin_listen: "[::]:2".parse().unwrap(),
            tls: true,
            admin_tls: true,
        };
        node.write(dir.path()).unwrap();
        assert_eq!(NodeFile::read(dir.path()), Some(node.clone()));
        assert_eq!(node.client_url(), "wss://127.0.0.1:1");
        assert_eq!(node.admin_url(), "https://[::1]:2");
        NodeFile::remove(dir.path());
        NodeFile::remove(dir.path());
        assert_eq!(NodeFile::read(dir.path()), None);
    }
}
