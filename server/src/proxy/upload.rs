//! The body of a request on its way from the caller to the desktop.

use std::fmt;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tunnel_frame::{Frame, FrameWriter, limits};

use super::clock::Moved;
use crate::error::{ErrorCode, Refusal};

/// Relays a body to its end, or until the desktop reads no further.
///
/// # Errors
/// The caller's body is malformed, broke off, or is over `max` bytes.
pub(super) async fn relay<B>(
    mut body: B,
    mut writer: FrameWriter,
    max: Option<u64>,
    moved: Moved,
) -> Result<(), Refusal>
where
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let mut relayed: u64 = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::new(ErrorCode::BadRequest).because(error.to_string()))?;
        // Trailers do not cross (T21).
        let Ok(mut data) = frame.into_data() else { continue };
        relayed += data.len() as u64;
        if max.is_some_and(|max| relayed > max) {
            return Err(ErrorCode::BodyTooLarge.into());
        }
        // In pieces, so that a slow link is seen to move.
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(limits::YAMUX_SPLIT));
            if writer.send_bytes(piece).await.is_err() {
                return Ok(()); // answered early, or gone: the reader finds out
            }
            moved.note();
        }
    }
    _ = writer.send(&Frame::End).await;
    Ok(())
}
