//! The `pipepost` command: arguments → command → exit code.

use std::process::ExitCode;

use clap::Parser;
use pipepost::cli::{self, Arguments};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return cli::usage(&error),
    };
    cli::main(arguments)
}
