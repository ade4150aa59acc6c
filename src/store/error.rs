//! What can go wrong.

use std::path::PathBuf;

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk reserve is reached, or what waits exceeds what may be kept.
    #[error("no space to store it")]
    NoSpace,
    /// No such conversation.
    #[error("no such conversation")]
    UnknownConversation,
    /// No such message.
    #[error("no such message")]
    UnknownMessage,
    /// The conversation takes no answers.
    #[error("the conversation is closed")]
    ConversationClosed,
    /// The text is longer than [`super::MAX_TEXT`].
    #[error("the text is too long: {0} bytes")]
    TextTooLong(usize),
    /// A record cannot be read.
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
    /// The operating system refused a file of an attachment.
    #[error("cannot write a file of an attachment: {0}")]
    File(String),
    /// The operating system refused a file of the archive of finished messages.
    #[error("the archive of finished messages: {0}")]
    Archive(String),
    /// The store stopped after a failed write or sync: nothing is acknowledged any more.
    #[error("the store has stopped: {0}")]
    Failed(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoEntropy,
}

impl StoreError {
    /// Whether the hardware must keep what it offered, because it may fit later.
    #[must_use]
    pub const fn refuses_hardware(&self) -> bool {
        matches!(
            self,
            Self::NoSpace
                | Self::File(_)
                | Self::Archive(_)
                | Self::Failed(_)
                | Self::Closed
                | Self::NoEntropy
                | Self::Corrupt(_)
        )
    }

    /// Whether the daemon must stop.
    #[must_use]
    pub const fn requires_stop(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another pipepost{}", .path.display(), .pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// The other process, if it left its number.
        pid: Option<u32>,
    },
    /// A newer pipepost wrote it.
    #[error("{} was written by a newer pipepost (schema {found}, this one knows up to {known})", .path.display())]
    Newer {
        /// The state directory.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// There is no store.
    #[error("there is no store in {}", .path.display())]
    Missing {
        /// The state directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried: a verb, e.g. `create`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Its content cannot be read.
    #[error("the store in {} cannot be read: {reason}", .path.display())]
    Corrupt {
        /// The state directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoEntropy,
}

impl OpenError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => {
                Some("stop the other one first (systemctl stop pipepost), or use another state_dir")
            }
            Self::Newer { .. } => Some("install the newer pipepost again, or use another state_dir"),
            Self::Missing { .. } => Some("check gateway.state_dir, or start pipepost once"),
            Self::Io { .. } => Some(
                "check that the directory exists and belongs to the service user, and that the disk has room",
            ),
            Self::Corrupt { .. } => {
                Some("keep a copy of the directory and restore a backup, or move it away to start anew")
            }
            Self::NoEntropy => None,
        }
    }
}
