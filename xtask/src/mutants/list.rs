//! The list of breaks, and applying one to a text.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The files of the list, in the order of the table.
const FILES: [&str; 4] = ["delivery", "mailbox", "broker", "actors"];

/// One break.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    pub(super) name: String,
    /// The promise of `docs/durability.md` it breaks.
    pub(super) promise: String,
    /// What it does, in words.
    pub(super) why: String,
    pub(super) file: String,
    find: String,
    replace: String,
    /// Arguments of `cargo test`; the file's own when empty.
    #[serde(default)]
    pub(super) test: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    test: Vec<String>,
    mutant: Vec<Mutant>,
}

/// All breaks.
pub(super) fn load(root: &Path) -> Result<Vec<Mutant>> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for file in FILES {
        let path = root.join("xtask/mutants").join(file).with_extension("toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let list: List =
            toml::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
        for mut mutant in list.mutant {
            if mutant.test.is_empty() {
                mutant.test.clone_from(&list.test);
            }
            ensure!(
                mutants.iter().all(|known| known.name != mutant.name),
                "two breaks are called {}",
                mutant.name
            );
            mutants.push(mutant);
        }
    }
    Ok(mutants)
}

impl Mutant {
    /// The text of its file with the break in it.
    pub(super) fn apply(&self, tree: &Path) -> Result<String> {
        let path = tree.join(&self.file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let count = text.matches(&self.find).count();
        ensure!(
            count == 1,
            "{}: what it looks for is {count} times in {}, not once; mend the list",
            self.name,
            self.file
        );
        let broken = text.replace(&self.find, &self.replace);
        ensure!(broken != text, "{}: changes nothing", self.name);
        Ok(broken)
    }
}
