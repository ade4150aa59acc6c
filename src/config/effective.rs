//! The merged configuration as TOML again, defaults filled in.

use std::fmt;

use serde::Serialize;

use super::raw;

/// What `check --effective` prints. Secrets are not in it: the configuration only names their files.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Effective {
    pub(super) gateway: raw::Gateway,
    pub(super) pipedrive: raw::Pipedrive,
    pub(super) listener: raw::Listener,
    pub(super) store: raw::Store,
    pub(super) log: raw::Log,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) broker: Vec<raw::Broker>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) device: Vec<toml::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) modem: Vec<raw::Modem>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) channel: Vec<raw::Channel>,
    /// Key and origin of each secret that was found.
    #[serde(skip)]
    pub(super) secrets: Vec<(String, String)>,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, origin) in &self.secrets {
            writeln!(f, "# {key} = \"***\"  (from {})", origin.escape_debug())?;
        }
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}
