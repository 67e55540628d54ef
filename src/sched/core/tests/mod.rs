//! The core against a store of memory: single stories, then every order of everything.

mod losses;
mod random;
mod stories;
mod world;
