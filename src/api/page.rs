//! Cursors: where a list goes on. Opaque to clients.

use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;

/// Items of a page when the request does not say.
pub const DEFAULT_LIMIT: usize = 50;

/// Makes and reads the cursors of one list of one tenant. A cursor of another list or tenant, or one that was
/// changed, is refused. It gives no rights: every page is read with the tenant of the token.
#[derive(Debug, Clone, Copy)]
pub struct Cursors<'a> {
    /// What is listed.
    pub list: &'a str,
    /// Whose it is.
    pub tenant: TenantId,
}

impl Cursors<'_> {
    /// The cursor behind the item that is known by `place`.
    pub fn after(&self, place: &[u8]) -> String {
        let check = self.check(place).to_be_bytes();
        check.iter().chain(place).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The place of the last item of the page before.
    ///
    /// # Errors
    /// `InvalidCursor`.
    pub fn read(&self, cursor: &str) -> Result<Vec<u8>> {
        let bytes = unhex(cursor).filter(|bytes| bytes.len() > 4);
        let place = bytes.and_then(|bytes| {
            let (check, place) = bytes.split_at(4);
            (check == self.check(place).to_be_bytes()).then(|| place.to_vec())
        });
        place.ok_or_else(Self::invalid)
    }

    /// As [`Cursors::read`], for a place that is an id.
    ///
    /// # Errors
    /// `InvalidCursor`.
    pub fn read_id(&self, cursor: &str) -> Result<uuid::Uuid> {
        uuid::Uuid::from_slice(&self.read(cursor)?).map_err(|_| Self::invalid())
    }

    fn check(&self, place: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.list.as_bytes());
        hasher.update(&[0]);
        hasher.update(self.tenant.uuid().as_bytes());
        hasher.update(place);
        hasher.finalize()
    }

    /// The error for a cursor that this list did not give out.
    pub fn invalid() -> Error {
        Error::parameter(
            Code::InvalidCursor,
            "cursor",
            "query parameter `cursor`: not a cursor of this list; pass on `next_cursor` as it came",
        )
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some((digit(&pair[0])? << 4) | digit(&pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;

    use super::*;

    #[test]
    fn only_its_own_list_and_tenant_read_a_cursor() {
        let tenant = TenantId::generate(Timestamp::from_micros(1));
        let runs = Cursors { list: "runs", tenant };
        let cursor = runs.after(b"place");
        assert_eq!(runs.read(&cursor).unwrap(), b"place");
        let other = TenantId::generate(Timestamp::from_micros(2));
        assert!(Cursors { list: "runs", tenant: other }.read(&cursor).is_err());
        assert!(Cursors { list: "events", tenant }.read(&cursor).is_err());
        for wrong in ["", "00", "zz", &cursor[1..], &cursor[2..], &format!("{cursor}00"), "é"] {
            assert_eq!(runs.read(wrong).unwrap_err().code(), Code::InvalidCursor, "{wrong}");
        }
        assert!(runs.read_id(&cursor).is_err());
    }
}
