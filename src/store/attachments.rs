//! Files of messages. sled would put values of this size into a folder that nothing syncs, so they lie beside it:
//! written, synced, renamed, their folder synced, and only then named by a message.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use tokio::io::AsyncWriteExt;

use super::StoreError;
use super::records::MessageRecord;
use super::shared::{Shared, lock, remove_file};
use crate::domain::{Attachment, AttachmentId, ReceivedAttachment};

/// Ends the names of files that are not complete.
const PARTIAL: &str = ".part";
/// Longest text that lies in the tree, in bytes.
pub(super) const INLINE_TEXT: usize = 4096;

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn failed(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
        _ => StoreError::File(error.to_string()),
    }
}

/// A file name without folders and control characters, at most 255 bytes.
fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut clean = String::new();
    for c in last.chars().filter(|c| !c.is_control()) {
        if clean.len() + c.len_utf8() > 255 {
            break;
        }
        clean.push(c);
    }
    let trimmed = clean.trim();
    if trimmed.is_empty() || trimmed == "." || trimmed == ".." {
        "file".to_owned()
    } else {
        trimmed.to_owned()
    }
}

/// While it lives, maintenance does not take the file for an orphan.
struct Claim {
    id: AttachmentId,
    shared: Arc<Shared>,
}

impl Claim {
    fn new(id: AttachmentId, shared: &Arc<Shared>) -> Self {
        lock(&shared.staged).insert(id);
        Self {
            id,
            shared: Arc::clone(shared),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.shared.staged).remove(&self.id);
    }
}

/// A complete, synced file that no message names yet. Dropped, it is removed.
pub struct StagedAttachment {
    _claim: Claim,
    attachment: Attachment,
    path: PathBuf,
    kept: bool,
}

impl fmt::Debug for StagedAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedAttachment")
            .field("id", &self.attachment.id)
            .finish_non_exhaustive()
    }
}

impl StagedAttachment {
    /// Its id, for links to it.
    #[must_use]
    pub const fn id(&self) -> AttachmentId {
        self.attachment.id
    }

    /// What the message will say about it.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    /// As a long text: the file and its length.
    pub(super) const fn extent(&self) -> (u64, u64) {
        (self.attachment.id.0, self.attachment.size)
    }

    /// A message names it now.
    pub(super) const fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for StagedAttachment {
    fn drop(&mut self) {
        if !self.kept {
            remove_file(&self.path);
        }
    }
}

/// Writes a file piece by piece. Dropped before [`AttachmentWriter::finish`], the file is removed.
pub struct AttachmentWriter {
    claim: Claim,
    file: tokio::fs::File,
    /// Removes the partial file unless it was finished.
    partial: Partial,
    attachment: Attachment,
    path: PathBuf,
}

struct Partial {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.renamed {
            remove_file(&self.path);
        }
    }
}

impl AttachmentWriter {
    pub(super) async fn create(shared: &Arc<Shared>, name: &str, mime: &str) -> Result<Self, StoreError> {
        let id = AttachmentId::generate().map_err(|_| StoreError::NoEntropy)?;
        let claim = Claim::new(id, shared);
        let path = shared.attachment_path(id);
        let partial = path.with_extension(PARTIAL.trim_start_matches('.'));
        let file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial)
            .await
            .map_err(failed)?;
        let attachment = Attachment {
            id,
            name: clean_name(name),
            mime: mime.to_owned(),
            size: 0,
        };
        Ok(Self {
            claim,
            file,
            partial: Partial {
                path: partial,
                renamed: false,
            },
            attachment,
            path,
        })
    }

    /// Appends.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).await.map_err(failed)?;
        self.attachment.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.attachment.size
    }

    /// Syncs the file and gives it its name. It survives a power cut when this returns.
    pub async fn finish(self) -> Result<StagedAttachment, StoreError> {
        let Self {
            claim,
            mut file,
            partial,
            attachment,
            path,
        } = self;
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        drop(file);
        tokio::task::spawn_blocking(move || {
            let mut partial = partial;
            std::fs::rename(&partial.path, &path).map_err(failed)?;
            partial.renamed = true;
            let staged = StagedAttachment {
                _claim: claim,
                attachment,
                path,
                kept: false,
            };
            if let Some(folder) = staged.path.parent() {
                sync_dir(folder).map_err(failed)?;
            }
            Ok(staged)
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }
}

/// Makes names in a folder survive a power cut.
pub(super) fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Puts a long text into a file and leaves its beginning: sled would put a page with several of them into a file
/// that nothing syncs.
pub(super) async fn stage_long_text(
    shared: &Arc<Shared>,
    text: &mut String,
) -> Result<Option<StagedAttachment>, StoreError> {
    if text.len() <= INLINE_TEXT {
        return Ok(None);
    }
    let mut writer = AttachmentWriter::create(shared, "text", "text/plain").await?;
    writer.write_all(text.as_bytes()).await?;
    let cut = (0..=INLINE_TEXT / 4)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text.truncate(cut);
    writer.finish().await.map(Some)
}

impl Shared {
    /// The text of a message, also when it is a long one.
    pub(super) fn whole_text(&self, record: &MessageRecord) -> String {
        let Some((id, _)) = record.long_text else {
            return record.text.clone();
        };
        let path = self.attachment_path(AttachmentId(id));
        std::fs::read_to_string(&path).unwrap_or_else(|error| {
            warn!("The rest of a long text is missing ({}): {error}", path.display());
            record.text.clone()
        })
    }
}

pub(super) async fn stage_received(
    shared: &Arc<Shared>,
    received: &[ReceivedAttachment],
) -> Result<Vec<StagedAttachment>, StoreError> {
    let mut staged = Vec::with_capacity(received.len());
    for file in received {
        let mut writer = AttachmentWriter::create(shared, &file.name, &file.mime).await?;
        writer.write_all(&file.bytes).await?;
        staged.push(writer.finish().await?);
    }
    Ok(staged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_name_a_folder() {
        assert_eq!(clean_name("../../etc/passwd"), "passwd");
        assert_eq!(clean_name("C:\\photos\\cat.jpg"), "cat.jpg");
        assert_eq!(clean_name(".."), "file");
        assert_eq!(clean_name("a\nb.txt"), "ab.txt");
        assert!(clean_name(&"ä".repeat(300)).len() <= 255);
    }
}
