//! Hand-written SQL, kept in `.sql` files and prepared once per connection.

/// Declares a statement: its file, or files of which it is put together, and for each `$n` the field and SQL type bound there.
///
/// Unlike `diesel::sql_query`, which diesel-async prepares again on every call, the statement has a
/// static query id, so it is planned and sent like one built with the query builder.
macro_rules! statement {
    ($(#[$meta:meta])* $name:ident($($file:literal),+) { $($n:literal => $field:ident: $rust:ty as $sql:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub(in crate::db) struct $name { $(pub(in crate::db) $field: $rust),+ }

        impl diesel::query_builder::QueryId for $name {
            type QueryId = Self;
            const HAS_STATIC_QUERY_ID: bool = true;
        }
        impl diesel::query_builder::Query for $name {
            type SqlType = diesel::sql_types::Untyped;
        }
        impl<C> diesel::RunQueryDsl<C> for $name {}
        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name {
            fn walk_ast<'b>(&'b self, mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>) -> diesel::QueryResult<()> {
                let mut rest: &'static str = concat!($(include_str!($file)),+);
                while let Some(at) = rest.find('$') {
                    let end = at + 1 + rest[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
                    out.push_sql(&rest[..at]);
                    match &rest[at + 1..end] {
                        $($n => out.push_bind_param::<$sql, _>(&self.$field)?,)+
                        other => panic!("{}: nothing is bound to ${other}", stringify!($name)),
                    }
                    rest = &rest[end..];
                }
                out.push_sql(rest);
                Ok(())
            }
        }
    };
}
pub(crate) use statement;
