//! A certificate authority of the sandbox's own and a certificate under it.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// A server configuration and the certificate of the authority that vouches for it, as PEM.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    pub(super) ca_pem: String,
}

/// Makes an authority and a certificate for these names and addresses.
pub(super) fn make(names: &[String], address: IpAddr) -> Result<Identity, String> {
    let text = |e: rcgen::Error| format!("cannot make a certificate: {e}");
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "pipepost sandbox authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().map_err(text)?).map_err(text)?;

    let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !address.is_unspecified() {
        all.push(address.to_string());
    }
    all.extend_from_slice(names);
    all.sort();
    all.dedup();
    let key = KeyPair::generate().map_err(text)?;
    let mut leaf = CertificateParams::new(all).map_err(text)?;
    leaf.distinguished_name
        .push(DnType::CommonName, "pipepost sandbox");
    leaf.use_authority_key_identifier_extension = true;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &authority).map_err(text)?;

    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![leaf.der().clone()], key)
        })
        .map_err(|e| format!("cannot use the made certificate: {e}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity {
        config: Arc::new(config),
        ca_pem: authority.pem(),
    })
}
