//! The help of every command as one text, `docs/command-line.txt`: what changes
//! on the command line shows up in a review, and can be searched without the
//! program. Options of all commands below another are told there, once.

use std::fmt::Write;
use std::path::Path;

use clap::{Command, CommandFactory, Id};

use super::Cli;

/// Set to write the text instead of comparing it.
const UPDATE: &str = "UPDATE_HELP";

/// What `--help` says of a command and all below it; `above`: options that were told already.
fn tell(command: &Command, above: &[Id], out: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let known = command.clone().mut_args(|arg| {
        let told = above.contains(arg.get_id());
        arg.hide(told)
    });
    let help = { known }.render_long_help().to_string();
    writeln!(out, "$ {name} --help\n").expect("writing to a string cannot fail");
    for line in help.trim_end().lines() {
        *out += line.trim_end();
        out.push('\n');
    }
    out.push('\n');
    let globals = command.get_arguments().filter(|arg| arg.is_global_set());
    let globals: Vec<Id> = globals.map(|arg| arg.get_id().clone()).collect();
    let below = command.get_subcommands();
    for sub in below.filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        tell(sub, &globals, out);
    }
}

#[test]
fn the_help_is_the_one_in_the_docs() {
    let mut command = Cli::command();
    command.build();
    let mut text = String::new();
    tell(&command, &[], &mut text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/command-line.txt");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text
        .lines()
        .zip(committed.lines())
        .find(|(is, was)| is != was);
    assert!(
        text == committed,
        "docs/command-line.txt is of another command line (first difference: {differs:?}); \
         if the change is meant: UPDATE_HELP=1 cargo test -p stonechat help"
    );
}
