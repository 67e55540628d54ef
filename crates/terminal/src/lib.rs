//! What a program and the person at its terminal exchange: lines, tables, JSON, and the request to end.

pub mod args;
pub mod out;
mod program;
pub mod signals;

pub use program::this_program;
