//! The roof.

fn main() {}
