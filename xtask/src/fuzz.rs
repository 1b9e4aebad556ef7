//! `cargo xtask fuzz`: libFuzzer over every target, for some minutes.
//!
//! Installs cargo-fuzz and a nightly toolchain where they are missing, and says
//! so. What it finds beyond the committed corpus is kept in `fuzz/found`, which
//! is not committed; an input that breaks something ends the run, and belongs
//! into `fuzz/corpus` together with the fix.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// cargo-fuzz needs options that only this toolchain has.
const TOOLCHAIN: &str = "nightly";
/// An input that takes longer has found something, seconds.
const INPUT_S_MAX: u32 = 5;
/// A target that takes more memory has found something, MiB.
const MEMORY_MIB_MAX: u32 = 1_024;

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Minutes for each target.
    #[arg(long, default_value_t = 2)]
    minutes: u64,
    /// This target only.
    #[arg(long)]
    target: Option<String>,
}

/// Runs the targets one after the other.
pub(crate) fn run(args: &Args) -> Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    install()?;
    let all = targets(&fuzz)?;
    let chosen: Vec<&String> = match &args.target {
        None => all.iter().collect(),
        Some(one) => all.iter().filter(|name| *name == one).collect(),
    };
    ensure!(
        !chosen.is_empty(),
        "there is no such target; there are {}",
        all.join(", ")
    );
    for target in chosen {
        println!("== {target}, {} min", args.minutes);
        let found = fuzz.join("found").join(target);
        std::fs::create_dir_all(&found)?;
        let status = cargo_fuzz(&fuzz)
            .args(["run", "--sanitizer", "none", target])
            .args([found, PathBuf::from("corpus").join(target)])
            .arg("--")
            .arg(format!("-max_total_time={}", args.minutes * 60))
            .arg(format!("-timeout={INPUT_S_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .args(["-print_final_stats=1", "-max_len=4096"])
            .status()?;
        if !status.success() {
            bail!("{target} broke: the input is in fuzz/artifacts/{target}");
        }
    }
    Ok(())
}

/// A `cargo fuzz` in the directory of the targets, on its own toolchain.
fn cargo_fuzz(fuzz: &Path) -> Command {
    let mut command = Command::new("rustup");
    // What the outer cargo set is for its own toolchain.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command.args(["run", TOOLCHAIN, "cargo", "fuzz"]);
    command.current_dir(fuzz);
    command
}

fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(fuzz.join("fuzz_targets"))? {
        let path = entry?.path();
        let stem = path.file_stem().context("a target has a name")?;
        names.push(stem.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn install() -> Result<()> {
    let works = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works(Command::new("rustup").args(["run", TOOLCHAIN, "rustc", "--version"])) {
        println!("installing the {TOOLCHAIN} toolchain with rustup");
        let status = Command::new("rustup")
            .args(["toolchain", "install", TOOLCHAIN, "--profile", "minimal"])
            .status()?;
        ensure!(status.success(), "the toolchain could not be installed");
    }
    if !works(Command::new("cargo").args(["fuzz", "--version"])) {
        println!("installing cargo-fuzz {CARGO_FUZZ_VERSION} with cargo (a few minutes)");
        let status = Command::new("cargo")
            .args(["install", "--quiet", "--locked"])
            .arg(format!("cargo-fuzz@{CARGO_FUZZ_VERSION}"))
            .status()?;
        ensure!(status.success(), "cargo-fuzz could not be installed");
    }
    Ok(())
}
