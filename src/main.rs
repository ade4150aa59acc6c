//! The `pipepost` command.

fn main() {}
