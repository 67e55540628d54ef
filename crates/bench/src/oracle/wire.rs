//! As much of PostgreSQL's wire protocol (version 3) as the proxy must understand to cut in the right place.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};

/// The largest message that the proxy accepts; a batch is far smaller.
const MAX_MESSAGE: usize = 64 << 20;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// One of the engine's two group-commit writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// New runs.
    Create,
    /// Results, claims, retries, cancels.
    Finish,
}

impl Lane {
    /// The lane whose marker is in a statement's text.
    pub fn of_sql(sql: &[u8]) -> Option<Self> {
        let has = |marker: &[u8]| sql.windows(marker.len()).any(|w| w == marker);
        if has(b"/* helve:lane:create */") {
            return Some(Self::Create);
        }
        has(b"/* helve:lane:finish */").then_some(Self::Finish)
    }
}

/// The first thing on a new connection: it has no type byte.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// A request for encryption; answered with `N`.
    Encryption,
    /// A request to another backend to cancel: passed on, no answer.
    Cancel(Bytes),
    /// The real start.
    Startup(Bytes),
}

/// A message's length, which comes first.
fn length(at: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*at.first_chunk()?)).ok()
}

/// The next opening message, once it is complete.
pub fn opening(buffer: &mut BytesMut) -> Option<Opening> {
    let length = length(buffer)?;
    assert!((8..=MAX_MESSAGE).contains(&length), "an opening message of {length} bytes");
    if buffer.len() < length {
        return None;
    }
    let message = buffer.split_to(length).freeze();
    Some(match u32::from_be_bytes(*message[4..].first_chunk()?) {
        SSL_REQUEST | GSS_REQUEST => Opening::Encryption,
        CANCEL_REQUEST => Opening::Cancel(message),
        _ => Opening::Startup(message),
    })
}

/// A message after the start: its type and all its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `P`, `B`, `E`, `S`, .. from the client; `Z`, `E`, `K`, .. from the server.
    pub kind: u8,
    /// Type, length and body.
    pub bytes: Bytes,
}

impl Message {
    /// What follows type and length.
    pub fn body(&self) -> &[u8] {
        &self.bytes[5..]
    }
}

/// The next message, once it is complete.
pub fn message(buffer: &mut BytesMut) -> Option<Message> {
    let length = length(buffer.get(1..)?)?;
    assert!((4..=MAX_MESSAGE).contains(&length), "a message of {length} bytes");
    if buffer.len() < length + 1 {
        return None;
    }
    let bytes = buffer.split_to(length + 1).freeze();
    Some(Message { kind: bytes[0], bytes })
}

/// Remembers which prepared statement of a connection belongs to which lane.
#[derive(Debug, Default)]
pub struct Statements {
    lanes: HashMap<Bytes, Lane>,
}

impl Statements {
    /// Looks at a client's message. Returns the lane if it is a lane's statement that is about to run: the Bind of a
    /// prepared one, or a plain query.
    pub fn starts(&mut self, message: &Message) -> Option<Lane> {
        let mut body = message.bytes.slice(5..);
        match message.kind {
            b'P' => {
                let name = text(&mut body);
                match Lane::of_sql(&text(&mut body)) {
                    Some(lane) => self.lanes.insert(name, lane),
                    // The unnamed statement, or a name that is reused.
                    None => self.lanes.remove(&name),
                };
                None
            }
            b'C' if body.first() == Some(&b'S') => {
                body.advance(1);
                self.lanes.remove(&text(&mut body));
                None
            }
            b'B' => {
                let _portal = text(&mut body);
                self.lanes.get(&text(&mut body)).copied()
            }
            b'Q' => Lane::of_sql(&body),
            _ => None,
        }
    }
}

/// A text that ends with a zero byte, taken from the front.
fn text(body: &mut Bytes) -> Bytes {
    let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
    let found = body.split_to(end);
    if body.has_remaining() {
        body.advance(1);
    }
    found
}

/// The pid in a `BackendKeyData` message.
pub fn backend_pid(message: &Message) -> Option<i32> {
    let pid = message.body().first_chunk()?;
    (message.kind == b'K').then(|| i32::from_be_bytes(*pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn parsed(kind: u8, body: &[u8]) -> Message {
        message(&mut build(kind, body)).unwrap()
    }

    #[test]
    fn a_message_is_taken_only_when_it_is_complete() {
        let mut stream = build(b'P', b"s1\0select 1\0\0\0");
        stream.extend_from_slice(&build(b'S', b""));
        let whole = stream.clone();
        for cut in 0..whole.len() - 5 {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(message(&mut part), None, "{cut}");
            assert_eq!(part.len(), cut, "nothing of an incomplete message is taken");
        }
        assert_eq!(message(&mut stream).unwrap().kind, b'P');
        let sync = message(&mut stream).unwrap();
        assert_eq!((sync.kind, sync.body().len()), (b'S', 0));
        assert_eq!(message(&mut stream), None);
    }

    #[test]
    fn openings_are_told_apart() {
        let opening_of = |code: u32, rest: &[u8]| {
            let mut bytes = BytesMut::from(&u32::try_from(8 + rest.len()).unwrap().to_be_bytes()[..]);
            bytes.extend_from_slice(&code.to_be_bytes());
            bytes.extend_from_slice(rest);
            opening(&mut bytes)
        };
        assert_eq!(opening_of(SSL_REQUEST, b""), Some(Opening::Encryption));
        assert!(matches!(opening_of(CANCEL_REQUEST, &[0; 8]), Some(Opening::Cancel(_))));
        assert!(matches!(opening_of(196_608, b"user\0postgres\0\0"), Some(Opening::Startup(_))));
        assert_eq!(opening(&mut BytesMut::from(&[0, 0, 0][..])), None);
    }

    #[test]
    fn a_bind_is_known_by_the_marker_in_its_parse() {
        let mut statements = Statements::default();
        assert_eq!(statements.starts(&parsed(b'P', b"c\0/* helve:lane:create */ insert ..\0\0\0")), None);
        assert_eq!(
            statements.starts(&parsed(b'P', b"f\0with x as (..) /* helve:lane:finish */ delete ..\0\0\0")),
            None
        );
        assert_eq!(statements.starts(&parsed(b'P', b"o\0select 1\0\0\0")), None);
        assert_eq!(statements.starts(&parsed(b'B', b"\0c\0\0\0\0\0")), Some(Lane::Create));
        assert_eq!(statements.starts(&parsed(b'B', b"portal\0f\0\0\0\0\0")), Some(Lane::Finish));
        assert_eq!(statements.starts(&parsed(b'B', b"\0o\0\0\0\0\0")), None);
        assert_eq!(statements.starts(&parsed(b'E', b"\0\0\0\0\0")), None);
        assert_eq!(statements.starts(&parsed(b'Q', b"select /* helve:lane:finish */ 1\0")), Some(Lane::Finish));
    }

    #[test]
    fn a_closed_or_reused_name_is_forgotten() {
        let mut statements = Statements::default();
        statements.starts(&parsed(b'P', b"\0/* helve:lane:create */\0\0\0"));
        assert_eq!(statements.starts(&parsed(b'B', b"\0\0\0\0\0\0")), Some(Lane::Create));
        statements.starts(&parsed(b'P', b"\0select 1\0\0\0"));
        assert_eq!(statements.starts(&parsed(b'B', b"\0\0\0\0\0\0")), None);
        statements.starts(&parsed(b'P', b"n\0/* helve:lane:create */\0\0\0"));
        statements.starts(&parsed(b'C', b"Sn\0"));
        assert_eq!(statements.starts(&parsed(b'B', b"\0n\0\0\0\0\0")), None);
    }

    #[test]
    fn the_backend_says_its_pid() {
        let mut body = 4711_i32.to_be_bytes().to_vec();
        body.extend_from_slice(&[1, 2, 3, 4]);
        assert_eq!(backend_pid(&parsed(b'K', &body)), Some(4711));
        assert_eq!(backend_pid(&parsed(b'Z', b"I")), None);
    }
}
