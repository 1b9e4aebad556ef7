//! Configuration: defaults, then a TOML file, then the environment, then the
//! command line; checked, with errors that name the key and where it was set.
//!
//! It does not know what the keys are for: `table` lists them, `wiring` turns
//! them into the settings of each part.

mod check;
mod render;
mod table;
mod wiring;

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

pub(crate) use render::example;
pub(crate) use table::{LogFormat, Settings, TraceSettings, is_secret};

use table::{Key, SECTIONS};

/// Read when no `--config` is given and it exists.
const FILE_DEFAULT: &str = "stonechat.toml";
/// What the names of environment variables start with.
const ENV_PREFIX: &str = "STONECHAT_";
/// What commands take from the environment, and is no setting although it looks like one.
const NOT_SETTINGS: [&str; 1] = ["STONECHAT_ADMIN_SECRET"];

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file that was asked for cannot be read.
    #[error("the configuration file {path} cannot be read: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key that does not exist.
    #[error(
        "{key} (set by {origin}) is not a configuration key{hint}; `stonechat config --example` lists them all"
    )]
    Unknown {
        /// The key.
        key: String,
        /// Where it was set.
        origin: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value that will not do.
    #[error("{key} (set by {origin}): {problem}")]
    Bad {
        /// The key.
        key: String,
        /// Where it was set.
        origin: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Not TOML.
    #[error("the configuration cannot be read: {0}")]
    Syntax(String),
    /// `--set` without an equals sign.
    #[error("--set {0}: expected section.key=value")]
    Set(String),
}

/// A value from outside the file.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    origin: String,
    key: String,
    value: Value,
}

impl Override {
    /// From a flag of the command line.
    pub(crate) fn flag(flag: &str, key: &str, value: impl Into<Value>) -> Self {
        Self {
            origin: flag.to_owned(),
            key: key.to_owned(),
            value: value.into(),
        }
    }

    /// From `--set section.key=value`.
    pub(crate) fn set(text: &str) -> Result<Self, ConfigError> {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| key.contains('.'))
            .ok_or_else(|| ConfigError::Set(text.to_owned()))?;
        Ok(Self {
            origin: "--set".to_owned(),
            key: key.trim().to_owned(),
            value: parse(key.trim(), value),
        })
    }

    fn env(name: &str, value: &str) -> Option<Self> {
        if NOT_SETTINGS.contains(&name) {
            return None;
        }
        let key = name
            .strip_prefix(ENV_PREFIX)?
            .to_ascii_lowercase()
            .replacen("__", ".", 1);
        let nested = key.contains('.');
        // STONECHAT_SERVER_LISTEN is a slip worth reporting; STONECHAT_TOKEN is not ours.
        let slip = SECTIONS.iter().any(|section| {
            key.strip_prefix(section.name)
                .is_some_and(|rest| rest.starts_with('_'))
        });
        (nested || slip).then(|| Self {
            origin: format!("the environment variable {name}"),
            value: parse(&key, value),
            key: if nested {
                key
            } else {
                key.replacen('_', "__", 1)
            },
        })
    }
}

/// Text as the type the key has: text stays text even when it looks like a number.
fn parse(key: &str, text: &str) -> Value {
    let defaults = Figment::from(Serialized::defaults(Settings::default()));
    let is_text = matches!(
        defaults.find_value(key),
        Ok(Value::String(..) | Value::Empty(..))
    );
    if is_text {
        return Value::from(text);
    }
    text.parse().unwrap_or_else(|_| Value::from(text))
}

impl Provider for Override {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, self.value.clone());
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

struct Defaults;

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named("default")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(Settings::default()).data()
    }
}

/// A checked configuration and where its values came from.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The values.
    pub(crate) settings: Settings,
    figment: Figment,
}

impl Config {
    /// Reads and checks everything. `file`: asked for with `--config`; `env`: the process's
    /// environment; `flags`: from the command line, the last one wins.
    pub(crate) fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[Override],
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Defaults);
        let path = file.unwrap_or(Path::new(FILE_DEFAULT));
        match std::fs::read_to_string(path) {
            Ok(_) => {
                let toml = Toml::file_exact(path);
                toml.data()
                    .map_err(|error| ConfigError::Syntax(format!("{}: {error}", path.display())))?;
                figment = figment.merge(toml);
            }
            // Without --config the file is optional, but one that is there is not passed over.
            Err(source) if file.is_some() || source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ConfigError::File {
                    path: path.to_owned(),
                    source,
                });
            }
            Err(_) => {}
        }
        for (name, value) in env {
            if let Some(one) = Override::env(&name, &value) {
                figment = figment.merge(one);
            }
        }
        for flag in flags {
            figment = figment.merge(flag.clone());
        }
        let settings = check::check(&figment)?;
        Ok(Self { settings, figment })
    }

    /// From the text of a file; what a fuzzer needs of [`Config::load`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_text(text: &str, flags: &[Override]) -> Result<Self, ConfigError> {
        let toml = Toml::string(text);
        toml.data()
            .map_err(|error| ConfigError::Syntax(error.to_string()))?;
        let mut figment = Figment::from(Defaults).merge(toml);
        for flag in flags {
            figment = figment.merge(flag.clone());
        }
        let settings = check::check(&figment)?;
        Ok(Self { settings, figment })
    }

    /// Every key with its value and where that came from.
    pub(crate) fn values(&self) -> Vec<(String, serde_json::Value, String)> {
        let settings = serde_json::to_value(&self.settings).unwrap_or_default();
        SECTIONS
            .iter()
            .flat_map(|section| section.keys)
            .map(|key| {
                let name = format!("{}.{}", key.section, key.name);
                let value = settings[key.section][key.name].clone();
                let origin = origin(&self.figment, &name);
                (name, value, origin)
            })
            .collect()
    }

    /// The configuration in force as TOML, with documentation and origins.
    pub(crate) fn to_toml(&self) -> String {
        render::effective(&self.settings, &|key: &Key| {
            origin(&self.figment, &format!("{}.{}", key.section, key.name))
        })
    }
}

/// Where the value of a key came from, for people.
fn origin(figment: &Figment, key: &str) -> String {
    figment
        .find_metadata(key)
        .map_or_else(|| "default".to_owned(), describe)
}

fn describe(metadata: &Metadata) -> String {
    match metadata
        .source
        .as_ref()
        .and_then(|source| source.file_path())
    {
        Some(path) => format!("the file {}", path.display()),
        None => metadata.name.clone().into_owned(),
    }
}

#[cfg(test)]
mod tests;
