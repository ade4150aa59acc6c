//! Standard output for commands: a reader that goes away early (`| head`) is not an error.

use std::io::{self, Write};

use super::error::{CliError, IO};
use crate::logging::for_standard_error;

/// Prints text as it is.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::new(
            IO,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Prints a value as indented JSON and a line end.
pub(super) fn print_json<T: serde::Serialize>(value: &T) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::new(super::error::SOFTWARE, format!("cannot write JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Says something beside the data, on standard error. Nobody can be told when that fails.
pub(super) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{}", for_standard_error(text)));
}
