//! The admin secret: made at the first start, kept in a file only its owner can
//! read, compared in constant time. It is never logged.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

/// Name of the file within the data directory.
pub const SECRET_FILE: &str = "admin.secret";
/// Shortest secret accepted, characters.
const SECRET_CHARS_MIN: usize = 32;
/// Longest one, so that a wrong file is not read whole.
const SECRET_CHARS_MAX: usize = 512;

/// Why there is no admin secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or written.
    #[error("the admin secret {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "the admin secret {path} has mode {mode:04o}: others than its owner can use it; run chmod 600 {path}, or remove it to have a new one made"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not a secret.
    #[error(
        "the admin secret {0} does not hold 32 to 512 printable characters; remove it to have a new one made"
    )]
    Malformed(PathBuf),
}

/// What admin requests must bring as a bearer token.
#[derive(Clone)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads the secret of a data directory.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn load(data_dir: &Path) -> Result<Self, SecretError> {
        let path = data_dir.join(SECRET_FILE);
        let io = |source| SecretError::Io {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Exposed { path, mode });
        }
        if metadata.len() > SECRET_CHARS_MAX as u64 + 2 {
            return Err(SecretError::Malformed(path));
        }
        let text = io::read_to_string(file).map_err(io)?;
        let text = text.trim();
        if text.len() < SECRET_CHARS_MIN || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SecretError::Malformed(path));
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads the secret, or makes one when there is none. Only for the process that has the
    /// data directory open.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn load_or_create(data_dir: &Path) -> Result<Self, SecretError> {
        match Self::load(data_dir) {
            Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let path = data_dir.join(SECRET_FILE);
        create(data_dir, &path).map_err(|source| SecretError::Io { path, source })?;
        Self::load(data_dir)
    }

    /// As it goes into an `Authorization` header, after `Bearer `.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is the secret; takes the same time for all of the right length.
    pub(super) fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

/// Writes beside and renames, so that no one ever reads half a secret.
fn create(data_dir: &Path, path: &Path) -> io::Result<()> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let beside = data_dir.join(format!("{SECRET_FILE}.new"));
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    writeln!(file, "{}", URL_SAFE_NO_PAD.encode(bytes))?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let made = Secret::load_or_create(dir.path()).unwrap();
        let again = Secret::load_or_create(dir.path()).unwrap();
        assert_eq!(made.expose(), again.expose());
        assert_eq!(made.expose().len(), 43);
        let path = dir.path().join(SECRET_FILE);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(made.matches(made.expose().as_bytes()));
        assert!(!made.matches(b""));
        assert!(!made.matches(&made.expose().as_bytes()[1..]));
        assert!(!format!("{made:?}").contains(made.expose()));
    }

    #[test]
    fn an_exposed_or_broken_file_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SECRET_FILE);
        Secret::load_or_create(dir.path()).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = Secret::load_or_create(dir.path()).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        for text in ["", "short", &"x ".repeat(40), &"x".repeat(1000)] {
            std::fs::write(&path, text).unwrap();
            let error = Secret::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, SecretError::Malformed(_)), "{error}");
        }
    }
}
