//! The library's errors in words, with what to do: the one place that knows them.

use std::io;

use rumqttc::TlsError;
use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError, StateError};
use rustls::CertificateError;

use crate::config::{Broker, Protocol};

/// Why a connection could not be made or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// For a person, with the remedy.
    pub(super) reason: String,
    /// Another client uses the same client id: reconnecting at once would only kick it in turn.
    pub(super) taken_over: bool,
    /// The broker closed the connection without a word.
    pub(super) closed: bool,
    /// A packet of this size came, larger than announced: it comes again until it is read.
    pub(super) oversize: Option<usize>,
}

impl Failure {
    pub(super) fn because(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            taken_over: false,
            closed: false,
            oversize: None,
        }
    }

    /// Brokers that do not say so (mosquitto 2.0) only close the connection of a client whose id another one uses.
    pub(super) fn suspect_twin(&mut self, client_id: &str) {
        self.taken_over = true;
        self.reason = format!(
            "the broker closes each connection soon after it was made: does another client use the client id \
             {client_id:?}? See the broker's log, and give each gateway its own `client_id`"
        );
    }
}

/// Puts an error of the library into words.
pub(super) fn classify(error: &ConnectionError, broker: &Broker) -> Failure {
    let mut failure = Failure::because("");
    let place = format!("{}:{}", broker.host, broker.port);
    failure.reason = match error {
        ConnectionError::Timeout(_) => {
            format!("{place} does not answer: check `url` and the network between here and the broker")
        }
        ConnectionError::Io(error) => io_words(error, &place),
        ConnectionError::Tls(TlsError::Io(error)) => match tls_cause(error) {
            Some(error) => tls_words(error, &place),
            None if is_closed(error.kind()) => format!(
                "{place} closed the connection during the TLS handshake: does that port speak TLS, and does the \
                 broker want a client certificate?"
            ),
            None => io_words(error, &place),
        },
        ConnectionError::Tls(TlsError::TLS(error)) => tls_words(error, &place),
        ConnectionError::Tls(error) => format!("TLS with {place} cannot be set up: {error}"),
        ConnectionError::ConnectionRefused(code) => refused_words(*code, broker),
        ConnectionError::NotConnAck(_) => {
            format!(
                "{place} does not speak MQTT {}: check the port in `url`",
                broker.protocol.name()
            )
        }
        ConnectionError::RequestsDone => "the driver has stopped".to_owned(),
        ConnectionError::MqttState(error) => match error {
            StateError::ServerDisconnect {
                reason_code: DisconnectReasonCode::SessionTakenOver,
                ..
            } => {
                failure.taken_over = true;
                "another client connected with the same client id and took the session over: give each gateway \
                 its own `client_id`"
                    .to_owned()
            }
            StateError::ServerDisconnect { reason_code, .. } => disconnect_words(*reason_code),
            StateError::AwaitPingResp => format!("{place} stopped answering: it is asked again"),
            StateError::Deserialization(PacketError::PayloadSizeLimitExceeded { pkt_size, .. }) => {
                failure.oversize = Some(*pkt_size);
                let max = broker.max_packet_size;
                format!(
                    "the broker sent a packet of {pkt_size} bytes although {max} is the limit: raise \
                     `max_packet_size`"
                )
            }
            StateError::Deserialization(PacketError::Io(error)) | StateError::Io(error) => {
                io_words(error, &place)
            }
            StateError::ConnectionAborted => {
                failure.closed = true;
                format!("{place} closed the connection: see the broker's log")
            }
            StateError::Deserialization(error) => {
                format!(
                    "{place} sent something that is not MQTT {} ({error}): check the port in `url`",
                    broker.protocol.name()
                )
            }
            StateError::OutgoingPacketTooLarge { pkt_size, max } => {
                format!("a message of {pkt_size} bytes is larger than the {max} that the broker takes")
            }
            StateError::ConnFail { reason } => refused_words(*reason, broker),
            error => format!("{place} broke the protocol: {error}"),
        },
    };
    failure
}

fn io_words(error: &io::Error, place: &str) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {place}: start the broker there, or correct `url`")
        }
        kind if is_closed(kind) => format!("{place} closed the connection: see the broker's log"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("{place} cannot be reached: check the network")
        }
        io::ErrorKind::TimedOut => format!("{place} does not answer: check `url` and the network"),
        _ if error.to_string().contains("lookup address") => {
            format!("the name in {place} is not known: check `url` and the network's name service")
        }
        _ => match tls_cause(error) {
            Some(error) => tls_words(error, place),
            None => format!("the connection to {place} failed: {error}"),
        },
    }
}

fn is_closed(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_words(error: &rustls::Error, place: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {place} has expired: renew it (is this machine's clock right?)")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of {place} is not valid yet: is this machine's clock right?")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "the certificate of {place} is for another name: put the name that it was made for into `url`"
            ),
            CertificateError::UnknownIssuer => format!(
                "the certificate of {place} comes from an authority that is not trusted: set `ca_file` to its \
                 certificate"
            ),
            reason => format!("the certificate of {place} cannot be trusted: {reason:?}"),
        },
        rustls::Error::InvalidMessage(_) => {
            format!("{place} does not speak TLS: check the port, or write mqtt:// in `url`")
        }
        rustls::Error::AlertReceived(alert) => format!(
            "{place} refused the TLS connection ({alert:?}): does it want a client certificate \
             (`certificate_file`, `key_file`)?"
        ),
        error => format!("TLS with {place} failed: {error}"),
    }
}

fn refused_words(code: ConnectReturnCode, broker: &Broker) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => match &broker.username {
            Some(user) => format!(
                "the broker refused the user {user:?}: check `username`, `password_file` and the broker's password \
                 file"
            ),
            None => "the broker wants a user name: set `username` and `password_file`".to_owned(),
        },
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
            match broker.protocol {
                Protocol::V5 => "the broker does not speak MQTT 5: set `protocol = \"3.1.1\"`, which can lose more, or use \
                                 a newer broker",
                Protocol::V4 => "the broker does not speak MQTT 3.1.1: leave `protocol` out",
            }
            .to_owned()
        }
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            "the broker does not accept the client id: set another `client_id`".to_owned()
        }
        ConnectReturnCode::ServerUnavailable
        | ConnectReturnCode::ServiceUnavailable
        | ConnectReturnCode::ServerBusy => "the broker is busy or starting: it is asked again".to_owned(),
        ConnectReturnCode::QuotaExceeded | ConnectReturnCode::ConnectionRateExceeded => {
            "the broker takes no more connections now: it is asked again".to_owned()
        }
        ConnectReturnCode::Banned => "the broker has banned this client: ask its operator".to_owned(),
        ConnectReturnCode::UseAnotherServer | ConnectReturnCode::ServerMoved => {
            "the broker has moved: put the new address into `url`".to_owned()
        }
        code => format!("the broker refused the connection ({code:?}): see its log"),
    }
}

fn disconnect_words(code: DisconnectReasonCode) -> String {
    match code {
        DisconnectReasonCode::ServerShuttingDown => "the broker is shutting down".to_owned(),
        DisconnectReasonCode::KeepAliveTimeout => {
            "the broker heard nothing for too long: is the network or this machine overloaded?".to_owned()
        }
        DisconnectReasonCode::NotAuthorized => {
            "the broker withdrew the permission: check its access list".to_owned()
        }
        DisconnectReasonCode::PacketTooLarge => "a packet was larger than the broker takes".to_owned(),
        DisconnectReasonCode::AdministrativeAction => "the broker's operator ended the connection".to_owned(),
        code => format!("the broker ended the connection ({code:?}): see its log"),
    }
}
