//! Everything that is tested from outside: one binary.

mod faults;
mod rest;
mod socket;
mod support;
