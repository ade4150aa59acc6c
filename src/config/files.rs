//! Files that the configuration names, and secrets, which come only from files or systemd credentials.

use std::fs;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::load::in_words;
use super::source::{Findings, Place};
use crate::domain::Secret;

/// Longest secret that is read, in bytes. Access tokens are about 800.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Longest PEM file that is read, in bytes. A bundle of all public certificate authorities has 250 kB.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// What a PEM file must hold.
#[derive(Clone, Copy)]
pub(super) enum Pem {
    Certificates,
    Key,
}

/// Reads or checks what the configuration points to.
pub(super) struct Files {
    /// `$CREDENTIALS_DIRECTORY`
    pub(super) credentials: Option<PathBuf>,
    /// Nothing is touched: the files are on another machine.
    pub(super) assumed: bool,
}

/// A secret that is configured, and where it came from.
pub(super) struct Found {
    pub(super) secret: Secret,
    pub(super) origin: String,
}

impl Files {
    /// The secret in `file`, else in the credential; `None` when neither is there or the file is empty, which
    /// means "not configured yet".
    pub(super) fn secret(
        &self,
        key: &str,
        file: Option<(&Path, &Place)>,
        credential: &str,
        findings: &mut Findings,
    ) -> Option<Found> {
        if self.assumed {
            return None;
        }
        let (path, place, origin) = if let Some((path, place)) = file {
            (
                path.to_owned(),
                Some(place),
                format!("the file {}", path.display()),
            )
        } else {
            let path = self.credentials.as_ref()?.join(credential);
            (path, None, format!("the credential {credential:?}"))
        };
        let bytes = match read_limited(&path, MAX_SECRET_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if place.is_none() && error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => {
                        Some("create it; an empty file means \"not configured yet\"".to_owned())
                    }
                    io::ErrorKind::PermissionDenied if is_among_credentials(&path) => Some(format!(
                        "only systemd may read this folder: leave {key} out, and the unit's LoadCredential= passes it"
                    )),
                    io::ErrorKind::PermissionDenied => {
                        Some("the user that runs pipepost must be able to read it".to_owned())
                    }
                    _ => None,
                };
                let message = format!("cannot read {origin}{}: {}", of_key(key, place), in_words(&error));
                findings.error(place, message, hint);
                return None;
            }
        };
        if place.is_some() && is_world_readable(&path) {
            let hint = format!("chmod o-rwx {}", path.display());
            findings.warning(
                place,
                format!("everyone on this machine can read {origin}"),
                Some(hint),
            );
        }
        if bytes.len() as u64 > MAX_SECRET_BYTES {
            findings.error(
                place,
                format!("{origin} is too large for a secret (more than 64 KiB)"),
                None,
            );
            return None;
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => Secret::new(text),
            Err(error) => {
                // The bytes are a secret too.
                drop(zeroize::Zeroizing::new(error.into_bytes()));
                findings.error(place, format!("{origin} is not text"), None);
                return None;
            }
        };
        let trimmed = text.expose().trim_end_matches(['\r', '\n']);
        if trimmed.chars().any(char::is_control) {
            let hint = "it must hold the secret alone, on one line".to_owned();
            findings.error(
                place,
                format!("{origin} holds more than one line or a control character"),
                Some(hint),
            );
            return None;
        }
        let secret = Secret::new(trimmed.to_owned());
        (!secret.is_empty()).then_some(Found { secret, origin })
    }

    /// Whether a file exists, can be read and holds what it should.
    pub(super) fn pem(&self, path: &Path, expected: Pem, place: &Place, findings: &mut Findings) {
        if self.assumed {
            return;
        }
        let bytes = match read_limited(path, MAX_PEM_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => {
                let hint = (error.kind() == io::ErrorKind::PermissionDenied)
                    .then(|| "the user that runs pipepost must be able to read it".to_owned());
                findings.error(
                    Some(place),
                    format!("cannot read {}: {}", path.display(), in_words(&error)),
                    hint,
                );
                return;
            }
        };
        match expected {
            Pem::Certificates => {
                let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
                if certificates.map_or(true, |list| list.is_empty()) {
                    let hint =
                        "it must hold PEM blocks that begin with -----BEGIN CERTIFICATE-----".to_owned();
                    findings.error(
                        Some(place),
                        format!("no certificate in {}", path.display()),
                        Some(hint),
                    );
                }
            }
            Pem::Key => {
                let bytes = zeroize::Zeroizing::new(bytes);
                if PrivateKeyDer::from_pem_slice(&bytes).is_err() {
                    let hint = "it must hold a PEM block such as -----BEGIN PRIVATE KEY-----, not encrypted";
                    let message = format!("no private key in {}", path.display());
                    findings.error(Some(place), message, Some(hint.to_owned()));
                }
                if is_world_readable(path) {
                    let hint = format!("chmod o-rwx {}", path.display());
                    let message = format!("everyone on this machine can read the key {}", path.display());
                    findings.warning(Some(place), message, Some(hint));
                }
            }
        }
    }
}

fn is_among_credentials(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name == super::load::CREDENTIALS)
}

fn of_key(key: &str, place: Option<&Place>) -> String {
    place.map_or_else(String::new, |_| format!(" of {key:?}"))
}

pub(super) fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_world_readable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
