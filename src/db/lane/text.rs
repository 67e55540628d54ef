//! Statements of the lanes: one text per shape of batch, put together from `.sql` fragments.

use std::marker::PhantomData;

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

/// A text with a type of its own: prepared once per connection.
pub(super) trait Text: Send + 'static {
    /// The fragments, in order.
    const PARTS: &'static [&'static str];
    /// Columns of its rows.
    type Row;
}

/// The values for `$n`.
pub(super) trait Binds {
    /// Binds `$n`; an unknown number is a defect of the text.
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>;
}

/// A text with its values.
pub(super) struct Statement<T, B> {
    binds: B,
    text: PhantomData<fn() -> T>,
}

impl<T, B> Statement<T, B> {
    pub const fn of(binds: B) -> Self {
        Self { binds, text: PhantomData }
    }
}

impl<T: Text, B> QueryId for Statement<T, B> {
    type QueryId = T;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<T: Text, B> Query for Statement<T, B> {
    type SqlType = T::Row;
}

impl<T: Text, B: Binds> QueryFragment<Pg> for Statement<T, B> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for part in T::PARTS {
            let mut rest: &'static str = part;
            while let Some(at) = rest.find('$') {
                let end = at + 1 + rest[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
                out.push_sql(&rest[..at]);
                let n = rest[at + 1..end].parse().map_err(|_| unbound(&rest[at..end]))?;
                self.binds.bind(n, &mut out)?;
                rest = &rest[end..];
            }
            out.push_sql(rest);
        }
        Ok(())
    }
}

/// A `$n` without a value.
pub(super) fn unbound(n: impl std::fmt::Display) -> diesel::result::Error {
    diesel::result::Error::QueryBuilderError(format!("nothing is bound to ${n}").into())
}

/// A list of values as one bind.
macro_rules! bind {
    ($out:expr, $sql:ty, $value:expr) => {
        $out.push_bind_param::<$sql, _>($value)
    };
}
pub(super) use bind;
