//! The body of a request on its way from the caller to the desktop.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tunnel_frame::{Frame, FrameWriter};

use super::clock::Moved;
use crate::error::{ErrorCode, Refusal};

/// Relays a body to its end, or until the desktop reads no further.
///
/// # Errors
/// The caller's body is malformed, broke off, or is over `max` bytes.
pub(super) async fn relay(
    mut body: Incoming,
    mut writer: FrameWriter,
    max: Option<u64>,
    moved: Moved,
) -> Result<(), Refusal> {
    let mut relayed: u64 = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::new(ErrorCode::BadRequest).because(error.to_string()))?;
        // Trailers do not cross (T21).
        let Ok(data) = frame.into_data() else { continue };
        relayed += data.len() as u64;
        if max.is_some_and(|max| relayed > max) {
            return Err(ErrorCode::BodyTooLarge.into());
        }
        if writer.send_bytes(data).await.is_err() {
            return Ok(()); // answered early, or gone: the reader finds out
        }
        moved.note();
    }
    _ = writer.send(&Frame::End).await;
    Ok(())
}
