//! How many connections of one address may be open before they have signed in.
//!
//! Without it one machine that opens silent sockets takes all the room there is
//! for clients on their way in. What has signed in is not counted here: that
//! has limits by user. An IPv6 peer is its /64, because that is what one
//! customer has. It does not slow anybody down, and it remembers nobody: a peer
//! without such connections is not in the table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

/// Peers at their limit are told to the operator this often at most.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// An address, or all that begin like it: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    bits: u128,
    prefix: u32,
}

/// Not a [`Network`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address or a network; write 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")]
pub(crate) struct NotANetwork(String);

/// IPv4 addresses as IPv6 has them, so that there is one kind.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn masked(bits: u128, prefix: u32) -> u128 {
    bits & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let bad = || NotANetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = prefix.map_or(Ok(width), str::parse).map_err(|_| bad())?;
        if prefix > width {
            return Err(bad());
        }
        let prefix = prefix + 128 - width;
        Ok(Self {
            bits: masked(bits(address), prefix),
            prefix,
        })
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        masked(bits(address), self.prefix) == self.bits
    }
}

/// Whom a connection is charged to: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Peer(u128);

impl Peer {
    fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { 128 } else { 64 };
        Self(masked(bits(address), prefix))
    }
}

/// The count of each peer.
pub(crate) struct Peers {
    /// 0: no limit.
    each_max: usize,
    trusted: Vec<Network>,
    table: Mutex<Table>,
    courtesies: Arc<()>,
}

#[derive(Default)]
struct Table {
    counts: HashMap<Peer, usize>,
    warned: Option<Instant>,
}

/// The peer has as many connections that have not signed in as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded;

/// A connection that is counted until this is dropped; absent for who is not counted.
pub(crate) type Counted = Option<Box<PeerPlace>>;

impl Peers {
    /// Nobody is there yet.
    pub(crate) fn new(each_max: usize, trusted: Vec<Network>) -> Arc<Self> {
        Arc::new(Self {
            each_max,
            trusted,
            table: Mutex::default(),
            courtesies: Arc::default(),
        })
    }

    /// A new connection.
    pub(crate) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Counted, Crowded> {
        let Some(peer) = self.counted(address) else {
            return Ok(None);
        };
        let mut table = self.table.lock();
        let count = table.counts.get(&peer).copied().unwrap_or(0);
        if count < self.each_max {
            return Ok(Some(self.place(&mut table, peer)));
        }
        let now = Instant::now();
        if table.warned.is_none_or(|at| now - at >= WARN_EVERY) {
            table.warned = Some(now);
            drop(table);
            let peer = Ipv6Addr::from_bits(peer.0).to_canonical();
            warn!(%peer, connections = count, "a peer has as many connections without a sign-in as allowed; more are refused (told once a minute at most)");
        }
        Err(Crowded)
    }

    /// A connection that was let in goes on as something else, which counts instead.
    pub(crate) fn stay(self: &Arc<Self>, address: Option<IpAddr>) -> Counted {
        let peer = self.counted(address)?;
        Some(self.place(&mut self.table.lock(), peer))
    }

    /// Leave to tell somebody that there is no place, `max` at a time (or a few more, when two
    /// threads ask at once); given back when dropped.
    pub(crate) fn courtesy(&self, max: usize) -> Option<Arc<()>> {
        (Arc::strong_count(&self.courtesies) <= max).then(|| Arc::clone(&self.courtesies))
    }

    fn counted(&self, address: Option<IpAddr>) -> Option<Peer> {
        let address = address.filter(|_| self.each_max > 0)?;
        let is_trusted = self.trusted.iter().any(|network| network.contains(address));
        (!is_trusted).then(|| Peer::of(address))
    }

    fn place(self: &Arc<Self>, table: &mut Table, peer: Peer) -> Box<PeerPlace> {
        *table.counts.entry(peer).or_insert(0) += 1;
        Box::new(PeerPlace {
            peers: Arc::clone(self),
            peer,
        })
    }
}

/// One of a peer's places; given back when dropped.
pub(crate) struct PeerPlace {
    peers: Arc<Peers>,
    peer: Peer,
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut table = self.peers.table.lock();
        if let Some(count) = table.counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                table.counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_peer_has_its_own_places_and_gets_them_back() {
        let peers = Peers::new(2, Vec::new());
        let first = peers.enter(at("192.0.2.1")).unwrap();
        let second = peers.enter(at("192.0.2.1")).unwrap();
        assert!(peers.enter(at("192.0.2.1")).is_err());
        assert!(peers.enter(at("::ffff:192.0.2.1")).is_err(), "the same");
        let other = peers.enter(at("192.0.2.2")).unwrap();
        drop(second);
        let third = peers.enter(at("192.0.2.1")).unwrap();
        assert!(peers.enter(at("192.0.2.1")).is_err());
        // What was let in may go on as something else even then.
        let stayed = peers.stay(at("192.0.2.1"));
        drop(third);
        assert!(peers.enter(at("192.0.2.1")).is_err());
        drop((first, other, stayed));
        assert!(peers.table.lock().counts.is_empty(), "nobody is remembered");
    }

    #[test]
    fn an_ipv6_peer_is_its_64() {
        let peers = Peers::new(1, Vec::new());
        let _one = peers.enter(at("2001:db8:1:2::1")).unwrap();
        assert!(peers.enter(at("2001:db8:1:2:ffff::9")).is_err());
        assert!(peers.enter(at("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn trusted_networks_and_no_limit_count_nobody() {
        let trusted = networks(&["127.0.0.0/8", "10.1.2.3", "2001:db8::/32", "::1"]);
        let peers = Peers::new(1, trusted);
        for trusted in [
            "127.0.0.1",
            "127.9.9.9",
            "::ffff:127.0.0.1",
            "10.1.2.3",
            "2001:db8:9::1",
            "::1",
        ] {
            let places: Vec<Counted> = (0..3).map(|_| peers.enter(at(trusted)).unwrap()).collect();
            assert!(places.iter().all(Option::is_none), "{trusted}");
        }
        for other in ["128.0.0.1", "10.1.2.4", "2001:db9::1"] {
            let _place = peers.enter(at(other)).unwrap();
            assert!(peers.enter(at(other)).is_err(), "{other}");
        }
        let unlimited = Peers::new(0, Vec::new());
        assert!(unlimited.enter(at("192.0.2.1")).unwrap().is_none());
        assert!(peers.enter(None).unwrap().is_none(), "no address, no count");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "example.org",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/x",
            "10/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert!(
            "0.0.0.0/0"
                .parse::<Network>()
                .unwrap()
                .contains(at("9.9.9.9").unwrap())
        );
        assert!(
            !"0.0.0.0/0"
                .parse::<Network>()
                .unwrap()
                .contains(at("2001::").unwrap())
        );
        assert!(
            "::/0"
                .parse::<Network>()
                .unwrap()
                .contains(at("9.9.9.9").unwrap())
        );
    }
}
