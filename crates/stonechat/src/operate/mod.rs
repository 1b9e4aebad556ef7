//! `stonechat admin …`, `backup` and `restore`: what operators do, as commands
//! over the admin API. Tables for people, `--json` for scripts; what cannot be
//! undone asks for `--yes`. It knows paths and columns, and nothing of what is
//! behind them.

mod args;
mod backup;
mod requests;
mod table;

use std::io::{BufRead, BufReader, IsTerminal, Write};

use serde_json::Value;

pub(crate) use args::{AdminArgs, BackupArgs, RestoreArgs, ShellArgs};
pub(crate) use backup::{backup, restore};

use crate::admin_client::AdminClient;
use crate::commands::print;
use crate::exit::Failure;
use requests::{Body, Request};

/// Does one admin command.
pub(crate) fn admin(client: &AdminClient, args: AdminArgs) -> Result<(), Failure> {
    let request = Request::of(args.command)?;
    if let Some(what) = &request.undoable
        && !args.yes
    {
        confirm(what)?;
    }
    match &request.body {
        Body::Stream => return stream(client, &request.path),
        Body::Download(to) => {
            let mut reader = client.reader(&request.path)?;
            return match to {
                None => copy(&mut reader, &mut std::io::stdout().lock()),
                Some(path) => {
                    let failed = |error| Failure::io(path.display(), &error);
                    let mut file = std::fs::File::create_new(path).map_err(failed)?;
                    copy(&mut reader, &mut file)?;
                    file.sync_all().map_err(failed)
                }
            };
        }
        Body::Upload(from) => {
            let file =
                std::fs::File::open(from).map_err(|error| Failure::io(from.display(), &error))?;
            let answer = client.upload(&request.path, file)?;
            return show(&request, args.json, &answer);
        }
        Body::None | Body::Json(_) => {}
    }
    let body = match &request.body {
        Body::Json(body) => Some(body),
        _ => None,
    };
    let answer = client.request(&request.method, &request.path, body)?;
    show(&request, args.json, &answer)
}

fn show(request: &Request, json: bool, answer: &Value) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(answer).map_err(Failure::general)?;
        return print(text + "\n");
    }
    print(table::render(answer, request.list, request.columns))
}

fn copy(from: &mut impl std::io::Read, to: &mut impl Write) -> Result<(), Failure> {
    match std::io::copy(from, to).and_then(|_| to.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io("the answer", &error))
        }
        _ => Ok(()),
    }
}

/// Prints what comes, line by line, until it ends or nobody reads on.
fn stream(client: &AdminClient, path: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(client.reader(path)?).lines() {
        let line = line.map_err(|error| Failure::io("the events", &error))?;
        // Of server-sent events only the data is for reading.
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        if writeln!(out, "{}", data.trim_start())
            .and_then(|()| out.flush())
            .is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Asks on a terminal; elsewhere `--yes` has to be given.
fn confirm(what: &str) -> Result<(), Failure> {
    let refused = || Failure::general(format!("this {what}; say --yes to do it"));
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    eprint!("This {what}. Type yes to go on: ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::io("standard input", &error))?;
    if line.trim() == "yes" {
        Ok(())
    } else {
        Err(refused())
    }
}

/// The completion script of a shell.
pub(crate) fn completion(args: &ShellArgs, mut command: clap::Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "stonechat", &mut text);
    print(String::from_utf8_lossy(&text))
}

/// The man page, all commands in one.
pub(crate) fn man(command: &clap::Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    page(command, &mut text).map_err(|error| Failure::io("the man page", &error))?;
    print(String::from_utf8_lossy(&text))
}

fn page(command: &clap::Command, out: &mut Vec<u8>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    let mut built = command.clone();
    built.build();
    commands(&built, out)
}

/// A section for each command below.
fn commands(command: &clap::Command, out: &mut Vec<u8>) -> std::io::Result<()> {
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        let man = clap_mangen::Man::new(sub.clone());
        let name = sub.get_bin_name().unwrap_or(sub.get_name());
        writeln!(out, ".SH \"{}\"", name.to_uppercase())?;
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "{about}")?;
        // The headings of the parts become sub-headings of the command.
        let mut parts = Vec::new();
        man.render_synopsis_section(&mut parts)?;
        if sub.get_arguments().next().is_some() {
            man.render_options_section(&mut parts)?;
        }
        let parts = String::from_utf8_lossy(&parts);
        out.extend(parts.replace(".SH ", ".SS ").into_bytes());
        commands(sub, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::cli::Cli;

    #[test]
    fn the_man_page_has_every_command() {
        let mut text = Vec::new();
        super::page(&Cli::command(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for name in [
            "STONECHAT BACKUP",
            "STONECHAT ADMIN TOKENS REVOKE",
            "STONECHAT SERVE",
        ] {
            assert!(text.contains(&format!(".SH \"{name}\"")), "{name}");
        }
    }
}
