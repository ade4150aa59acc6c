//! How a command fails: what, why, what to do, and an exit code that scripts and systemd understand.

use std::fmt;
use std::process::ExitCode;

use crate::control::Failure;
use crate::control::client::ClientError;
use crate::store::OpenError;

/// `EX_USAGE` of sysexits: the command line makes no sense.
pub(super) const USAGE: u8 = 64;
/// `EX_DATAERR`: the input makes no sense.
pub(super) const DATA: u8 = 65;
/// `EX_UNAVAILABLE`: a daemon or another service does not answer.
pub(super) const UNAVAILABLE: u8 = 69;
/// `EX_SOFTWARE`: the program itself failed.
pub(super) const SOFTWARE: u8 = 70;
/// `EX_IOERR`: the operating system refused.
pub(super) const IO: u8 = 74;
/// `EX_NOPERM`: not allowed.
pub(super) const NO_PERMISSION: u8 = 77;
/// `EX_CONFIG`: the configuration is wrong; systemd does not restart after it.
pub(super) const CONFIG: u8 = 78;

/// A command's failure.
#[derive(Debug)]
pub struct CliError {
    /// What failed, on what, why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Exit code (sysexits).
    pub code: u8,
}

impl CliError {
    /// A failure without a hint.
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code,
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// For `main`.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let code = match failure.status {
            400 | 404 => DATA,
            409 | 507 => UNAVAILABLE,
            _ => SOFTWARE,
        };
        Self {
            message: failure.message,
            hint: failure.hint,
            code,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(failure) => failure.into(),
            ClientError::NotRunning(_) => Self::new(UNAVAILABLE, error.to_string())
                .hint("start it: systemctl start pipepost, or `pipepost run`"),
            ClientError::NotAllowed(_) => Self::new(NO_PERMISSION, error.to_string())
                .hint("run the command with sudo, or as the service user"),
            ClientError::Ended => {
                Self::new(UNAVAILABLE, error.to_string()).hint("`journalctl -u pipepost` says why")
            }
            ClientError::Broken(_) => Self::new(SOFTWARE, error.to_string())
                .hint("is the running daemon of another version? restart it: systemctl restart pipepost"),
        }
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            code: IO,
        }
    }
}
