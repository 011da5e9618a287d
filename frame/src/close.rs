//! Why a tunnel ended, and the WebSocket close codes (RFC 6455 §7.4) that say so to the other side.

use std::{fmt, io};

/// A close code with its sentence, as sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// What kind of end.
    pub code: CloseCode,
    /// One sentence for people, at most 123 bytes on the wire.
    pub message: String,
}

/// Close codes that either side uses. 4000-4999 are private use (RFC 6455 §7.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// Finished on request.
    Normal,
    /// The program goes away; the other side connects anew.
    GoingAway,
    /// The peer broke the protocol.
    Protocol,
    /// The peer sent more than it may (control flood).
    Policy,
    /// A message over the limit.
    TooBig,
    /// Another tunnel of the same desktop took over.
    Replaced,
    /// The token of the tunnel expired, or its key was replaced: a new token is welcome.
    TokenExpired,
    /// The token, or its user, was revoked: final.
    TokenRevoked,
    /// A code that is not ours.
    Other(u16),
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub fn to_wire(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Replaced => 4001,
            Self::TokenExpired => 4002,
            Self::TokenRevoked => 4003,
            Self::Other(code) => code,
        }
    }

    /// The code for a number from the wire.
    #[must_use]
    pub fn from_wire(code: u16) -> Self {
        match code {
            1000 => Self::Normal,
            1001 => Self::GoingAway,
            1002 => Self::Protocol,
            1008 => Self::Policy,
            1009 => Self::TooBig,
            4001 => Self::Replaced,
            4002 => Self::TokenExpired,
            4003 => Self::TokenRevoked,
            code => Self::Other(code),
        }
    }
}

impl Close {
    /// A close with its sentence.
    pub fn new(code: CloseCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.to_wire(), self.message)
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// We closed it.
    Here(Close),
    /// The peer closed it.
    There(Close),
    /// Nothing was heard for [`crate::limits::SILENCE`].
    Silent,
    /// The connection broke.
    Lost(String),
}

impl Ended {
    pub(crate) fn lost(error: &io::Error) -> Self {
        Self::Lost(match error.kind() {
            // rustls has a link to its manual to say here.
            io::ErrorKind::UnexpectedEof => "it ended without a goodbye".into(),
            _ => error.to_string(),
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(close) => write!(f, "closed here: {close}"),
            Self::There(close) if close.message.is_empty() => {
                write!(f, "closed by the other side ({})", close.code.to_wire())
            }
            Self::There(close) => write!(f, "{} (closed by the other side, {})", close.message, close.code.to_wire()),
            Self::Silent => write!(f, "nothing heard for {} s", crate::limits::SILENCE.as_secs()),
            Self::Lost(error) => write!(f, "connection lost: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire() {
        for code in 0..=u16::MAX {
            assert_eq!(CloseCode::from_wire(code).to_wire(), code);
        }
    }
}
