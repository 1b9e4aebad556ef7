//! Reads `docs/protocol.md` and `docs/schema`. Knows just enough Markdown.

use std::path::Path;

use serde_json::Value;

/// Who sends an example frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the server.
    Client,
    /// From the server.
    Server,
}

/// A frame on the page.
#[derive(Debug)]
pub(crate) struct Example {
    /// Who sends it.
    pub(crate) direction: Direction,
    /// Its text.
    pub(crate) json: String,
}

/// The page.
pub(crate) struct Page(String);

fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The schema of a frame as it is published.
pub(crate) fn schema(direction: &str, kind: &str) -> Value {
    let path = docs()
        .join("schema")
        .join(format!("{direction}.{kind}.schema.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("a published schema is JSON")
}

impl Page {
    /// Reads the page.
    pub(crate) fn read() -> Self {
        Self(
            std::fs::read_to_string(docs().join("protocol.md")).expect("docs/protocol.md is there"),
        )
    }

    /// The text under a heading, up to the next heading of the same or a higher level.
    pub(crate) fn section(&self, heading: &str) -> &str {
        let level = heading.bytes().take_while(|b| *b == b'#').count();
        let start = self
            .0
            .find(&format!("\n{heading}\n"))
            .unwrap_or_else(|| panic!("no heading {heading:?}"))
            + heading.len()
            + 2;
        let rest = &self.0[start..];
        let end = (1..=level)
            .filter_map(|n| rest.find(&format!("\n{} ", "#".repeat(n))))
            .min()
            .unwrap_or(rest.len());
        &rest[..end]
    }

    /// The rows of the first table under a heading whose first row starts with `first`.
    pub(crate) fn table(&self, heading: &str, first: &str) -> Vec<Vec<String>> {
        let section = self.section(heading);
        let rows: Vec<Vec<String>> = section
            .lines()
            .skip_while(|line| !line.starts_with(first))
            .take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| {
                line.trim_matches('|')
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect()
            })
            .collect();
        assert!(!rows.is_empty(), "no table {first:?} under {heading:?}");
        rows
    }

    /// All frames in `json client`, `json server` and `transcript` blocks; a block of
    /// JSON that does not say whose it is would escape the test, so it is refused.
    pub(crate) fn examples(&self) -> Vec<Example> {
        let mut examples = Vec::new();
        let mut block: Option<&str> = None;
        for line in self.0.lines() {
            if let Some(info) = line.strip_prefix("```") {
                block = if block.is_some() { None } else { Some(info) };
                assert_ne!(block, Some("json"), "say `json client` or `json server`");
                continue;
            }
            let (direction, json) = match block {
                Some("json client") => (Direction::Client, line),
                Some("json server") => (Direction::Server, line),
                Some("transcript") => match line.split_at_checked(3) {
                    Some(("A> " | "B> ", json)) => (Direction::Client, json),
                    Some(("A< " | "B< ", json)) => (Direction::Server, json),
                    _ => panic!("a line of a transcript starts with who and which way: {line}"),
                },
                _ => continue,
            };
            examples.push(Example {
                direction,
                json: json.to_owned(),
            });
        }
        assert!(block.is_none(), "a block is not closed");
        examples
    }
}
