//! What a load run stands on when it is not just any server: one that it starts itself, and faults.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stonechat_swarm::{Admin, ChaosKind, ChaosOptions, Ground, Scenario, SpawnOptions, Spawned};

use crate::cli::ConfigArgs;
use crate::exit::Failure;

/// Descriptors a server under chaos has beyond one for each device: its reserve, requests on the way,
/// and some hundred connections that a fault can use up.
const DESCRIPTORS_BEYOND: u64 = 800;

/// Flags of `swarm run` about servers of its own and faults.
#[derive(Debug, Args)]
pub(crate) struct GroundArgs {
    /// Start a server for this run, on free ports, and end it after; --config, --set and --data-dir are
    /// handed on to it [default data directory: a temporary one]
    #[arg(long, conflicts_with_all = ["url", "admin"])]
    spawn: bool,
    /// The program to start with `serve` [default: this one]
    #[arg(long, requires = "spawn", value_name = "FILE")]
    spawn_binary: Option<PathBuf>,
    /// Make faults by a seeded plan meanwhile; most take --spawn
    #[arg(long)]
    chaos: bool,
    /// Fixes which faults come when [default: the scenario's seed]
    #[arg(long, requires = "chaos", value_name = "N")]
    chaos_seed: Option<u64>,
    /// Only these kinds: kill,pause,cut [default: all that can be had]
    #[arg(long, requires = "chaos", value_delimiter = ',', value_name = "KINDS")]
    chaos_only: Vec<ChaosKind>,
    /// From one fault to the next, on average: 5s, 500ms, 1m
    #[arg(long, requires = "chaos", default_value = "5s", value_parser = time, value_name = "TIME")]
    chaos_every: Duration,
}

impl GroundArgs {
    /// Starts the server, if it is to be the run's own.
    pub(crate) fn spawned(
        &self,
        args: &ConfigArgs,
        devices: u64,
    ) -> Result<Option<Spawned>, Failure> {
        if !self.spawn {
            return Ok(None);
        }
        let binary = match &self.spawn_binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe()
                .map_err(|error| Failure::io("the path of this program", &error))?,
        };
        let mut arguments = Vec::new();
        if let Some(config) = &args.config {
            arguments.extend(["--config".into(), config.into()]);
        }
        for set in &args.sets {
            arguments.extend(["--set".into(), set.into()]);
        }
        let server = Spawned::start(SpawnOptions {
            binary,
            arguments,
            data_dir: args.data_dir.clone(),
            for_chaos: self.chaos,
            descriptors: self.chaos.then_some(devices + DESCRIPTORS_BEYOND),
        })?;
        eprintln!("started a server on {}", server.server());
        Ok(Some(server))
    }

    /// Descriptors that this process needs for it.
    pub(crate) fn descriptors(&self) -> u64 {
        if self.chaos { DESCRIPTORS_BEYOND } else { 0 }
    }

    /// All of it; `stranger` is the prefix of a user that is made for it.
    pub(crate) fn ground(
        &self,
        spawned: Option<Spawned>,
        scenario: &Scenario,
        admin: &Admin,
        stranger: &str,
    ) -> Result<Ground, Failure> {
        if !self.chaos {
            return Ok(Ground {
                spawned,
                ..Ground::default()
            });
        }
        let options = ChaosOptions {
            seed: self.chaos_seed.unwrap_or(scenario.seed),
            every: self.chaos_every,
            only: self.chaos_only.clone(),
        };
        Ok(Ground {
            spawned,
            chaos: Some((options, admin.clone())),
            strangers: Some(admin.create((stranger, "chaos"), 1, 1)?),
        })
    }

    /// Whether [`GroundArgs::ground`] makes a user.
    pub(crate) fn has_stranger(&self) -> bool {
        self.chaos
    }

    /// Whether there is anything but users.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.spawn || self.chaos
    }

    /// Whether the server ends with the run.
    pub(crate) fn is_own(&self) -> bool {
        self.spawn
    }
}

/// A time from `5s`, `500ms`, `1m`, `5`.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let seconds = number.parse::<f64>().map(|number| number * unit_s);
    match seconds {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a time from 100ms to a day, such as 5s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, ms) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("1m", 60_000),
            ("2.5", 2_500),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1s", "1ms", "nan", "1e9", "five"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
