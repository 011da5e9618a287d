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
use tokio::time::{sleep, timeout};
use tunnel_oidc::Login;
use url::Url;

use super::grant::Granted;
use crate::token::Token;

/// Between two attempts at the lock.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// The longest wait for it. Who renews asks the provider twice, at most 10 s each.
const LOCK_WITHIN: Duration = Duration::from_secs(30);

/// No token is renewed sooner than this after it came, in seconds.
const SOONEST: u64 = 5;

/// When a token is renewed that was over when it came, in seconds: a clock is wrong, or the provider.
const OVER_AT_ONCE: u64 = 60;

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
    /// Another process holds the lock.
    #[error(
        "{path} has been locked by another tunnel process for {} s: try again, or end that process",
        LOCK_WITHIN.as_secs(), path = .0.display()
    )]
    Busy(PathBuf),
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
        since_1970(self.expires?)
    }

    /// When it should be renewed: in the last third of its life, and no earlier than five minutes before its end. Some
    /// time after it came in any case, or a token without a life would be renewed for ever.
    pub(super) fn renew_at(&self) -> Option<SystemTime> {
        let wait = match self.expires?.saturating_sub(self.obtained) {
            0 => OVER_AT_ONCE,
            life => (life - (life / 3).min(300)).max(SOONEST),
        };
        since_1970(self.obtained.checked_add(wait)?)
    }

    /// Whether it is time to renew. A token that says no time is used until the server refuses it. One that is yet to
    /// come was had when the clock was wrong, and so is its end.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let to_come = since_1970(self.obtained).is_none_or(|obtained| obtained > now);
        self.renew_at().is_some_and(|at| to_come || now >= at)
    }
}

fn since_1970(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
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

    /// Keeps the account of who has just signed in. No renewal of the one before is under way then.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sign_in(&self, account: &Account) -> Result<(), StoreError> {
        let _alone = self.lock().await?;
        self.save(account)
    }

    /// Forgets who is signed in, also where that cannot be read; who it was. No renewal is under way then.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sign_out(&self) -> Result<Account, StoreError> {
        if matches!(self.0.try_exists(), Ok(false)) {
            return Err(StoreError::NotSignedIn(self.0.clone()));
        }
        let _alone = self.lock().await?;
        let account = self.load();
        self.remove()?;
        account
    }

    /// Puts another account in place of the one before. A crash leaves the one or the other.
    pub(super) fn save(&self, account: &Account) -> Result<(), StoreError> {
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
    pub(super) fn remove(&self) -> Result<bool, StoreError> {
        match fs::remove_file(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Waits until no other process renews, signs in or signs out. A refresh token used twice looks stolen, and ends the
    /// sign-in at many providers. The lock is let go when the file is dropped.
    pub(super) async fn lock(&self) -> Result<File, StoreError> {
        let path = self.0.with_extension("lock");
        let failed = |error| StoreError::Io(path.clone(), error);
        let mut options = File::options();
        // Whoever can open it can hold it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).map_err(failed)?;
        let file = options.create(true).append(true).open(&path).map_err(failed)?;
        let locked = async {
            loop {
                match fs4::FileExt::try_lock(&file) {
                    Ok(()) => return Ok(()),
                    Err(fs4::TryLockError::WouldBlock) => sleep(LOCK_EVERY).await,
                    Err(fs4::TryLockError::Error(error)) => return Err(failed(error)),
                }
            }
        };
        timeout(LOCK_WITHIN, locked).await.unwrap_or_else(|_| Err(StoreError::Busy(path.clone())))?;
        Ok(file)
    }

    fn io(&self, error: io::Error) -> StoreError {
        StoreError::Io(self.0.clone(), error)
    }
}
