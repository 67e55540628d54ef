//! Everything that is tested from outside: one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cli;
mod documents;
mod examples;
mod faults;
mod interleavings;
mod layers;
mod live;
mod platform;
mod rest;
mod scheduling;
mod several;
mod socket;
mod support;
mod traces;
