//! The file with a signed-in user's tokens: for its owner only, replaced as a whole.

use std::{
    fmt, fs,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::time::sleep;
use tunnel_oidc::Login;
use url::Url;

use super::grant::Granted;
use crate::token::Token;

/// Between two attempts at the lock.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// A user who is signed in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    /// The server that the tokens are for: nobody else gets them.
    pub server: Url,
    /// The private CA that was named when signing in.
    pub ca: Option<PathBuf>,
    /// How tokens are had.
    pub login: Login,
    /// The token for the server.
    pub token: Token,
    /// When it came, and when it is good no more, in seconds since 1970.
    obtained: u64,
    expires: Option<u64>,
    /// What it is renewed with. Good for one renewal at many providers.
    pub refresh_token: Option<String>,
}

/// A file that cannot be used. Displays as one line: the file, what is wrong, what to do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Nobody is signed in.
    #[error("nobody is signed in ({} does not exist): run `tunnel login --server https://HOST`", .0.display())]
    NotSignedIn(PathBuf),
    /// Closed to us, or no room.
    #[error("{path}: {1}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// Not as it was written.
    #[error("{path} is damaged ({1}): run `tunnel login` again", path = .0.display())]
    Damaged(PathBuf, serde_json::Error),
}

/// Where it is.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

impl Account {
    pub(super) fn new(server: Url, ca: Option<PathBuf>, login: Login, granted: Granted) -> Self {
        let account =
            Self { server, ca, login, token: granted.token.clone(), obtained: 0, expires: None, refresh_token: None };
        account.renewed(granted)
    }

    /// The same with what came from the provider. A refresh token that did not come stays (RFC 6749 §6).
    pub(super) fn renewed(self, granted: Granted) -> Self {
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            token: granted.token,
            obtained: seconds(SystemTime::now()),
            expires: granted.expires.map(seconds),
            refresh_token: granted.refresh_token.or(self.refresh_token),
            ..self
        }
    }

    /// When the token expires, if that is known.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.expires?))
    }

    /// When it should be renewed: in the last third of its life, and no earlier than five minutes before its end.
    pub(super) fn renew_at(&self) -> Option<SystemTime> {
        let life = self.expires?.saturating_sub(self.obtained);
        self.expires()?.checked_sub(Duration::from_secs((life / 3).min(300)))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("server", &self.server.as_str()).finish_non_exhaustive()
    }
}

impl Store {
    /// The file in a directory of the user's own.
    #[must_use]
    pub fn within(directory: &Path) -> Self {
        Self(directory.join("login.json"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Who is signed in.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn load(&self) -> Result<Account, StoreError> {
        let text = fs::read(&self.0).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NotSignedIn(self.0.clone()),
            _ => self.io(error),
        })?;
        serde_json::from_slice(&text).map_err(|error| StoreError::Damaged(self.0.clone(), error))
    }

    /// Puts another account in place of the one before. A crash leaves the one or the other.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn save(&self, account: &Account) -> Result<(), StoreError> {
        let save = || {
            let directory = self.0.parent().unwrap_or(Path::new(""));
            fs::create_dir_all(directory)?;
            let mut file = NamedTempFile::new_in(directory)?; // opened with 0600
            file.write_all(&serde_json::to_vec_pretty(account)?)?;
            file.as_file().sync_all()?;
            file.persist(&self.0)?;
            Ok(())
        };
        save().map_err(|error| self.io(error))
    }

    /// Takes it away; whether there was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn remove(&self) -> Result<bool, StoreError> {
        match fs::remove_file(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Waits until no other process renews. A refresh token used twice looks stolen, and ends the sign-in at many
    /// providers. The lock is let go when the file is dropped.
    pub(super) async fn lock(&self) -> Result<File, StoreError> {
        let path = self.0.with_extension("lock");
        let failed = |error| StoreError::Io(path.clone(), error);
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        loop {
            match fs4::FileExt::try_lock(&file) {
                Ok(()) => return Ok(file),
                Err(fs4::TryLockError::WouldBlock) => sleep(LOCK_EVERY).await,
                Err(fs4::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    fn io(&self, error: io::Error) -> StoreError {
        StoreError::Io(self.0.clone(), error)
    }
}
