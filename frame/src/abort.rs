//! Why a desktop ends a stream early: a code for programs and a sentence for people.

use std::fmt;

/// Reasons of an abort frame. On the wire a `u16`; unknown codes read as [`AbortCode::Internal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum AbortCode {
    /// Something failed in the client itself.
    Internal = 1,
    /// The upstream could not be connected to.
    UpstreamUnreachable = 2,
    /// The upstream answered with something that is not HTTP, or broke off.
    UpstreamError = 3,
    /// The desktop's own `--allow` policy forbids this request.
    NotAllowed = 4,
    /// The deadline of the stream passed at the desktop.
    DeadlineExceeded = 5,
    /// What the server sent on this stream breaks the protocol.
    BadRequest = 6,
    /// The desktop stops taking new streams.
    Draining = 7,
}

impl AbortCode {
    /// The code as it stands on the wire.
    #[must_use]
    pub fn to_wire(self) -> u16 {
        self as u16
    }

    /// The code for a number from the wire.
    #[must_use]
    pub fn from_wire(code: u16) -> Self {
        match code {
            2 => Self::UpstreamUnreachable,
            3 => Self::UpstreamError,
            4 => Self::NotAllowed,
            5 => Self::DeadlineExceeded,
            6 => Self::BadRequest,
            7 => Self::Draining,
            _ => Self::Internal,
        }
    }

    /// The name in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamError => "upstream_error",
            Self::NotAllowed => "not_allowed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::BadRequest => "bad_request",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for AbortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The payload of an abort frame. The message is for the server's log, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// What went wrong.
    pub code: AbortCode,
    /// One sentence, at most [`crate::limits::ABORT_MESSAGE`] bytes.
    pub message: String,
}

impl Abort {
    /// An abort with a message.
    pub fn new(code: AbortCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
