//! The command line of what operators do. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use stonechat_protocol::{DeviceId, UserId};

/// Writes a backup.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// File to write; it must not exist [default: backups/<time>.backup in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
}

/// Restores one.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// File that `stonechat backup` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
}

/// Which shell.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The shell the script is for
    pub(crate) shell: clap_complete::Shell,
}

/// An admin command and how it is carried out.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    #[command(subcommand)]
    pub(crate) command: AdminCommand,
    /// The answer as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Do what cannot be undone without asking
    #[arg(long, global = true)]
    pub(crate) yes: bool,
}

/// Which part of a list.
#[derive(Debug, Default, Args)]
pub(crate) struct PageArgs {
    /// Entries at most
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
    /// Where an earlier page said that more follow
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Who the admin API takes you for
    Whoami,
    /// Search users
    Users {
        /// Part of the name
        #[arg(long = "name", value_name = "PART")]
        q: Option<String>,
        /// Only those who may not sign in (or may: false)
        #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
        disabled: Option<bool>,
        /// Only those who are connected (or are not: false)
        #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
        connected: Option<bool>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// One user with devices, connections and mailbox
    User {
        /// Whom
        name: UserId,
    },
    /// The connections of a user: from where, since when, how much
    Connections {
        /// Whose
        name: UserId,
    },
    /// The tokens a user was issued; `stonechat token revoke --id` voids one
    UserTokens {
        /// Whose
        name: UserId,
    },
    /// Set a user's own limits; those not named are as configured for all
    Limits {
        /// Whose
        name: UserId,
        /// Messages a second
        #[arg(long, value_name = "N")]
        messages_per_s: Option<u32>,
        /// Messages the mailbox holds
        #[arg(long, value_name = "N")]
        mailbox_messages_max: Option<u64>,
        /// Bytes of bodies the mailbox holds
        #[arg(long, value_name = "N")]
        mailbox_bytes_max: Option<u64>,
    },
    /// Close a user's connections; clients may come back
    Disconnect {
        /// Whose
        name: UserId,
        /// Only this device's
        #[arg(long, value_name = "NAME")]
        device: Option<DeviceId>,
    },
    /// Send a message from the service to some users or all
    Message {
        /// The body: any JSON, or else taken as a text
        body: String,
        /// To these users
        #[arg(long, num_args = 1.., required_unless_present = "all", conflicts_with = "all")]
        to: Vec<UserId>,
        /// To every user there is
        #[arg(long)]
        all: bool,
    },
    /// What waits for users
    #[command(subcommand)]
    Mailbox(MailboxCommand),
    /// Messages whose handling kept failing
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// The actors of the supervision tree
    #[command(subcommand)]
    Actors(ActorsCommand),
    /// Crashes, the newest first; or one with its backtrace
    Crashes {
        /// Its number
        number: Option<u64>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Print events as they happen, one JSON object a line
    Events {
        /// Only these kinds
        #[arg(long, value_delimiter = ',', value_name = "KIND")]
        kinds: Vec<String>,
    },
    /// What is logged; or set it, until the next start or for a while
    Log {
        /// Such as info or info,stonechat_gateway=debug
        filter: Option<String>,
        /// Put back what was logged before after so many seconds
        #[arg(long = "for", value_name = "SECONDS", requires = "filter")]
        for_s: Option<u64>,
    },
    /// Take no new connections and ask clients to move
    Drain {
        /// When clients may come back, milliseconds
        #[arg(long, value_name = "MS")]
        retry_after_ms: Option<u64>,
        /// How long connections may take to go, milliseconds
        #[arg(long, value_name = "MS")]
        deadline_ms: Option<u64>,
    },
    /// Take connections again
    Undrain,
    /// Who did what, the newest first
    Audit {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Admin tokens
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Backups in the data directory
    Backups,
    /// What the store takes on disk
    Storage,
    /// The node's limits and how near they are
    NodeLimits,
    /// The configuration in force
    NodeConfig,
}

/// What can be done with mailboxes.
#[derive(Debug, Subcommand)]
pub(crate) enum MailboxCommand {
    /// Depth, bytes, oldest message and every device's cursor
    Show {
        /// Whose
        name: UserId,
    },
    /// The messages that wait, without bodies
    Messages {
        /// Whose
        name: UserId,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Throw away what waits, for good
    Purge {
        /// Whose
        name: UserId,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
        /// Only up to this place
        #[arg(long, value_name = "SEQ")]
        up_to_seq: Option<u64>,
    },
    /// Write what waits as one JSON object a line, bodies included
    Export {
        /// Whose
        name: UserId,
        /// File to write; it must not exist [default: standard output]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Bring back what an export wrote; what is there already is skipped
    Import {
        /// Whose
        name: UserId,
        /// File an export wrote
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// The fullest mailboxes
    Top {
        /// In which order
        #[arg(long, default_value = "depth", value_parser = ["depth", "bytes", "oldest"])]
        by: String,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// One with its body
    Show {
        /// Its number
        number: u64,
    },
    /// Put one back at the end of its mailbox
    Replay {
        /// Its number
        number: u64,
    },
    /// Throw one away, for good
    Discard {
        /// Its number
        number: u64,
        /// Why, for the audit log
        #[arg(long)]
        reason: Option<String>,
    },
}

/// What can be done with actors.
#[derive(Debug, Subcommand)]
pub(crate) enum ActorsCommand {
    /// The first by a figure
    Top {
        /// In which order
        #[arg(long, default_value = "depth",
            value_parser = ["depth", "depth_max", "restarts", "blocked_ms", "rate", "handled"])]
        by: String,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// One with its state and last crash
    Show {
        /// Its id
        id: u64,
    },
    /// Restart one, as a crash would
    Restart {
        /// Its id
        id: u64,
        /// Why, for the audit log
        #[arg(long)]
        reason: Option<String>,
    },
    /// Stop one
    Stop {
        /// Its id
        id: u64,
        /// Why, for the audit log
        #[arg(long)]
        reason: Option<String>,
    },
}

/// What can be done with admin tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// List them
    List,
    /// Make one; it is shown once
    Add {
        /// Names it in the audit log
        name: String,
        /// What it may do
        #[arg(long, default_value = "viewer", value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// How long it is good for, seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        ttl_s: u64,
    },
    /// Void one
    Revoke {
        /// Its id
        id: String,
    },
}
