//! Settings of the edge. Checking them is here too; reading them from files
//! and flags is the binary's business.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stonechat_broker::OutletLimits;
use stonechat_protocol::Limits;

use super::EdgeError;
use super::peers::{Network, NotANetwork};

/// Files of a certificate. Read at start and again by [`super::RunningEdge::reload_tls`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// Private key, PEM (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Settings of the WebSocket edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Addresses to listen on, 1 to 16; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Certificate; without one the edge speaks plain TCP.
    pub tls: Option<TlsFiles>,
    /// How often the certificate's files are looked at, in milliseconds; 0: only when told to;
    /// at most 86,400,000.
    pub tls_watch_ms: u64,
    /// Web origins (`https://chat.example.org`) whose pages may connect, besides pages of
    /// the host they connect to; `*` allows all. Clients that are not browsers send no
    /// origin and are not concerned.
    pub origins_allowed: Vec<String>,
    /// Time from the upgrade to a valid `hello`, and for the sign-in after it, in
    /// milliseconds; 100 to 600,000.
    pub auth_deadline_ms: u64,
    /// The server pings a client it heard nothing of for this long and gives it up after
    /// three times this long, in milliseconds; 100 to 3,600,000.
    pub heartbeat_ms: u64,
    /// Longest time in which a client that is being written to may take nothing, in
    /// milliseconds; 100 to 600,000.
    pub write_deadline_ms: u64,
    /// Time for a TLS handshake, and for the head of a request, in milliseconds; 100 to 600,000.
    pub request_deadline_ms: u64,
    /// Connections at a time; more are answered 503. Absent: what the limit of open files
    /// leaves after a reserve for files and for requests that are not connections yet.
    pub connections_max: Option<usize>,
    /// Connections of one peer address (of one /64 for IPv6) that have not signed in; more
    /// are answered 429. 0: no limit.
    pub unauthenticated_per_peer_max: usize,
    /// Addresses and networks that this limit does not count: proxies.
    pub peers_trusted: Vec<String>,
    /// What may wait to be written to one connection.
    #[serde(with = "OutletLimitsForm")]
    pub outlet: OutletLimits,
    /// What a client may send; told in `welcome`.
    pub limits: Limits,
    /// Threads that serve connections, 1 to 512. Absent: one for each processor.
    pub workers: Option<usize>,
    /// Refused frames (`bad_frame`, `unknown_type`, `unexpected_frame`) in a row after which
    /// a connection is closed; 1 to 65,535.
    pub errors_in_a_row_max: u16,
    /// When clients should come back that are turned away while the node stops, in
    /// milliseconds; at most 3,600,000.
    pub drain_retry_after_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OutletLimits", deny_unknown_fields)]
struct OutletLimitsForm {
    events_max: usize,
    bytes_max: usize,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            tls: None,
            tls_watch_ms: 10_000,
            origins_allowed: Vec::new(),
            auth_deadline_ms: 10_000,
            heartbeat_ms: 30_000,
            write_deadline_ms: 10_000,
            request_deadline_ms: 5_000,
            connections_max: None,
            unauthenticated_per_peer_max: 256,
            peers_trusted: vec!["127.0.0.0/8".to_owned(), "::1".to_owned()],
            outlet: OutletLimits::default(),
            limits: Limits::default(),
            workers: None,
            errors_in_a_row_max: 32,
            drain_retry_after_ms: 1_000,
        }
    }
}

/// Descriptors kept for the store, the listeners, the admin API and the like.
const DESCRIPTORS_RESERVED: usize = 128;
/// More connections than this are not attempted, whatever the system allows.
const CONNECTIONS_CEILING: usize = 4_000_000;

/// How the descriptors of the process are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// WebSocket connections.
    pub(crate) connections_max: usize,
    /// Sockets that are accepted and not upgraded yet.
    pub(crate) requests_max: usize,
}

impl Room {
    /// Shares out `descriptors`, the process's limit of open files.
    pub(crate) fn within(descriptors: usize, connections_max: Option<usize>) -> Self {
        let requests_max = (descriptors / 32).clamp(64, 1024);
        let left = descriptors
            .saturating_sub(DESCRIPTORS_RESERVED + requests_max)
            .max(16);
        Self {
            connections_max: connections_max.unwrap_or(left).min(CONNECTIONS_CEILING),
            requests_max,
        }
    }
}

impl EdgeConfig {
    /// [`EdgeConfig::peers_trusted`], read.
    pub(crate) fn networks_trusted(&self) -> Result<Vec<Network>, EdgeError> {
        let networks = self.peers_trusted.iter().map(|text| text.parse());
        networks
            .collect::<Result<_, NotANetwork>>()
            .map_err(|error| EdgeError::Config {
                key: "peers_trusted",
                problem: error.to_string(),
            })
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`EdgeError::Config`] naming the first key that is out of bounds.
    pub fn check(&self) -> Result<(), EdgeError> {
        let within = |key: &'static str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(EdgeError::Config {
                    key,
                    problem: format!("{value} is not within {min} to {max}"),
                })
            }
        };
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        within("listen", count(self.listen.len()), 1, 16)?;
        within("tls_watch_ms", self.tls_watch_ms, 0, 86_400_000)?;
        within("auth_deadline_ms", self.auth_deadline_ms, 100, 600_000)?;
        within("heartbeat_ms", self.heartbeat_ms, 100, 3_600_000)?;
        within("write_deadline_ms", self.write_deadline_ms, 100, 600_000)?;
        within(
            "request_deadline_ms",
            self.request_deadline_ms,
            100,
            600_000,
        )?;
        within(
            "drain_retry_after_ms",
            self.drain_retry_after_ms,
            0,
            3_600_000,
        )?;
        within(
            "errors_in_a_row_max",
            self.errors_in_a_row_max.into(),
            1,
            65_535,
        )?;
        within("workers", count(self.workers.unwrap_or(1)), 1, 512)?;
        let connections = count(self.connections_max.unwrap_or(1));
        within(
            "connections_max",
            connections,
            1,
            count(CONNECTIONS_CEILING),
        )?;
        within(
            "outlet.events_max",
            count(self.outlet.events_max),
            2,
            1 << 20,
        )?;
        within(
            "outlet.bytes_max",
            count(self.outlet.bytes_max),
            1024,
            1 << 30,
        )?;
        let (body, frame) = (self.limits.body_bytes_max, self.limits.frame_bytes_max);
        within("limits.frame_bytes_max", count(frame), 1024, 16 << 20)?;
        within("limits.body_bytes_max", count(body), 1, count(frame))?;
        self.networks_trusted()?;
        for origin in &self.origins_allowed {
            if origin != "*" && !origin.contains("://") {
                return Err(EdgeError::Config {
                    key: "origins_allowed",
                    problem: format!(
                        "{origin:?} is not an origin; write https://host or https://host:port"
                    ),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_within_bounds_and_survives_serde() {
        let config = EdgeConfig::default();
        config.check().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<EdgeConfig>(&json).unwrap(), config);
        assert!(serde_json::from_str::<EdgeConfig>(r#"{"heartbeat":1}"#).is_err());
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        type Spoil = fn(&mut EdgeConfig);
        let bad: [(&str, Spoil); 7] = [
            ("peers_trusted", |c| c.peers_trusted.push("proxy".into())),
            ("listen", |c| c.listen.clear()),
            ("heartbeat_ms", |c| c.heartbeat_ms = 0),
            ("workers", |c| c.workers = Some(0)),
            ("limits.body_bytes_max", |c| {
                c.limits.body_bytes_max = 1 << 40;
            }),
            ("origins_allowed", |c| {
                c.origins_allowed = vec!["example.org".into()];
            }),
            ("errors_in_a_row_max", |c| c.errors_in_a_row_max = 0),
        ];
        for (name, spoil) in bad {
            let mut config = EdgeConfig::default();
            spoil(&mut config);
            match config.check() {
                Err(EdgeError::Config { key, .. }) => assert_eq!(key, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn descriptors_are_shared_out_with_a_reserve() {
        let room = Room::within(1024, None);
        assert_eq!(
            room.connections_max + room.requests_max + DESCRIPTORS_RESERVED,
            1024
        );
        let room = Room::within(20_000, None);
        assert_eq!(
            room.connections_max + room.requests_max + DESCRIPTORS_RESERVED,
            20_000
        );
        assert!(room.connections_max > 19_000);
        assert_eq!(Room::within(20_000, Some(5)).connections_max, 5);
        assert!(Room::within(64, None).connections_max >= 16);
    }
}
