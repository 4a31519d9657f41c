//! The Aquifer binary.
fn main() {}
