//! What models say of their answers, as bytes of any kind pass.

use bytes::Bytes;
use tokio::time::Instant;
use tunneld::figures::{Figures, Observer, Shape};

use crate::input::{Input, pieces};

/// Bytes that an observer may hold: 1 KiB of the beginning, twice 8 KiB of the end.
const HELD: usize = 17 * 1024;

/// The body of an answer. The first byte says in which pieces it comes, the second what it is.
///
/// In whatever pieces: the same figures, from a bounded memory. A number that is told stands in the body, or is no more
/// than it has lines; a name stands in it between quotes, and is made of plain characters.
pub fn figures(data: &[u8]) {
    let mut input = Input::new(data);
    let (how, shape) = (input.byte(), [Shape::Whole, Shape::Lines, Shape::Events][usize::from(input.byte()) % 3]);
    let body = Bytes::copy_from_slice(input.rest());
    let whole = observe(shape, std::slice::from_ref(&body));
    assert_eq!(observe(shape, &pieces(&body, how)), whole, "pieces change the figures");

    let text = String::from_utf8_lossy(&body);
    if let Some(name) = &whole.model {
        assert!(text.contains(&format!("\"{name}\"")), "{name:?} is not in {text:?}");
        assert!(name.bytes().all(|b| b.is_ascii_graphic() && !b"<>&'\"\\".contains(&b)), "{name:?}");
    }
    let lines = text.matches('\n').count() as u64 + 1;
    for number in [whole.tokens_in, whole.tokens_out].into_iter().flatten() {
        let is_written = text.contains(&number.to_string()) || text.contains(['e', 'E', '.']);
        assert!(is_written || number <= lines, "{number} is not in {text:?}");
    }
    assert!(whole.tokens_per_second.is_none_or(f64::is_finite));
}

/// The figures, without what depends on the clock.
fn observe(shape: Shape, pieces: &[Bytes]) -> Figures {
    let mut observer = Observer::new(shape, Instant::now());
    for piece in pieces {
        observer.observe(piece);
        assert!(observer.held() <= HELD, "{} bytes are held", observer.held());
    }
    let figures = observer.figures();
    Figures { first_token: None, tokens_per_second: None, ..figures }
}
