//! What is said about a damaged database: what was found in it, and what that has cost at most.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use super::watermark::Watermark;
use crate::domain::{AttachmentId, MessageId, Timestamp};

/// Messages that the report names.
const NAMED: usize = 200;

/// What was found and what was not.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) messages: u64,
    pub(super) conversations: u64,
    pub(super) queued: u64,
    /// What the damaged database said that it had, at the last moment of which anything is known.
    pub(super) before: Option<Watermark>,
    /// Whether nothing can have come behind that.
    pub(super) to_the_end: bool,
    /// Changes, messages and times from the last commit that was found to the end.
    pub(super) missing: Option<(u64, u64, Timestamp, Timestamp)>,
    /// Messages that were found twice, or that had been removed before.
    pub(super) surplus: u64,
    /// When the newest message that was found came.
    pub(super) newest: Timestamp,
    /// By what it is: what could not be read or belonged to nothing.
    pub(super) dropped: BTreeMap<&'static str, u64>,
    /// Queued again because their entry may be among what is lost.
    pub(super) again: u64,
    /// Answers that may have left.
    pub(super) held: Vec<(MessageId, Timestamp)>,
    /// Messages whose state may have changed since, at most.
    pub(super) older: u64,
    pub(super) gaps: usize,
    pub(super) pages: u64,
    /// Nothing points to these any more.
    pub(super) files: Vec<u32>,
    pub(super) attachments: Vec<AttachmentId>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Found: {} messages in {} conversations, {} of them waiting.",
            self.messages, self.conversations, self.queued
        )?;
        match self.before {
            Some(before) => writeln!(
                f,
                "Lost: at most {} messages, {} conversations{}.",
                before
                    .messages
                    .saturating_sub(self.messages.saturating_sub(self.surplus)),
                before.conversations.saturating_sub(self.conversations),
                if self.to_the_end {
                    ""
                } else {
                    ", and what came behind the last commit that was found"
                }
            )?,
            None => writeln!(f, "Lost: nobody knows how many there were.")?,
        }
        if let Some((changes, messages, from, to)) = self.missing {
            writeln!(
                f,
                "The last {changes} changes are missing, at most {messages} messages among them, from between {} and {}.",
                from.to_iso8601(),
                to.to_iso8601()
            )?;
        }
        for (what, count) in &self.dropped {
            writeln!(f, "Dropped: {count} {what}.")?;
        }
        if self.again > 0 {
            writeln!(f, "Queued again, in case they had not been sent: {}.", self.again)?;
        }
        writeln!(
            f,
            "Places in the database that could not be read: {}.",
            self.gaps as u64 + self.pages
        )?;
        writeln!(
            f,
            "Older than they were may be the states (sent, delivered, refused) of at most {} messages.",
            self.older
        )?;
        if self.held.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "Held back: {} answers that were found waiting and may have left all the same. They are shown as failed, \
             because it is unknown whether they were sent; only a channel with on_unknown = \"resend\" sends them \
             again. See `pipepost conversations show ID`, and answer again where that is needed:",
            self.held.len()
        )?;
        for (id, at) in self.held.iter().take(NAMED) {
            writeln!(
                f,
                "  conversation {}, message {id}, of {}",
                id.conversation,
                at.to_iso8601()
            )?;
        }
        if self.held.len() > NAMED {
            writeln!(f, "  and {} more", self.held.len() - NAMED)?;
        }
        Ok(())
    }
}

impl Report {
    /// Moves files that nothing points to any more to the damaged database, which may do so.
    pub(super) fn set_aside(&self, state_dir: &Path, copy: &Path) {
        let archived = self
            .files
            .iter()
            .map(|number| ("archive", format!("{number:08}")));
        let attached = self.attachments.iter().map(|id| ("attachments", id.to_string()));
        for (folder, name) in archived.chain(attached) {
            let to = copy.join(folder);
            fs::create_dir_all(&to).ok();
            // What stays is removed by maintenance.
            fs::rename(state_dir.join(folder).join(&name), to.join(name)).ok();
        }
    }

    /// Sets the most that can be lost against what was found: `found` are the counters that were found, `mark` those of
    /// the last sync, `highest` the newest message's number.
    pub(super) fn reckon(&mut self, found: Option<Watermark>, mark: Option<Watermark>, highest: u64) {
        let newest = [found, mark].into_iter().flatten().max_by_key(|of| of.revision);
        self.to_the_end = mark.is_some();
        self.before = newest.map(|newest| Watermark {
            // Each has a number of its own.
            messages: newest.messages + highest.saturating_sub(newest.sequence),
            ..newest
        });
        let changes = found.unwrap_or_default().revision;
        self.missing = mark.filter(|mark| mark.revision > changes).map(|mark| {
            let messages = mark.sequence.saturating_sub(highest);
            (mark.revision - changes, messages, self.newest, mark.at)
        });
    }

    pub(super) fn drop(&mut self, what: &'static str) {
        *self.dropped.entry(what).or_default() += 1;
    }
}
