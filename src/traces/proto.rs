//! The wire format of Protocol Buffers, as far as OTLP needs it: a few kinds of fields, written and skipped over.

/// A message that is being written.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    /// The bytes written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    /// A number; also an enum or a truth value.
    pub fn number(&mut self, field: u64, number: u64) {
        self.key(field, VARINT);
        self.varint(number);
    }

    /// A number of fixed length.
    pub fn fixed64(&mut self, field: u64, number: u64) {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A short number of fixed length.
    pub fn fixed32(&mut self, field: u64, number: u32) {
        self.key(field, FIXED32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Bytes, or a text.
    pub fn bytes(&mut self, field: u64, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message within this one.
    pub fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, inner.0);
    }
}

/// A field of somebody else's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number of any length.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

/// Reads the next field off a message; `None` at its end, and for what is no message.
pub fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = read_varint(rest)?;
    let value = match key & 7 {
        VARINT => Value::Number(read_varint(rest)?),
        FIXED64 => Value::Number(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        LENGTH => {
            let length = usize::try_from(read_varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        FIXED32 => Value::Number(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?).into()),
        _ => return None,
    };
    Some((key >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest, 1)? else { return None };
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::default();
        for number in [0, 1, 127, 128, 300, u64::MAX] {
            message.number(1, number);
        }
        message.fixed64(2, 7);
        message.fixed32(16, 9);
        message.message(300, |inner| inner.bytes(1, "text"));
        let bytes = message.into_bytes();
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        while let Some(field) = next(&mut rest) {
            seen.push(field);
        }
        assert!(rest.is_empty());
        let numbers = [0, 1, 127, 128, 300, u64::MAX].map(|n| (1, Value::Number(n)));
        let more = [(2, Value::Number(7)), (16, Value::Number(9)), (300, Value::Bytes(b"\x0a\x04text"))];
        assert_eq!(seen, [&numbers[..], &more[..]].concat());
    }

    #[test]
    fn what_is_no_message_ends_the_reading() {
        for wrong in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\xff\x01x", b"\x0b", b"\x09\x00"]
        {
            assert_eq!(next(&mut &*wrong), None, "{wrong:?}");
        }
    }
}
