//! The command line. Parsing only.

#[cfg(test)]
mod help;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use stonechat_protocol::{DeviceId, UserId};
use stonechat_swarm::Sources;

use crate::config::{Config, ConfigError, LogFormat, Override};
use crate::operate::{AdminArgs, BackupArgs, RestoreArgs, ShellArgs};
use crate::swarm::GroundArgs;

/// A messaging server that keeps its word: what it accepted is delivered once, in order,
/// whatever crashes.
#[derive(Debug, Parser)]
#[command(name = "stonechat", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where settings come from, for every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file, TOML [default: ./stonechat.toml when it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of everything that is stored [default: ./stonechat-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the admin API [default: 127.0.0.1:8081]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// The admin API of a node elsewhere, https://HOST:PORT; STONECHAT_ADMIN_SECRET holds its
    /// secret or an admin token
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) admin_url: Option<String>,
    /// Certificates to trust at the admin API besides the system's, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Any setting, by its key: --set limits.messages_per_s=10
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

impl ConfigArgs {
    /// Reads and checks the configuration; `more` wins over everything else.
    pub(crate) fn load(&self, more: Vec<Override>) -> Result<Config, ConfigError> {
        let mut flags = Vec::new();
        for set in &self.sets {
            flags.push(Override::set(set)?);
        }
        if let Some(dir) = &self.data_dir {
            let dir = dir.to_string_lossy().into_owned();
            flags.push(Override::flag("--data-dir", "server.data_dir", dir));
        }
        if let Some(address) = self.admin_listen {
            flags.push(Override::flag(
                "--admin-listen",
                "admin.listen",
                address.to_string(),
            ));
        }
        flags.extend(more);
        Config::load(self.config.as_deref(), environment(), &flags)
    }
}

/// The process's environment, as far as it is text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Chat from this terminal: creates the users when the server is on this machine
    Chat(ChatArgs),
    /// Create, list and remove users of the running server
    #[command(subcommand)]
    User(UserCommand),
    /// Issue a token, which is printed alone on standard output; or revoke tokens
    Token(TokenArgs),
    /// Print the configuration in force, with documentation and where each value came from
    Config {
        /// Print the example file instead: every key with its default
        #[arg(long)]
        example: bool,
    },
    /// Check or compact the data directory of a stopped server
    #[command(subcommand)]
    Store(StoreCommand),
    /// Put load on a server with simulated users, and check that it keeps its word
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Look into the running server and steer it
    Admin(AdminArgs),
    /// Write everything the server holds to one file, running or stopped
    Backup(BackupArgs),
    /// Restore a backup into a new or empty data directory
    Restore(RestoreArgs),
    /// Print the completion script of a shell
    Completion(ShellArgs),
    /// Print the man page
    Man,
    /// Print figures of the running server
    Status,
    /// Print the version
    Version,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServeArgs {
    /// Where clients connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// How log lines look [default: human]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged, such as info or info,stonechat_gateway=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
    /// Allow the admin API to listen beyond loopback in the clear, without admin.tls_cert
    #[arg(long)]
    pub(crate) admin_insecure_listen: bool,
    /// Open the endpoint that makes parts of the node panic; for tests of supervision only
    #[arg(long)]
    pub(crate) enable_fault_injection: bool,
    /// End as by SIGTERM when standard input ends: for a program that starts a server of its own
    #[arg(long)]
    pub(crate) exit_with_parent: bool,
}

impl ServeArgs {
    /// The flags as settings.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let format = self.log_format.map(|format| match format {
            LogFormat::Human => "human".to_owned(),
            LogFormat::Json => "json".to_owned(),
        });
        let texts = [
            (
                "--listen",
                "server.listen",
                self.listen.map(|address| address.to_string()),
            ),
            (
                "--tls-cert",
                "server.tls_cert",
                self.tls_cert.as_ref().map(path),
            ),
            (
                "--tls-key",
                "server.tls_key",
                self.tls_key.as_ref().map(path),
            ),
            ("--log-format", "log.format", format),
            ("--log-filter", "log.filter", self.log_filter.clone()),
        ];
        let switches = [
            (
                "--admin-insecure-listen",
                "admin.insecure_listen",
                self.admin_insecure_listen,
            ),
            (
                "--enable-fault-injection",
                "admin.fault_injection",
                self.enable_fault_injection,
            ),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(flag, key, value)| Some(Override::flag(flag, key, value?)));
        let switches = switches
            .into_iter()
            .filter(|(_, _, on)| *on)
            .map(|(flag, key, on)| Override::flag(flag, key, on));
        texts.chain(switches).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Your name
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) user: UserId,
    /// Whom to write to
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Option<UserId>,
    /// Name of this device
    #[arg(long, default_value = "terminal", value_name = "NAME")]
    pub(crate) device: DeviceId,
    /// Server [default: the one running from the data directory]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Token [default: a new one from the admin API]
    #[arg(
        long,
        env = "STONECHAT_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// Certificates to trust besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create users; those that exist already are left as they are
    Add {
        /// 1 to 64 of a-z, 0-9, '.', '_', '+' and '-'
        #[arg(required = true)]
        names: Vec<UserId>,
    },
    /// List users
    List,
    /// Remove a user with all messages waiting
    Remove {
        /// Whom
        name: UserId,
    },
    /// Let a user not sign in
    Disable {
        /// Whom
        name: UserId,
    },
    /// Let a user sign in again
    Enable {
        /// Whom
        name: UserId,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: Option<TokenCommand>,
    /// User the token is for
    #[arg(required = true)]
    pub(crate) name: Option<UserId>,
    /// Good for this device only
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<DeviceId>,
    /// How long it is good for: seconds, or 30m, 12h, 90d [default: auth.token_ttl_s_default]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) ttl: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Revoke all tokens of a user, or one by its id
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(false))]
    Revoke {
        /// All tokens of this user
        #[arg(group = "which")]
        name: Option<UserId>,
        /// One token, by the id the admin API gave for it
        #[arg(long, group = "which")]
        id: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SwarmCommand {
    /// Run a scenario; the exit code is not 0 unless the verdict is clean
    Run(Box<SwarmArgs>),
    /// What `--processes` starts: does as it is told on standard input
    #[command(hide = true)]
    Work,
    /// List the ready scenarios, or print one as a start for your own
    List {
        /// The scenario to print
        scenario: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SwarmArgs {
    /// A ready scenario, or a file
    pub(crate) scenario: String,
    /// Server, ws://HOST:PORT [default: the one running from the data directory]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Its admin API, http://HOST:PORT [default: that of the one running from the data directory]
    #[arg(long, value_name = "URL")]
    pub(crate) admin: Option<String>,
    /// Secret of the admin API [default: the one in the data directory]
    #[arg(
        long,
        env = "STONECHAT_ADMIN_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) admin_secret: Option<String>,
    /// Another number of users than the scenario's
    #[arg(long, value_name = "N")]
    pub(crate) users: Option<u32>,
    /// Another duration than the scenario's, seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<f64>,
    /// Another seed than the scenario's
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// The summary as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Split the users over so many processes of this machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,
    /// Where connections come from: an address of this machine, or a range of them
    /// [default: several of 127.0.0.0/8 when the server is on 127.0.0.1]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) source_addresses: Option<Sources>,
    /// A report with charts, one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Lines instead of the live view, also on a terminal
    #[arg(long)]
    pub(crate) plain: bool,
    /// The server's process, to tell what it uses [default: the one running from the data directory]
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Leave the users in place; by default they are removed when the verdict is clean
    #[arg(long)]
    pub(crate) keep_users: bool,
    #[command(flatten)]
    pub(crate) ground: GroundArgs,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read everything and report what does not fit; changes nothing
    Check,
    /// Write the mailbox database anew, without the space deleted messages left
    Compact,
}

/// Seconds from `90`, `90s`, `30m`, `12h` or `90d`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3_600),
        Some(b'd') => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "expected seconds, or a number with s, m, h or d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn token_takes_a_name_or_a_command() {
        let issue = parse("stonechat token bob --device phone --ttl 2h").unwrap();
        let Command::Token(args) = issue.command else {
            panic!("not a token command");
        };
        assert_eq!(args.name, Some(UserId::new("bob").unwrap()));
        assert_eq!(args.ttl, Some(7_200));
        assert!(args.command.is_none());
        let revoke = parse("stonechat token revoke bob").unwrap();
        let Command::Token(args) = revoke.command else {
            panic!("not a token command");
        };
        assert!(matches!(
            args.command,
            Some(TokenCommand::Revoke {
                name: Some(_),
                id: None
            })
        ));
        for bad in [
            "stonechat token",
            "stonechat token revoke",
            "stonechat token revoke bob --id x",
            "stonechat token Bob",
            "stonechat token bob --ttl soon",
            "stonechat user add",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn flags_of_serve_become_settings() {
        let cli = parse("stonechat serve --listen 127.0.0.1:1 --data-dir d --set log.filter=warn --log-format json --enable-fault-injection").unwrap();
        let Command::Serve(args) = cli.command else {
            panic!("not serve");
        };
        let settings = cli.config.load(args.overrides()).unwrap().settings;
        assert_eq!(settings.server.listen.port(), 1);
        assert_eq!(settings.server.data_dir, PathBuf::from("d"));
        assert_eq!(settings.log.filter, "warn");
        assert_eq!(settings.log.format, LogFormat::Json);
        assert!(settings.admin.fault_injection);
        assert!(!settings.admin.insecure_listen);
    }
}
