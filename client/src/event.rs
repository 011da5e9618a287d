//! What happens to a client, for whoever shows it: a terminal, a log, a test.
//!
//! Text in events may come from the server: whoever prints it escapes control characters.

use std::time::{Duration, SystemTime};

use tunnel_frame::Welcome;
use url::Url;

use crate::{config::server_url, token::Token};

/// One thing that happened. Sent from the client's own tasks: the receiver must not block.
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection is being made.
    Connecting {
        /// The server being dialled.
        server: Url,
        /// 1 for the first since the last connection that stood.
        attempt: u32,
    },
    /// The server has registered this desktop: callers reach the upstream now.
    Connected(Connected),
    /// The tunnel is gone, or could not be made; another attempt follows.
    Disconnected {
        /// Why, in one sentence.
        reason: String,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// The server refused this desktop, but it once accepted it: another attempt follows.
    Refused {
        /// The code of the error table, such as `token_expired`.
        code: String,
        /// The server's sentence.
        message: String,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// A heartbeat came back.
    RoundTrip(Duration),
    /// The upstream does not answer. Sent when that changes, not for each request.
    UpstreamDown {
        /// Why, in one sentence.
        error: String,
    },
    /// The upstream answers again.
    UpstreamUp,
    /// A request began or ended.
    Requests {
        /// Requests being answered right now.
        in_flight: usize,
        /// Requests since the program started, those in flight included.
        total: u64,
    },
    /// No new requests are taken; the program ends when the last is answered.
    Draining {
        /// Requests being answered right now.
        in_flight: usize,
    },
}

/// What a client knows once its tunnel stands.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The subject of the token.
    pub user: String,
    /// The name under which callers can ask for this desktop.
    pub name: String,
    /// Where callers reach the server: scheme and authority.
    pub public_url: Url,
    /// When the token expires.
    pub token_expires: Option<SystemTime>,
}

impl Connected {
    /// What the server says of a tunnel. An address that is none of a server's is not repeated to people.
    pub(crate) fn new(welcome: Welcome, server: &Url, token: &Token) -> Self {
        Self {
            user: welcome.user,
            name: welcome.name,
            public_url: server_url(&welcome.url).unwrap_or_else(|_| server.clone()),
            token_expires: token.claims().expires(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_servers_address_is_taken_from_a_welcome() {
        let (server, token) = (server_url("https://dialled.example").unwrap(), Token::parse("a.b.c").unwrap());
        for (url, shown) in [
            ("https://public.example:8443", "https://public.example:8443/"),
            ("https://a/;$(reboot)", server.as_str()),
            ("https://a;reboot@b", server.as_str()),
            ("data:,$(reboot)", server.as_str()),
            ("", server.as_str()),
        ] {
            let text = String::new;
            let welcome = Welcome { tunnel: text(), user: text(), name: text(), url: url.into(), version: text() };
            assert_eq!(Connected::new(welcome, &server, &token).public_url.as_str(), shown, "{url}");
        }
    }
}
