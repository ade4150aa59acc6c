//! The certificate: from files, or made here on the first start; replaced without a restart.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use log::{info, warn};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::clock;
use crate::domain::Timestamp;

/// How long a self-signed certificate lasts. Whoever pins it must do so again afterwards.
const LIFETIME_YEARS: i32 = 10;
/// A self-signed certificate is made anew this long before its end, at a start or reload.
const RENEW_BEFORE_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The operating system refused.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried: a verb, e.g. `read`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no {expected} in PEM form", .path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
    },
    /// Certificate and key cannot be used.
    #[error("cannot use the certificate {} with the key {}: {reason}", .certificate.display(), .key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// Only one of the two files is configured.
    #[error("listener.certificate_file and listener.key_file belong together: one is missing")]
    HalfConfigured,
    /// No certificate could be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Make(String),
}

enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    SelfSigned { directory: PathBuf, names: Vec<String> },
}

/// The certificate in use.
pub(super) struct Certificates {
    source: Source,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.path().display())
    }
}

impl Certificates {
    /// From configured files.
    pub(super) fn from_files(certificate: PathBuf, key: PathBuf) -> Result<Arc<Self>, CertificateError> {
        Self::new(Source::Files { certificate, key })
    }

    /// From `<state_dir>/tls`, made when there is none that fits.
    pub(super) fn self_signed(state_dir: &Path, names: Vec<String>) -> Result<Arc<Self>, CertificateError> {
        let directory = state_dir.join("tls");
        Self::new(Source::SelfSigned { directory, names })
    }

    fn new(source: Source) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(source.load(&provider)?);
        Ok(Arc::new(Self {
            source,
            provider,
            current,
        }))
    }

    /// Reads the certificate again. On an error the old one stays in use.
    pub(super) fn reload(&self) -> Result<(), CertificateError> {
        let new = self.source.load(&self.provider)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The file of the certificate in use.
    pub(super) fn path(&self) -> PathBuf {
        match &self.source {
            Source::Files { certificate, .. } => certificate.clone(),
            Source::SelfSigned { directory, .. } => directory.join(CERTIFICATE),
        }
    }

    /// Whether it was made here.
    pub(super) const fn is_self_signed(&self) -> bool {
        matches!(self.source, Source::SelfSigned { .. })
    }

    /// TLS 1.2 and newer, HTTP/1.1, this certificate.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| CertificateError::Make(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.current.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

const CERTIFICATE: &str = "self-signed.pem";
const KEY: &str = "self-signed.key";

impl Source {
    fn load(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, CertificateError> {
        match self {
            Self::Files { certificate, key } => read(certificate, key, provider),
            Self::SelfSigned { directory, names } => {
                let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
                let why = match read(&certificate, &key, provider) {
                    Ok(pair) => match fits(&certificate, names, clock::now()) {
                        Ok(()) => return Ok(pair),
                        Err(why) => why,
                    },
                    Err(_) if !certificate.exists() => "there was none".to_owned(),
                    Err(error) => error.to_string(),
                };
                make(directory, names)?;
                let path = certificate.display().to_string();
                warn!(path = path.as_str(), reason = why.as_str();
                    "Made a self-signed certificate. Pipedrive does not accept one: let the tunnel end TLS and trust \
                     this file there, or configure listener.certificate_file");
                read(&certificate, &key, provider)
            }
        }
    }
}

fn read(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read_file(certificate)?)
        .collect::<Result<_, _>>()
        .unwrap_or_default();
    if chain.is_empty() {
        return Err(CertificateError::NotPem {
            path: certificate.to_owned(),
            expected: "certificate",
        });
    }
    let private = PrivateKeyDer::from_pem_slice(&read_file(key)?).map_err(|_| CertificateError::NotPem {
        path: key.to_owned(),
        expected: "private key",
    })?;
    let pair =
        CertifiedKey::from_der(chain, private, provider).map_err(|error| CertificateError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
    Ok(Arc::new(pair))
}

fn read_file(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, CertificateError> {
    let bytes = fs::read(path).map_err(|source| io_error("read", path, source))?;
    Ok(zeroize::Zeroizing::new(bytes))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> CertificateError {
    CertificateError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The first lines of a certificate made here, above the PEM block, so that its end and its names are known
/// without taking X.509 apart.
fn heading(names: &[String], end: Timestamp) -> String {
    format!(
        "pipepost: self-signed, not for Pipedrive itself\nnames: {}\nexpires: {}\n",
        names.join(" "),
        end.unix_ms()
    )
}

fn fits(certificate: &Path, names: &[String], now: Timestamp) -> Result<(), String> {
    let text = fs::read_to_string(certificate).map_err(|error| error.to_string())?;
    let line = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    if line("names:") != Some(names.join(" ").as_str()) {
        return Err("its names have changed".to_owned());
    }
    let end: Option<i64> = line("expires:").and_then(|end| end.parse().ok());
    match end {
        Some(end) if end > now.plus_ms(RENEW_BEFORE_MS).unix_ms() => Ok(()),
        _ => Err("it is about to expire".to_owned()),
    }
}

fn make(directory: &Path, names: &[String]) -> Result<(), CertificateError> {
    let failed = |error: rcgen::Error| CertificateError::Make(error.to_string());
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "pipepost self-signed");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    // Without a clock battery the first start may lie in the past: the beginning is a date that any clock
    // has passed once it is set, and the end is counted from the release at the earliest.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let year = end_year(clock::now());
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let end = jiff::civil::date(i16::try_from(year).unwrap_or(i16::MAX), 1, 1)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .map_err(|error| CertificateError::Make(error.to_string()))?;
    let end = Timestamp::from_unix_ms(end.timestamp().as_millisecond());
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;

    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(|source| io_error("create", directory, source))?;
    let secret = zeroize::Zeroizing::new(key.serialize_pem());
    write(&directory.join(KEY), secret.as_bytes(), 0o600)?;
    let public = format!("{}{}", heading(names, end), certificate.pem());
    write(&directory.join(CERTIFICATE), public.as_bytes(), 0o644)?;
    info!(path = directory.display().to_string().as_str(); "Wrote certificate and key");
    Ok(())
}

fn end_year(now: Timestamp) -> i32 {
    let year = jiff::Timestamp::from_millisecond(now.unix_ms())
        .map_or(0, |now| i32::from(now.to_zoned(jiff::tz::TimeZone::UTC).year()));
    // X.509's own limit for a year is 9999.
    year.clamp(2026, 9000) + LIFETIME_YEARS
}

/// Writes a file so that after a power cut there is the old one or the whole new one.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertificateError> {
    let new = path.with_extension("new");
    let written = || -> io::Result<()> {
        if new.exists() {
            fs::remove_file(&new)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent()
            .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    written().map_err(|source| io_error("write", path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names() -> Vec<String> {
        vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
    }

    fn current(certificates: &Certificates) -> Vec<u8> {
        certificates.current.read().unwrap().cert[0].to_vec()
    }

    #[test]
    fn the_first_start_makes_a_certificate_whose_key_only_the_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let first = Certificates::self_signed(dir.path(), names()).unwrap();
        assert!(first.is_self_signed());
        let mode = fs::metadata(dir.path().join("tls/self-signed.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Certificates::self_signed(dir.path(), names()).unwrap();
        assert_eq!(current(&first), current(&second), "a second start keeps it");
    }

    #[test]
    fn a_self_signed_certificate_is_made_anew_for_other_names_before_its_end_and_when_broken() {
        let dir = tempfile::tempdir().unwrap();
        let first = Certificates::self_signed(dir.path(), names()).unwrap();
        let path = first.path();
        let mut other = names();
        other.push("sms.example".to_owned());
        let second = Certificates::self_signed(dir.path(), other.clone()).unwrap();
        assert_ne!(current(&first), current(&second));

        let before = current(&second);
        let text = fs::read_to_string(&path).unwrap();
        let soon = clock::now().plus_ms(RENEW_BEFORE_MS - 60_000).unix_ms();
        let old: Vec<String> = text
            .lines()
            .map(|line| {
                if line.starts_with("expires:") {
                    format!("expires: {soon}")
                } else {
                    line.to_owned()
                }
            })
            .collect();
        fs::write(&path, old.join("\n")).unwrap();
        second.reload().unwrap();
        let third = current(&second);
        assert_ne!(third, before);
        assert!(fits(&path, &other, clock::now()).is_ok());

        fs::write(dir.path().join("tls/self-signed.key"), "nothing").unwrap();
        second.reload().unwrap();
        assert_ne!(current(&second), third);
    }

    #[test]
    fn a_reload_takes_the_new_files_and_keeps_the_old_ones_on_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        make(&a, &names()).unwrap();
        make(&b, &names()).unwrap();
        let (certificate, key) = (a.join(CERTIFICATE), a.join(KEY));
        let certificates = Certificates::from_files(certificate.clone(), key.clone()).unwrap();
        let first = current(&certificates);

        fs::copy(b.join(CERTIFICATE), &certificate).unwrap();
        let error = certificates.reload().unwrap_err().to_string();
        assert!(error.starts_with("cannot use the certificate"), "{error}");
        assert_eq!(current(&certificates), first);

        fs::write(&certificate, "nonsense").unwrap();
        let error = certificates.reload().unwrap_err().to_string();
        assert!(error.ends_with("holds no certificate in PEM form"), "{error}");
        assert_eq!(current(&certificates), first);

        fs::copy(b.join(CERTIFICATE), &certificate).unwrap();
        fs::copy(b.join(KEY), &key).unwrap();
        certificates.reload().unwrap();
        assert_ne!(current(&certificates), first);
    }

    #[test]
    fn a_gateway_without_a_clock_still_makes_a_certificate_that_lasts() {
        assert_eq!(end_year(Timestamp::from_unix_ms(0)), 2036);
        assert_eq!(end_year(Timestamp::from_unix_ms(i64::MAX)), 2036);
    }
}
