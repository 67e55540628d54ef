//! What a program and the person at its terminal tell each other: lines, tables, JSON, and the wish to end.

pub mod args;
pub mod out;
mod program;
pub mod signals;

pub use program::this_program;
