//! How a run ends: one type for everything that can go wrong, and the exit
//! codes, after sysexits.h. `docs/operations.md` lists them.

use std::process::ExitCode;

use stonechat_gateway::admin::{AdminError, AdminTokenError, SecretError};
use stonechat_gateway::auth::AccountError;
use stonechat_gateway::edge::EdgeError;
use stonechat_mailbox::{BackupError, StoreError};

use crate::config::ConfigError;

/// What kind of failure it was. The number is the exit code. (2, for a command line that
/// cannot be understood, is given by clap itself.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command was refused or failed in a way that has no code of its own.
    General = 1,
    /// Stored data is damaged or of a later version.
    Data = 65,
    /// Something needed is in use or not there: data directory, address, running node.
    Unavailable = 69,
    /// The node failed in itself: too many crashes.
    Software = 70,
    /// Reading or writing failed.
    Io = 74,
    /// Permissions are wrong.
    NoPermission = 77,
    /// The configuration cannot be used.
    Config = 78,
}

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    #[allow(
        clippy::needless_pass_by_value,
        reason = "callers hand over errors they are done with"
    )]
    pub(crate) fn new(exit: Exit, message: impl ToString) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    pub(crate) fn general(message: impl ToString) -> Self {
        Self::new(Exit::General, message)
    }

    pub(crate) fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::PermissionDenied {
            Exit::NoPermission
        } else {
            Exit::Io
        };
        Self::new(exit, format!("{what}: {error}"))
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::InUse(_) => Exit::Unavailable,
            StoreError::Damaged { .. }
            | StoreError::DamagedDatabase(_)
            | StoreError::Version { .. } => Exit::Data,
            StoreError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Exit::NoPermission
            }
            StoreError::Io { .. } | StoreError::Database(_) | StoreError::Unavailable(_) => {
                Exit::Io
            }
            StoreError::Backup(error) => match error {
                BackupError::Damaged { .. }
                | BackupError::Incomplete(_)
                | BackupError::Newer { .. }
                | BackupError::NotABackup(_)
                | BackupError::Interrupted(_) => Exit::Data,
                BackupError::Busy | BackupError::Exists(_) | BackupError::NotEmpty(_) => {
                    Exit::Unavailable
                }
            },
            StoreError::Config(_) => Exit::Config,
            StoreError::UnknownUser(_)
            | StoreError::NotFound(_)
            | StoreError::TooManyDevices { .. }
            | StoreError::Overloaded
            | StoreError::TooLarge(_) => Exit::General,
        };
        Self::new(exit, error)
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => error.into(),
            AccountError::Damaged { .. } => Self::new(Exit::Data, error),
            error => Self::general(error),
        }
    }
}

impl From<AdminTokenError> for Failure {
    fn from(error: AdminTokenError) -> Self {
        match error {
            AdminTokenError::Store(error) => error.into(),
            AdminTokenError::Damaged { .. } => Self::new(Exit::Data, error),
            error => Self::general(error),
        }
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        let exit = match &error {
            SecretError::Exposed { .. } => Exit::NoPermission,
            SecretError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Exit::NoPermission
            }
            SecretError::Io { .. } => Exit::Io,
            SecretError::Malformed(_) => Exit::Config,
        };
        Self::new(exit, error)
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let exit = match &error {
            AdminError::NotLoopback(_) | AdminError::Tls(_) => Exit::Config,
            AdminError::Listen { source, .. } => listen_exit(source),
        };
        Self::new(exit, error)
    }
}

impl From<EdgeError> for Failure {
    fn from(error: EdgeError) -> Self {
        let exit = match &error {
            EdgeError::Config { .. } | EdgeError::Tls { .. } => Exit::Config,
            EdgeError::AddressInUse(_) => Exit::Unavailable,
            EdgeError::Listen { source, .. } => listen_exit(source),
        };
        Self::new(exit, error)
    }
}

/// An address that is taken is "unavailable"; a port one may not have is a matter of permissions.
fn listen_exit(error: &std::io::Error) -> Exit {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Unavailable,
    }
}
