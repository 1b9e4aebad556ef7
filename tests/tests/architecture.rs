//! The walls between the crates: who may depend on whom, and who may name which library.
//!
//! The tables are those of docs/architecture.md; an arrow in the wrong direction fails here.

use std::collections::BTreeSet;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Crate, and the crates of ours it may depend on.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("stonechat-protocol", &[]),
    ("stonechat-delivery", &["stonechat-protocol"]),
    ("stonechat-trace", &["stonechat-protocol"]),
    ("stonechat-actors", &[]),
    (
        "stonechat-mailbox",
        &["stonechat-protocol", "stonechat-trace"],
    ),
    (
        "stonechat-broker",
        &[
            "stonechat-protocol",
            "stonechat-trace",
            "stonechat-delivery",
            "stonechat-actors",
            "stonechat-mailbox",
        ],
    ),
    (
        "stonechat-gateway",
        &[
            "stonechat-protocol",
            "stonechat-trace",
            "stonechat-delivery",
            "stonechat-actors",
            "stonechat-mailbox",
            "stonechat-broker",
        ],
    ),
    ("stonechat-client", &["stonechat-protocol"]),
    // Load: speaks to a server from outside, never links one.
    (
        "stonechat-swarm",
        &["stonechat-client", "stonechat-protocol"],
    ),
    (
        "stonechat",
        &[
            "stonechat-protocol",
            "stonechat-trace",
            "stonechat-delivery",
            "stonechat-actors",
            "stonechat-mailbox",
            "stonechat-broker",
            "stonechat-gateway",
            "stonechat-client",
            "stonechat-swarm",
        ],
    ),
    ("stonechat-tests", &[]),
    // Tasks for developers: no server in them, so that they build fast.
    (
        "xtask",
        &[
            "stonechat-protocol",
            "stonechat-delivery",
            "stonechat-tests",
            "stonechat-swarm",
        ],
    ),
];

/// Library (or family, with a star), and the only crates that may name it.
const ONLY_NAMED_BY: &[(&str, &[&str])] = &[
    ("sled", &["stonechat-mailbox"]),
    ("actix", &["stonechat-actors", "stonechat-broker"]),
    (
        "actix-rt",
        &[
            "stonechat-actors",
            "stonechat-broker",
            "stonechat-gateway",
            "stonechat",
        ],
    ),
    ("actix-*", &["stonechat-gateway"]),
    ("actix-web", &["stonechat-gateway"]),
    ("awc", &[]),
    ("http", &[]),
    ("hyper", &[]),
    // Spans are our own until they leave the process.
    ("opentelemetry*", &["stonechat", "stonechat-tests"]),
    ("prost", &["stonechat", "stonechat-tests"]),
    // Clients and tests speak to the server from outside; the server speaks it by actix-http.
    (
        "tokio-tungstenite",
        &["stonechat-client", "stonechat-tests"],
    ),
];

/// Crates without IO: none of these, nor anything asynchronous.
const WITHOUT_IO: &[&str] = &["stonechat-protocol", "stonechat-delivery"];
const IO_LIBRARIES: &[&str] = &[
    "tokio",
    "futures-util",
    "futures",
    "async-trait",
    "mio",
    "actix",
    "actix-rt",
    "socket2",
    "tracing",
];

/// Lines that the entry of the binary may have: configuration, build, drain; no more.
const MAIN_LINES_MAX: usize = 60;

/// Lines of any one source file.
const FILE_LINES_MAX: usize = 500;

fn metadata() -> Metadata {
    MetadataCommand::new()
        .exec()
        .expect("cargo metadata works here")
}

fn members(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

/// Names of what a crate itself, not its tests, depends on.
fn dependencies(package: &Package) -> BTreeSet<&str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.as_str())
        .collect()
}

#[test]
fn arrows_point_the_right_way() {
    let metadata = metadata();
    let members = members(&metadata);
    let names: BTreeSet<&str> = members
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let listed: BTreeSet<&str> = MAY_DEPEND_ON.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names, listed,
        "a crate is missing here, or gone: keep the table true"
    );
    for package in members {
        let (_, allowed) = MAY_DEPEND_ON
            .iter()
            .find(|(name, _)| *name == package.name.as_str())
            .expect("compared above");
        // Tests of a crate may not reach over a wall either.
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let to_itself = to == package.name.as_str();
            if names.contains(to) && !to_itself {
                assert!(
                    allowed.contains(&to),
                    "{} must not depend on {to}: see the table in docs/architecture.md",
                    package.name
                );
            }
        }
    }
}

#[test]
fn libraries_stay_behind_their_walls() {
    let metadata = metadata();
    for package in members(&metadata) {
        for dependency in dependencies(package) {
            // The first entry that fits speaks; the exact ones stand beside the families.
            let exact = ONLY_NAMED_BY.iter().find(|(name, _)| *name == dependency);
            let family = ONLY_NAMED_BY.iter().find(|(name, _)| {
                name.strip_suffix('*')
                    .is_some_and(|prefix| dependency.starts_with(prefix))
            });
            if let Some((name, allowed)) = exact.or(family) {
                assert!(
                    allowed.contains(&package.name.as_str()),
                    "{} must not name {dependency} (rule {name}): only {allowed:?} may",
                    package.name
                );
            }
        }
    }
}

#[test]
fn the_logic_has_no_io() {
    let metadata = metadata();
    for package in members(&metadata) {
        if WITHOUT_IO.contains(&package.name.as_str()) {
            for dependency in dependencies(package) {
                assert!(
                    !IO_LIBRARIES.contains(&dependency),
                    "{} is free of IO and must not name {dependency}",
                    package.name
                );
            }
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let metadata = metadata();
    let root = std::fs::read_to_string(metadata.workspace_root.join("Cargo.toml"))
        .expect("the root manifest");
    assert!(
        root.contains("unsafe_code = \"forbid\""),
        "unsafe code is forbidden"
    );
    for package in members(&metadata) {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        let mut lines = manifest.lines().skip_while(|line| line.trim() != "[lints]");
        assert!(
            lines
                .nth(1)
                .is_some_and(|line| line.trim() == "workspace = true"),
            "{} lacks [lints] workspace = true",
            package.name
        );
    }
}

fn sources(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn sources_stay_small_enough_to_read() {
    let metadata = metadata();
    let main = metadata.workspace_root.join("crates/stonechat/src/main.rs");
    let lines = std::fs::read_to_string(main)
        .expect("the entry")
        .lines()
        .count();
    assert!(
        lines < MAIN_LINES_MAX,
        "main.rs has {lines} lines: it is configuration, build, drain"
    );
    let mut all = Vec::new();
    for package in members(&metadata) {
        let dir = package
            .manifest_path
            .parent()
            .expect("a manifest lies in a directory");
        sources(dir.as_std_path(), &mut all);
    }
    assert!(all.len() > 20, "there are sources to look at");
    for path in all {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines: split it",
            path.display()
        );
        // A module of unit tests is explained by what it tests.
        let of_tests = path
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        let opens = text.trim_start().starts_with("//!");
        assert!(
            opens || of_tests,
            "{} does not say what it is for",
            path.display()
        );
    }
}
