//! Pages of lists, and cursors: where a list goes on. Opaque to clients.

use data_encoding::HEXLOWER;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::TenantId;
use utoipa::IntoParams;

use crate::db::page::Page;

/// Items of a page when the request does not say.
pub const DEFAULT_LIMIT: usize = 50;

/// Which part of a list is asked for, as every list's operation describes it; `Query` reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters")]
pub struct PageQuery {
    /// Items of the page; 50 if absent
    #[param(minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<i32>,
    /// `next_cursor` of the page before
    #[param(pattern = "^[0-9a-f]{10,}$", nullable = false)]
    cursor: Option<String>,
}

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
        HEXLOWER.encode(&[&self.check(place).to_be_bytes(), place].concat())
    }

    /// `next_cursor` of a page: behind its last item, of which `place` gives the place; `None` on the last page.
    pub fn next<'p, T, P: AsRef<[u8]>>(&self, page: &'p Page<T>, place: impl FnOnce(&'p T) -> P) -> Option<String> {
        let last = page.items.last().filter(|_| page.more)?;
        Some(self.after(place(last).as_ref()))
    }

    /// The place of the last item of the page before.
    ///
    /// # Errors
    /// `InvalidCursor`.
    pub fn read(&self, cursor: &str) -> Result<Vec<u8>> {
        let bytes = HEXLOWER.decode(cursor.as_bytes()).ok().filter(|bytes| bytes.len() > 4);
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

/// A page of a list that is whole in memory, in the order of the places: what lies behind `after`.
pub fn of_all<T, P: Ord>(mut all: Vec<T>, after: Option<&P>, limit: usize, place: impl Fn(&T) -> P) -> Page<T> {
    all.retain(|item| after.is_none_or(|after| place(item) > *after));
    all.sort_by_cached_key(place);
    Page::cut(all, limit)
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

    #[test]
    fn pages_of_a_list_in_memory_have_every_item_once_and_in_order() {
        let tenant = TenantId::generate(Timestamp::from_micros(1));
        let cursors = Cursors { list: "names", tenant };
        let place = |name: &&str| name.as_bytes().to_vec();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = of_all(vec!["d", "a", "e", "c", "b"], after.as_ref(), 2, place);
            seen.push(page.items.join(" "));
            let Some(cursor) = cursors.next(&page, |name| name.as_bytes()) else { break };
            after = Some(cursors.read(&cursor).unwrap());
        }
        assert_eq!(seen, ["a b", "c d", "e"]);
    }
}
