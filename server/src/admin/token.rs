//! The admin token: one text in a file, which may be replaced while the server runs.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use thiserror::Error;

use crate::auth::{Secret, SecretError};

/// The token that opens the admin interface.
#[derive(Debug)]
pub struct AdminToken {
    path: PathBuf,
    current: RwLock<Secret>,
}

/// Why there is no admin token. Displays as one line that says what to do.
#[derive(Debug, Error)]
pub enum AdminTokenError {
    /// Unreadable, or too short.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Bytes that no header can carry.
    #[error("{} is no text without spaces; make a token with: openssl rand -hex 32", .0.display())]
    NotText(PathBuf),
    /// None, and the listener can be reached from elsewhere.
    #[error("everybody who reaches {0} could ask; add --admin-token-file FILE, or listen on 127.0.0.1")]
    Needed(SocketAddr),
}

impl AdminToken {
    /// The token in a file, at least 32 visible characters.
    pub fn read(path: PathBuf) -> Result<Self, AdminTokenError> {
        let current = RwLock::new(read(&path)?);
        Ok(Self { path, current })
    }

    /// Reads it again; whether it is another. On an error the one before stays.
    pub(crate) fn reload(&self) -> Result<bool, AdminTokenError> {
        let fresh = read(&self.path)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = !fresh.is_same(&current);
        *current = fresh;
        Ok(is_other)
    }

    /// Whether this is the token, in a time that does not depend on how much of it is right.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is(given)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn read(path: &Path) -> Result<Secret, AdminTokenError> {
    let token = Secret::read(path)?;
    if token.as_visible().is_none() {
        return Err(AdminTokenError::NotText(path.to_owned()));
    }
    Ok(token)
}
