//! Work on runs that exist: replaying one.

pub mod replay;
