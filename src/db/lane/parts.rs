//! Statements of the lanes, put together from parts: a batch pays only for what it contains, since an unused part
//! costs its start-up in every statement. See docs/decisions/0032.

use std::marker::PhantomData;

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::BigInt;
use uuid::Uuid;

/// What a batch contains: a set of the flags that its lane declares.
pub(super) type Contents = u32;

/// Stands for every batch whose contents have no type of their own.
pub(super) const RARE: Contents = Contents::MAX;

/// A piece of a lane's statement. `$name` in its text is bound to what [`Rows::bind`] knows by that name.
pub(super) struct Part {
    with: Contents,
    without: Contents,
    sql: &'static str,
}

impl Part {
    /// In every statement.
    pub const fn always(sql: &'static str) -> Self {
        Self::with(0, sql)
    }

    /// In the statements of batches that contain all of these.
    pub const fn with(with: Contents, sql: &'static str) -> Self {
        Self { with, without: 0, sql }
    }

    /// Not in those of batches that contain any of these.
    pub const fn without(self, without: Contents) -> Self {
        Self { without, ..self }
    }

    const fn is_for(&self, contents: Contents) -> bool {
        contents & self.with == self.with && contents & self.without == 0
    }
}

/// A batch of one lane.
pub(super) trait Rows {
    /// The pieces of its statements, in order.
    const PARTS: &'static [Part];
    /// A type for the lane: the statements of one lane are told apart by their contents.
    type Lane: 'static;
    /// Columns of what its statements give back.
    type Found;

    /// What of the pieces it needs.
    fn contents(&self) -> Contents;

    /// Binds what the text calls by this name; an unknown one is a defect of the text.
    fn bind<'b>(&'b self, name: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>;
}

/// The statement of a batch, for the engine that holds the lane. With a `C` that is not [`RARE`] it is found by its
/// type among the prepared ones; else by its text, which costs a microsecond.
pub(super) struct Statement<'a, R, const C: Contents> {
    node: Uuid,
    epoch: i64,
    rows: &'a R,
}

impl<'a, R, const C: Contents> Statement<'a, R, C> {
    /// Of a batch whose contents are `C`, or any if that is [`RARE`].
    pub const fn of(node: Uuid, epoch: i64, rows: &'a R) -> Self {
        Self { node, epoch, rows }
    }
}

/// The type of a statement of a lane.
pub(super) struct Known<L, const C: Contents>(PhantomData<L>);

impl<R: Rows, const C: Contents> QueryId for Statement<'_, R, C> {
    type QueryId = Known<R::Lane, C>;
    const HAS_STATIC_QUERY_ID: bool = C != RARE;
}

impl<R: Rows, const C: Contents> Query for Statement<'_, R, C> {
    type SqlType = R::Found;
}

impl<R: Rows, const C: Contents> QueryFragment<Pg> for Statement<'_, R, C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let contents = self.rows.contents();
        for part in R::PARTS.iter().filter(|part| part.is_for(contents)) {
            let mut rest = part.sql;
            while let Some((before, named)) = rest.split_once('$') {
                let end = named.bytes().take_while(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.')).count();
                out.push_sql(before);
                match &named[..end] {
                    "lane.node" => out.push_bind_param::<diesel::sql_types::Uuid, _>(&self.node)?,
                    "lane.epoch" => out.push_bind_param::<BigInt, _>(&self.epoch)?,
                    name => self.rows.bind(name, &mut out)?,
                }
                rest = &named[end..];
            }
            out.push_sql(rest);
        }
        Ok(())
    }
}

/// A name without a value.
pub(super) fn unbound(name: &str) -> diesel::result::Error {
    diesel::result::Error::QueryBuilderError(format!("nothing is bound to ${name}").into())
}
