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

    /// The fields of every request for a token, besides those of its grant: who asks, and for which audience.
    ///
    /// Providers want to be told the audience in one of two ways: as `resource` (RFC 8707 §2), which is a URI, or as
    /// `audience` (Auth0). Both are sent; none for an ID token, of which everyone knows the audience.
    #[must_use]
    pub fn fields(&self) -> Vec<(&str, &str)> {
        let mut fields = vec![("client_id", self.client_id.as_str())];
        if self.token() == TokenKind::Access {
            fields.push(("audience", &self.audience));
            if ["https://", "http://", "urn:"].iter().any(|scheme| self.audience.starts_with(scheme)) {
                fields.push(("resource", &self.audience));
            }
        }
        fields
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audience_is_told_in_the_ways_that_providers_read() {
        let fields = |audience: &str| {
            let issuer = Issuer::parse("https://id.example").unwrap();
            let login = Login { issuer, client_id: "app".into(), audience: audience.into(), scope: String::new() };
            (login.token(), login.fields().iter().map(|field| field.0.to_owned()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(fields("https://tunnel.example"), (TokenKind::Access, "client_id audience resource".into()));
        assert_eq!(fields("tunnel"), (TokenKind::Access, "client_id audience".into()));
        assert_eq!(fields("api://7"), (TokenKind::Access, "client_id audience".into()));
        assert_eq!(fields("app"), (TokenKind::Id, "client_id".into()));
    }
}
