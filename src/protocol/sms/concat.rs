//! Parts become the message that was sent.
//!
//! Pure: the caller keeps the parts durably, gives them in again after a restart, and says what time it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::PduAddress;
use super::pdu::{Body, Damage, Deliver, Kind, MmsNotification, Part, WAP_PUSH_PORT, join_with_gaps};
use crate::domain::Timestamp;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A text for a person.
    Text(String),
    /// An MMS waits at the network.
    Mms(MmsNotification),
    /// For a program on a phone, by the port that it listens on.
    Program {
        /// Destination port.
        port: u16,
    },
    /// Nothing that could be shown, and why.
    Unreadable(&'static str),
}

/// A whole message, or what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<T> {
    /// Who sent it.
    pub from: PduAddress,
    /// When the service centre got its first part that has a time.
    pub sent_at: Option<Timestamp>,
    /// Whether phones show it at once and keep nothing.
    pub flash: bool,
    /// What it says, without marks.
    pub content: Content,
    /// How many parts it was sent in.
    pub total: u8,
    /// The parts that did not come, from 1.
    pub missing: Vec<u8>,
    /// What was wrong with one of the parts.
    pub damage: Option<Damage>,
    /// What the caller gave with each part, by part.
    pub tokens: Vec<T>,
}

/// In the place of missing parts.
const GAP: &str = "[…]";

impl<T> Received<T> {
    /// The text as a person gets it: marked when parts are missing or damaged.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = match &self.content {
            Content::Text(text) => text.clone(),
            Content::Mms(notification) => notification.to_string(),
            Content::Program { port } => format!("(message for a program, port {port}: not a text)"),
            Content::Unreadable(why) => format!("({why})"),
        };
        // Writing to a string does not fail.
        if !self.missing.is_empty() {
            let numbers: Vec<String> = self.missing.iter().map(u8::to_string).collect();
            let (parts, did) = if numbers.len() == 1 {
                ("part", "is")
            } else {
                ("parts", "are")
            };
            let list = numbers.join(", ");
            write!(
                text,
                "\n(incomplete: {parts} {list} of {} {did} missing)",
                self.total
            )
            .unwrap_or_default();
        }
        if let Some(damage) = self.damage {
            write!(text, "\n(damaged: {})", damage.as_str()).unwrap_or_default();
        }
        text
    }
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// The message is whole.
    Complete(Received<T>),
    /// Other parts are missing.
    Waiting {
        /// How many.
        missing: usize,
    },
    /// This part was here already; what the caller gave with it.
    Repeated(T),
}

/// What parts of one message have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    from: PduAddress,
    reference: u16,
    wide: bool,
    total: u8,
    port: Option<u16>,
}

#[derive(Debug)]
struct Pending<T> {
    key: Key,
    /// When the last part came.
    since: Duration,
    parts: BTreeMap<u8, (Deliver, T)>,
}

/// Collects the parts that came in on one channel.
///
/// `T` is what the caller knows a part by. Times are the caller's, since any start; after a restart parts that are
/// given in again count from then.
#[derive(Debug)]
pub struct Assembler<T> {
    limit: Duration,
    pending: Vec<Pending<T>>,
}

impl<T> Assembler<T> {
    /// Most messages that wait for parts; with more the oldest are given up. Somebody who sends first parts only
    /// must not fill the memory.
    pub const MAX_PENDING: usize = 500;

    /// `limit`: how long after its last part a message is given up.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self {
            limit,
            pending: Vec::new(),
        }
    }

    /// Takes a message or a part.
    ///
    /// A part with the number of another one and another content belongs to another message with the same
    /// reference: phones count to 255 and begin again, some never count.
    pub fn receive(&mut self, deliver: Deliver, token: T, now: Duration) -> Step<T> {
        let Some(part) = deliver.part else {
            return Step::Complete(received(1, BTreeMap::from([(1, (deliver, token))])));
        };
        let key = Key::new(&deliver, part);
        let repeats = |pending: &Pending<T>| {
            let known = pending.parts.get(&part.number);
            pending.key == key
                && known
                    .is_some_and(|(known, _)| known.body == deliver.body && known.sent_at == deliver.sent_at)
        };
        if self.pending.iter().any(repeats) {
            return Step::Repeated(token);
        }
        let place = self.place_for(&key, part, &deliver);
        let at = place.unwrap_or(self.pending.len());
        if place.is_none() {
            self.pending.push(Pending {
                key,
                since: now,
                parts: BTreeMap::new(),
            });
        }
        let Some(pending) = self.pending.get_mut(at) else {
            return Step::Repeated(token);
        };
        pending.since = now;
        pending.parts.insert(part.number, (deliver, token));
        let missing = usize::from(part.total) - pending.parts.len();
        if missing > 0 {
            return Step::Waiting { missing };
        }
        let whole = self.pending.remove(at);
        Step::Complete(received(whole.key.total, whole.parts))
    }

    /// The message that the part belongs to: one that lacks it, of several the one sent at the nearest time.
    fn place_for(&self, key: &Key, part: Part, deliver: &Deliver) -> Option<usize> {
        let limit = i64::try_from(self.limit.as_millis()).unwrap_or(i64::MAX);
        let fitting = self.pending.iter().enumerate().filter_map(|(at, pending)| {
            if pending.key != *key || pending.parts.contains_key(&part.number) {
                return None;
            }
            let distance = pending.distance(deliver.sent_at);
            (distance <= limit).then_some((distance, at))
        });
        // Of equals the newest: an older one has lost its part.
        fitting
            .min_by_key(|(distance, at)| (*distance, std::cmp::Reverse(*at)))
            .map(|(_, at)| at)
    }

    /// What has waited too long, as what came of it.
    pub fn expire(&mut self, now: Duration) -> Vec<Received<T>> {
        let mut given_up = Vec::new();
        let over = self.pending.len().saturating_sub(Self::MAX_PENDING);
        let limit = self.limit;
        let mut at = 0;
        self.pending.retain_mut(|pending| {
            at += 1;
            let keep = at > over && now.saturating_sub(pending.since) < limit;
            if !keep {
                given_up.push(received(pending.key.total, std::mem::take(&mut pending.parts)));
            }
            keep
        });
        given_up
    }

    /// When [`Self::expire`] has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        if self.pending.len() > Self::MAX_PENDING {
            return Some(Duration::ZERO);
        }
        self.pending
            .iter()
            .map(|pending| pending.since + self.limit)
            .min()
    }

    /// How many messages wait for parts.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }
}

impl Key {
    fn new(deliver: &Deliver, part: Part) -> Self {
        Self {
            from: deliver.from.clone(),
            reference: part.reference,
            wide: part.wide,
            total: part.total,
            port: match deliver.kind {
                Kind::PortAddressed { destination, .. } => Some(destination),
                Kind::Text | Kind::Silent(_) => None,
            },
        }
    }
}

impl<T> Pending<T> {
    /// Milliseconds between a time and that of the nearest part; 0 where one of them is not known.
    fn distance(&self, sent_at: Option<Timestamp>) -> i64 {
        let to = |(deliver, _): &(Deliver, T)| {
            let (one, other) = (deliver.sent_at?, sent_at?);
            Some(one.unix_ms().abs_diff(other.unix_ms()))
        };
        let nearest = self.parts.values().filter_map(to).min().unwrap_or(0);
        i64::try_from(nearest).unwrap_or(i64::MAX)
    }
}

fn received<T>(total: u8, parts: BTreeMap<u8, (Deliver, T)>) -> Received<T> {
    let missing = (1..=total).filter(|number| !parts.contains_key(number)).collect();
    let content = content(total, &parts);
    let first = parts.values().next().map(|(deliver, _)| deliver);
    let stamps = || parts.values().map(|(deliver, _)| deliver);
    Received {
        from: first.map(|deliver| deliver.from.clone()).unwrap_or_default(),
        sent_at: stamps().find_map(|deliver| deliver.sent_at),
        flash: first.is_some_and(|deliver| deliver.coding.is_flash()),
        content,
        total,
        missing,
        damage: stamps().find_map(|deliver| deliver.damage),
        tokens: parts.into_values().map(|(_, token)| token).collect(),
    }
}

fn content<T>(total: u8, parts: &BTreeMap<u8, (Deliver, T)>) -> Content {
    if parts.values().any(|(deliver, _)| deliver.coding.compressed) {
        return Content::Unreadable("compressed message, which cannot be read");
    }
    let port = parts.values().find_map(|(deliver, _)| match deliver.kind {
        Kind::PortAddressed { destination, .. } => Some(destination),
        Kind::Text | Kind::Silent(_) => None,
    });
    if let Some(port) = port {
        let octets: Vec<u8> = parts
            .values()
            .filter_map(|(deliver, _)| deliver.body.octets())
            .flatten()
            .copied()
            .collect();
        return match MmsNotification::read(&octets) {
            Some(notification) if port == WAP_PUSH_PORT => Content::Mms(notification),
            _ => Content::Program { port },
        };
    }
    let mut bodies: Vec<Option<&Body>> = Vec::with_capacity(usize::from(total));
    for number in 1..=total {
        let body = parts.get(&number).map(|(deliver, _)| &deliver.body);
        // One gap for parts that are missing in a row.
        if body.is_some() || !matches!(bodies.last(), Some(None)) {
            bodies.push(body);
        }
    }
    let text = join_with_gaps(bodies, GAP);
    // Some senders fill up with zeroes, which many databases refuse.
    Content::Text(if text.contains('\0') {
        text.replace('\0', "")
    } else {
        text
    })
}
