//! Everything that is tested from outside: one binary.

mod faults;
mod layers;
mod platform;
mod rest;
mod socket;
mod support;
