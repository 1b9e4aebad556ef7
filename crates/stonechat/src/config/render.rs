//! Settings as a TOML file with their documentation. Writes text, reads nothing.

use std::fmt::Write;

use super::table::{Key, SECTIONS, Settings, is_secret};

/// How keys are written.
enum Style<'a> {
    /// Commented out, as defaults.
    Example,
    /// In force, with where each value came from.
    Effective(&'a dyn Fn(&Key) -> String),
}

/// The example file: every key with its default, commented out.
pub(crate) fn example() -> String {
    let head = "# Stonechat: everything that can be set, with its default.\n\
                # Made by `stonechat config --example`; do not edit this copy in the repository.\n\
                #\n\
                # Each key can also be given by environment, STONECHAT_SECTION__KEY, and on the\n\
                # command line, --set section.key=value; these win over the file, in this order.\n";
    render(head, &Settings::default(), &Style::Example)
}

/// The settings in force; `origin` tells where a key's value came from.
pub(crate) fn effective(settings: &Settings, origin: &dyn Fn(&Key) -> String) -> String {
    render(
        "# The configuration in force.\n",
        settings,
        &Style::Effective(origin),
    )
}

fn render(head: &str, settings: &Settings, style: &Style<'_>) -> String {
    let values =
        toml::Table::try_from(settings).expect("settings are plain tables of plain values");
    let mut out = head.to_owned();
    for section in SECTIONS {
        out.push('\n');
        push_doc(&mut out, section.doc);
        push(&mut out, format_args!("[{}]\n", section.name));
        for key in section.keys {
            out.push('\n');
            push_doc(&mut out, key.doc);
            if let Some((low, high)) = key.bounds {
                push(&mut out, format_args!("# From {low} to {high}.\n"));
            }
            if let Style::Effective(origin) = style {
                push(&mut out, format_args!("# Set by: {}\n", origin(key)));
            }
            let value = values
                .get(section.name)
                .and_then(|table| table.get(key.name));
            match (value, style) {
                // A path is no secret; what it leads to is not printed here.
                (Some(toml::Value::Array(secret)), Style::Effective(_))
                    if is_secret(&key.path()) && !secret.is_empty() =>
                {
                    push(
                        &mut out,
                        format_args!("#{} = [] # set, not shown\n", key.name),
                    );
                }
                (Some(value), Style::Effective(_)) => {
                    push(&mut out, format_args!("{} = {value}\n", key.name));
                }
                (Some(value), Style::Example) => {
                    push(&mut out, format_args!("#{} = {value}\n", key.name));
                }
                // TOML has no null: an absent key is how "none" is written.
                (None, _) => push(&mut out, format_args!("#{} = \"\"\n", key.name)),
            }
        }
    }
    out
}

fn push_doc(out: &mut String, lines: &[&str]) {
    for line in lines {
        push(out, format_args!("# {}\n", line.trim()));
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a string cannot fail");
}
