//! Everything that is tested from outside: one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod layers;
mod platform;
mod rest;
mod socket;
mod support;
