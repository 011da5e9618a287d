//! Bytes without end that need no memory and show where they were damaged.
//!
//! Every position has its byte, so a lost, repeated, swapped or changed byte is found, with its offset, while the
//! body goes by. Two GiB are made from 128 KiB of static memory and compared by `memcmp`.

use std::sync::LazyLock;

use bytes::Bytes;

/// After how many bytes the pattern repeats: the largest prime below 64 KiB, so that no power-of-two buffer, lost or
/// repeated as a whole, goes unnoticed.
const PERIOD: usize = 65_521;

/// Two periods: any [`PERIOD`] bytes from any offset are one slice of it.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_u32;
    let period: Vec<u8> = (0..PERIOD)
        .map(|_| {
            // xorshift32 (Marsaglia, 2003)
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect();
    Bytes::from([period.as_slice(), period.as_slice()].concat())
});

/// The bytes of the pattern from `offset`: `len` of them, or fewer where the slice would be longer than a period.
#[must_use]
pub fn slice(offset: u64, len: usize) -> Bytes {
    let start = usize::try_from(offset % PERIOD as u64).expect("below the period");
    PATTERN.slice(start..start + len.min(PERIOD))
}

/// Compares what arrives with the pattern.
#[derive(Debug, Clone, Default)]
pub struct Check {
    length: u64,
    damaged_at: Option<u64>,
}

impl Check {
    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = slice(self.length, bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            if self.damaged_at.is_none() && now != expected {
                let intact = now.iter().zip(&expected).take_while(|(a, b)| a == b).count();
                self.damaged_at = Some(self.length + intact as u64);
            }
            self.length += now.len() as u64;
            bytes = later;
        }
    }

    /// How many bytes came.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The offset of the first byte that was not the pattern's.
    #[must_use]
    pub fn damaged_at(&self) -> Option<u64> {
        self.damaged_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_damage() {
        let mut whole = Vec::new();
        while whole.len() < 3 * PERIOD {
            whole.extend_from_slice(&slice(whole.len() as u64, 10_000));
        }
        let check = |bytes: &[u8]| {
            let mut check = Check::default();
            bytes.chunks(4099).for_each(|chunk| check.push(chunk));
            (check.length(), check.damaged_at())
        };
        assert_eq!(check(&whole), (whole.len() as u64, None));
        let mut flipped = whole.clone();
        flipped[70_000] ^= 1;
        assert_eq!(check(&flipped).1, Some(70_000));
        let lost = [&whole[..16_384], &whole[32_768..]].concat();
        assert!(check(&lost).1.is_some_and(|at| (16_384..16_400).contains(&at)));
    }
}
