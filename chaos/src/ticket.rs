//! A ticket: the identity of one request, from which every byte of it and of its answer follows.
//!
//! It stands in the path, in the body, and in each record of the answer, so that whoever reads any of them can tell
//! whether they are looking at their own request.

use std::{fmt, str::FromStr, time::Duration};

use bytes::Bytes;

/// Bytes of one piece of a bulk body.
const BLOCK: usize = 8 * 1024;

/// Whose request it is, and whose desktop and upstream must answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum User {
    Alice,
    Bob,
}

impl User {
    pub(crate) const ALL: [Self; 2] = [Self::Alice, Self::Bob];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// GET, and a small answer of known length.
    Get,
    /// POST, and a small answer of known length.
    Json,
    /// `size` records, newline-delimited.
    Ndjson,
    /// `size` server-sent events and `[DONE]`.
    Sse,
    /// `size` bytes down, of known length.
    Bulk,
    /// `size` bytes up, of known length.
    Upload,
    /// `size` bytes up, of unknown length.
    Chunked,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Get, Self::Json, Self::Ndjson, Self::Sse, Self::Bulk, Self::Upload, Self::Chunked];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Sse => "sse",
            Self::Bulk => "bulk",
            Self::Upload => "upload",
            Self::Chunked => "chunked",
        }
    }

    /// Whether the request's body is the bulk.
    pub(crate) fn uploads(self) -> bool {
        matches!(self, Self::Upload | Self::Chunked)
    }

    /// Whether the answer is a stream of records, in which a terminal error record may stand.
    pub(crate) fn streams(self) -> bool {
        matches!(self, Self::Ndjson | Self::Sse)
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(crate) user: User,
    /// Unique in a run.
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// Records or bytes.
    pub(crate) size: usize,
    /// Milliseconds before each piece of an answer or an upload.
    pub(crate) pace: u64,
}

impl Ticket {
    /// The request's target.
    pub(crate) fn target(&self) -> String {
        match self.kind {
            Kind::Sse => format!("/v1/chaos/{self}"),
            _ => format!("/api/chaos/{self}"),
        }
    }

    /// The ticket in a target.
    pub(crate) fn of_target(target: &str) -> Option<Self> {
        target.rsplit_once("/chaos/")?.1.parse().ok()
    }

    /// The media type of the answer.
    pub(crate) fn media_type(&self) -> &'static str {
        match self.kind {
            Kind::Ndjson => "application/x-ndjson",
            Kind::Sse => "text/event-stream",
            Kind::Bulk => "application/octet-stream",
            _ => "application/json",
        }
    }

    /// The pause before a piece.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_millis(self.pace)
    }

    /// Piece `n` of the request's body; `None` after the last one.
    pub(crate) fn asked(&self, n: usize) -> Option<Bytes> {
        match self.kind {
            Kind::Get => None,
            Kind::Upload | Kind::Chunked => self.block(n),
            _ => (n == 0).then(|| format!(r#"{{"ticket":"{self}"}}"#).into()),
        }
    }

    /// Piece `n` of the answer; `None` after the last one.
    pub(crate) fn answer(&self, n: usize) -> Option<Bytes> {
        match self.kind {
            Kind::Bulk => self.block(n),
            Kind::Ndjson if n < self.size => Some(format!("{}\n", self.record(n)).into()),
            Kind::Sse if n < self.size => Some(format!("data: {}\n\n", self.record(n)).into()),
            Kind::Sse if n == self.size => Some(Bytes::from_static(b"data: [DONE]\n\n")),
            Kind::Ndjson | Kind::Sse => None,
            _ => (n == 0).then(|| self.record(0).into()),
        }
    }

    /// The length of the answer where it is told in advance.
    pub(crate) fn answer_length(&self) -> Option<u64> {
        match self.kind {
            Kind::Ndjson | Kind::Sse => None,
            Kind::Bulk => Some(self.size as u64),
            _ => self.answer(0).map(|answer| answer.len() as u64),
        }
    }

    fn record(&self, n: usize) -> String {
        let word = self.word(n as u64);
        let fill = usize::try_from(word % 300).unwrap_or_default();
        let done = n + 1 >= self.size;
        format!(r#"{{"ticket":"{self}","n":{n},"text":"{word:016x}{:.<fill$}","done":{done}}}"#, "")
    }

    fn block(&self, n: usize) -> Option<Bytes> {
        let left = self.size.checked_sub(n * BLOCK).filter(|left| *left > 0)?;
        let first = (n * BLOCK / 8) as u64;
        let mut block: Vec<u8> = (0..BLOCK as u64 / 8).flat_map(|i| self.word(first + i).to_le_bytes()).collect();
        block.truncate(left);
        Some(block.into())
    }

    /// The word at a position, of no other ticket and position (splitmix64).
    fn word(&self, position: u64) -> u64 {
        let mut word = (self.number << 24).wrapping_add(position + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, number, kind, size, pace } = self;
        write!(f, "{}-{number}-{}-{size}-{pace}", user.name(), kind.name())
    }
}

impl FromStr for Ticket {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(());
        let (user, number, kind, size, pace) = (part()?, part()?, part()?, part()?, part()?);
        Ok(Self {
            user: User::ALL.into_iter().find(|one| one.name() == user).ok_or(())?,
            number: number.parse().map_err(drop)?,
            kind: Kind::ALL.into_iter().find(|one| one.name() == kind).ok_or(())?,
            size: size.parse().map_err(drop)?,
            pace: pace.parse().map_err(drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(kind: Kind) -> Ticket {
        Ticket { user: User::Bob, number: 17, kind, size: 20_000, pace: 5 }
    }

    #[test]
    fn a_ticket_survives_its_target() {
        for kind in Kind::ALL {
            assert_eq!(Ticket::of_target(&ticket(kind).target()), Some(ticket(kind)));
        }
        assert_eq!(Ticket::of_target("/api/chaos/carol-1-get-1-1"), None);
    }
}
