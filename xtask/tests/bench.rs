//! The benchmarks, small: that they run, count right and say what they found. No times are asserted.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The server: `STONECHAT_BIN`, or the one beside this test, built when it is not there.
fn server() -> PathBuf {
    if let Some(binary) = std::env::var_os("STONECHAT_BIN") {
        return binary.into();
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("stonechat");
    if !beside.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "stonechat"])
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "the server builds"
        );
    }
    beside
}

fn bench(arguments: &[&str], data: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("bench")
        .args(arguments)
        .arg("--as-built")
        .arg("--binary")
        .arg(server())
        .arg("--data-dir")
        .arg(data)
        .output()
        .expect("xtask runs")
}

fn figure(report: &Value, name: &str) -> f64 {
    let figures = report["figures"].as_array().expect("a list of figures");
    let figure = figures.iter().find(|figure| figure["name"] == name);
    let value = figure.and_then(|figure| figure["value"].as_f64());
    value.unwrap_or_else(|| panic!("no figure {name} in {report:#}"))
}

#[test]
fn all_benchmarks_run_and_lose_nothing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk");
    let out = dir.path().join("out");
    let out_text = out.to_str().expect("the directory's name is text");
    let output = bench(&["all", "--tiny", "--out", out_text], dir.path());
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |name: &str| -> Value {
        let json = std::fs::read(out.join(format!("{name}.json"))).expect("each has a file");
        serde_json::from_slice(&json).expect("it is JSON")
    };
    let relay = read("relay");
    for window in [1, 16] {
        // Each send is at most one write, each has a body of 200 bytes and comes back with more.
        let up = figure(
            &relay,
            &format!("window {window}: bytes to the server a message"),
        );
        let down = figure(
            &relay,
            &format!("window {window}: bytes from the server a message"),
        );
        assert!((290.0..420.0).contains(&up), "{up}");
        assert!((380.0..700.0).contains(&down), "{down}");
    }
    assert!(figure(&read("offline"), "drained: messages") >= 100.0);
    assert!(figure(&read("start"), "messages accepted") >= 600.0);
    assert!((figure(&read("hold"), "connections lost")).abs() < 0.5);
    for name in ["idle", "hold-several", "latency", "signin", "scaling"] {
        assert!(
            !read(name)["figures"]
                .as_array()
                .expect("figures")
                .is_empty()
        );
    }
    // Nothing of the runs stays behind: data directories are gone, only the reports are left.
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("still there")
        .flatten()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_server_that_cannot_start_is_told_with_its_own_words() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk");
    let output = bench(&["relay", "--set", "server.workers=\"many\""], dir.path());
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("the server ended") && told.contains("workers"),
        "{told}"
    );
}
