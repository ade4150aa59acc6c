//! Why no answer came: ureq's, rustls's and the system's errors in one vocabulary.

use std::fmt;
use std::io;

use rustls::CertificateError;

/// What happened, as far as it decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The configured address is none.
    BadAddress,
    /// The token has characters that no header can carry.
    BadToken,
    /// The name cannot be looked up.
    NameNotFound,
    /// Nothing listens there.
    Refused,
    /// No way to the address.
    Unreachable,
    /// No connection in time; nothing was sent.
    ConnectTimeout,
    /// The request could not be sent in time.
    SendTimeout,
    /// The request was sent; no answer in time.
    AnswerTimeout,
    /// The certificate is for another name.
    WrongName,
    /// The certificate is from an unknown issuer.
    UnknownIssuer,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// Any other failure of TLS.
    Tls,
    /// The connection broke off before an answer.
    Broken,
    /// What came is not HTTP, or its head is too long.
    NotHttp,
    /// The proxy did not connect.
    Proxy,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// Whether any other request would fail the same way, so that trying the next one is pointless.
    #[must_use]
    pub const fn concerns_every_request(self) -> bool {
        !matches!(
            self,
            Self::AnswerTimeout | Self::SendTimeout | Self::Broken | Self::Other
        )
    }
}

/// A request that got no answer. `Display` is a sentence for a person, with the remedy and without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// What the library says, where that helps.
    detail: String,
}

impl std::error::Error for Failure {}

impl Failure {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(super) fn bad_address() -> Self {
        Self::new(FailureKind::BadAddress, "")
    }

    /// Classifies what the library reports. The tests drive the library itself, so that a release that reports
    /// otherwise fails them.
    pub(super) fn classify(error: &ureq::Error) -> Self {
        use ureq::{Error, Timeout};
        let kind = match error {
            Error::BadUri(_) | Error::Http(_) | Error::RequireHttpsOnly(_) => FailureKind::BadAddress,
            Error::HostNotFound => FailureKind::NameNotFound,
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => FailureKind::ConnectTimeout,
            Error::Timeout(Timeout::SendRequest | Timeout::SendBody) => FailureKind::SendTimeout,
            Error::Timeout(_) => FailureKind::AnswerTimeout,
            Error::Rustls(error) => of_tls(error),
            Error::Tls(_) | Error::TlsRequired | Error::Pem(_) => FailureKind::Tls,
            Error::ConnectionFailed => FailureKind::Unreachable,
            Error::ConnectProxyFailed(_) | Error::InvalidProxyUrl => FailureKind::Proxy,
            Error::Protocol(_) | Error::LargeResponseHeader(..) => FailureKind::NotHttp,
            Error::Io(error) => of_io(error),
            _ => FailureKind::Other,
        };
        let detail = match kind {
            FailureKind::Tls | FailureKind::Other | FailureKind::Unreachable => error.to_string(),
            _ => String::new(),
        };
        Self { kind, detail }
    }
}

fn of_tls(error: &rustls::Error) -> FailureKind {
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                FailureKind::WrongName
            }
            // A wrong signature means an issuer that only has the name of a trusted one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => FailureKind::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => FailureKind::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                FailureKind::NotYetValid
            }
            _ => FailureKind::Tls,
        },
        _ => FailureKind::Tls,
    }
}

fn of_io(error: &io::Error) -> FailureKind {
    if let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return of_tls(tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => FailureKind::Refused,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => FailureKind::Unreachable,
        io::ErrorKind::TimedOut => FailureKind::ConnectTimeout,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => FailureKind::Broken,
        _ => FailureKind::Other,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.kind {
            FailureKind::BadAddress => "The address of the API is not one. Check pipedrive.api_url.",
            FailureKind::BadToken => {
                "The access token has characters that cannot be sent: the file probably holds something else."
            }
            FailureKind::NameNotFound => {
                "The name of the API's server cannot be looked up. Check the network, its DNS and pipedrive.api_url."
            }
            FailureKind::Refused => {
                "The API's server refuses the connection: nothing listens there. Check pipedrive.api_url."
            }
            FailureKind::Unreachable => "There is no way to the API's server. Check the network.",
            FailureKind::ConnectTimeout => "No connection to the API's server in time. Check the network.",
            FailureKind::SendTimeout => "The request could not be sent in time. It is sent again.",
            FailureKind::AnswerTimeout => {
                "Pipedrive did not answer in time. It is sent again; a repeat does no harm."
            }
            FailureKind::WrongName => {
                "The server's certificate is for another name: it is not the API's server. Check pipedrive.api_url \
                 and the network."
            }
            FailureKind::UnknownIssuer => {
                "The server's certificate comes from an unknown issuer: a proxy may read along. If it is your own \
                 server, set pipedrive.ca_file."
            }
            FailureKind::Expired => {
                "The server's certificate has expired, or the clock of this machine is wrong. Check the clock first."
            }
            FailureKind::NotYetValid => {
                "The server's certificate is not valid yet: the clock of this machine is probably behind. Check it."
            }
            FailureKind::Tls => "No secure connection to the API's server is possible.",
            FailureKind::Broken => {
                "The connection broke off before an answer came. It is sent again; a repeat does no harm."
            }
            FailureKind::NotHttp => {
                "What answers at the API's address does not speak HTTP. Check pipedrive.api_url."
            }
            FailureKind::Proxy => {
                "The proxy does not connect to the API's server. Check the proxy's address."
            }
            FailureKind::Other => "The request failed. It is sent again.",
        };
        f.write_str(words)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}
