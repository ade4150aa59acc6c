//! The broker's state: sessions, retained messages, and how a message finds its subscribers. One lock, never held
//! across an await.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::v5::mqttbytes::{QoS, v5};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::codec::{Connect, Message, Packet, Version, Will};
use super::connection::{Connection, End};
use super::faults::{Duplicate, Faults};
use super::session::{Delivery, Session, Subscription, lower};
use super::stats::Stats;
use super::{LocalMessage, Options, topic};

/// Everything that connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) faults: Faults,
    pub(super) stats: watch::Sender<Stats>,
    /// Woken whenever a queue became shorter.
    pub(super) room: Notify,
    /// Wakes the task that watches expiries.
    pub(super) deadlines: Notify,
    pub(super) stopping: watch::Sender<bool>,
    state: Mutex<State>,
    next_connection: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<String, Session>,
    retained: BTreeMap<Arc<str>, Message>,
    locals: Vec<Local>,
}

#[derive(Debug)]
struct Local {
    filter: String,
    to: mpsc::Sender<LocalMessage>,
}

/// Somebody's queue is full: the publisher has to wait.
#[derive(Debug)]
pub(super) struct Full;

/// What a new connection is told.
pub(super) struct Attached {
    pub(super) connection: Arc<Connection>,
    pub(super) session_present: bool,
    pub(super) assigned: Option<String>,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            faults: Faults::new(),
            stats: watch::Sender::new(Stats::default()),
            room: Notify::new(),
            deadlines: Notify::new(),
            stopping: watch::Sender::new(false),
            state: Mutex::new(State::default()),
            next_connection: AtomicU64::new(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide behind a second one; the state is valid between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        self.stats.send_modify(change);
    }

    /// Returns when the broker stops.
    pub(super) async fn stopped(&self) {
        // The sender lives in `self`, so this cannot fail.
        drop(self.stopping.subscribe().wait_for(|stop| *stop).await);
    }

    /// Whether the credentials are in order.
    pub(super) fn refusal(&self, connect: &Connect) -> Option<v5::ConnectReturnCode> {
        if let Some((user, password)) = &self.options.credentials {
            match &connect.login {
                None => return Some(v5::ConnectReturnCode::NotAuthorized),
                Some(login) if login.0 != *user || login.1 != *password => {
                    return Some(v5::ConnectReturnCode::BadUserNamePassword);
                }
                Some(_) => {}
            }
        }
        // Section 3.1.3.1 of 3.1.1: without an id there is nothing to keep a session under.
        (connect.version == Version::V4 && connect.client_id.is_empty() && !connect.clean_start)
            .then_some(v5::ConnectReturnCode::ClientIdentifierNotValid)
    }

    /// Gives the session to a new connection, taking it from an old one.
    pub(super) fn attach(&self, connect: Connect) -> Attached {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let assigned = connect.client_id.is_empty().then(|| format!("assigned-{number}"));
        let client_id = assigned.clone().unwrap_or(connect.client_id);
        let connection = Arc::new(Connection::new(number, client_id.clone(), connect.version));

        let mut state = self.lock();
        let mut old = state.sessions.remove(&client_id);
        let mut will = None;
        if let Some(session) = &mut old {
            if let Some(previous) = session.connection.take() {
                previous.end(End::TakenOver);
                session.suspend();
                self.count(|stats| stats.takeovers += 1);
                will = session.will.take();
                // Section 3.1.3.2.2: a delayed will is not sent when the session goes on.
                if !connect.clean_start && will.as_ref().is_some_and(|will| will.delay > 0) {
                    will = None;
                }
            } else if connect.clean_start {
                will = session.will.take();
            }
        }
        if connect.clean_start || self.faults.loses_sessions() {
            self.forget(old.take());
        }
        // 3.1.1 and 5.0 share the sessions, as mosquitto does.
        let session_present = old.is_some();
        let mut session = old.unwrap_or_else(|| Session::new(connect.version));
        session.version = connect.version;
        session.resume();
        session.connection = Some(connection.clone());
        session.receive_maximum = connect.receive_maximum;
        session.max_packet = connect.max_packet;
        session.expiry = connect.expiry;
        session.expires = None;
        session.will = connect.will;
        session.will_due = None;
        state.sessions.insert(client_id, session);
        if let Some(will) = will {
            self.publish_will(&mut state, &will);
        }
        self.count(|stats| {
            stats.connected += 1;
            stats.connections += 1;
        });
        Attached {
            connection,
            session_present,
            assigned,
        }
    }

    fn forget(&self, session: Option<Session>) {
        let lost = session.map_or(0, |session| session.pending());
        self.count(|stats| stats.lost_with_session += lost as u64);
        self.room.notify_waiters();
    }

    /// The connection is over. `wills` says whether its will is published.
    pub(super) fn detach(&self, connection: &Connection, with_will: bool) {
        self.count(|stats| stats.connections = stats.connections.saturating_sub(1));
        let mut state = self.lock();
        let Some(session) = state.sessions.get_mut(&connection.client_id) else {
            return;
        };
        if session
            .connection
            .as_ref()
            .is_none_or(|current| current.number != connection.number)
        {
            return;
        }
        session.connection = None;
        session.suspend();
        if !with_will {
            session.will = None;
        }
        let now = Instant::now();
        let delay = session
            .will
            .as_ref()
            .map_or(0, |will| will.delay)
            .min(session.expiry);
        let will = if delay == 0 { session.will.take() } else { None };
        if session.will.is_some() {
            session.will_due = Some(now + Duration::from_secs(delay.into()));
        }
        if session.expiry == 0 {
            let session = state.sessions.remove(&connection.client_id);
            self.forget(session);
        } else if session.expiry != u32::MAX {
            session.expires = Some(now + Duration::from_secs(session.expiry.into()));
        }
        if let Some(will) = will {
            self.publish_will(&mut state, &will);
        }
        drop(state);
        self.room.notify_waiters();
        self.deadlines.notify_one();
    }

    /// The session's new expiry from a DISCONNECT. `false`: a session that was to end cannot be prolonged.
    pub(super) fn change_expiry(&self, connection: &Connection, seconds: u32) -> bool {
        self.with_session(connection, |session| {
            if session.expiry == 0 && seconds != 0 {
                return false;
            }
            session.expiry = seconds;
            true
        })
        .unwrap_or(true)
    }

    /// Publishes due wills and ends expired sessions; returns when to look again.
    pub(super) fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut wills = Vec::new();
        for session in state.sessions.values_mut() {
            let due = session.will_due.is_some_and(|due| due <= now)
                || session.expires.is_some_and(|due| due <= now);
            if due && session.connection.is_none() {
                session.will_due = None;
                wills.extend(session.will.take());
            }
        }
        let expired: Vec<String> = state
            .sessions
            .iter()
            .filter(|(_, session)| session.expires.is_some_and(|due| due <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            let session = state.sessions.remove(&id);
            self.forget(session);
        }
        for will in wills {
            self.publish_will(&mut state, &will);
        }
        state
            .sessions
            .values()
            .flat_map(|session| [session.will_due, session.expires])
            .flatten()
            .min()
    }

    /// A will goes past the queues' bounds: its publisher is gone and cannot be slowed down.
    fn publish_will(&self, state: &mut State, will: &Will) {
        self.count(|stats| stats.wills += 1);
        // Forced, so nothing can be full.
        drop(self.deliver(state, &will.message, None, true));
    }

    /// Puts a message into the queues of all its subscribers, or into none. `Ok(false)`: nobody wants it.
    pub(super) fn route(&self, message: &Message, from: Option<&str>) -> Result<bool, Full> {
        self.deliver(&mut self.lock(), message, from, false)
    }

    fn deliver(
        &self,
        state: &mut State,
        message: &Message,
        from: Option<&str>,
        force: bool,
    ) -> Result<bool, Full> {
        let bound = self.options.queue_length;
        let mut targets = Vec::new();
        for (id, session) in &state.sessions {
            let Some(found) = session.matching(message, from == Some(id)) else {
                continue;
            };
            if found.qos == QoS::AtMostOnce && session.connection.is_none() {
                continue;
            }
            if session.queued() >= bound && !force {
                return Err(Full);
            }
            targets.push((id.clone(), found));
        }
        state.locals.retain(|local| !local.to.is_closed());
        let locals: Vec<_> = state
            .locals
            .iter()
            .filter(|local| topic::matches(&local.filter, &message.topic))
            .collect();
        if !force && locals.iter().any(|local| local.to.capacity() == 0) {
            return Err(Full);
        }
        let matched = !targets.is_empty() || !locals.is_empty();
        for local in locals {
            let copy = LocalMessage {
                topic: message.topic.to_string(),
                payload: message.payload.clone(),
                qos: message.qos,
                retain: message.retain,
            };
            // Only this function sends, under the lock, so the capacity seen above is still there. A forced message may
            // find none: a local subscriber that does not read misses a will.
            drop(local.to.try_send(copy));
        }
        if message.retain {
            if message.payload.is_empty() {
                state.retained.remove(&message.topic);
            } else {
                state.retained.insert(message.topic.clone(), message.clone());
            }
        }
        let twice = self.faults.duplicates() == Duplicate::Unmarked;
        for (id, found) in targets {
            let Some(session) = state.sessions.get_mut(&id) else {
                continue;
            };
            let delivery = Delivery {
                message: message.clone(),
                qos: found.qos,
                retain: found.retain,
                identifiers: found.identifiers,
            };
            if twice {
                self.count(|stats| stats.duplicated += 1);
                session.enqueue(delivery.clone());
            }
            session.enqueue(delivery);
            if let Some(connection) = &session.connection {
                connection.wake.notify_one();
            }
        }
        Ok(matched)
    }

    fn with_session<T>(&self, connection: &Connection, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut state = self.lock();
        let session = state.sessions.get_mut(&connection.client_id)?;
        let current = session
            .connection
            .as_ref()
            .is_some_and(|current| current.number == connection.number);
        current.then(|| act(session))
    }

    /// Subscribes and queues the retained messages that the filters' rules ask for. The grants are in the filters'
    /// order.
    pub(super) fn subscribe(
        &self,
        connection: &Connection,
        filters: Vec<v5::Filter>,
        identifier: Option<usize>,
    ) -> Vec<Result<QoS, v5::SubscribeReasonCode>> {
        let mut state = self.lock();
        let State {
            sessions, retained, ..
        } = &mut *state;
        let Some(session) = sessions.get_mut(&connection.client_id) else {
            return Vec::new();
        };
        let mut grants = Vec::with_capacity(filters.len());
        for filter in filters {
            if filter.path.starts_with("$share/") {
                grants.push(Err(v5::SubscribeReasonCode::SharedSubscriptionsNotSupported));
                continue;
            }
            if !topic::is_filter(&filter.path) {
                grants.push(Err(v5::SubscribeReasonCode::TopicFilterInvalid));
                continue;
            }
            if self.faults.refuses_subscription(&filter.path) {
                grants.push(Err(v5::SubscribeReasonCode::NotAuthorized));
                continue;
            }
            let most = if self.faults.grants_qos_0_only() {
                QoS::AtMostOnce
            } else {
                QoS::AtLeastOnce
            };
            let qos = lower(filter.qos, most);
            let new = !session.subscriptions.contains_key(&filter.path);
            let wanted = match filter.retain_forward_rule {
                v5::RetainForwardRule::OnEverySubscribe => true,
                v5::RetainForwardRule::OnNewSubscribe => new,
                v5::RetainForwardRule::Never => false,
            };
            if wanted {
                for message in retained
                    .values()
                    .filter(|message| topic::matches(&filter.path, &message.topic))
                {
                    session.enqueue(Delivery {
                        message: message.clone(),
                        qos: lower(qos, message.qos),
                        retain: true,
                        identifiers: identifier.into_iter().collect(),
                    });
                }
            }
            session.subscriptions.insert(
                filter.path,
                Subscription {
                    qos,
                    no_local: filter.nolocal,
                    retain_as_published: filter.preserve_retain,
                    identifier,
                },
            );
            grants.push(Ok(qos));
        }
        grants
    }

    /// Says for each filter whether there was a subscription.
    pub(super) fn unsubscribe(&self, connection: &Connection, filters: &[String]) -> Vec<bool> {
        self.with_session(connection, |session| {
            filters
                .iter()
                .map(|filter| session.subscriptions.remove(filter).is_some())
                .collect()
        })
        .unwrap_or_default()
    }

    pub(super) fn acknowledge(&self, connection: &Connection, id: u16) {
        let known = self
            .with_session(connection, |session| session.acknowledge(id))
            .unwrap_or(false);
        self.count(|stats| {
            if known {
                stats.acked += 1;
            } else {
                stats.unknown_acks += 1;
            }
        });
        connection.wake.notify_one();
    }

    /// Moves what may be sent now to the connection's packets.
    pub(super) fn collect(&self, connection: &Connection, most: usize) -> Vec<Packet> {
        let mut publishes = Vec::new();
        // The counts are applied in one go, so that nobody sees half of them.
        let mut stats = Stats::default();
        let before = self.with_session(connection, |session| {
            let before = session.queued();
            session.next_packets(&self.faults, &mut stats, &mut publishes, most);
            before != session.queued()
        });
        if stats != Stats::default() {
            self.count(|total| {
                total.delivered += stats.delivered;
                total.redelivered += stats.redelivered;
                total.duplicated += stats.duplicated;
                total.too_large += stats.too_large;
            });
        }
        if before == Some(true) {
            self.room.notify_waiters();
        }
        publishes
            .into_iter()
            .map(|publish| Packet::Publish(Box::new(publish)))
            .collect()
    }

    /// A subscriber inside the process, for what is published from now on.
    pub(super) fn subscribe_local(&self, filter: &str, capacity: usize) -> mpsc::Receiver<LocalMessage> {
        let (to, from) = mpsc::channel(capacity.max(1));
        self.lock().locals.push(Local {
            filter: filter.to_owned(),
            to,
        });
        from
    }

    /// Local subscribers see the end.
    pub(super) fn close_locals(&self) {
        self.lock().locals.clear();
    }

    /// The retained message of a topic.
    pub(super) fn retained(&self, topic: &str) -> Option<Message> {
        self.lock().retained.get(topic).cloned()
    }

    /// Messages on the way to a client, `None` without a session.
    pub(super) fn pending(&self, client_id: &str) -> Option<usize> {
        self.lock().sessions.get(client_id).map(Session::pending)
    }

    /// Filters a client has subscribed to, `None` without a session.
    pub(super) fn subscriptions(&self, client_id: &str) -> Option<Vec<String>> {
        self.lock()
            .sessions
            .get(client_id)
            .map(|session| session.subscriptions.keys().cloned().collect())
    }
}
