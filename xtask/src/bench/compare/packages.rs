//! The servers under comparison, from Debian's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What has to be there, and the package it is in.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/sbin/ejabberdctl", "ejabberd"),
    ("/usr/bin/prosody", "prosody"),
];
/// Decides whether packages may start services; a directory of Debian's own, consulted by its tools.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing, without starting any service of the system. Says so.
pub(super) fn install() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing with apt-get: {}", missing.join(", "));
    let no_policy = !Path::new(POLICY).exists();
    if no_policy {
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").context("packages are installed as root")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
    }
    let installed = apt(&["update", "-qq"]).and_then(|()| {
        let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
        words.extend(&missing);
        apt(&words)
    });
    if no_policy {
        fs::remove_file(POLICY)?;
    }
    installed
}

fn apt(words: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null())
        .status()
        .context("apt-get is needed; install ejabberd and prosody by hand elsewhere")?;
    ensure!(status.success(), "apt-get {} failed", words.join(" "));
    Ok(())
}

/// The version of an installed package.
pub(super) fn version(package: &str) -> String {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", package])
        .output();
    let text = output.map_or_else(
        |_| String::new(),
        |o| String::from_utf8_lossy(&o.stdout).into(),
    );
    if text.is_empty() {
        "unknown version".to_owned()
    } else {
        text
    }
}
