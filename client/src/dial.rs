//! From a URL and a token to a WebSocket on which the server has accepted the token.
//!
//! Owns the upgrade, under one deadline with the [`Connector`]'s work: connection and TLS come first, the token after.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error as WsError, Message, client::IntoClientRequest},
};
use tunnel_frame::{Control, Pulse, limits};
use url::Url;
use uuid::Uuid;

use crate::{
    config::origin,
    connector::{ConnectError, Connector, Transport, WITHIN},
    token::Token,
};

/// The server's path for desktops.
const PATH: &str = "/ws/tunnel";

/// Dials servers, always as the same instance.
pub(crate) struct Dialer {
    connector: Connector,
    /// Tells the server that a reconnect replaces its predecessor. UUIDv7: sorts by the start of the process.
    instance: Uuid,
}

/// What a handshake is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A tunnel.
    Serve,
    /// Knowing that there could be one.
    Probe,
}

/// What a probe has found.
pub(crate) struct Probed {
    /// The server's.
    pub(crate) version: String,
    pub(crate) rtt: Duration,
}

/// Why there is no tunnel.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// The server answered, and said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The server was not reached, or cannot take tunnels now: worth trying again.
    #[error("{0}")]
    Unreachable(String),
}

/// The server's no, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// The code of the error table, such as `token_expired`; `http_404` if the answer is not one of ours.
    pub code: String,
    /// One sentence that says what to do.
    pub message: String,
}

impl Dialer {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector, instance: Uuid::now_v7() }
    }

    /// Connects to `server` as the desktop `name`.
    pub(crate) async fn dial(
        &self,
        server: &Url,
        token: &Token,
        name: &str,
    ) -> Result<WebSocketStream<Pulse<Transport>>, DialError> {
        timeout(WITHIN, self.upgrade(server, token, name, Purpose::Serve))
            .await
            .unwrap_or_else(|_| Err(ConnectError::TooSlow.into()))
    }

    /// Goes through the same handshake, but registers no desktop.
    pub(crate) async fn probe(&self, server: &Url, token: &Token, name: &str) -> Result<Probed, DialError> {
        let probing = async {
            let mut ws = self.upgrade(server, token, name, Purpose::Probe).await?;
            let sent = Instant::now();
            ws.send(Message::Ping("doctor".into())).await.map_err(|error| unreachable(error.to_string()))?;
            let (mut version, mut rtt) = (None, None);
            loop {
                if let (Some(version), Some(rtt)) = (&version, rtt) {
                    _ = ws.close(None).await;
                    return Ok(Probed { version: String::clone(version), rtt });
                }
                match ws.next().await {
                    Some(Ok(Message::Text(text))) => match Control::from_json(&text) {
                        Some(Control::Welcome(welcome)) => version = Some(welcome.version),
                        _ => return Err(unreachable("the server's first words are not understood".into())),
                    },
                    Some(Ok(Message::Pong(_))) => rtt = Some(sent.elapsed()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => {
                        return Err(unreachable("the WebSocket was opened, and closed before a word".into()));
                    }
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(WITHIN, probing).await.unwrap_or_else(|_| Err(ConnectError::TooSlow.into()))
    }

    async fn upgrade(
        &self,
        server: &Url,
        token: &Token,
        name: &str,
        purpose: Purpose,
    ) -> Result<WebSocketStream<Pulse<Transport>>, DialError> {
        let transport = self.connector.connect(server).await?;
        let mut request = self.request(server, token, name)?;
        if purpose == Purpose::Probe {
            request.headers_mut().insert("tunnel-probe", HeaderValue::from_static("1"));
        }
        let config = Some(tunnel_frame::websocket_config());
        match client_async_with_config(request, Pulse::new(transport), config).await {
            Ok((ws, _)) => Ok(ws),
            // A port that speaks TLS breaks off, or says in the clear what it wants.
            Err(WsError::Http(response)) if wants_tls(server, response.status(), body(&response)) => {
                Err(in_the_clear(server))
            }
            Err(WsError::Protocol(_) | WsError::Io(_)) if server.scheme() == "http" => Err(in_the_clear(server)),
            Err(WsError::Http(response)) => Err(refused(&response)),
            Err(WsError::Protocol(error)) => Err(unreachable(format!("the server does not speak WebSocket: {error}"))),
            Err(error) => Err(unreachable(error.to_string())),
        }
    }

    fn request(&self, server: &Url, token: &Token, name: &str) -> Result<http::Request<()>, DialError> {
        let scheme = if server.scheme() == "http" { "ws" } else { "wss" };
        let authority = &server[url::Position::BeforeHost..url::Position::BeforePath];
        let mut request = format!("{scheme}://{authority}{PATH}")
            .into_client_request()
            .map_err(|error| unreachable(format!("{server} is no server: {error}")))?;
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| unreachable("a name or token cannot stand in a header".into()))
        };
        let mut bearer = value(&format!("Bearer {}", token.secret()))?;
        bearer.set_sensitive(true);
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(limits::SUBPROTOCOL));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        headers.insert("tunnel-name", value(name)?);
        headers.insert("tunnel-instance", value(&self.instance.to_string())?);
        Ok(request)
    }
}

/// What a port that speaks TLS says to plain HTTP: nginx, Go (Caddy, Traefik), Apache, tunneld.
const WANTS_TLS: [&str; 4] = [
    "The plain HTTP request was sent to HTTPS port",
    "Client sent an HTTP request to an HTTPS server",
    "speaking plain HTTP to an SSL-enabled server port",
    "This port speaks HTTPS",
];

/// Whether an answer is that of a port that speaks TLS and was not asked so.
pub(crate) fn wants_tls(server: &Url, status: StatusCode, body: &[u8]) -> bool {
    let said = String::from_utf8_lossy(body);
    server.scheme() == "http" && status == StatusCode::BAD_REQUEST && WANTS_TLS.iter().any(|words| said.contains(words))
}

/// What came of an answer's body together with its head.
fn body(response: &Response<Option<Vec<u8>>>) -> &[u8] {
    response.body().as_deref().unwrap_or_default()
}

fn in_the_clear(server: &Url) -> DialError {
    unreachable(format!("{} does not answer in plain HTTP; if it speaks TLS, write https://", origin(server)))
}

fn unreachable(reason: String) -> DialError {
    DialError::Unreachable(reason)
}

impl From<ConnectError> for DialError {
    fn from(error: ConnectError) -> Self {
        Self::Unreachable(format!("{error}{}", error.hint()))
    }
}

/// What a proxy answers in the place of a server that it does not reach.
pub(crate) const PROXYS: [StatusCode; 3] =
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// An HTTP answer instead of an upgrade. 4xx is a refusal; everything else may pass.
fn refused(response: &Response<Option<Vec<u8>>>) -> DialError {
    #[derive(Deserialize)]
    struct ErrorBody {
        error: String,
    }
    let status = response.status();
    let ours = response.headers().get("tunnel-error").and_then(|code| code.to_str().ok());
    // What a stranger says is not repeated.
    let told = ours.and_then(|_| serde_json::from_slice::<ErrorBody>(body(response)).ok());
    let message = match (ours, told) {
        // Its sentence is for callers.
        (Some("draining"), _) => "the server restarts; connecting again".to_owned(),
        (_, Some(body)) => body.error,
        (_, None) if PROXYS.contains(&status) => {
            format!("the proxy in front of the server does not reach tunneld ({status}); is it running?")
        }
        (_, None) => format!(
            "the server answered {status} and is no tunneld; check --server (a proxy in front must pass /ws/tunnel)"
        ),
    };
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        let code = ours.map_or_else(|| format!("http_{}", status.as_u16()), str::to_owned);
        DialError::Refused(Refusal { code, message })
    } else {
        unreachable(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: Option<&str>, body: &str) -> DialError {
        let mut response = Response::builder().status(status);
        if let Some(code) = code {
            response = response.header("Tunnel-Error", code);
        }
        refused(&response.body(Some(body.into())).unwrap())
    }

    #[test]
    fn a_no_is_repeated_in_the_servers_words() {
        let DialError::Refused(refusal) =
            answer(401, Some("token_expired"), r#"{"error":"Mint a new one.","code":"x"}"#)
        else {
            panic!("not a refusal");
        };
        assert_eq!(refusal.to_string(), "Mint a new one. (token_expired)");
    }

    #[test]
    fn a_stranger_is_named_as_such() {
        let DialError::Refused(refusal) = answer(404, None, "<html>") else { panic!("not a refusal") };
        assert_eq!(refusal.code, "http_404");
        assert!(refusal.message.contains("is no tunneld; check --server"));
    }

    #[test]
    fn a_server_that_is_away_for_a_moment_is_no_wrong_server() {
        let draining = answer(503, Some("draining"), r#"{"error":"The server … send it again."}"#).to_string();
        assert_eq!(draining, "the server restarts; connecting again");
        let overloaded = answer(503, Some("overloaded"), r#"{"error":"Too many at once."}"#).to_string();
        assert_eq!(overloaded, "Too many at once.");
        for status in [502, 503, 504] {
            let said = answer(status, None, "<html>").to_string();
            assert!(said.starts_with("the proxy in front of the server does not reach tunneld (50"), "{said}");
        }
        assert!(answer(500, None, "<html>").to_string().contains("is no tunneld"));
    }

    #[test]
    fn a_port_that_speaks_tls_is_known_by_what_it_says() {
        let says = |server, status, text: &str| {
            wants_tls(&Url::parse(server).unwrap(), StatusCode::from_u16(status).unwrap(), text.as_bytes())
        };
        for text in [
            "<center>The plain HTTP request was sent to HTTPS port</center>",
            "Client sent an HTTP request to an HTTPS server.\n",
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
            r#"{"error":"This port speaks HTTPS; write https:// for http:// in the address."}"#,
        ] {
            assert!(says("http://a.example", 400, text), "{text}");
            assert!(!says("https://a.example", 400, text) && !says("http://a.example", 404, text), "{text}");
        }
        for text in ["", "Bad Request", r#"{"error":"several Hosts"}"#] {
            assert!(!says("http://a.example", 400, text), "{text}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for status in [200, 302, 429, 500, 502, 503] {
            assert!(matches!(answer(status, None, ""), DialError::Unreachable(_)), "{status}");
        }
    }
}
