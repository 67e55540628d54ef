//! The core against a store of memory: single stories, then every order of everything.

mod answers;
mod clock;
mod early;
mod hellos;
mod labels;
mod live;
mod losses;
mod model;
mod parked;
mod pauses;
mod pausing;
mod random;
mod rows;
mod share;
mod store;
mod stories;
mod why;
mod world;
