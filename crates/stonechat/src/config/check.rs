//! What a configuration must satisfy. Each complaint names the key and where
//! it was set, and says what would be right.

use figment::error::Kind;
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider};

use super::table::{SECTIONS, Settings, is_secret};
use super::{ConfigError, describe, origin};

pub(super) fn check(figment: &Figment) -> Result<Settings, ConfigError> {
    let data = figment.data().map_err(|error| translate(figment, &error))?;
    let root = data.get(&Profile::Default).cloned().unwrap_or_default();
    no_unknown_keys(figment, &root)?;
    within_bounds(figment)?;
    let settings: Settings = figment
        .extract()
        .map_err(|error| translate(figment, &error))?;
    fit_together(figment, &settings)?;
    Ok(settings)
}

fn no_unknown_keys(figment: &Figment, root: &Dict) -> Result<(), ConfigError> {
    let unknown = |key: String, value: &Value| {
        let origin = figment
            .get_metadata(value.tag())
            .map_or_else(|| "an unknown source".to_owned(), describe);
        let hint =
            nearest(&key).map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
        Err(ConfigError::Unknown { key, origin, hint })
    };
    for (section_name, value) in root {
        let Some(section) = SECTIONS.iter().find(|section| section.name == section_name) else {
            // Name the key rather than the section when there is one, and its origin.
            return match value {
                Value::Dict(_, keys) if !keys.is_empty() => {
                    let (name, value) = keys.iter().next().expect("just seen not to be empty");
                    unknown(format!("{section_name}.{name}"), value)
                }
                _ => unknown(section_name.clone(), value),
            };
        };
        let Value::Dict(_, keys) = value else {
            return unknown(section_name.clone(), value);
        };
        for (name, value) in keys {
            if !section.keys.iter().any(|key| key.name == name) {
                return unknown(format!("{section_name}.{name}"), value);
            }
        }
    }
    Ok(())
}

/// The existing key most like `wanted`, when one is like it at all.
fn nearest(wanted: &str) -> Option<String> {
    SECTIONS
        .iter()
        .flat_map(|section| section.keys)
        .map(|key| format!("{}.{}", key.section, key.name))
        .map(|name| (distance(wanted, &name), name))
        .min()
        .filter(|(distance, _)| *distance <= 4)
        .map(|(_, name)| name)
}

/// Edits between two short texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn within_bounds(figment: &Figment) -> Result<(), ConfigError> {
    for key in SECTIONS.iter().flat_map(|section| section.keys) {
        let Some((low, high)) = key.bounds else {
            continue;
        };
        let name = format!("{}.{}", key.section, key.name);
        let Ok(value) = figment.find_value(&name) else {
            continue;
        };
        let number = value
            .to_i128()
            .or_else(|| value.to_u128().and_then(|n| i128::try_from(n).ok()));
        if !number.is_some_and(|n| i128::from(low) <= n && n <= i128::from(high)) {
            return Err(ConfigError::Bad {
                origin: origin(figment, &name),
                key: name,
                problem: format!(
                    "{} is not a whole number from {low} to {high}",
                    show(&value)
                ),
            });
        }
    }
    Ok(())
}

fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Bool(_, value) => value.to_string(),
        _ => "this".to_owned(),
    }
}

/// Rules between keys.
fn fit_together(figment: &Figment, settings: &Settings) -> Result<(), ConfigError> {
    let Settings {
        server,
        admin,
        storage,
        limits,
        auth,
        traces,
        log,
    } = settings;
    let endpoint = match &*traces.endpoint {
        "" => Ok(()),
        endpoint => crate::traces::address(endpoint).map(|_| ()),
    };
    let headers = crate::traces::headers(&traces.headers);
    let rules = [
        (
            server.tls_cert.is_some() || server.tls_key.is_none(),
            "server.tls_key",
            "needs server.tls_cert beside it",
        ),
        (
            server.tls_key.is_some() || server.tls_cert.is_none(),
            "server.tls_cert",
            "needs server.tls_key beside it",
        ),
        (
            admin.tls_cert.is_some() || admin.tls_key.is_none(),
            "admin.tls_key",
            "needs admin.tls_cert beside it",
        ),
        (
            admin.tls_key.is_some() || admin.tls_cert.is_none(),
            "admin.tls_cert",
            "needs admin.tls_key beside it",
        ),
        (
            admin.listen.ip().is_loopback() || admin.insecure_listen || admin.tls_cert.is_some(),
            "admin.listen",
            "is not a loopback address: the admin secret and all tokens issued would cross the \
             network in the clear; set admin.tls_cert and admin.tls_key, use 127.0.0.1, or set \
             admin.insecure_listen = true to accept that",
        ),
        (
            storage.journal_bytes_max >= storage.segment_bytes_max.saturating_mul(4),
            "storage.journal_bytes_max",
            "must be at least four times storage.segment_bytes_max",
        ),
        (
            limits.frame_bytes_max >= limits.body_bytes_max + 1024,
            "limits.frame_bytes_max",
            "must be at least 1024 more than limits.body_bytes_max",
        ),
        (
            limits.bytes_burst >= limits.body_bytes_max,
            "limits.bytes_burst",
            "must be at least limits.body_bytes_max, or the largest message could never be sent",
        ),
        (
            limits.outlet_events_max >= limits.unacked_max,
            "limits.outlet_events_max",
            "must be at least limits.unacked_max, or a healthy client with a \
             backlog would be closed as a slow consumer",
        ),
        (
            limits.outlet_bytes_max
                >= limits.feed_window_bytes + limits.body_bytes_max + 256 * limits.unacked_max,
            "limits.outlet_bytes_max",
            "must be at least limits.feed_window_bytes + limits.body_bytes_max + 256 times \
             limits.unacked_max, or a healthy client with a backlog would be closed as a slow \
             consumer",
        ),
        (
            auth.token_ttl_s_default <= auth.token_ttl_s_max,
            "auth.token_ttl_s_default",
            "must be at most auth.token_ttl_s_max",
        ),
        (
            endpoint.is_ok(),
            "traces.endpoint",
            endpoint.err().unwrap_or_default(),
        ),
        (
            headers.is_ok(),
            "traces.headers",
            headers.err().unwrap_or_default(),
        ),
        (
            crate::logging::filter(&log.filter).is_ok(),
            "log.filter",
            "is not a level (error, warn, info, debug, trace) or a list such as \
             \"info,stonechat_gateway=debug\"",
        ),
    ];
    match rules.into_iter().find(|(holds, _, _)| !holds) {
        None => Ok(()),
        Some((_, key, problem)) => Err(ConfigError::Bad {
            key: key.to_owned(),
            origin: origin(figment, key),
            problem: problem.to_owned(),
        }),
    }
}

fn translate(figment: &Figment, error: &figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let problem = match &error.kind {
        // What was found is the secret.
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if is_secret(&key) => {
            format!("is not {expected}")
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("{found} is not {expected}")
        }
        Kind::UnknownVariant(found, known) => {
            format!("{found:?} is not one of {}", known.join(", "))
        }
        Kind::Message(text) => text.clone(),
        other => other.to_string(),
    };
    if key.is_empty() {
        return ConfigError::Syntax(error.to_string());
    }
    let origin = error
        .metadata
        .as_ref()
        .map_or_else(|| origin(figment, &key), describe);
    ConfigError::Bad {
        key,
        origin,
        problem,
    }
}
