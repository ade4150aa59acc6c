//! Which subscriptions the session on the broker may still hold.
//!
//! A session outlives the configuration: a filter that was removed goes on bringing messages until it is
//! unsubscribed, and the broker cannot be asked. So every filter is written down before it is subscribed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The filters that were ever subscribed and not yet ended.
pub(super) struct Subscriptions {
    file: Option<PathBuf>,
    wanted: BTreeSet<String>,
    stale: BTreeSet<String>,
}

impl Subscriptions {
    /// Reads what was subscribed before and writes down what is about to be.
    pub(super) fn open(file: Option<PathBuf>, wanted: BTreeSet<String>) -> io::Result<Self> {
        let before = match &file {
            None => BTreeSet::new(),
            Some(file) => match fs::read_to_string(file) {
                Ok(text) => text
                    .lines()
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned)
                    .collect(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
                Err(error) => return Err(error),
            },
        };
        let stale: BTreeSet<String> = before.difference(&wanted).cloned().collect();
        let all: BTreeSet<String> = before.union(&wanted).cloned().collect();
        if let Some(file) = &file
            && all != before
        {
            write(file, &all)?;
        }
        Ok(Self { file, wanted, stale })
    }

    /// What it may still bring and must not.
    pub(super) const fn stale(&self) -> &BTreeSet<String> {
        &self.stale
    }

    /// The broker has ended all stale ones, or has lost the session.
    pub(super) fn stale_ended(&mut self) -> io::Result<()> {
        if self.stale.is_empty() {
            return Ok(());
        }
        if let Some(file) = &self.file {
            write(file, &self.wanted)?;
        }
        self.stale.clear();
        Ok(())
    }
}

fn write(file: &Path, filters: &BTreeSet<String>) -> io::Result<()> {
    let lines: Vec<&str> = filters.iter().map(String::as_str).collect();
    let text = lines.join("\n");
    let temporary = file.with_extension("new");
    fs::write(&temporary, text)?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(filters: &[&str]) -> BTreeSet<String> {
        filters.iter().map(|filter| (*filter).to_owned()).collect()
    }

    #[test]
    fn a_filter_that_left_the_configuration_is_stale_until_the_broker_ended_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some(folder.path().join("site.subscriptions"));
        assert!(
            Subscriptions::open(file.clone(), set(&["a/+", "b"]))
                .unwrap()
                .stale()
                .is_empty()
        );
        // Killed before the broker answered: it is still known the next time.
        drop(Subscriptions::open(file.clone(), set(&["b", "c"])).unwrap());
        let mut again = Subscriptions::open(file.clone(), set(&["b", "c"])).unwrap();
        assert_eq!(again.stale(), &set(&["a/+"]));
        again.stale_ended().unwrap();
        assert!(
            Subscriptions::open(file, set(&["b", "c"]))
                .unwrap()
                .stale()
                .is_empty()
        );
    }
}
