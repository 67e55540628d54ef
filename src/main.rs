//! The `helve` program.

fn main() {}
