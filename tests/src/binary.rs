//! Finds the binary under test, building it when need be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cargo_metadata::Message;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Has this process test the server at `path`; for commands that are told by a flag.
///
/// # Panics
/// When another one is in use already.
pub fn choose(path: PathBuf) {
    assert!(BINARY.set(path).is_ok(), "a binary is in use already");
}

/// Path of the `stonechat` binary: `STONECHAT_BIN` when set, else built once for this process with
/// the profile these tests were built with.
///
/// # Panics
/// When it cannot be built.
pub fn stonechat() -> &'static Path {
    BINARY.get_or_init(|| std::env::var_os("STONECHAT_BIN").map_or_else(build, PathBuf::from))
}

/// Root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--package", "stonechat", "--bin", "stonechat"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stdout(Stdio::piped());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().expect("cargo can be started");
    assert!(
        output.status.success(),
        "the binary does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Message::parse_stream(&output.stdout[..])
        .filter_map(Result::ok)
        .filter_map(|message| match message {
            Message::CompilerArtifact(artifact) => artifact.executable,
            _ => None,
        })
        .last()
        .expect("cargo names the executable it built")
        .into_std_path_buf()
}
