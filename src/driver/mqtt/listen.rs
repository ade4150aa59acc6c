//! A look at what arrives on a broker, beside the daemon: in a session of its own that the broker forgets with the
//! connection, with QoS 0, so that nothing is acknowledged or queued that the daemon should have.

use log::debug;
use rumqttc::Outgoing as Written;
use rumqttc::v5::Event;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet as Mqtt, SubscribeReasonCode};
use tokio::sync::mpsc;

use super::failure::classify;
use super::library::{self, Session};
use super::tls;
use crate::config::Broker;

/// What was heard.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The subscriptions stand: from now on everything is heard.
    Listening,
    /// A packet.
    Packet {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
        /// The broker kept it from before.
        retained: bool,
    },
}

/// Listens until `heard` is dropped.
///
/// # Errors
/// Why the connection could not be made or ended, in words with the remedy.
pub async fn listen(broker: &Broker, filters: &[String], heard: mpsc::Sender<Heard>) -> Result<(), String> {
    let random = getrandom::u64().map_err(|error| format!("there is no randomness: {error}"))?;
    let client_id = format!("pipepost-listen-{random:x}");
    let session = Session {
        client_id: &client_id,
        persistent: false,
        will: None,
        requests: 8,
    };
    let (client, mut library) = library::new(broker, &session);
    library.set_transport(tls::transport(broker.tls.as_ref())?);
    loop {
        let event = tokio::select! {
            event = library.poll() => event,
            () = heard.closed() => return Ok(()),
        };
        let packet = match event.map_err(|error| classify(&error, broker).reason)? {
            Event::Incoming(packet) => packet,
            Event::Outgoing(Written::Disconnect) => return Ok(()),
            Event::Outgoing(_) => continue,
        };
        let news = match packet {
            Mqtt::ConnAck(_) => {
                let requests = filters
                    .iter()
                    .map(|filter| Filter::new(filter.clone(), QoS::AtMostOnce));
                if client.subscribe(requests.collect()).is_err() {
                    return Err(format!("the filters {filters:?} cannot be subscribed to"));
                }
                continue;
            }
            Mqtt::SubAck(ack) => {
                let refused = ack
                    .return_codes
                    .iter()
                    .zip(filters)
                    .find(|(code, _)| !matches!(code, SubscribeReasonCode::Success(_)));
                if let Some((_, filter)) = refused {
                    return Err(format!(
                        "the broker refused the subscription to {filter:?}: give a --filter that its access list allows"
                    ));
                }
                Heard::Listening
            }
            Mqtt::Publish(publish) => Heard::Packet {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
                retained: publish.retain,
            },
            other => {
                debug!(packet = format!("{other:?}").as_str(); "Not for people");
                continue;
            }
        };
        if heard.send(news).await.is_err() {
            return Ok(());
        }
    }
}
