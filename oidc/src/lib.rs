//! What server and client share about an `OpenID` provider: asking it something, and what it says about itself.
//!
//! * [`fetch`]: one small HTTP exchange, bounded in time and size, over TLS.
//! * [`discovery`]: issuers, and the document in which one names its endpoints (`OpenID` Connect Discovery 1.0).
//! * [`Login`]: what tunneld tells clients that want to sign in.
//!
//! Verifies no token and stores none.

pub mod discovery;
pub mod fetch;

use serde::{Deserialize, Serialize};

use discovery::Issuer;

/// How to sign in at the identity provider of a server: the answer to `GET /api/tunnel/login`. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Where to find the provider.
    pub issuer: Issuer,
    /// The public client (RFC 6749 §2.1) that people sign in with.
    pub client_id: String,
    /// The audience that the server asks for in tokens.
    pub audience: String,
    /// The scopes to ask for.
    pub scope: String,
}

impl Login {
    /// Where in the server this is told.
    pub const PATH: &str = "/api/tunnel/login";

    /// Which of the provider's tokens is for the server. The audience of an ID token is the client itself (`OpenID`
    /// Connect Core §2); whatever else the server asks for is the audience of an access token.
    #[must_use]
    pub fn token(&self) -> TokenKind {
        if self.audience == self.client_id { TokenKind::Id } else { TokenKind::Access }
    }
}

/// A kind of token that a provider issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// `access_token`, for an API.
    Access,
    /// `id_token`, for the client.
    Id,
}
