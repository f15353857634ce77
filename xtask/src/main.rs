//! One command for everything.

fn main() {}
