//! What is wrong with a mapping.

use std::fmt;

/// A mapping that cannot work: which key, which value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct MappingError {
    /// The key as in the configuration, e.g. `in.from` or `status.2.topic`.
    pub key: String,
    /// The value that was found; `None` when the key is missing.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(
                f,
                "`{}` is {value:?}: {}; {}",
                self.key, self.problem, self.remedy
            ),
            None => write!(f, "`{}` {}; {}", self.key, self.problem, self.remedy),
        }
    }
}

impl MappingError {
    pub(super) fn missing(key: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
            problem: "is missing".to_owned(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn wrong(
        key: impl Into<String>,
        value: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value: Some(value.into()),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}
