//! The `esolm` command.
fn main() {}
