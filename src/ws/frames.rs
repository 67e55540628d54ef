//! The frames as functions of plain values, so that `benches/` can measure them. Nothing in the engine calls this.

use bytes::Bytes;
use helve_domain::delivery::{Close, Outgoing};
use helve_domain::limits::Limits;

use crate::frames;

/// Writes a message as the frames that a session would send.
pub fn write(message: &Outgoing, limits: &Limits, mut each: impl FnMut(String)) {
    match message {
        Outgoing::Assign(tasks) => frames::assign(tasks, limits.frame_bytes, each),
        message => {
            if let Some(frame) = frames::encode(message) {
                each(frame);
            }
        }
    }
}

/// Reads a frame as a session would; what was read is only there to be dropped.
///
/// # Errors
/// It is not a frame at all.
pub fn read(text: &Bytes, limits: &Limits) -> Result<impl Sized, Close> {
    let decoded = frames::decode(text, limits);
    if decoded.is_frame { Ok(decoded) } else { Err(Close::BadFrame) }
}
