//! Bulk jobs: create, get, list, their runs, cancel.

pub mod cancel;
pub mod create;
pub mod get;
pub mod items;
pub mod list;
mod view;
