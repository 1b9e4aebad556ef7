//! What a swarm of users does, as written in a TOML file.
//!
//! A scenario says everything that shapes the load: users and devices, who writes to whom and how
//! often, sizes, when people read, when they are away, phases. Together with its seed it fixes every
//! choice the users make; only what the server's timing decides (which answer comes first) differs
//! from run to run. A key that does not exist, or a value that makes no sense, is an error that names
//! the key. Where the server is and how to reach it is not a scenario's business.

use std::path::Path;

use serde::{Deserialize, Serialize};
use stonechat_protocol::UNACCEPTED_MAX;

mod ready;

pub use ready::{READY, ReadyScenario};

use crate::MARK_BYTES_MIN;

/// The longest body a server takes unless it is configured otherwise.
const BODY_BYTES_MAX: usize = 65_536;
const DAY_S: f64 = 86_400.0;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error(
        "{name}: {source}; `stonechat swarm list` names the ready scenarios, anything else is a file"
    )]
    Unreadable {
        /// Which file.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or a type that does not exist. The parser names line and key.
    #[error("{name}: {source}")]
    Malformed {
        /// Which scenario.
        name: String,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{name}: {key}: {what}")]
    Value {
        /// Which scenario.
        name: String,
        /// Which key.
        key: &'static str,
        /// What it should be.
        what: String,
    },
}

/// What a swarm of users does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One line for the list.
    pub about: String,
    /// Fixes every choice the users make.
    #[serde(default = "one")]
    pub seed: u64,
    /// How many users.
    pub users: u32,
    /// Devices of each user.
    #[serde(default = "one_device")]
    pub devices: u32,
    /// How long they act, seconds; signing in before and settling after do not count.
    pub duration_s: f64,
    /// Who writes; nobody when it is missing.
    #[serde(default)]
    pub traffic: Option<Traffic>,
    /// Who says to have read.
    #[serde(default)]
    pub reading: Reading,
    /// Who is away; nobody when it is missing.
    #[serde(default)]
    pub presence: Option<Presence>,
    /// Parts of the run, one after the other; one ordinary part when there is none.
    #[serde(default)]
    pub phases: Vec<Phase>,
}

fn one() -> u64 {
    1
}

fn one_device() -> u32 {
    1
}

/// Who writes to whom, how often, and how much. Either `rate_per_s` or `window` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Open loop: messages a second that each device sends on average, whatever the server does.
    #[serde(default)]
    pub rate_per_s: Option<f64>,
    /// Open loop: how many messages come in a row on average.
    #[serde(default = "one_f64")]
    pub burst: f64,
    /// Closed loop: how many messages each device has unanswered.
    #[serde(default)]
    pub window: Option<usize>,
    /// Whom they write to.
    pub contacts: Contacts,
    /// Sizes of bodies.
    #[serde(default)]
    pub body_bytes: BodyBytes,
}

fn one_f64() -> f64 {
    1.0
}

/// Whom a user writes to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Contacts {
    /// Users 2n and 2n+1 write to each other.
    Pairs,
    /// Each has a few contacts and writes to the k-th with a probability of 1/k^exponent.
    Zipf {
        /// How many contacts.
        count: u32,
        /// How unequal they are.
        exponent: f64,
    },
    /// All write to user 0, who writes to nobody.
    Celebrity,
}

/// How bodies are sized: bytes of the encoded body.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BodyBytes {
    /// All alike.
    Fixed {
        /// How long.
        bytes: usize,
    },
    /// Any length between two.
    Uniform {
        /// The shortest.
        min: usize,
        /// The longest.
        max: usize,
    },
    /// As people write: most are short, a few are long. What is beyond `max` is cut to it.
    LogNormal {
        /// Half are shorter.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// The longest.
        max: usize,
    },
}

impl Default for BodyBytes {
    fn default() -> Self {
        Self::Fixed { bytes: 200 }
    }
}

/// How people read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// So long after a message came its device says that it was read; never when it is missing.
    #[serde(default)]
    pub after_ms: Option<u64>,
    /// Share of devices whose sockets are read slowly.
    #[serde(default)]
    pub slow_share: f64,
    /// A slow one reads nothing for so long after each time it has read something.
    #[serde(default)]
    pub pause_ms: u64,
}

/// When devices are connected. Times are means of exponential distributions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Share of devices that are connected at the beginning.
    #[serde(default = "one_f64")]
    pub online_share: f64,
    /// How long a device stays connected, seconds.
    pub online_s: f64,
    /// How long it stays away, seconds.
    pub offline_s: f64,
    /// How it leaves.
    #[serde(default)]
    pub end: End,
}

/// How a device leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its socket is closed.
    #[default]
    Close,
    /// Nothing tells the server; the device comes back from another address.
    Vanish,
}

/// A part of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Its name, for the progress lines.
    pub name: String,
    /// Its share of the duration, beside the other phases' weights.
    pub weight: f64,
    /// Open loop: what the rate is multiplied with.
    #[serde(default = "one_f64")]
    pub rate_factor: f64,
    /// Share of all connections that break at its beginning.
    #[serde(default)]
    pub cut_share: f64,
    /// They come back all at once after so long, seconds.
    #[serde(default)]
    pub cut_s: f64,
}

impl Scenario {
    /// A ready one by its name, or else the one in a file.
    ///
    /// # Errors
    /// When there is no such file, or what is in it makes no sense.
    pub fn load(name_or_path: &str) -> Result<Self, ScenarioError> {
        if let Some(ready) = READY.iter().find(|ready| ready.name == name_or_path) {
            return Self::parse(ready.name, ready.text);
        }
        let name = name_or_path.to_owned();
        let text = std::fs::read_to_string(Path::new(name_or_path));
        let text = text.map_err(|source| ScenarioError::Unreadable { name, source })?;
        Self::parse(name_or_path, &text)
    }

    /// Reads and checks a scenario; `name` is for errors.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|source| ScenarioError::Malformed {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        scenario.check(name)?;
        Ok(scenario)
    }

    /// As a file would have it.
    ///
    /// # Panics
    /// Never: every value of a scenario can be written as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario is plain data")
    }

    /// How many devices there are.
    pub fn devices_total(&self) -> u64 {
        u64::from(self.users) * u64::from(self.devices)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Names the first that makes no sense.
    pub fn check(&self, name: &str) -> Result<(), ScenarioError> {
        let must = |ok: bool, key: &'static str, what: &str| match ok {
            true => Ok(()),
            false => Err(ScenarioError::Value {
                name: name.to_owned(),
                key,
                what: what.to_owned(),
            }),
        };
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let seconds = |s: f64| s > 0.0 && s <= 30.0 * DAY_S;
        must(
            (1..=10_000_000).contains(&self.users),
            "users",
            "1 to 10000000",
        )?;
        must((1..=16).contains(&self.devices), "devices", "1 to 16")?;
        must(
            seconds(self.duration_s),
            "duration_s",
            "more than 0, at most 30 days",
        )?;
        if let Some(traffic) = &self.traffic {
            must(
                self.users >= 2,
                "users",
                "2 or more, so that there is somebody to write to",
            )?;
            must(
                traffic.rate_per_s.is_some() != traffic.window.is_some(),
                "traffic",
                "either rate_per_s (open loop) or window (closed loop)",
            )?;
            let rate = traffic.rate_per_s.unwrap_or(1.0);
            must(
                rate > 0.0 && rate <= 10_000.0,
                "traffic.rate_per_s",
                "more than 0, at most 10000",
            )?;
            let burst = (1.0..=64.0).contains(&traffic.burst);
            must(burst, "traffic.burst", "1 to 64")?;
            let window = (1..=UNACCEPTED_MAX).contains(&traffic.window.unwrap_or(1));
            must(window, "traffic.window", "1 to 64, as the protocol has it")?;
            let even = traffic.contacts != Contacts::Pairs || self.users.is_multiple_of(2);
            must(even, "users", "an even number for pairs")?;
            if let Contacts::Zipf { count, exponent } = traffic.contacts {
                let count = (1..=1000).contains(&count);
                must(count, "traffic.contacts.count", "1 to 1000")?;
                let exponent = (0.0..=5.0).contains(&exponent);
                must(exponent, "traffic.contacts.exponent", "0 to 5")?;
            }
            let bytes = |bytes: usize| (MARK_BYTES_MIN..=BODY_BYTES_MAX).contains(&bytes);
            let (sound, what) = match traffic.body_bytes {
                BodyBytes::Fixed { bytes: all } => (bytes(all), "bytes: 42 to 65536"),
                BodyBytes::Uniform { min, max } => (
                    bytes(min) && bytes(max) && min <= max,
                    "min and max: 42 to 65536",
                ),
                BodyBytes::LogNormal { median, sigma, max } => (
                    median >= 1.0 && (0.0..=5.0).contains(&sigma) && bytes(max),
                    "median: 1 or more; sigma: 0 to 5; max: 42 to 65536",
                ),
            };
            must(sound, "traffic.body_bytes", what)?;
        }
        must(
            share(self.reading.slow_share),
            "reading.slow_share",
            "0 to 1",
        )?;
        must(
            self.reading.pause_ms <= 60_000,
            "reading.pause_ms",
            "at most 60000",
        )?;
        let delay = self.reading.after_ms.unwrap_or(0) <= 3_600_000;
        must(delay, "reading.after_ms", "at most an hour")?;
        if let Some(presence) = &self.presence {
            must(
                share(presence.online_share),
                "presence.online_share",
                "0 to 1",
            )?;

            // What was sent before its first sign-in is not for it.
            must(
                self.devices == 1 || presence.online_share == 1.0,
                "presence.online_share",
                "1 with several devices: one that has never been there does not get what came before",
            )?;
            must(
                seconds(presence.online_s),
                "presence.online_s",
                "more than 0",
            )?;
            must(
                seconds(presence.offline_s),
                "presence.offline_s",
                "more than 0",
            )?;
        }
        for phase in &self.phases {
            must(seconds(phase.weight), "phases.weight", "more than 0")?;
            let factor = (0.0..=1000.0).contains(&phase.rate_factor);
            must(factor, "phases.rate_factor", "0 to 1000")?;
            must(share(phase.cut_share), "phases.cut_share", "0 to 1")?;
            must(
                (0.0..=DAY_S).contains(&phase.cut_s),
                "phases.cut_s",
                "0 or more",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod scenario_tests;
