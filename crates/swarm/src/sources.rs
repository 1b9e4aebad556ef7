//! Source addresses of connections: a range of this machine's own, so that ports do not run out.
//!
//! A source address has some 28,000 ports towards one address of a server. On loopback every address from
//! 127.0.0.1 on may be used without being set up; elsewhere the addresses have to be the machine's.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// On loopback these are taken unless it is said otherwise.
const LOOPBACK: Sources = Sources {
    first: Ipv4Addr::new(127, 0, 0, 2),
    count: 250,
};
/// More are a mistake.
const COUNT_MAX: u32 = 65_536;

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    first: Ipv4Addr,
    count: u32,
}

/// Not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an IPv4 address or a range of them, such as 127.0.0.2-127.0.0.9")]
pub struct NotSources;

impl Sources {
    /// Those that are taken towards a server when nothing is said: several on loopback, elsewhere what
    /// the system chooses.
    pub(crate) fn for_server(server: SocketAddr) -> Option<Self> {
        (server.ip() == Ipv4Addr::LOCALHOST).then_some(LOOPBACK)
    }

    /// One of them; the same number is always the same.
    pub(crate) fn pick(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + number % self.count)
    }

    /// Those of one of several processes: a share of what is wanted, or else of what is taken anyway.
    pub fn shared(
        wanted: Option<Self>,
        server: SocketAddr,
        process: u32,
        processes: u32,
    ) -> Option<Self> {
        let all = wanted.or_else(|| Self::for_server(server));
        all.map(|all| all.share(process, processes))
    }

    /// The share of one of several processes; when there are too few they are shared by all.
    fn share(self, process: u32, processes: u32) -> Self {
        let count = self.count / processes.max(1);
        if count == 0 {
            return self;
        }
        Self {
            first: self.pick(process * count),
            count,
        }
    }
}

impl FromStr for Sources {
    type Err = NotSources;

    fn from_str(text: &str) -> Result<Self, NotSources> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| NotSources);
        let (first, last) = (address(first)?, address(last)?);
        let count = last.to_bits().checked_sub(first.to_bits());
        match count.map(|more| more.saturating_add(1)) {
            Some(count) if count <= COUNT_MAX => Ok(Self { first, count }),
            _ => Err(NotSources),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_shared_out() {
        let sources: Sources = "127.0.0.2-127.0.0.9".parse().unwrap();
        let all: Vec<String> = (0..9).map(|n| sources.pick(n).to_string()).collect();
        assert_eq!(
            (&*all[0], &*all[7], &*all[8]),
            ("127.0.0.2", "127.0.0.9", "127.0.0.2")
        );
        let shares: Vec<_> = (0..4).map(|process| sources.share(process, 4)).collect();
        let picked: std::collections::BTreeSet<_> = shares
            .iter()
            .flat_map(|share| [share.pick(0), share.pick(1), share.pick(2)])
            .collect();
        assert_eq!(picked.len(), 8, "two each, none twice: {shares:?}");
        assert_eq!(sources.share(3, 9), sources, "too few: all share all");
        assert_eq!("10.1.2.3".parse::<Sources>().unwrap().count, 1);
        for wrong in [
            "",
            "127.0.0.9-127.0.0.2",
            "1.2.3",
            "0.0.0.0-255.255.255.255",
            "::1",
        ] {
            assert_eq!(wrong.parse::<Sources>(), Err(NotSources), "{wrong}");
        }
    }
}
