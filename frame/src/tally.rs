//! Watches the yamux frames that arrive for a trick that yamux does not see: its windows count payload only, but each
//! data frame is an allocation of its own, so a window full of one-byte frames holds fifty times its size.
//!
//! Reads the 12-byte headers as they go by and nothing else; what is wrong with them is yamux's business.

use std::time::Duration;

use tokio::time::Instant;

/// Data frames that may come within [`WINDOW`] however small they are. 64 streams of 100 tokens a second need as many.
const FRAMES: u32 = 64 * 1024;

/// See [`FRAMES`].
const WINDOW: Duration = Duration::from_secs(10);

/// Mean payload, in bytes, from which on any number of data frames is fine: the overhead is then about its size.
const SMALL: u64 = 64;

const HEADER: usize = 12;

/// The headers of yamux's frames in a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the current frame's payload that are still to come.
    payload: u64,
}

impl Headers {
    /// Takes bytes off the front of `bytes` until a header is complete; `None` when they are used up.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<Header> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload -= skipped as u64;
                *bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(HEADER - self.have);
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            *bytes = &bytes[taken..];
            if self.have == HEADER {
                self.have = 0;
                let [_version, kind, .., a, b, c, d] = self.header;
                return Some(match kind {
                    0 => {
                        let payload = u32::from_be_bytes([a, b, c, d]);
                        self.payload = payload.into();
                        Header::Data { payload }
                    }
                    3 => Header::GoAway,
                    // Their last field is a credit or a ping's value.
                    _ => Header::Other,
                });
            }
        }
        None
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    Data { payload: u32 },
    GoAway,
    Other,
}

/// Counts data frames and their payload.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    headers: Headers,
    since: Option<Instant>,
    frames: u32,
    bytes: u64,
}

impl Tally {
    /// Takes note of bytes in the order of their arrival; false when there were too many small frames.
    pub(crate) fn admit(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(header) = self.headers.next(&mut bytes) {
            if let Header::Data { payload } = header
                && !self.count(payload)
            {
                return false;
            }
        }
        true
    }

    fn count(&mut self, payload: u32) -> bool {
        if self.frames.is_multiple_of(1024) {
            let now = Instant::now();
            if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
                (self.since, self.frames, self.bytes) = (Some(now), 0, 0);
            }
        }
        self.frames += 1;
        self.bytes += u64::from(payload);
        self.frames <= FRAMES || self.bytes >= SMALL * u64::from(self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 0, 0, 0, 0, 1];
        frame.extend_from_slice(&u32::try_from(payload).unwrap().to_be_bytes());
        frame.resize(HEADER + payload, 0);
        frame
    }

    #[tokio::test(start_paused = true)]
    async fn t46_a_flood_of_tiny_frames_is_noticed() {
        let mut tally = Tally::default();
        assert!(tally.admit(&data(1).repeat(FRAMES as usize)));
        assert!(!tally.admit(&data(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_frames_of_some_size_are_fine_however_they_are_cut() {
        let mut tally = Tally::default();
        let frames = data(100).repeat(2 * FRAMES as usize);
        assert!(frames.chunks(977).all(|piece| tally.admit(piece)));
    }

    #[tokio::test(start_paused = true)]
    async fn tiny_frames_at_a_human_pace_are_fine() {
        let mut tally = Tally::default();
        for _ in 0..100 {
            assert!(tally.admit(&data(5).repeat(FRAMES as usize / 2)));
            tokio::time::advance(WINDOW).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_payload_are_not_counted() {
        let mut tally = Tally::default();
        // A window update: its last field is a credit, not a length.
        let update = [0, 1, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert!(tally.admit(&update.repeat(2 * FRAMES as usize)));
    }
}
