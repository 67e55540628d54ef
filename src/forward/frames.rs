//! Where the frames of a WebSocket begin and end: who carries its bytes may put a word of its own only in between.

use helve_domain::delivery::Close;

const CLOSE: u8 = 0x08;
/// A whole frame with the opcode [`CLOSE`].
const LAST: u8 = 0x80 | CLOSE;
/// The longest head of a frame: two bytes, a length of eight, a mask.
const HEAD: usize = 14;

/// How far the frames of one direction have come.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    length: usize,
    /// Bytes of the frame's content that are still to come.
    rest: u64,
    /// A close frame has passed: nothing may follow.
    closed: bool,
}

impl Frames {
    /// These bytes were passed on.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let content = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            bytes = &bytes[content..];
            self.rest -= content as u64;
            let Some((byte, behind)) = bytes.split_first() else { return };
            self.head[self.length] = *byte;
            self.length += 1;
            bytes = behind;
            if let Some(content) = self.content() {
                self.closed |= self.head[0] & 0x0f == CLOSE;
                (self.rest, self.length) = (content, 0);
            }
        }
    }

    /// The length of the content, when the whole head is there.
    fn content(&self) -> Option<u64> {
        let short = self.head[1] & 0x7f;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        if self.length < 2 + extended + mask {
            return None;
        }
        let long = self.head[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(if extended == 0 { u64::from(short) } else { long })
    }

    /// Whether a close frame has passed.
    pub const fn are_closed(&self) -> bool {
        self.closed
    }

    /// A server's close frame, if one may come now.
    pub fn farewell(&self, close: Close) -> Option<Vec<u8>> {
        let between = self.length == 0 && self.rest == 0 && !self.closed;
        let mut content = close.code().to_be_bytes().to_vec();
        content.extend_from_slice(close.reason().as_bytes());
        let length = u8::try_from(content.len()).ok().filter(|length| between && *length < 126)?;
        Some([vec![LAST, length], content].concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(mask | u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // Content that looks like heads.
        frame.extend(vec![0x88; length + if masked { 4 } else { 0 }]);
        frame
    }

    proptest! {
        /// However the bytes are cut, a word of our own stands between two frames and nowhere else.
        #[test]
        fn a_farewell_stands_between_frames(
            lengths in prop::collection::vec((prop_oneof![0..300_usize, 65_000..66_000_usize], any::<bool>()), 1..5),
            cuts in prop::collection::vec(1..70_000_usize, 1..20),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (length, masked) in lengths {
                bytes.extend(frame(1, length, masked));
                ends.push(bytes.len());
            }
            let (mut frames, mut at) = (Frames::default(), 0);
            for cut in cuts.into_iter().cycle() {
                prop_assert_eq!(frames.farewell(Close::Draining).is_some(), ends.contains(&at), "at {}", at);
                if at == bytes.len() { break; }
                let next = (at + cut).min(bytes.len());
                frames.pass(&bytes[at..next]);
                at = next;
            }
            frames.pass(&frame(CLOSE, 2, false));
            prop_assert!(frames.farewell(Close::Draining).is_none(), "after a close frame nothing follows");
        }
    }

    #[test]
    fn a_farewell_says_what_workers_know() {
        let farewell = Frames::default().farewell(Close::Draining).unwrap();
        assert_eq!(farewell[..4], [0x88, u8::try_from(farewell.len() - 2).unwrap(), 0x11, 0x97]);
        assert_eq!(&farewell[4..], Close::Draining.reason().as_bytes());
    }
}
