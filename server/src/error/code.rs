//! The table: each code with its status, its retry header and its sentence.
//!
//! Nothing else in the program chooses one of these four.

use http::StatusCode;

/// What went wrong, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is malformed or ambiguous.
    BadRequest,
    /// No credential was sent.
    TokenMissing,
    /// The credential is not a token that this server accepts.
    TokenInvalid,
    /// The token was good once.
    TokenExpired,
    /// The token's scope does not cover the request.
    ScopeDenied,
    /// A rule of the operator or of the desktop forbids it.
    NotAllowed,
    /// People cannot sign in at an identity provider here.
    NoLogin,
    /// The web client has no such file.
    NotFound,
    /// Files of the web client can only be read.
    MethodNotAllowed,
    /// Another live desktop of the user has the name.
    NameInUse,
    /// The user has as many tunnels as allowed.
    TunnelLimit,
    /// The request body is over the configured limit.
    BodyTooLarge,
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed,
    /// The tunnel endpoint was called without WebSocket, or without a common version.
    UpgradeRequired,
    /// The request head is over the limits.
    HeadTooLarge,
    /// `CONNECT`, `TRACE` or `Upgrade`.
    NotSupported,
    /// A version of HTTP that is not served; its code is `not_supported`, too.
    VersionNotSupported,
    /// The user has as many requests in flight as allowed.
    TooManyStreams,
    /// The desktop is connected, its upstream is not.
    UpstreamUnreachable,
    /// The upstream broke off or does not speak HTTP.
    UpstreamError,
    /// The tunnel was lost after the request was dispatched and before a response head came.
    TunnelLost,
    /// No desktop is connected.
    TunnelOffline,
    /// The server or the desktop stops; nothing was sent.
    Draining,
    /// The keys that verify tokens cannot be had.
    KeysUnavailable,
    /// The directory of tunnels on other nodes cannot be had.
    DirectoryUnavailable,
    /// The server is at its capacity.
    Overloaded,
    /// The stream's deadline passed, or it stalled.
    DeadlineExceeded,
}

/// What a client library is told about sending the request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing; the status speaks.
    Unsaid,
    /// `x-should-retry: false`: the request may have run, or will fail the same way.
    Never,
    /// `Retry-After`, in seconds: nothing was sent to a desktop.
    After(u16),
}

/// One line of the table.
struct Row {
    status: StatusCode,
    code: &'static str,
    retry: Retry,
    message: &'static str,
}

const fn row(status: StatusCode, code: &'static str, retry: Retry, message: &'static str) -> Row {
    Row { status, code, retry, message }
}

impl ErrorCode {
    #[allow(clippy::too_many_lines, reason = "a table reads best in one piece")]
    const fn row(self) -> Row {
        use Retry::{After, Never, Unsaid};
        use StatusCode as S;
        match self {
            Self::BadRequest => row(
                S::BAD_REQUEST,
                "bad_request",
                Unsaid,
                "The request is malformed; correct it before sending it again.",
            ),
            Self::TokenMissing => row(
                S::UNAUTHORIZED,
                "token_missing",
                Unsaid,
                "No token was sent; send one as 'Authorization: Bearer TOKEN', as 'x-api-key: TOKEN', as the password \
                 of HTTP Basic, or in the path as /t/TOKEN/.",
            ),
            Self::TokenInvalid => row(
                S::UNAUTHORIZED,
                "token_invalid",
                Unsaid,
                "The token was not accepted; check that it is complete and meant for this server, or get a new one.",
            ),
            Self::TokenExpired => {
                row(S::UNAUTHORIZED, "token_expired", Unsaid, "The token has expired; get a new one.")
            }
            Self::ScopeDenied => row(
                S::FORBIDDEN,
                "scope_denied",
                Unsaid,
                "The scope of this token does not cover this request; use a token with a wider scope.",
            ),
            Self::NotAllowed => row(
                S::FORBIDDEN,
                "not_allowed",
                Unsaid,
                "The rules of this server do not allow this; ask its operator.",
            ),
            Self::NoLogin => row(
                S::NOT_FOUND,
                "no_login",
                Unsaid,
                "This server has no identity provider to sign in at; ask its operator for a token.",
            ),
            Self::NotFound => {
                row(S::NOT_FOUND, "not_found", Unsaid, "The web client has no such file; open /app/ instead.")
            }
            Self::MethodNotAllowed => row(
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                Unsaid,
                "The web client is only read; send GET or HEAD.",
            ),
            Self::NameInUse => row(
                S::CONFLICT,
                "name_in_use",
                Unsaid,
                "Another desktop of this user is connected under this name; stop it, or choose another --name.",
            ),
            // A desktop that was refused tries again every 30 s.
            Self::TunnelLimit => row(
                S::CONFLICT,
                "tunnel_limit",
                After(30),
                "This user has as many desktops connected as the server allows; disconnect one first.",
            ),
            Self::BodyTooLarge => row(
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                Unsaid,
                "The request body is larger than this server accepts; send less, or ask its operator to raise \
                 --max-body.",
            ),
            Self::ExpectationFailed => row(
                S::EXPECTATION_FAILED,
                "expectation_failed",
                Unsaid,
                "Only 'Expect: 100-continue' is understood; leave the Expect header out.",
            ),
            Self::UpgradeRequired => row(
                S::UPGRADE_REQUIRED,
                "upgrade_required",
                Unsaid,
                "This address takes WebSocket connections with the subprotocol tunnel.yamux.v1; use a tunnel client \
                 that speaks it.",
            ),
            Self::HeadTooLarge => row(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                Unsaid,
                "The request head has over 100 fields or 32 KiB; send fewer or shorter ones.",
            ),
            Self::NotSupported => row(
                S::NOT_IMPLEMENTED,
                "not_supported",
                Unsaid,
                "CONNECT, TRACE and Upgrade do not pass through the tunnel; send a plain HTTP request.",
            ),
            Self::VersionNotSupported => row(
                S::HTTP_VERSION_NOT_SUPPORTED,
                "not_supported",
                Unsaid,
                "This version of HTTP is not supported; use HTTP/1.1 or HTTP/2.",
            ),
            Self::TooManyStreams => row(
                S::TOO_MANY_REQUESTS,
                "too_many_streams",
                After(1),
                "Too many requests of this user are in flight; wait until one has finished.",
            ),
            Self::UpstreamUnreachable => row(
                S::BAD_GATEWAY,
                "upstream_unreachable",
                Never,
                "The desktop is connected, but nothing answers behind it; start Ollama there.",
            ),
            Self::UpstreamError => row(
                S::BAD_GATEWAY,
                "upstream_error",
                Never,
                "The program behind the desktop broke off or did not answer in HTTP; look at its log there.",
            ),
            Self::TunnelLost => row(
                S::BAD_GATEWAY,
                "tunnel_lost",
                Never,
                "The desktop was lost while it worked on this request, which may have run; send it again only if \
                 that does no harm.",
            ),
            Self::TunnelOffline => row(
                S::SERVICE_UNAVAILABLE,
                "tunnel_offline",
                Never,
                "No desktop of this user is connected; run 'tunnel connect' on it.",
            ),
            Self::Draining => row(
                S::SERVICE_UNAVAILABLE,
                "draining",
                After(1),
                "The server is about to stop and did not pass this request on; send it again.",
            ),
            // Keys are fetched at most once in 30 s, and a directory is rejoined within 10 s.
            Self::KeysUnavailable => row(
                S::SERVICE_UNAVAILABLE,
                "keys_unavailable",
                After(10),
                "The keys to verify this token cannot be fetched right now; send the request again later.",
            ),
            Self::DirectoryUnavailable => row(
                S::SERVICE_UNAVAILABLE,
                "directory_unavailable",
                After(5),
                "The server cannot look up where this desktop is connected; send the request again later.",
            ),
            Self::Overloaded => row(
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                After(1),
                "The server is at its capacity and did not pass this request on; send it again later.",
            ),
            Self::DeadlineExceeded => row(
                S::GATEWAY_TIMEOUT,
                "deadline_exceeded",
                Never,
                "The response did not complete in time; ask for more time with the header \
                 Tunnel-Deadline, or ask the operator to raise --stream-deadline and --max-stream-deadline.",
            ),
        }
    }

    /// The sentence that says what is wrong and what to do.
    pub(super) fn message(self) -> &'static str {
        self.row().message
    }

    pub(super) fn retry(self) -> Retry {
        self.row().retry
    }

    /// The status that goes with it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.row().status
    }

    /// The code as programs read it, in `Tunnel-Error`, in bodies and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().code
    }
}
