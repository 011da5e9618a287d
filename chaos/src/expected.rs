//! Bytes that arrive, in pieces of any size, beside those that must.

use bytes::Bytes;

use crate::ticket::Ticket;

/// What must come, and how much of it has.
pub(crate) struct Expected {
    piece: Box<dyn FnMut(usize) -> Option<Bytes> + Send>,
    next: usize,
    left: Bytes,
    /// Some of the piece has come, and not all.
    within: bool,
    at: u64,
}

/// How what came differs from what must come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Differs {
    /// Bytes that were right.
    pub(crate) at: u64,
    /// What came instead, or after the end.
    pub(crate) got: Bytes,
    /// A record could begin here.
    pub(crate) between_pieces: bool,
}

impl Expected {
    /// The answer to a ticket.
    pub(crate) fn answer(ticket: Ticket) -> Self {
        Self::new(move |n| ticket.answer(n))
    }

    /// The body of its request.
    pub(crate) fn asked(ticket: Ticket) -> Self {
        Self::new(move |n| ticket.asked(n))
    }

    fn new(piece: impl FnMut(usize) -> Option<Bytes> + Send + 'static) -> Self {
        Self { piece: Box::new(piece), next: 0, left: Bytes::new(), within: false, at: 0 }
    }

    /// Takes note of bytes that came.
    pub(crate) fn take(&mut self, mut got: Bytes) -> Result<(), Differs> {
        while !got.is_empty() {
            let between_pieces = !self.within;
            if !self.refill() {
                return Err(Differs { at: self.at, got, between_pieces });
            }
            let length = self.left.len().min(got.len());
            if self.left[..length] != got[..length] {
                return Err(Differs { at: self.at, got, between_pieces });
            }
            self.left = self.left.split_off(length);
            got = got.split_off(length);
            self.within = !self.left.is_empty();
            self.at += length as u64;
        }
        Ok(())
    }

    /// Bytes that were right so far.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether all has come.
    pub(crate) fn is_complete(&mut self) -> bool {
        !self.refill()
    }

    fn refill(&mut self) -> bool {
        if self.left.is_empty()
            && let Some(piece) = (self.piece)(self.next)
        {
            self.next += 1;
            self.left = piece;
        }
        !self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::{Kind, User};

    #[test]
    fn every_damage_is_seen() {
        let bulk = Ticket { user: User::Bob, number: 17, kind: Kind::Bulk, size: 20_000, pace: 5 };
        let all: Vec<u8> = (0..).map_while(|n| bulk.answer(n)).flatten().collect();
        assert_eq!(all.len(), 20_000);
        for chunk in [1, 7, 8192, 30_000] {
            let mut expected = Expected::answer(bulk);
            let mut took = all.chunks(chunk).map(|chunk| expected.take(Bytes::copy_from_slice(chunk)));
            assert!(took.all(|took| took.is_ok()));
            assert!(expected.is_complete());
            assert!(expected.take(Bytes::from_static(b"x")).is_err(), "one byte too many");
        }
        let mut expected = Expected::answer(bulk);
        assert!(expected.take(Bytes::copy_from_slice(&all[..8192])).is_ok());
        assert!(!expected.is_complete());
        let skipped = expected.take(Bytes::copy_from_slice(&all[8200..])).unwrap_err();
        assert_eq!((skipped.at, skipped.between_pieces), (8192, true));
        let mut other = Expected::answer(Ticket { number: 18, ..bulk });
        assert!(other.take(Bytes::copy_from_slice(&all)).is_err());
    }
}
