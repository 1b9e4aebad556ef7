use std::fs;

use super::*;

fn load(
    file: Option<&Path>,
    env: &[(&str, &str)],
    flags: &[Override],
) -> Result<Config, ConfigError> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(file, env, flags)
}

fn file(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("node.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(
        &dir,
        "[server]\nheartbeat_ms = 111\nauth_deadline_ms = 111\nwrite_deadline_ms = 111\n",
    );
    let config = load(
        Some(&path),
        &[
            ("STONECHAT_SERVER__AUTH_DEADLINE_MS", "222"),
            ("STONECHAT_SERVER__WRITE_DEADLINE_MS", "222"),
            ("STONECHAT_TOKEN", "not a key, not a complaint"),
            ("STONECHAT_ADMIN_SECRET", "of the swarm, not a key either"),
            ("PATH", "/bin"),
        ],
        &[Override::set("server.write_deadline_ms=333").unwrap()],
    )
    .unwrap();
    let server = &config.settings.server;
    assert_eq!(server.heartbeat_ms, 111);
    assert_eq!(server.auth_deadline_ms, 222);
    assert_eq!(server.write_deadline_ms, 333);
    assert_eq!(server.request_deadline_ms, 5_000);
    let text = config.to_toml();
    let origin_of = |key: &str| {
        let value = text.find(&format!("\n{key} = ")).unwrap();
        text[..value].lines().last().unwrap().to_owned()
    };
    assert_eq!(
        origin_of("heartbeat_ms"),
        format!("# Set by: the file {}", path.display())
    );
    assert_eq!(
        origin_of("auth_deadline_ms"),
        "# Set by: the environment variable STONECHAT_SERVER__AUTH_DEADLINE_MS"
    );
    assert_eq!(origin_of("write_deadline_ms"), "# Set by: --set");
    assert_eq!(origin_of("request_deadline_ms"), "# Set by: default");
}

#[test]
fn every_type_can_come_from_the_environment() {
    let config = load(
        None,
        &[
            ("STONECHAT_SERVER__LISTEN", "[::1]:9000"),
            ("STONECHAT_SERVER__DATA_DIR", "12345"),
            (
                "STONECHAT_SERVER__ORIGINS_ALLOWED",
                r#"["https://a.example", "*"]"#,
            ),
            ("STONECHAT_SERVER__TLS_CERT", "7"),
            ("STONECHAT_SERVER__TLS_KEY", "key.pem"),
            ("STONECHAT_ADMIN__FAULT_INJECTION", "true"),
            ("STONECHAT_LOG__FORMAT", "json"),
            ("STONECHAT_LOG__FILTER", "debug"),
        ],
        &[],
    )
    .unwrap();
    let settings = config.settings;
    assert_eq!(settings.server.listen, "[::1]:9000".parse().unwrap());
    assert_eq!(settings.server.data_dir, PathBuf::from("12345"));
    assert_eq!(settings.server.origins_allowed, ["https://a.example", "*"]);
    assert_eq!(settings.server.tls_cert, Some(PathBuf::from("7")));
    assert!(settings.admin.fault_injection);
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.log.filter, "debug");
}

#[test]
fn an_unknown_key_is_named_with_its_origin_and_the_likely_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "[server]\nheartbeat = 111\n");
    let text = load(Some(&path), &[], &[]).unwrap_err().to_string();
    assert!(text.contains("server.heartbeat "), "{text}");
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("did you mean server.heartbeat_ms?"), "{text}");

    let path = file(&dir, "listen = \"127.0.0.1:1\"\n");
    let text = load(Some(&path), &[], &[]).unwrap_err().to_string();
    assert!(text.starts_with("listen (set by the file"), "{text}");

    for (name, key) in [
        ("STONECHAT_SERVER__LISTN", "server.listn"),
        ("STONECHAT_SERVER_LISTEN", "server__listen"),
        ("STONECHAT_NOWHERE__LISTEN", "nowhere.listen"),
    ] {
        let text = load(None, &[(name, "1")], &[]).unwrap_err().to_string();
        assert!(text.starts_with(key), "{text}");
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn bounds_hold_for_every_number() {
    let mut numbers = 0;
    for key in SECTIONS.iter().flat_map(|section| section.keys) {
        let Some((low, high)) = key.bounds else {
            continue;
        };
        numbers += 1;
        let name = format!("{}.{}", key.section, key.name);
        let above = (u128::from(high) + 1).to_string();
        let below = (i128::from(low) - 1).to_string();
        for bad in [above.as_str(), below.as_str(), "many", "1.5", "true"] {
            let flag = Override::set(&format!("{name}={bad}")).unwrap();
            let text = load(None, &[], &[flag]).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("{name} (set by --set)")),
                "{text}"
            );
            assert!(text.contains(&format!("from {low} to {high}")), "{text}");
        }
    }
    assert!(numbers > 40, "only {numbers} keys have bounds");
}

#[test]
fn keys_that_do_not_fit_together_are_refused() {
    for (sets, key) in [
        (&["server.tls_cert=a"][..], "server.tls_cert"),
        (&["server.tls_key=a"], "server.tls_key"),
        (&["admin.listen=0.0.0.0:8081"], "admin.listen"),
        (
            &["storage.journal_bytes_max=300000"],
            "storage.journal_bytes_max",
        ),
        (&["limits.frame_bytes_max=2000"], "limits.frame_bytes_max"),
        (&["limits.bytes_burst=10"], "limits.bytes_burst"),
        (&["limits.unacked_max=5000"], "limits.outlet_events_max"),
        (
            &["limits.feed_window_bytes=4194304"],
            "limits.outlet_bytes_max",
        ),
        (&["auth.token_ttl_s_max=10"], "auth.token_ttl_s_default"),
        (&["log.filter=a=b=c"], "log.filter"),
        (&["log.format=xml"], "log.format"),
        (&["server.listen=nowhere"], "server.listen"),
        (&["admin.fault_injection=7"], "admin.fault_injection"),
    ] {
        let flags: Vec<Override> = sets.iter().map(|set| Override::set(set).unwrap()).collect();
        let text = load(None, &[], &flags).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{key} (set by ")), "{text}");
    }
    let flags = ["admin.listen=0.0.0.0:8081", "admin.insecure_listen=true"];
    let flags: Vec<Override> = flags
        .iter()
        .map(|set| Override::set(set).unwrap())
        .collect();
    assert!(load(None, &[], &flags).is_ok());
}

#[test]
fn a_file_that_was_asked_for_must_be_there_and_be_toml() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    let error = load(Some(&missing), &[], &[]).unwrap_err();
    assert!(matches!(error, ConfigError::File { .. }));
    let path = file(&dir, "[server\n");
    let error = load(Some(&path), &[], &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Syntax(_)), "{error}");
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
    assert!(Override::set("server.listen").is_err());
    assert!(Override::set("listen=1").is_err());
}

#[test]
fn what_config_prints_reads_back_as_the_same() {
    let flags = [
        "server.origins_allowed=[\"a\\\"b\"]",
        "log.filter=warn",
        "server.workers=3",
    ];
    let flags: Vec<Override> = flags
        .iter()
        .map(|set| Override::set(set).unwrap())
        .collect();
    let config = load(None, &[], &flags).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, &config.to_toml());
    let again = load(Some(&path), &[], &[]).unwrap();
    assert_eq!(config.settings, again.settings);
}

#[test]
fn the_example_in_the_docs_is_the_one_generated_and_holds_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/stonechat.example.toml");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == example(),
        "docs/stonechat.example.toml has drifted; make it again with:\n  \
         cargo run -p stonechat -- config --example > docs/stonechat.example.toml"
    );
    let live: String = kept
        .lines()
        .filter(|line| !line.ends_with("= \"\""))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, &live);
    let config = load(Some(&path), &[], &[]).unwrap();
    assert_eq!(config.settings, Settings::default());
    assert!(live.contains("\nheartbeat_ms = 30000\n"));
}

#[test]
fn headers_for_the_trace_collector_are_shown_nowhere() {
    let set = |text: &str| load(None, &[], &[Override::set(text).unwrap()]);
    let config = set(r#"traces.headers=["authorization=Bearer hunter2"]"#).unwrap();
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(
        printed.contains("#headers = [] # set, not shown"),
        "{printed}"
    );
    for wrong in [
        "traces.headers=hunter2",
        "traces.headers=[\"hunter2\"]",
        "traces.headers=[7, \"hunter2\"]",
        "traces.endpoint=http://me:hunter2@collector.example",
    ] {
        let error = set(wrong).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.starts_with("traces."), "{error}");
    }
    assert!(set("traces.endpoint=http://127.0.0.1:4318").is_ok());
}
