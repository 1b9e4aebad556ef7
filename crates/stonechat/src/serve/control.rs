//! What the admin API sees and steers of the program itself: its configuration,
//! its log, how it was built.

use stonechat_gateway::admin::{Build, ConfigValue, NodeControl};

use crate::config::{Config, is_secret};
use crate::logging::LogControl;

/// The program as the admin API sees it.
pub(super) struct Control {
    config: Vec<ConfigValue>,
    log: LogControl,
}

impl Control {
    pub(super) fn new(config: &Config, log: LogControl) -> Self {
        let config = config
            .values()
            .into_iter()
            .map(|(key, value, source)| {
                let masked = is_secret(&key);
                ConfigValue {
                    value: if masked {
                        serde_json::Value::Null
                    } else {
                        value
                    },
                    key,
                    source,
                    masked,
                }
            })
            .collect();
        Self { config, log }
    }
}

impl NodeControl for Control {
    fn config(&self) -> Vec<ConfigValue> {
        self.config.clone()
    }

    fn log_filter(&self) -> String {
        self.log.filter()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        self.log.set(filter)
    }

    fn build(&self) -> Build {
        Build {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("STONECHAT_COMMIT"),
            rustc: env!("STONECHAT_RUSTC"),
            profile: env!("STONECHAT_PROFILE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Override;

    #[test]
    fn values_are_shown_with_their_source_and_secrets_are_not() {
        let flags = [
            Override::set("server.workers=3").unwrap(),
            Override::set("server.tls_cert=cert.pem").unwrap(),
            Override::set("server.tls_key=private.pem").unwrap(),
            Override::set(r#"traces.headers=["authorization=hunter2"]"#).unwrap(),
        ];
        let config = Config::load(None, [], &flags).unwrap();
        let control = Control::new(
            &config,
            crate::logging::start(config.settings.log.format, "info"),
        );
        let values = control.config();
        let of = |key: &str| values.iter().find(|one| one.key == key).unwrap();
        assert_eq!(
            (
                &of("server.workers").value,
                of("server.workers").source.as_str()
            ),
            (&3.into(), "--set")
        );
        assert_eq!(of("server.listen").value, "127.0.0.1:8080");
        assert_eq!(of("server.listen").source, "default");
        let key = of("server.tls_key");
        assert!(key.masked && key.value.is_null(), "{key:?}");
        assert!(of("traces.headers").masked);
        assert!(!format!("{values:?}").contains("hunter2"));
        assert!(!is_secret("auth.token_ttl_s_default"));
    }
}
