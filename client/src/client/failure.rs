//! What can go wrong between two tunnels: for now, and for good.

use thiserror::Error;

use crate::{
    config::NoServer,
    dial::{DialError, Refusal},
    token::TokenError,
};

/// Why a client stopped although nobody told it to.
#[derive(Debug, Error)]
pub enum Final {
    /// The server refused this desktop for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no token to connect with.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no server to connect to.
    #[error(transparent)]
    NoServer(#[from] NoServer),
}

/// Why a dial brought no tunnel.
#[derive(Debug, Error)]
pub(super) enum DialFailure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    NoServer(#[from] NoServer),
}
