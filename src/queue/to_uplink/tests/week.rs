//! A week of virtual time over pace, budget and refresh: no store, no sockets, no sleeping.

use std::collections::{BTreeMap, VecDeque};

use super::super::installation::Ticket;
use super::super::state::{Asked, State};
use super::*;
use crate::protocol::budget::{self, Statuses};
use crate::protocol::pipedrive::oauth as life;
use crate::protocol::retry::{Limits, Pacer};

/// Monday, 2026-01-05 00:00 UTC.
const MONDAY: Timestamp = Timestamp::from_unix_ms(1_767_571_200_000);
const LATENCY: Duration = Duration::from_millis(100);
const BURST: usize = 80;
const DAILY: u64 = 30_000;
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// So much time since Monday.
fn at(day: u64, hour: u64, minute: u64) -> Duration {
    Duration::from_secs(((day * 24 + hour) * 60 + minute) * 60)
}

fn wall(now: Duration) -> Timestamp {
    MONDAY.plus_ms(i64::try_from(now.as_millis()).unwrap())
}

/// What goes wrong when.
fn fault(now: Duration) -> Option<Outcome> {
    let within = |from: Duration, to: Duration| now >= from && now < to;
    if within(at(1, 10, 0), at(1, 12, 0)) {
        return Some(trouble(Scope::Everything));
    }
    if within(at(3, 9, 0), at(3, 9, 30)) {
        return Some(gone());
    }
    within(at(4, 14, 0), at(4, 14, 20)).then(|| trouble(Scope::Unclear))
}

/// Pipedrive, with one seat of the smallest plan.
#[derive(Default)]
struct Server {
    window: VecDeque<Duration>,
    spent: BTreeMap<u128, u64>,
    burst_refusals: usize,
    daily_refusals: Vec<Duration>,
    faults: Vec<Duration>,
}

impl Server {
    fn answer(&mut self, arrived: Duration) -> Delivered {
        if let Some(outcome) = fault(arrived) {
            self.faults.push(arrived);
            return outcome.into();
        }
        while self
            .window
            .front()
            .is_some_and(|first| *first + Pacer::WINDOW <= arrived)
        {
            self.window.pop_front();
        }
        let spent = self.spent.entry(arrived.as_millis() / 86_400_000).or_default();
        let outcome = if *spent + budget::RECEIVE > DAILY {
            self.daily_refusals.push(arrived);
            Outcome::Retry {
                reason: "The API tokens of the company are used up for today (429).".to_owned(),
                after: None,
                scope: Scope::Day,
            }
        } else if self.window.len() >= BURST {
            self.burst_refusals += 1;
            Outcome::Retry {
                reason: "Pipedrive asks to slow down (429).".to_owned(),
                after: Some(Duration::from_secs(2)),
                scope: Scope::Everything,
            }
        } else {
            self.window.push_back(arrived);
            *spent += budget::RECEIVE;
            Outcome::Accepted
        };
        let limits = Limits {
            limit: Some(80),
            remaining: Some(u32::try_from(BURST - self.window.len()).unwrap()),
            daily_limit: Some(DAILY),
            daily_remaining: Some(DAILY - *spent),
            cost: Some(budget::RECEIVE),
            ..Limits::default()
        };
        Delivered { outcome, limits }
    }
}

/// An access token that is refreshed as the uplink does.
struct Token {
    issued: Duration,
    refreshes: usize,
    failures: usize,
    next_try: Duration,
}

impl Token {
    fn refresh(&mut self, now: Duration) {
        if now < self.next_try {
            return;
        }
        // The token's server is behind the same line.
        if fault(now) == Some(trouble(Scope::Everything)) {
            self.failures += 1;
            self.next_try = now + Duration::from_secs(60);
        } else {
            self.refreshes += 1;
            self.issued = now;
        }
    }

    /// Whether there is a token for a request now.
    fn ready(&mut self, now: Duration) -> bool {
        if now + life::refresh_early(TOKEN_LIFE) >= self.issued + TOKEN_LIFE {
            self.refresh(now);
        }
        now < self.issued + TOKEN_LIFE
    }
}

#[derive(Clone, Copy)]
struct Item {
    id: u64,
    since: Duration,
    kind: Kind,
}

/// Messages of the week: spread over office hours, every fourth followed by a status update.
fn week() -> VecDeque<Item> {
    let mut items = VecDeque::new();
    for (day, count) in [1000_u64, 1000, 3500, 600, 1000, 10, 10].into_iter().enumerate() {
        let begin = at(day as u64, 8, 0);
        for number in 0..count {
            let since = begin + Duration::from_millis(number * 36_000_000 / count);
            let mut push = |kind| {
                let id = items.len() as u64;
                items.push_back(Item { id, since, kind });
            };
            push(Kind::New);
            if number % 4 == 0 {
                push(Kind::Status);
            }
        }
    }
    items
}

struct Week {
    state: State,
    installation: InstallationId,
    channel: ChannelId,
    server: Server,
    token: Token,
    messages: VecDeque<Item>,
    updates: VecDeque<Item>,
    open: VecDeque<(Duration, Item, Ticket, Delivered)>,
    /// When what was accepted.
    accepted: BTreeMap<u64, (Duration, Item)>,
}

impl Week {
    fn new() -> Self {
        Self {
            state: State::new(Patience::default(), 8, None),
            installation: InstallationId::of_user(1, 2),
            channel: channel("sms"),
            server: Server::default(),
            token: Token {
                issued: Duration::ZERO,
                refreshes: 0,
                failures: 0,
                next_try: Duration::ZERO,
            },
            messages: VecDeque::new(),
            updates: VecDeque::new(),
            open: VecDeque::new(),
            accepted: BTreeMap::new(),
        }
    }

    /// The gateway starts again: what is in memory is gone, what was spent is not.
    fn restart(&mut self, now: Duration) {
        let kept: Vec<(String, Vec<u8>)> = self
            .state
            .spent()
            .map(|(company, spent)| (company.clone(), serde_json::to_vec(spent).unwrap()))
            .collect();
        self.state = State::new(Patience::default(), 8, None);
        for (company, spent) in kept {
            let spent = serde_json::from_slice(&spent).unwrap();
            self.state.resume_budget(company, spent, wall(now));
        }
    }

    fn status(&self, now: Duration) -> UplinkStatus {
        let channels = [(&self.channel, Ok(self.installation.clone()))];
        UplinkStatus::of(&self.state, &channels, now)
    }

    fn answers(&mut self, now: Duration) {
        while self.open.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, item, ticket, delivered) = self.open.pop_front().unwrap();
            let accepted = delivered.outcome == Outcome::Accepted;
            let asked = Asked {
                installation: &self.installation,
                ticket,
                channel: &self.channel,
                conversation: Some(ConversationId(item.id)),
            };
            self.state.judge(now, asked, delivered, u32::MAX / 2);
            self.state.settle(ConversationId(item.id), now);
            if accepted {
                assert!(self.accepted.insert(item.id, (now, item)).is_none(), "twice");
            } else if item.kind == Kind::New {
                self.messages.push_front(item);
            } else {
                self.updates.push_front(item);
            }
        }
    }

    /// Begins what may begin; says when the pacer or a merge window ends.
    fn dispatch(&mut self, now: Duration) -> Option<Duration> {
        loop {
            if !self.token.ready(now) || self.state.room_of(&self.installation, now) == 0 {
                return None;
            }
            let (place, merge) = self.state.statuses(&self.installation, now);
            let excluded = self.state.excluded();
            let free = |item: &Item| !excluded.contains(&ConversationId(item.id));
            let message = self.messages.iter().position(free);
            let update = self.updates.iter().position(free);
            let update = update.filter(|_| place != Statuses::Wait);
            let ripe = update.filter(|index| self.updates[*index].since + merge <= now);
            let message_first = match (message, ripe) {
                (Some(message), Some(update)) => {
                    place == Statuses::AfterMessages
                        || self.messages[message].since < self.updates[update].since
                }
                (message, _) => message.is_some(),
            };
            let (queue, index) = match (message, ripe) {
                (Some(index), _) if message_first => (&mut self.messages, index),
                (_, Some(index)) => (&mut self.updates, index),
                _ => return update.map(|index| self.updates[index].since + merge),
            };
            let item = queue[index];
            match self
                .state
                .begin(&self.installation, Some(ConversationId(item.id)), now)
            {
                Err(wait) => return Some(now + wait),
                Ok(ticket) => {
                    queue.remove(index);
                    let delivered = self.server.answer(now + LATENCY / 2);
                    self.open.push_back((now + LATENCY, item, ticket, delivered));
                }
            }
        }
    }

    /// How many of a kind were accepted between two moments.
    fn between(&self, from: Duration, to: Duration, kind: Kind) -> usize {
        let found = self.accepted.values();
        found
            .filter(|(at, item)| item.kind == kind && *at >= from && *at < to)
            .count()
    }
}

/// Lives through the week; the status as it was at the beginning of each hour.
fn live(week: &mut Week, mut coming: VecDeque<Item>) -> BTreeMap<u64, UplinkStatus> {
    let mut now = Duration::ZERO;
    let mut seen = BTreeMap::new();
    let mut restarted = false;
    while now < at(7, 0, 0) {
        week.state.advance(now, wall(now));
        while coming.front().is_some_and(|item| item.since <= now) {
            let item = coming.pop_front().unwrap();
            if item.kind == Kind::New {
                week.messages.push_back(item);
            } else {
                week.updates.push_back(item);
            }
        }
        week.answers(now);
        let alarm = week.dispatch(now);
        if life::idle_refresh_due(wall(week.token.issued), wall(now)) {
            week.token.refresh(now);
        }
        assert_eq!(life::warning(wall(week.token.issued), wall(now)), None);
        let hour = now.as_secs() / 3600;
        seen.entry(hour).or_insert_with(|| week.status(now));
        if now >= at(3, 12, 0) && !restarted && week.open.is_empty() {
            restarted = true;
            week.restart(now);
        }
        let tick = now + Duration::from_secs(60);
        let events = [
            coming.front().map(|item| item.since),
            week.open.front().map(|(at, ..)| *at),
            week.state.next_alarm(now),
            alarm,
        ];
        let next = events.into_iter().flatten().filter(|next| *next > now).min();
        now = next.map_or(tick, |next| next.min(tick));
    }
    seen
}

#[test]
fn a_week_with_outages_limits_and_expiry_ends_with_everything_delivered_once() {
    let mut week = Week::new();
    let coming = self::week();
    let total = coming.len();
    let seen = live(&mut week, coming);

    assert_eq!(week.accepted.len(), total, "everything, once");
    assert_eq!(week.server.burst_refusals, 0, "the pace was kept");
    let most = week.server.spent.values().max().copied().unwrap();
    assert!(most <= DAILY && most > DAILY - 10, "{most}");

    let word = |day: u64, hour: u64| seen[&(day * 24 + hour)].state.word();
    assert_eq!(word(0, 12), "running");
    assert_eq!(word(1, 11), "held");
    assert_eq!(word(2, 12), "running");
    assert_eq!(word(2, 17), "budget_empty");
    assert_eq!(word(3, 7), "running");
    assert_eq!(word(3, 10), "channels_api_gone", "it is asked hourly");
    assert_eq!(word(3, 12), "running");
    assert_eq!(word(6, 23), "running");

    // The forecast of Wednesday noon: 350 messages and 88 updates an hour, 10 tokens each.
    let noon = &seen[&(2 * 24 + 12)].installations[0].budget;
    let last = |(accepted, item): &&(Duration, Item)| {
        item.kind == Kind::New && *accepted > at(2, 0, 0) && *accepted < at(3, 0, 0)
    };
    let ended = week
        .accepted
        .values()
        .filter(last)
        .map(|(at, _)| *at)
        .max()
        .unwrap();
    let off = noon.ends_at.unwrap().unix_ms() - wall(ended).unix_ms();
    assert!(off.abs() < 20 * 60 * 1000, "{} is off by {off} ms", noon.words);
    assert!(
        noon.words.contains("at this rate the budget ends at 14:"),
        "{}",
        noon.words
    );
    assert_eq!(seen[&12].installations[0].budget.ends_at, None, "Monday's lasts");

    // The last tenth of Wednesday was for messages, and one question an hour found out about new tokens.
    let reserve = ended.saturating_sub(Duration::from_secs(40 * 60));
    assert_eq!(week.between(reserve, at(3, 0, 0), Kind::Status), 0);
    assert!(week.between(reserve, at(3, 0, 0), Kind::New) > 200);
    let questions = week.server.daily_refusals.len();
    assert!(
        (1..=11).contains(&questions),
        "{questions} requests without tokens"
    );
    // New tokens come at midnight; everything that waited is through in minutes, not at once.
    assert!(week.between(at(3, 0, 0), at(3, 0, 10), Kind::New) > 900);
    assert!(week.between(at(3, 0, 0), at(3, 0, 0) + Duration::from_secs(2), Kind::New) <= BURST);

    // No storm while nothing works.
    let faults = |day, from, to| {
        let found = week.server.faults.iter();
        found
            .filter(|time| **time >= at(day, from, 0) && **time < at(day, to, 0))
            .count()
    };
    assert!(
        faults(1, 10, 12) < 60,
        "{} requests in two hours",
        faults(1, 10, 12)
    );
    assert!(
        faults(3, 9, 10) <= 4,
        "{} requests at an API that is gone",
        faults(3, 9, 10)
    );
    // After the outage of Tuesday all is through within minutes.
    assert!(week.between(at(1, 12, 0), at(1, 12, 10), Kind::New) > 190);

    // A token of an hour is refreshed while there is something to send, and once a day without.
    let refreshes = week.token.refreshes;
    assert!((60..190).contains(&refreshes), "{refreshes}");
    assert!(
        week.token.failures <= 125,
        "{} attempts in two hours",
        week.token.failures
    );
}
