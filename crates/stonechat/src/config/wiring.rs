//! Settings as each part of the server wants them. Tests hold the defaults in
//! the table to the parts' own, so that neither drifts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stonechat_broker::{BrokerConfig, OutletLimits, RateConfig};
use stonechat_gateway::admin::AdminConfig;
use stonechat_gateway::auth::AuthConfig;
use stonechat_gateway::edge::{EdgeConfig, TlsFiles};
use stonechat_mailbox::StoreConfig;
use stonechat_protocol::Limits;
use stonechat_trace::TracerConfig;

use super::Settings;

/// A checked number as the width a part wants; what does not fit is as large as can be.
fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Both files; that none is given without the other is checked elsewhere.
fn tls_files(cert: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<TlsFiles> {
    Some(TlsFiles {
        cert: cert?.clone(),
        key: key?.clone(),
    })
}

impl Settings {
    /// Directory of everything that is stored.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.server.data_dir
    }

    /// How long SIGTERM may take.
    pub(crate) fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.server.drain_deadline_ms)
    }

    /// For the store.
    pub(crate) fn store(&self) -> StoreConfig {
        let storage = &self.storage;
        StoreConfig {
            segment_bytes_max: storage.segment_bytes_max,
            segment_age_max: Duration::from_millis(storage.segment_age_ms_max),
            prepare_from_bytes: storage.prepare_from_bytes,
            journal_bytes_max: storage.journal_bytes_max,
            recent_bytes_max: storage.recent_bytes_max,
            migrate_after: Duration::from_millis(storage.migrate_after_ms),
            batch_bytes_max: size(storage.batch_bytes_max),
            queue_bytes_max: storage.queue_bytes_max,
            commit_interval: Duration::from_millis(storage.commit_interval_ms),
            quota_messages: storage.quota_messages,
            quota_bytes: storage.quota_bytes,
            devices_max: size(self.limits.devices_max),
            receipts_max: size(storage.receipts_max),
            sled_cache_bytes: storage.sled_cache_bytes,
            lazy_flush: Duration::from_millis(storage.lazy_flush_ms),
            resident_max: size(storage.resident_max),
            accounts_cached_max: size(storage.accounts_cached_max),
            reserve_bytes: storage.reserve_bytes,
            headroom_bytes: storage.headroom_bytes,
            disk_probe: Duration::from_millis(storage.disk_probe_ms),
            reader_threads: size(storage.reader_threads),
            ..StoreConfig::new(&self.server.data_dir)
        }
    }

    /// What clients may do.
    pub(crate) fn protocol_limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            unacked_max: size(limits.unacked_max),
            body_bytes_max: size(limits.body_bytes_max),
            frame_bytes_max: size(limits.frame_bytes_max),
            ttl_s_max: limits.ttl_s_max,
            devices_max: size(limits.devices_max),
            ..Limits::default()
        }
    }

    /// For the broker.
    pub(crate) fn broker(&self) -> BrokerConfig {
        let limits = &self.limits;
        BrokerConfig {
            limits: self.protocol_limits(),
            rate: RateConfig {
                messages_per_s: narrow(limits.messages_per_s),
                messages_burst: narrow(limits.messages_burst),
                bytes_per_s: narrow(limits.bytes_per_s),
                bytes_burst: narrow(limits.bytes_burst),
            },
            shards: size(limits.offline_queues),
            sessions_max: size(limits.sessions_max),
            session_linger_ms: limits.session_linger_ms,
            coalesce_ms: limits.coalesce_ms,
            feed_window_bytes: size(limits.feed_window_bytes),
            expire_interval_ms: self.storage.expire_interval_ms,
            fault_injection: self.admin.fault_injection,
        }
    }

    /// For the edge.
    pub(crate) fn edge(&self) -> EdgeConfig {
        let (server, limits) = (&self.server, &self.limits);
        let some = |value: u64| (value > 0).then(|| size(value));
        EdgeConfig {
            listen: vec![server.listen],
            tls: tls_files(server.tls_cert.as_ref(), server.tls_key.as_ref()),
            tls_watch_ms: server.tls_watch_ms,
            origins_allowed: server.origins_allowed.clone(),
            auth_deadline_ms: server.auth_deadline_ms,
            heartbeat_ms: server.heartbeat_ms,
            write_deadline_ms: server.write_deadline_ms,
            request_deadline_ms: server.request_deadline_ms,
            connections_max: some(limits.connections_max),
            unauthenticated_per_peer_max: size(limits.unauthenticated_per_peer_max),
            peers_trusted: server.peers_trusted.clone(),
            outlet: OutletLimits {
                events_max: size(limits.outlet_events_max),
                bytes_max: size(limits.outlet_bytes_max),
            },
            limits: self.protocol_limits(),
            workers: some(server.workers),
            errors_in_a_row_max: u16::try_from(server.errors_in_a_row_max).unwrap_or(u16::MAX),
            drain_retry_after_ms: server.drain_retry_after_ms,
        }
    }

    /// For the admin listener.
    pub(crate) fn admin(&self) -> AdminConfig {
        AdminConfig {
            listen: self.admin.listen,
            insecure_listen: self.admin.insecure_listen,
            tls: tls_files(self.admin.tls_cert.as_ref(), self.admin.tls_key.as_ref()),
            tls_watch_ms: self.server.tls_watch_ms,
            fault_injection: self.admin.fault_injection,
            requests_per_s: narrow(self.admin.requests_per_s),
        }
    }

    /// Which messages are followed; none without an endpoint to export to.
    pub(crate) fn tracer(&self) -> Option<TracerConfig> {
        let traces = &self.traces;
        (!traces.endpoint.is_empty()).then(|| TracerConfig {
            sampled_per_million: narrow(traces.sampled_per_million),
            sampled_per_s_max: narrow(traces.sampled_per_s_max),
            followed_per_s_max: narrow(traces.followed_per_s_max),
            queue_spans_max: size(traces.queue_spans_max),
        })
    }

    /// For tokens.
    pub(crate) fn auth(&self) -> AuthConfig {
        AuthConfig {
            token_ttl_s_default: self.auth.token_ttl_s_default,
            token_ttl_s_max: self.auth.token_ttl_s_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let settings = Settings::default();
        assert_eq!(settings.broker(), BrokerConfig::default());
        assert_eq!(settings.edge(), EdgeConfig::default());
        assert_eq!(settings.auth(), AuthConfig::default());
        let json = |config: StoreConfig| serde_json::to_value(config).unwrap();
        assert_eq!(json(settings.store()), json(StoreConfig::default()));
    }

    #[test]
    fn what_the_table_allows_the_parts_allow() {
        for high in [false, true] {
            let mut sets = Vec::new();
            for key in super::super::SECTIONS
                .iter()
                .flat_map(|section| section.keys)
            {
                // One end of the range for all keys at once; the rules between keys apart.
                if let Some((low, top)) = key.bounds {
                    let value = if high { top } else { low };
                    sets.push(format!("{}.{}={value}", key.section, key.name));
                }
            }
            if !high {
                sets.push("limits.bytes_burst=1".to_owned());
            }
            let flags: Vec<_> = sets
                .iter()
                .map(|set| super::super::Override::set(set).unwrap())
                .collect();
            let settings = super::super::Config::load(None, [], &flags)
                .unwrap()
                .settings;
            settings.edge().check().unwrap();
            settings.store().validate().unwrap();
        }
    }
}
