//! The tokens that a company has for a day: what is left, whether that lasts, and when it ends.
//!
//! Pipedrive counts a cost for each call against a budget per company and day, and answers 429 when it is spent.
//! Whether its answers say how much is left is optional; without it the gateway counts what it spends itself. Times
//! are passed in; a day is a day in UTC until an answer shows that the server's began at another time.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::retry::Limits;
use crate::domain::Timestamp;

/// Tokens for `POST /channels/messages/receive`, also for an update.
pub const RECEIVE: u64 = 10;
/// Tokens for `POST /channels`.
pub const REGISTER: u64 = 10;
/// Tokens for each `DELETE`.
pub const DELETE: u64 = 6;

const MINUTE_MS: i64 = 60 * 1000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// The rate is that of the last quarter of an hour: long enough that one message says nothing, short enough that a
/// rush is seen before it has spent the day.
const RECENT_MINUTES: i64 = 15;
/// A refusal that asks for more than this speaks of the day; the burst window is 2 s.
const LONG: Duration = Duration::from_secs(60);
/// While the budget is empty one request each hour finds out whether there is a new one: the server's midnight may be
/// another, and a company can buy more. A refused call costs nothing.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// What has to survive a restart. Small; written once in a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Days since 1970 in UTC.
    day: i64,
    /// Tokens that this gateway spent on that day.
    tokens: u64,
    /// What the last answer of that day said.
    seen: Option<Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    limit: Option<u64>,
    remaining: u64,
}

/// Which place status updates have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// By age, as everything.
    ByAge,
    /// Behind all new messages: the budget will not last.
    AfterMessages,
    /// Not today: the last tenth is for new messages.
    Wait,
}

/// Whether the tokens last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forecast {
    /// Nobody knows how many there are.
    Unknown,
    /// Until there are new ones.
    Lasts,
    /// Not that long.
    EndsAt(Timestamp),
    /// They are spent.
    Empty {
        /// When there are new ones.
        until: Timestamp,
    },
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("how many there are is not known"),
            Self::Lasts => f.write_str("at this rate the budget lasts until midnight UTC"),
            Self::EndsAt(at) => write!(f, "at this rate the budget ends at {} UTC", hour(*at)),
            Self::Empty { until } => write!(f, "the budget is empty until {} UTC", hour(*until)),
        }
    }
}

/// `16:40`.
fn hour(at: Timestamp) -> String {
    let minutes = at.unix_ms().div_euclid(MINUTE_MS).rem_euclid(24 * 60);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// When `left` tokens end if they go on being spent as `spent` were in `span`; a new budget comes at `renewed`.
#[must_use]
pub fn forecast(left: u64, spent: u64, span: Duration, now: Timestamp, renewed: Timestamp) -> Forecast {
    if left < RECEIVE {
        return Forecast::Empty { until: renewed };
    }
    if spent == 0 {
        return Forecast::Lasts;
    }
    let lasts = u128::from(left) * span.as_millis() / u128::from(spent);
    let ends = now.plus_ms(i64::try_from(lasts).unwrap_or(i64::MAX));
    if ends < renewed {
        Forecast::EndsAt(ends)
    } else {
        Forecast::Lasts
    }
}

/// The next midnight in UTC.
#[must_use]
pub fn midnight(now: Timestamp) -> Timestamp {
    Timestamp::from_unix_ms(day(now).saturating_add(1).saturating_mul(DAY_MS))
}

fn day(at: Timestamp) -> i64 {
    at.unix_ms().div_euclid(DAY_MS)
}

/// The pause that a 429 asks for, when it is one of the day's kind and not of the burst's.
#[must_use]
pub fn long_pause(limits: &Limits) -> Option<Duration> {
    limits.retry_after.or(limits.reset).filter(|pause| *pause > LONG)
}

/// How long to wait after a 429 that speaks of the day: as long as it says, else until midnight UTC, but an hour at
/// most. `jitter` is a random number: not every gateway comes back at the same moment.
#[must_use]
pub fn pause(said: Option<Duration>, now: Timestamp, jitter: u32) -> Duration {
    said.unwrap_or_else(|| {
        let left = midnight(now).unix_ms().saturating_sub(now.unix_ms());
        let spread = Duration::from_secs(u64::from(jitter % 30));
        (Duration::from_millis(u64::try_from(left).unwrap_or_default()) + spread).min(ASK_AGAIN)
    })
}

/// The tokens of one company.
#[derive(Clone, Debug)]
pub struct Budget {
    /// The most that the gateway may spend in a day, if that is configured.
    allowed: Option<u64>,
    spent: Spent,
    /// Tokens of requests that have no answer yet.
    in_flight: u64,
    /// The most of them at a time: by so much can one answer be overtaken by others.
    most_in_flight: u64,
    /// Tokens by minute.
    recent: VecDeque<(i64, u64)>,
    counting_since: Timestamp,
}

impl Budget {
    /// Goes on from what is known; `allowed` is the most that may be spent in a day.
    #[must_use]
    pub fn new(allowed: Option<u64>, spent: Spent, now: Timestamp) -> Self {
        Self {
            allowed,
            spent,
            in_flight: 0,
            most_in_flight: 0,
            recent: VecDeque::new(),
            counting_since: now,
        }
    }

    /// What has to survive a restart.
    #[must_use]
    pub const fn record(&self) -> &Spent {
        &self.spent
    }

    /// A request begins.
    pub fn begin(&mut self, cost: u64) {
        self.in_flight = self.in_flight.saturating_add(cost);
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
    }

    /// It was not sent after all.
    pub fn withdraw(&mut self, cost: u64) {
        self.in_flight = self.in_flight.saturating_sub(cost);
    }

    /// It has ended. `refused`: with 429, or without reaching the server; that costs nothing.
    pub fn end(&mut self, now: Timestamp, cost: u64, refused: bool, limits: &Limits) {
        self.withdraw(cost);
        self.roll(now);
        let before = self.spent.seen;
        let mut used = if refused { 0 } else { limits.cost.unwrap_or(cost) };
        self.spent.tokens = self.spent.tokens.saturating_add(used);
        let limit = limits.daily_limit.or(before.and_then(|seen| seen.limit));
        let remaining = match (before, limits.daily_remaining) {
            (None, said) => said,
            (Some(seen), None) => Some(seen.remaining.saturating_sub(used)),
            // Answers overtake each other, so the lowest of a day counts; much more is a new day of the server's.
            (Some(seen), Some(said)) if said > seen.remaining => {
                let renewed = said - seen.remaining > self.most_in_flight || seen.limit != limit;
                Some(if renewed { said } else { seen.remaining })
            }
            (Some(seen), Some(said)) => {
                // With what others spend.
                used = used.max(seen.remaining - said);
                Some(said)
            }
        };
        self.spent.seen = remaining.map(|remaining| Seen { limit, remaining });
        self.note(now, used);
    }

    /// A call that went past the queue, for which a person asked.
    pub fn count(&mut self, now: Timestamp, cost: u64) {
        self.begin(cost);
        self.end(now, cost, false, &Limits::default());
    }

    fn roll(&mut self, now: Timestamp) {
        let today = day(now);
        // Also backwards: a clock that was wrong must not keep yesterday's count for years.
        if self.spent.day != today {
            self.spent = Spent {
                day: today,
                ..Spent::default()
            };
        }
    }

    fn note(&mut self, now: Timestamp, used: u64) {
        let minute = now.unix_ms().div_euclid(MINUTE_MS);
        let outside = |of: i64| of > minute || of <= minute - RECENT_MINUTES;
        self.recent.retain(|(of, _)| !outside(*of));
        match self.recent.back_mut() {
            Some((of, tokens)) if *of == minute => *tokens = tokens.saturating_add(used),
            _ => self.recent.push_back((minute, used)),
        }
    }

    /// Tokens that this gateway has spent today.
    #[must_use]
    pub fn spent(&self, now: Timestamp) -> u64 {
        if self.spent.day == day(now) {
            self.spent.tokens
        } else {
            0
        }
    }

    /// What the day has in all, as far as that is known: what the server says, and what the gateway may spend.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        let said = self.spent.seen.and_then(|seen| seen.limit);
        said.into_iter().chain(self.allowed).min()
    }

    /// What is left today, as far as that is known.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<u64> {
        let today = self.spent.day == day(now);
        let allowed = self.allowed.map(|most| most.saturating_sub(self.spent(now)));
        let said = match self.spent.seen {
            Some(seen) if today => Some(seen.remaining),
            // A new day: the old budget again, until an answer says otherwise.
            Some(seen) => seen.limit,
            None => None,
        };
        let left = said.into_iter().chain(allowed).min()?;
        Some(left.saturating_sub(self.in_flight))
    }

    /// How many calls of this cost may begin beside those on their way. When what Pipedrive gives is spent, one may
    /// find out; a refusal says how long to wait.
    #[must_use]
    pub fn room(&self, now: Timestamp, cost: u64) -> usize {
        if self.is_own_limit(now, cost) {
            0
        } else if self.left(now).is_some_and(|left| left < cost) {
            usize::from(self.in_flight == 0)
        } else {
            usize::MAX
        }
    }

    /// Whether a call of this cost would exceed the configured limit.
    #[must_use]
    pub fn is_own_limit(&self, now: Timestamp, cost: u64) -> bool {
        let used = self.spent(now).saturating_add(self.in_flight);
        self.allowed.is_some_and(|most| most.saturating_sub(used) < cost)
    }

    /// Whether what is left lasts at the rate of the last quarter of an hour.
    #[must_use]
    pub fn forecast(&self, now: Timestamp) -> Forecast {
        let Some(left) = self.left(now) else {
            return Forecast::Unknown;
        };
        let minute = now.unix_ms().div_euclid(MINUTE_MS);
        let recent = self
            .recent
            .iter()
            .filter(|(of, _)| *of <= minute && *of > minute - RECENT_MINUTES);
        let tokens = recent.map(|(_, tokens)| tokens).sum();
        // The present minute is not over: the span ends with it.
        let counted = now.unix_ms().saturating_sub(self.counting_since.unix_ms());
        let partly = (RECENT_MINUTES - 1) * MINUTE_MS + now.unix_ms().rem_euclid(MINUTE_MS);
        let span = counted.clamp(MINUTE_MS, partly.max(MINUTE_MS));
        let span = Duration::from_millis(u64::try_from(span).unwrap_or(1));
        forecast(left, tokens, span, now, midnight(now))
    }

    /// Which place status updates have now.
    #[must_use]
    pub fn statuses(&self, now: Timestamp) -> Statuses {
        let Some(left) = self.left(now) else {
            return Statuses::ByAge;
        };
        if self.limit().is_some_and(|limit| left < limit / 10) {
            return Statuses::Wait;
        }
        match self.forecast(now) {
            Forecast::EndsAt(_) | Forecast::Empty { .. } => Statuses::AfterMessages,
            Forecast::Unknown | Forecast::Lasts => Statuses::ByAge,
        }
    }

    /// One line for a person: "12340 of 30000 tokens spent today; at this rate the budget ends at 16:40 UTC".
    #[must_use]
    pub fn words(&self, now: Timestamp) -> String {
        let spent = self.spent(now);
        let mut words = match (self.limit(), self.left(now)) {
            (Some(limit), Some(left)) => format!("{left} of {limit} tokens left today, {spent} spent here"),
            (None, Some(left)) => format!("{left} tokens left today, {spent} spent here"),
            (_, None) => format!("{spent} tokens spent today"),
        };
        words.push_str("; ");
        words.push_str(&self.forecast(now).to_string());
        if self.statuses(now) == Statuses::Wait {
            words.push_str("; status updates wait, the last tenth is for new messages");
        }
        words
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
