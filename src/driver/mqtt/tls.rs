//! TLS towards a broker: rustls with ring. The files are read for every connection, so that a renewed certificate
//! needs no restart.

use std::path::Path;
use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::BrokerTls;

/// The transport of a broker.
///
/// Fails in words when a file cannot be used.
pub(super) fn transport(tls: Option<&BrokerTls>) -> Result<Transport, String> {
    let Some(tls) = tls else {
        return Ok(Transport::tcp());
    };
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            for certificate in certificates("ca_file", file)? {
                roots.add(certificate).map_err(|error| {
                    format!(
                        "`ca_file` {} holds a certificate that cannot be used: {error}",
                        file.display()
                    )
                })?;
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("certificate_file", certificate)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("`key_file` {} cannot be read: {error}", key.display()))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| {
                format!(
                    "`certificate_file` {} and `key_file` {} cannot be used: {error}",
                    certificate.display(),
                    key.display()
                )
            })?
        }
    };
    Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(
        config,
    ))))
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("`{key}` {} cannot be read: {error}", file.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(|error| unreadable(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&error))?;
    if certificates.is_empty() {
        return Err(unreadable(&"there is no certificate in it"));
    }
    Ok(certificates)
}
