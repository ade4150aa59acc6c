//! One client's connection: reads its packets, writes what waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::{QoS, v5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{self, Connect, Message, Packet, Received, Version, Violation};
use super::encode::encode;
use super::faults::Refuse;
use super::state::{Attached, Shared};
use v5::DisconnectReasonCode as Reason;

/// A client has this long for its CONNECT.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a parting word may take to write.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Answers that wait to be written before reading pauses.
const MOST_ANSWERS: usize = 256;
/// PUBLISH packets per write.
const BATCH: usize = 32;

/// How a connection ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// DISCONNECT came.
    Clean,
    /// DISCONNECT came and asks for the will.
    CleanWithWill,
    /// The client went without a word, or was cut off.
    Cut,
    /// No packet for one and a half times the keep-alive time.
    KeepAlive,
    /// A second client uses the same id; that one's attachment has dealt with the will.
    TakenOver,
    /// The broker stops.
    Stopping,
    /// The client broke the protocol.
    Violation(Reason),
}

impl End {
    fn publishes_will(&self) -> bool {
        !matches!(self, End::Clean)
    }

    fn goodbye(&self) -> Option<Reason> {
        match self {
            End::Clean | End::CleanWithWill | End::Cut => None,
            End::KeepAlive => Some(Reason::KeepAliveTimeout),
            End::TakenOver => Some(Reason::SessionTakenOver),
            End::Stopping => Some(Reason::ServerShuttingDown),
            End::Violation(code) => Some(*code),
        }
    }
}

/// What others hold of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) client_id: String,
    pub(super) version: Version,
    /// Something is to be written.
    pub(super) wake: Notify,
    answers: Mutex<VecDeque<Packet>>,
    ended: watch::Sender<Option<End>>,
}

impl Connection {
    pub(super) fn new(number: u64, client_id: String, version: Version) -> Self {
        Self {
            number,
            client_id,
            version,
            wake: Notify::new(),
            answers: Mutex::new(VecDeque::new()),
            ended: watch::Sender::new(None),
        }
    }

    /// Asks the connection's task to end.
    pub(super) fn end(&self, how: End) {
        self.ended.send_replace(Some(how));
    }

    fn answer(&self, packet: Packet) {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(packet);
        self.wake.notify_one();
    }

    fn answers_waiting(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take_answers(&self) -> VecDeque<Packet> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn asked_to_end(&self) -> End {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(End::Cut),
            Err(_) => End::Cut,
        }
    }
}

/// Serves one client until it ends.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let mut closings = shared.faults.closings();
    // Small packets go out at once; an error here only costs latency.
    drop(stream.set_nodelay(true));
    let (read, write) = stream.into_split();
    let mut reader = Reader {
        read,
        buffer: BytesMut::new(),
        waiting: VecDeque::new(),
    };
    let mut writer = Writer {
        write,
        buffer: BytesMut::new(),
    };

    let attached = tokio::select! {
        attached = hello(&shared, &mut reader, &mut writer) => attached,
        () = shared.stopped() => None,
        _ = closings.changed() => None,
    };
    let Some(Hello { attached, keep_alive }) = attached else {
        return;
    };
    let Attached {
        connection,
        session_present,
        assigned,
    } = attached;
    connection.answer(Packet::ConnAck {
        session_present,
        assigned,
        receive_maximum: shared.options.receive_maximum,
        max_packet: shared.options.max_packet,
    });

    let end = tokio::select! {
        end = reader.run(&shared, &connection, keep_alive) => end,
        end = writer.run(&shared, &connection) => end,
        end = connection.asked_to_end() => end,
        () = shared.stopped() => End::Stopping,
        _ = closings.changed() => End::Cut,
    };
    log::debug!(client = connection.client_id, end:? = end; "Simulated broker: connection ended");
    shared.detach(&connection, end.publishes_will());
    if let Some(reason) = end.goodbye()
        && !shared.faults.is_frozen()
    {
        // The client may be gone or may not read: then it goes without the reason.
        drop(timeout(GOODBYE_WITHIN, writer.goodbye(&connection, reason)).await);
    }
}

struct Hello {
    attached: Attached,
    keep_alive: Option<Duration>,
}

/// Waits for CONNECT and decides on it. `None`: the connection is to be closed.
async fn hello(shared: &Arc<Shared>, reader: &mut Reader, writer: &mut Writer) -> Option<Hello> {
    shared.faults.thawed().await;
    let first = timeout(CONNECT_WITHIN, reader.connect(shared.options.max_packet)).await;
    // The freeze may have come with the packet.
    shared.faults.thawed().await;
    let connect = match first {
        Ok(Ok(Some(connect))) => connect,
        Ok(Ok(None)) | Err(_) => return None,
        Ok(Err(violation)) => {
            log::debug!(why = violation.why; "Simulated broker: refused a connection");
            shared.count(|stats| stats.violations += 1);
            if violation.code == Reason::ImplementationSpecificError {
                // Every version understands the 3.1.1 form of "unacceptable protocol version".
                writer
                    .refuse(Version::V4, v5::ConnectReturnCode::UnsupportedProtocolVersion)
                    .await;
            }
            return None;
        }
    };
    let refusal = match shared.faults.refusal() {
        Refuse::No => shared.refusal(&connect),
        Refuse::Close => return None,
        Refuse::Unavailable => Some(v5::ConnectReturnCode::ServerUnavailable),
        Refuse::NotAuthorized => Some(v5::ConnectReturnCode::NotAuthorized),
    };
    if let Some(code) = refusal {
        writer.refuse(connect.version, code).await;
        return None;
    }
    let keep_alive =
        (connect.keep_alive > 0).then(|| Duration::from_millis(u64::from(connect.keep_alive) * 1500));
    Some(Hello {
        attached: shared.attach(*connect),
        keep_alive,
    })
}

struct Reader {
    read: OwnedReadHalf,
    buffer: BytesMut,
    /// Publishes that wait for room in somebody's queue.
    waiting: VecDeque<(Message, u16)>,
}

impl Reader {
    async fn connect(&mut self, max_packet: u32) -> Result<Option<Box<Connect>>, Violation> {
        loop {
            match codec::decode(None, &mut self.buffer, max_packet)? {
                Some(Received::Connect(connect)) => return Ok(Some(connect)),
                Some(_) => return Ok(None),
                None => {}
            }
            if !matches!(self.read.read_buf(&mut self.buffer).await, Ok(1..)) {
                return Ok(None);
            }
        }
    }

    async fn run(
        &mut self,
        shared: &Arc<Shared>,
        connection: &Arc<Connection>,
        keep_alive: Option<Duration>,
    ) -> End {
        let mut last_heard = Instant::now();
        loop {
            if shared.faults.is_frozen() {
                shared.faults.thawed().await;
                last_heard = Instant::now();
            }
            // Registered before the queues are looked at, so that no wake-up is missed in between.
            let room = shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            self.route_waiting(shared, connection);

            let may_read = self.may_read(shared, connection);
            if may_read {
                match codec::decode(
                    Some(connection.version),
                    &mut self.buffer,
                    shared.options.max_packet,
                ) {
                    Ok(Some(packet)) => match self.handle(shared, connection, packet) {
                        Ok(None) => continue,
                        Ok(Some(end)) => return end,
                        Err(violation) => return thrown_out(shared, connection, &violation),
                    },
                    Ok(None) => {}
                    Err(violation) => return thrown_out(shared, connection, &violation),
                }
            } else {
                last_heard = Instant::now();
            }
            let deadline = last_heard + keep_alive.unwrap_or(CONNECT_WITHIN);
            tokio::select! {
                count = self.read.read_buf(&mut self.buffer), if may_read => match count {
                    Ok(1..) => last_heard = Instant::now(),
                    _ => return End::Cut,
                },
                () = &mut room => {}
                () = sleep_until(deadline), if keep_alive.is_some() && may_read => {
                    if !shared.faults.is_frozen() {
                        return End::KeepAlive;
                    }
                }
            }
        }
    }

    /// A client of version 5 is held by its receive maximum and read on, because its PUBACKs may be what makes room. One
    /// that sends QoS 0 or 3.1.1 knows no such limit: it is not read while too much of it waits.
    fn may_read(&self, shared: &Shared, connection: &Connection) -> bool {
        if connection.answers_waiting() >= MOST_ANSWERS {
            return false;
        }
        self.waiting.len() < usize::from(shared.options.receive_maximum)
            || (connection.version == Version::V5
                && self
                    .waiting
                    .iter()
                    .all(|(message, _)| message.qos == QoS::AtLeastOnce))
    }

    /// Routes what waits, in order, and confirms it.
    fn route_waiting(&mut self, shared: &Shared, connection: &Connection) {
        while let Some((message, id)) = self.waiting.front() {
            let Ok(matched) = shared.route(message, Some(&connection.client_id)) else {
                return;
            };
            if message.qos == QoS::AtLeastOnce {
                if shared.faults.takes_puback() {
                    shared.count(|stats| stats.pubacks_dropped += 1);
                } else {
                    connection.answer(Packet::PubAck { id: *id, matched });
                    shared.count(|stats| stats.pubacks_sent += 1);
                }
            }
            self.waiting.pop_front();
        }
    }

    fn handle(
        &mut self,
        shared: &Shared,
        connection: &Connection,
        packet: Received,
    ) -> Result<Option<End>, Violation> {
        match packet {
            Received::Connect(_) => return Err(Violation::new(Reason::ProtocolError, "a second CONNECT")),
            Received::Publish { message, id, dup } => {
                shared.count(|stats| {
                    stats.received += 1;
                    stats.received_again += u64::from(dup);
                });
                if message.qos == QoS::AtLeastOnce
                    && connection.version == Version::V5
                    && self.waiting.len() >= usize::from(shared.options.receive_maximum)
                {
                    return Err(Violation::new(
                        Reason::ReceiveMaximumExceeded,
                        "receive maximum exceeded",
                    ));
                }
                self.waiting.push_back((message, id));
            }
            Received::PubAck { id } => shared.acknowledge(connection, id),
            Received::Subscribe {
                id,
                filters,
                identifier,
            } => {
                let grants = shared.subscribe(connection, filters, identifier);
                connection.answer(Packet::SubAck { id, grants });
            }
            Received::Unsubscribe { id, filters } => {
                let existed = shared.unsubscribe(connection, &filters);
                connection.answer(Packet::UnsubAck { id, existed });
            }
            Received::Ping => connection.answer(Packet::PingResp),
            Received::Disconnect { with_will, expiry } => {
                if expiry.is_some_and(|seconds| !shared.change_expiry(connection, seconds)) {
                    return Err(Violation::new(
                        Reason::ProtocolError,
                        "a session that was to end was prolonged",
                    ));
                }
                return Ok(Some(if with_will { End::CleanWithWill } else { End::Clean }));
            }
        }
        Ok(None)
    }
}

fn thrown_out(shared: &Shared, connection: &Connection, violation: &Violation) -> End {
    log::warn!(client = connection.client_id, why = violation.why; "Simulated broker: client broke the protocol");
    shared.count(|stats| stats.violations += 1);
    End::Violation(violation.code)
}

struct Writer {
    write: OwnedWriteHalf,
    /// What was not written yet; it survives a cancelled write, so that a packet is never cut in two.
    buffer: BytesMut,
}

impl Writer {
    async fn run(&mut self, shared: &Arc<Shared>, connection: &Arc<Connection>) -> End {
        loop {
            shared.faults.thawed().await;
            let answers = connection.take_answers();
            if !answers.is_empty() {
                // Reading may have paused for these.
                shared.room.notify_waiters();
            }
            let publishes = shared.collect(connection, BATCH);
            if answers.is_empty() && publishes.is_empty() {
                connection.wake.notified().await;
                continue;
            }
            for packet in answers.into_iter().chain(publishes) {
                if let Err(error) = encode(connection.version, packet, &mut self.buffer) {
                    log::warn!(client = connection.client_id, error; "Simulated broker: cannot write a packet");
                    return End::Cut;
                }
            }
            if self.flush().await.is_err() {
                return End::Cut;
            }
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        while !self.buffer.is_empty() {
            if self.write.write_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
        }
        self.write.flush().await
    }

    async fn refuse(&mut self, version: Version, code: v5::ConnectReturnCode) {
        if encode(version, Packet::Refuse(code), &mut self.buffer).is_ok() {
            // The client may be gone: then it does not need the answer.
            drop(timeout(GOODBYE_WITHIN, self.flush()).await);
        }
    }

    async fn goodbye(&mut self, connection: &Connection, reason: Reason) -> Result<(), String> {
        for packet in connection
            .take_answers()
            .into_iter()
            .chain([Packet::Disconnect(reason)])
        {
            encode(connection.version, packet, &mut self.buffer)?;
        }
        self.flush().await.map_err(|error| error.to_string())?;
        self.write.shutdown().await.map_err(|error| error.to_string())
    }
}
