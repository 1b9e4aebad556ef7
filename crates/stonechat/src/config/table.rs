//! The one table of everything that can be set: key, type, default, bounds and
//! documentation. The structs, their defaults, the checks, `stonechat config`
//! and `docs/stonechat.example.toml` all come from it. It reads nothing itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is known of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Its section.
    pub(crate) section: &'static str,
    /// Its name within the section.
    pub(crate) name: &'static str,
    /// What it does, line by line.
    pub(crate) doc: &'static [&'static str],
    /// Smallest and greatest value, for numbers.
    pub(crate) bounds: Option<(u64, u64)>,
}

impl Key {
    /// Its name with its section.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// Whether a key's value is nobody's business, by the end of its name.
pub(crate) fn is_secret(key: &str) -> bool {
    const ENDS: [&str; 6] = [
        "_secret",
        "_password",
        "_token",
        "_tls_key",
        ".tls_key",
        "traces.headers",
    ];
    ENDS.iter().any(|end| key.ends_with(end))
}

/// What is known of one section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) doc: &'static [&'static str],
    /// Its keys in the order of the documentation.
    pub(crate) keys: &'static [Key],
}

macro_rules! bounds {
    () => {
        None
    };
    ($low:expr, $high:expr) => {
        Some(($low, $high))
    };
}

macro_rules! settings {
    ($($(#[doc = $section_doc:literal])+ $section:ident: $name:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:expr $(, $low:literal ..= $high:literal)?;)+
    })+) => {
        /// Everything that can be set.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct Settings {
            $($(#[doc = $section_doc])+ pub(crate) $section: $name,)+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub(crate) struct $name {
                $($(#[doc = $doc])+ pub(crate) $key: $kind,)+
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $($key: $default,)+ }
                }
            }
        )+

        /// All sections, in the order of the documentation.
        pub(crate) const SECTIONS: &[Section] = &[$(Section {
            name: stringify!($section),
            doc: &[$($section_doc),+],
            keys: &[$(Key {
                section: stringify!($section),
                name: stringify!($key),
                doc: &[$($doc),+],
                bounds: bounds!($($low, $high)?),
            }),+],
        }),+];
    };
}

settings! {
    /// The public listener, where clients connect, and the process.
    server: Server {
        /// Where clients connect: address and port. Port 0 takes a free one, which is
        /// then told in the banner and in `<data_dir>/node.json`.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
        /// Directory of everything that is stored. Made with mode 0700 when missing.
        /// One process at a time may have it open. Relative to the working directory.
        data_dir: PathBuf = PathBuf::from("stonechat-data");
        /// Certificate chain, PEM. With it and `tls_key` clients connect by wss://.
        /// Read again when it changes and at SIGHUP.
        tls_cert: Option<PathBuf> = None;
        /// Private key of the certificate, PEM.
        tls_key: Option<PathBuf> = None;
        /// How often certificate and key, and those of `admin`, are looked at for a change,
        /// milliseconds. A change is used when the next look finds it the same. 0: only at
        /// SIGHUP.
        tls_watch_ms: u64 = 10_000, 0..=86_400_000;
        /// Origins of web pages that may connect, such as `https://chat.example.org`;
        /// "*" allows all. Empty: pages of this very host only. Programs that are not
        /// browsers send no Origin and are not affected.
        origins_allowed: Vec<String> = Vec::new();
        /// Addresses and networks ("10.0.0.0/8") of proxies, which connect for many clients:
        /// `limits.unauthenticated_per_peer_max` does not count them.
        peers_trusted: Vec<String> = vec![String::from("127.0.0.0/8"), String::from("::1")];
        /// Threads that serve connections. 0: one for each processor.
        workers: u64 = 0, 0..=512;
        /// A connection that has not said a valid `hello` by then is closed, milliseconds.
        auth_deadline_ms: u64 = 10_000, 100..=600_000;
        /// A connection silent for this long is pinged, silent for three times as long
        /// it is closed, milliseconds.
        heartbeat_ms: u64 = 30_000, 100..=3_600_000;
        /// A write that makes no progress for this long closes the connection as a slow
        /// consumer, milliseconds.
        write_deadline_ms: u64 = 10_000, 100..=600_000;
        /// The head of an HTTP request has to be complete by then, milliseconds.
        request_deadline_ms: u64 = 5_000, 100..=600_000;
        /// Refused frames in a row after which the connection is closed.
        errors_in_a_row_max: u64 = 32, 1..=65_535;
        /// How long SIGTERM may take: what is not finished then is cut off, milliseconds.
        drain_deadline_ms: u64 = 10_000, 100..=600_000;
        /// What clients are told at shutdown: connect again after this, milliseconds.
        drain_retry_after_ms: u64 = 1_000, 0..=3_600_000;
    }
    /// The admin listener: users, tokens, metrics, health.
    admin: Admin {
        /// Address and port. Without `tls_cert` it speaks plain HTTP and has to stay on the
        /// loopback interface.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8081));
        /// Certificate chain, PEM. With it and `tls_key` the listener speaks HTTPS, and only
        /// that. Read again when it changes and at SIGHUP.
        tls_cert: Option<PathBuf> = None;
        /// Private key of the certificate, PEM.
        tls_key: Option<PathBuf> = None;
        /// Allows `listen` to be other than a loopback address without `tls_cert`, although
        /// the secret and all tokens issued then cross the network in the clear.
        insecure_listen: bool = false;
        /// Opens POST /admin/v1/faults/panic, which makes parts of the node panic. For
        /// tests of supervision only.
        fault_injection: bool = false;
        /// Requests a second of one admin token for long; four times as many at once. More
        /// are answered 429. The secret is not limited.
        requests_per_s: u64 = 100, 1..=1_000_000;
    }
    /// The store: journal and mailboxes.
    storage: Storage {
        /// Messages one mailbox holds; beyond it senders are told `mailbox_full`.
        quota_messages: u64 = 100_000, 1..=1_000_000_000;
        /// Bytes of bodies one mailbox holds; beyond it senders are told `mailbox_full`.
        quota_bytes: u64 = 268_435_456, 1..=1_099_511_627_776;
        /// A journal segment is closed when it would grow beyond this, bytes.
        segment_bytes_max: u64 = 67_108_864, 65_536..=1_073_741_824;
        /// A journal segment is closed when its first batch is older, milliseconds.
        segment_age_ms_max: u64 = 60_000, 100..=86_400_000;
        /// Senders wait while the journal takes more than this on disk, bytes. At least
        /// four times `segment_bytes_max`.
        journal_bytes_max: u64 = 2_147_483_648, 262_144..=1_099_511_627_776;
        /// Once a segment holds this, the next one's file is filled with zeros beforehand,
        /// which halves the cost of a sync on ext4 and XFS, bytes. 0: never, as is right on
        /// file systems that do not write in place (btrfs, ZFS).
        prepare_from_bytes: u64 = 1_048_576, 0..=1_073_741_824;
        /// Recent messages held in memory before they are moved to the database early,
        /// bytes. Senders wait at twice this.
        recent_bytes_max: u64 = 134_217_728, 1_048_576..=1_099_511_627_776;
        /// Messages not acknowledged after this are moved from memory to the database,
        /// milliseconds.
        migrate_after_ms: u64 = 5_000, 10..=3_600_000;
        /// Bytes of messages in one commit; what is beyond waits for the next.
        batch_bytes_max: u64 = 4_194_304, 65_536..=67_108_864;
        /// Bytes of messages waiting to be committed before senders wait.
        queue_bytes_max: u64 = 33_554_432, 262_144..=17_179_869_184;
        /// Shortest time from one commit to the next while messages come by the thousand
        /// a second, milliseconds: fewer, fuller commits cost less. 0: none.
        commit_interval_ms: u64 = 1, 0..=1_000;
        /// Acknowledgements and the like are on disk at the latest after this,
        /// milliseconds.
        lazy_flush_ms: u64 = 100, 1..=10_000;
        /// Memory of the database's page cache, bytes.
        sled_cache_bytes: u64 = 67_108_864, 1_048_576..=1_099_511_627_776;
        /// Mailboxes kept in memory; idle ones beyond are dropped from it.
        resident_max: u64 = 100_000, 16..=100_000_000;
        /// Accounts kept in memory.
        accounts_cached_max: u64 = 1_000_000, 16..=100_000_000;
        /// Conversations of one user whose receipts are kept; the longest unmoved goes
        /// first.
        receipts_max: u64 = 10_000, 1..=10_000_000;
        /// Bytes set aside on disk, given up when the disk is full so that what is under
        /// way can end in order.
        reserve_bytes: u64 = 8_388_608, 0..=1_073_741_824;
        /// Free disk space below which nothing more is accepted, so that the database, which does
        /// not survive a full disk, never meets one, bytes; 0: not looked at.
        headroom_bytes: u64 = 67_108_864, 0..=1_099_511_627_776;
        /// How often a full disk is looked at, milliseconds.
        disk_probe_ms: u64 = 500, 10..=600_000;
        /// Threads that read the database.
        reader_threads: u64 = 2, 1..=64;
        /// How often expired messages are swept out, milliseconds.
        expire_interval_ms: u64 = 60_000, 10..=86_400_000;
    }
    /// What clients may do. The first five are told to every client in `welcome`.
    limits: LimitSettings {
        /// Messages sent to a device and not yet acknowledged; the server waits at this
        /// many.
        unacked_max: u64 = 256, 1..=65_536;
        /// Bytes of an encoded body.
        body_bytes_max: u64 = 65_536, 1..=65_536;
        /// Bytes of a WebSocket message; larger ones close the connection. At least
        /// 1,024 more than `body_bytes_max`.
        frame_bytes_max: u64 = 73_728, 1_025..=1_048_576;
        /// Longest time a message waits for its recipient, and the default, seconds.
        ttl_s_max: u64 = 2_592_000, 1..=31_536_000;
        /// Devices of a user.
        devices_max: u64 = 16, 1..=64;
        /// Messages a second one user may send for long.
        messages_per_s: u64 = 100, 1..=4_294_967_295;
        /// Messages one user may send at once.
        messages_burst: u64 = 400, 1..=4_294_967_295;
        /// Bytes of bodies a second one user may send for long.
        bytes_per_s: u64 = 1_048_576, 1..=4_294_967_295;
        /// Bytes of bodies one user may send at once. At least `body_bytes_max`.
        bytes_burst: u64 = 4_194_304, 1..=4_294_967_295;
        /// Connections at a time; more are refused with 503. 0: as many as the file
        /// descriptor limit leaves room for.
        connections_max: u64 = 0, 0..=4_000_000;
        /// Connections of one peer address (of one /64 for IPv6) that have not signed in;
        /// more are refused with 429. 0: no limit. Does not count `server.peers_trusted`.
        unauthenticated_per_peer_max: u64 = 256, 0..=4_000_000;
        /// Users connected at a time.
        sessions_max: u64 = 1_000_000, 1..=100_000_000;
        /// Events waiting for one connection; beyond it is closed as a slow consumer. At
        /// least `unacked_max`, better twice that.
        outlet_events_max: u64 = 4_096, 128..=1_048_576;
        /// Bytes waiting for one connection; beyond it is closed as a slow consumer. At
        /// least `feed_window_bytes` and `body_bytes_max` together, and 256 more for each
        /// of `unacked_max`.
        outlet_bytes_max: u64 = 4_194_304, 65_536..=1_073_741_824;
        /// Bytes of bodies sent to a device and not yet acknowledged; the server waits
        /// at this many.
        feed_window_bytes: u64 = 1_048_576, 1_024..=268_435_456;
        /// How long a session outlives its last device, milliseconds.
        session_linger_ms: u64 = 5_000, 0..=3_600_000;
        /// How long receipts, acknowledgements on their way to the mailbox, and `accepted`
        /// frames while the node is busy may wait for company, milliseconds.
        coalesce_ms: u64 = 40, 0..=10_000;
        /// Offline-queue actors that users are spread over. 0: one for each thread.
        offline_queues: u64 = 0, 0..=1_024;
    }
    /// Tokens.
    auth: Auth {
        /// How long a token is good for when nothing else is asked for, seconds.
        token_ttl_s_default: u64 = 31_536_000, 1..=315_360_000;
        /// Longest a token may be good for, seconds. A signing key that was rotated out
        /// is kept for this long.
        token_ttl_s_max: u64 = 63_072_000, 1..=315_360_000;
    }
    /// Traces: a few messages, followed through the server and told to an OpenTelemetry
    /// collector. docs/traces.md.
    traces: TraceSettings {
        /// The collector: OTLP over HTTP as protobuf, such as `http://127.0.0.1:4318`;
        /// `/v1/traces` is added unless there is a path. Empty: no traces.
        endpoint: String = String::new();
        /// HTTP headers sent along, as "name=value", such as what a collector wants for
        /// authorization. A secret: never shown. Give it in a file that nobody else can
        /// read rather than on the command line.
        headers: Vec<String> = Vec::new();
        /// Of a million messages, so many are followed. Those of clients that say in
        /// `traceparent` whether they trace them are not among these.
        sampled_per_million: u64 = 1_000, 0..=1_000_000;
        /// So many of these a second at most.
        sampled_per_s_max: u64 = 100, 0..=100_000;
        /// Messages a second at most that are followed because their client says it
        /// traces them. 0: clients have no say.
        followed_per_s_max: u64 = 10, 0..=100_000;
        /// Finished spans waiting to be exported; beyond it they are dropped and counted.
        /// A message makes about seven.
        queue_spans_max: u64 = 8_192, 64..=1_048_576;
        /// How long a span may wait for company, milliseconds.
        linger_ms: u64 = 1_000, 10..=60_000;
        /// How long one export may take, milliseconds.
        timeout_ms: u64 = 5_000, 100..=60_000;
    }
    /// Logs, on standard error.
    log: Log {
        /// "human" or "json".
        format: LogFormat = LogFormat::Human;
        /// What is logged: a level (error, warn, info, debug, trace), or levels by
        /// module as in "info,stonechat_gateway=debug". Read again at SIGHUP.
        filter: String = String::from("info");
    }
}
