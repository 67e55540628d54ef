//! The rows of a batch, kept as the columns in which they are sent.

/// Declares a row, and the columns of many. A statement's text asks for a column by its name: as a list, or in a
/// batch of one row as the value itself.
macro_rules! columns {
    (
        $(#[$meta:meta])*
        $row:ident => $columns:ident $(<$lt:lifetime>)? { $($field:ident: $rust:ty => $sql:ty),+ $(,)? }
    ) => {
        $(#[$meta])*
        pub(super) struct $row $(<$lt>)? { $(pub $field: $rust),+ }

        #[doc = concat!("Rows of [`", stringify!($row), "`], column by column.")]
        #[derive(Default)]
        pub(super) struct $columns $(<$lt>)? { $(pub $field: Vec<$rust>),+ }

        impl $(<$lt>)? $columns $(<$lt>)? {
            /// One row more.
            pub fn push(&mut self, row: $row $(<$lt>)?) {
                $(self.$field.push(row.$field);)+
            }

            /// Binds a column; a name that is none is a defect of the text.
            pub fn bind<'b>(
                &'b self,
                column: &str,
                one: bool,
                out: &mut diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                match column {
                    $(stringify!($field) => match self.$field.as_slice() {
                        [value, ..] if one => out.push_bind_param::<$sql, _>(value),
                        _ => out.push_bind_param::<diesel::sql_types::Array<$sql>, _>(&self.$field),
                    },)+
                    unknown => Err($crate::db::lane::parts::unbound(unknown)),
                }
            }
        }
    };
}
pub(super) use columns;
