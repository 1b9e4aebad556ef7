//! Every command but `serve`, which has a module of its own. Results go to
//! standard output, everything else to standard error.

use std::fmt::Display;

use clap::CommandFactory;
use serde_json::Value;
use stonechat_protocol::UserId;

use crate::admin_client::AdminClient;
use crate::chat::{self, ChatOptions};
use crate::cli::{
    ChatArgs, Cli, Command, ConfigArgs, StoreCommand, TokenArgs, TokenCommand, UserCommand,
};
use crate::config::{self, LogFormat, Settings};
use crate::exit::{Exit, Failure};
use crate::node_file::{self, NodeFile};
use crate::{logging, operate, serve, swarm};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let args = cli.config;
    match cli.command {
        Command::Serve(serve_args) => serve::run(&args, &serve_args),
        Command::Chat(chat_args) => chat(&args, chat_args),
        Command::User(command) => user(&admin(&args)?, command),
        Command::Token(token_args) => token(&admin(&args)?, token_args),
        Command::Config { example: true } => print(config::example()),
        Command::Config { example: false } => print(args.load(Vec::new())?.to_toml()),
        Command::Store(command) => store(&args, command),
        Command::Swarm(command) => swarm::run(&args, command),
        Command::Admin(command) => operate::admin(&admin(&args)?, command),
        Command::Backup(backup) => operate::backup(&settings(&args)?, || admin(&args), backup),
        Command::Restore(restore) => operate::restore(&settings(&args)?, &restore),
        Command::Completion(shell) => operate::completion(&shell, Cli::command()),
        Command::Man => operate::man(&Cli::command()),
        Command::Status => print(pretty(&admin(&args)?.node()?) + "\n"),
        Command::Version => print(concat!("stonechat ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Writes to standard output; a reader that has gone away is no failure.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io("standard output", &error))
        }
        _ => Ok(()),
    }
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("figures are plain data")
}

fn settings(args: &ConfigArgs) -> Result<Settings, Failure> {
    Ok(args.load(Vec::new())?.settings)
}

fn admin(args: &ConfigArgs) -> Result<AdminClient, Failure> {
    AdminClient::find(&settings(args)?, args)
}

fn user(admin: &AdminClient, command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add { names } => {
            for name in names {
                let done = if admin.add_user(&name)? {
                    "created"
                } else {
                    "exists already"
                };
                print(format_args!("{name} {done}\n"))?;
            }
            Ok(())
        }
        UserCommand::List => {
            for user in admin.users()? {
                let name = user["user"].as_str().unwrap_or_default();
                let note = if user["disabled"] == Value::Bool(true) {
                    "\tdisabled"
                } else {
                    ""
                };
                print(format_args!("{name}{note}\n"))?;
            }
            Ok(())
        }
        UserCommand::Remove { name } => {
            admin.remove_user(&name)?;
            print(format_args!("{name} removed\n"))
        }
        UserCommand::Disable { name } => {
            admin.set_disabled(&name, true)?;
            print(format_args!("{name} disabled\n"))
        }
        UserCommand::Enable { name } => {
            admin.set_disabled(&name, false)?;
            print(format_args!("{name} enabled\n"))
        }
    }
}

fn token(admin: &AdminClient, args: TokenArgs) -> Result<(), Failure> {
    match (args.command, args.name) {
        (
            Some(TokenCommand::Revoke {
                name: Some(user), ..
            }),
            _,
        ) => {
            admin.revoke_all(&user)?;
            print(format_args!("all tokens of {user} revoked\n"))
        }
        (Some(TokenCommand::Revoke { id, .. }), _) => {
            admin.revoke(&id.unwrap_or_default())?;
            print("token revoked\n")
        }
        (None, Some(user)) => {
            let token = admin.issue_token(&user, args.device.as_ref(), args.ttl)?;
            print(format_args!("{token}\n"))
        }
        (None, None) => Err(Failure::general("a token is for a user: name one")),
    }
}

fn store(args: &ConfigArgs, command: StoreCommand) -> Result<(), Failure> {
    let settings = settings(args)?;
    let dir = settings.data_dir();
    if !dir.is_dir() {
        let text = format!(
            "there is no data directory {}; --data-dir says which one",
            dir.display()
        );
        return Err(Failure::new(Exit::Unavailable, text));
    }
    logging::start(LogFormat::Human, "warn");
    match command {
        StoreCommand::Check => {
            let report = stonechat_mailbox::check(dir)?;
            print(format_args!("{report}\n"))?;
            if report.is_sound() {
                return Ok(());
            }
            let text = "the store is damaged; see docs/operations.md#damaged-data";
            Err(Failure::new(Exit::Data, text))
        }
        StoreCommand::Compact => print(format_args!("{}\n", stonechat_mailbox::compact(dir)?)),
    }
}

fn chat(args: &ConfigArgs, chat: ChatArgs) -> Result<(), Failure> {
    let settings = settings(args)?;
    logging::start(LogFormat::Human, "error");
    let url = chat.url.clone().unwrap_or_else(|| server_url(&settings));
    let token = match &chat.token {
        Some(token) => token.clone(),
        None => local_token(args, &settings, &chat)?,
    };
    let options = ChatOptions {
        url,
        user: chat.user,
        device: chat.device,
        to: chat.to,
        token,
        ca_file: chat.ca_file,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Software, error))?
        .block_on(chat::run(options))
        .map_err(Failure::general)
}

/// Where the node of the data directory listens, or would.
fn server_url(settings: &Settings) -> String {
    NodeFile::read(settings.data_dir()).map_or_else(
        || node_file::client_url(settings.server.listen, settings.server.tls_cert.is_some()),
        |node| node.client_url(),
    )
}

/// A token from the admin API of the node on this machine; users are created as needed, so
/// that a first message takes two commands.
fn local_token(args: &ConfigArgs, settings: &Settings, chat: &ChatArgs) -> Result<String, Failure> {
    let admin = AdminClient::find(settings, args).map_err(|failure| {
        let text = format!("{failure}; or give a token by --token or STONECHAT_TOKEN");
        Failure::new(failure.exit(), text)
    })?;
    let create = |user: &UserId| -> Result<(), Failure> {
        if admin.add_user(user)? {
            eprintln!("created the user {user}");
        }
        Ok(())
    };
    create(&chat.user)?;
    if let Some(to) = &chat.to {
        create(to)?;
    }
    admin.issue_token(&chat.user, Some(&chat.device), None)
}
