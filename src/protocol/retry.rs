//! Backoff and pacing: arithmetic on a monotonic time that is passed in, as a `Duration` since some start.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::Timestamp;

/// Longest pause that a server may ask for; a longer one is a mistake or an attack.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// Exponential backoff with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest pause after the first failure.
    pub first: Duration,
    /// Longest pause at all.
    pub most: Duration,
}

impl Backoff {
    /// The pause after `failures` failures in a row (0 counts as 1): between half and all of
    /// `first × 2^(failures − 1)`, at most `most`.
    ///
    /// `jitter` is a random number. Half of the pause is fixed so that a retry never follows at once; the other
    /// half spreads many gateways that lost the same server at the same moment.
    #[must_use]
    pub fn pause(self, failures: u32, jitter: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.most);
        let half = ceiling / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        let part = (u128::from(spread) * u128::from(jitter)) / u128::from(u32::MAX);
        ceiling.saturating_sub(half) + Duration::from_nanos(u64::try_from(part).unwrap_or(spread))
    }
}

/// What the headers of an answer say about limits. Everything is optional: half of it is undocumented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `x-ratelimit-limit`: requests per window.
    pub limit: Option<u32>,
    /// `x-ratelimit-remaining`: requests left in this window.
    pub remaining: Option<u32>,
    /// `x-ratelimit-reset`: time until the window is fresh.
    pub reset: Option<Duration>,
    /// `Retry-After`, as a number of seconds or a date (RFC 9110, section 10.2.3).
    pub retry_after: Option<Duration>,
    /// `x-token-cost`: tokens that the call cost.
    pub cost: Option<u64>,
    /// `x-daily-ratelimit-token-limit`: tokens per day and company.
    pub daily_limit: Option<u64>,
    /// `x-daily-ratelimit-token-remaining`: tokens left today.
    pub daily_remaining: Option<u64>,
}

impl Limits {
    /// Reads the headers; `header` looks one up by its lower-case name. What cannot be read is absent.
    pub fn read<'a>(header: impl Fn(&'static str) -> Option<&'a str>, now: Timestamp) -> Self {
        let number = |name| header(name).and_then(|text| text.trim().parse::<u64>().ok());
        let small = |name| number(name).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
        Self {
            limit: small("x-ratelimit-limit").filter(|limit| *limit > 0),
            remaining: small("x-ratelimit-remaining"),
            reset: header("x-ratelimit-reset").and_then(seconds),
            retry_after: header("retry-after").and_then(|text| seconds(text).or_else(|| until(text, now))),
            cost: number("x-token-cost"),
            daily_limit: number("x-daily-ratelimit-token-limit"),
            daily_remaining: number("x-daily-ratelimit-token-remaining"),
        }
    }
}

/// Seconds, also with a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok()?;
    let pause = Duration::try_from_secs_f64(seconds).ok()?;
    Some(pause.min(LONGEST_PAUSE))
}

/// The time until an HTTP date; zero when it lies in the past.
fn until(text: &str, now: Timestamp) -> Option<Duration> {
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    let milliseconds = date
        .timestamp()
        .as_millisecond()
        .saturating_sub(now.unix_ms())
        .max(0);
    Some(Duration::from_millis(u64::try_from(milliseconds).ok()?).min(LONGEST_PAUSE))
}

/// Keeps requests below a burst limit that the server announces.
///
/// The limit counts requests in a rolling window at the moment they arrive, which nobody here sees: between a
/// request and its answer. A request counts as arrived when its answer came, less the time that the fastest took: one
/// that was slow (a handshake, a busy machine) may have arrived late, and leaves the window as late. What the server
/// counts beyond that (another integration with the same token) is taken as sent just now.
#[derive(Clone, Debug)]
pub struct Pacer {
    window: Duration,
    limit: Option<usize>,
    sent: VecDeque<Sent>,
    number: u64,
    fastest: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    permit: Permit,
    at: Duration,
    answered: Option<Duration>,
}

/// The permission for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit(u64);

impl Pacer {
    /// Pipedrive's burst window.
    pub const WINDOW: Duration = Duration::from_secs(2);
    /// Added to the window, because requests do not all travel equally long.
    const MARGIN: Duration = Duration::from_millis(50);
    /// After how many answers most of a longer way is known.
    const FOLLOWS: u32 = 128;
    /// How much longer a request is remembered, because the server may still count it.
    const MEMORY: Duration = Duration::from_millis(500);
    /// A request without an answer is forgotten after this time.
    const LOST: Duration = Duration::from_secs(5 * 60);
    /// Largest limit that is worth pacing for; bounds the memory.
    const MOST: usize = 1024;

    /// A pacer that knows no limit yet and lets everything pass.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self {
            window: window + Self::MARGIN,
            limit: None,
            sent: VecDeque::new(),
            number: 0,
            fastest: Duration::ZERO,
        }
    }

    /// Takes the permission for one request at `now`, or says how long to wait before asking again.
    pub fn take(&mut self, now: Duration) -> Result<Permit, Duration> {
        self.forget(now);
        if let Some(limit) = self.limit {
            let counted = self.sent.iter().filter(|sent| !self.is_over(sent, now));
            let leaves = counted.map(|sent| self.leaves(sent));
            // One without an answer stays for an unknown time.
            let inside = leaves
                .map(|at| at.unwrap_or(Duration::MAX))
                .filter(|at| *at > now);
            let mut inside: Vec<Duration> = inside.collect();
            if let Some(more) = inside.len().checked_sub(limit) {
                inside.sort_unstable();
                let free = inside.get(more).copied().unwrap_or(Duration::MAX);
                return Err(free.saturating_sub(now).min(self.window));
            }
        }
        self.number = self.number.wrapping_add(1);
        let permit = Permit(self.number);
        self.remember(permit, now, None);
        Ok(permit)
    }

    /// The request was not made after all.
    pub fn withdraw(&mut self, permit: Permit) {
        self.sent.retain(|sent| sent.permit != permit);
    }

    /// Learns from the answer to a request, which came at `now`, or from its failure.
    pub fn answered(&mut self, now: Duration, permit: Permit, limits: &Limits) {
        // From the end: it is one of the last.
        if let Some(sent) = self.sent.iter_mut().rfind(|sent| sent.permit == permit) {
            sent.answered = Some(now);
            let took = now.saturating_sub(sent.at);
            // Follows slowly when the way has become longer: too short is only slower. Among answers that are late by up
            // to 300 ms it stays within half of the margin; when the way becomes shorter again, the first answer tells.
            self.fastest = match took.checked_sub(self.fastest) {
                Some(more) if !self.fastest.is_zero() => self.fastest + more / Self::FOLLOWS,
                _ => took,
            };
        }
        if let Some(limit) = limits.limit {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            self.limit = (limit <= Self::MOST).then_some(limit);
        }
        let (Some(limit), Some(remaining)) = (self.limit, limits.remaining) else {
            return;
        };
        self.forget(now);
        let counted = limit.saturating_sub(usize::try_from(remaining).unwrap_or(usize::MAX));
        let known = self.sent.iter().filter(|sent| !self.is_over(sent, now)).count();
        for _ in known..counted {
            self.number = self.number.wrapping_add(1);
            self.remember(Permit(self.number), now, Some(now + self.fastest));
        }
    }

    fn remember(&mut self, permit: Permit, at: Duration, answered: Option<Duration>) {
        if self.sent.len() >= Self::MOST {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { permit, at, answered });
    }

    /// When a request leaves the server's window.
    fn leaves(&self, sent: &Sent) -> Option<Duration> {
        let arrived = sent.answered?.saturating_sub(self.fastest).max(sent.at);
        Some(arrived + self.window)
    }

    /// Whether it counts no more for anybody.
    fn is_over(&self, sent: &Sent, now: Duration) -> bool {
        match self.leaves(sent) {
            Some(at) => at + Self::MEMORY <= now,
            None => sent.at + Self::LOST <= now,
        }
    }

    /// Forgets the oldest that are over. One that lasts keeps those behind it in memory, where they do no harm.
    fn forget(&mut self, now: Duration) {
        while self.sent.front().is_some_and(|sent| self.is_over(sent, now)) {
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&'static str) -> Option<&'a str> {
        move |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    proptest! {
        #[test]
        fn a_pause_lies_between_half_and_all_of_the_doubled_time(failures in 0u32..200, jitter: u32) {
            let backoff = Backoff { first: ms(1000), most: ms(300_000) };
            let doubled = ms(1000).saturating_mul(1 << failures.saturating_sub(1).min(20)).min(ms(300_000));
            let pause = backoff.pause(failures, jitter);
            prop_assert!(pause >= doubled / 2 && pause <= doubled, "{pause:?} of {doubled:?}");
        }

        #[test]
        fn no_backoff_overflows(first: u64, most: u64, failures: u32, jitter: u32) {
            let backoff = Backoff { first: Duration::from_secs(first), most: Duration::from_secs(most) };
            prop_assert!(backoff.pause(failures, jitter) <= backoff.most);
        }

        #[test]
        fn no_window_of_the_server_ever_holds_more_requests_than_the_limit(
            limit in 1u32..50,
            base in 1u64..200,
            steps in prop::collection::vec((0u64..60, 0u64..300), 1..300),
        ) {
            // Every request travels for up to 300 ms more than the fastest, which is known from the beginning.
            let mut pacer = Pacer::new(Pacer::WINDOW);
            let announced = Limits { limit: Some(limit), ..Limits::default() };
            let first = pacer.take(Duration::ZERO).unwrap();
            pacer.answered(ms(base), first, &announced);
            let (mut now, mut arrived) = (ms(base), vec![ms(base)]);
            let mut open: Vec<(Duration, Permit)> = Vec::new();
            for (step, delay) in steps {
                now += ms(step);
                for (at, permit) in open.extract_if(.., |(at, _)| *at <= now) {
                    pacer.answered(at, permit, &announced);
                }
                if let Ok(permit) = pacer.take(now) {
                    arrived.push(now + ms(base + delay));
                    open.push((now + ms(base + delay), permit));
                }
            }
            arrived.sort();
            for (index, start) in arrived.iter().enumerate() {
                let inside = arrived[index..].iter().filter(|time| **time < *start + Pacer::WINDOW).count();
                prop_assert!(inside <= limit as usize, "{inside} of {limit}");
            }
        }

        #[test]
        fn waiting_as_told_is_enough_when_every_answer_is_there(limit in 1u32..50, steps in prop::collection::vec(0u64..100, 1..200)) {
            let mut pacer = Pacer::new(Pacer::WINDOW);
            let announced = Limits { limit: Some(limit), ..Limits::default() };
            let mut now = Duration::ZERO;
            for step in steps {
                now += ms(step);
                let permit = match pacer.take(now) {
                    Ok(permit) => permit,
                    Err(wait) => {
                        now += wait;
                        pacer.take(now).unwrap()
                    }
                };
                now += ms(1);
                pacer.answered(now, permit, &announced);
            }
        }

        #[test]
        fn no_header_makes_the_reader_panic(text in ".{0,30}") {
            let pairs = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"]
                .map(|name| (name, text.as_str()));
            let limits = Limits::read(headers(&pairs), Timestamp::from_unix_ms(0));
            prop_assert!(limits.retry_after.is_none_or(|pause| pause <= LONGEST_PAUSE));
        }
    }

    #[test]
    fn a_steady_sender_with_100_ms_of_latency_reaches_95_percent_of_the_limit() {
        let mut pacer = Pacer::new(Pacer::WINDOW);
        let limits = Limits {
            limit: Some(80),
            ..Limits::default()
        };
        let (mut now, mut sent) = (Duration::ZERO, 0);
        let mut open: VecDeque<(Duration, Permit)> = VecDeque::new();
        while now < Duration::from_secs(100) {
            while let Some((at, permit)) = open.front().copied()
                && at <= now
            {
                open.pop_front();
                pacer.answered(at, permit, &limits);
            }
            while open.len() < 8
                && let Ok(permit) = pacer.take(now)
            {
                sent += 1;
                open.push_back((now + ms(100), permit));
            }
            now += ms(1);
        }
        assert!(sent >= 3800, "{sent} of 4000");
    }

    #[test]
    fn what_others_send_with_the_same_token_counts() {
        let mut pacer = Pacer::new(Pacer::WINDOW);
        let permit = pacer.take(ms(0)).unwrap();
        let limits = Limits {
            limit: Some(10),
            remaining: Some(2),
            ..Limits::default()
        };
        pacer.answered(ms(10), permit, &limits);
        for _ in 0..2 {
            let permit = pacer.take(ms(10)).unwrap();
            pacer.answered(ms(20), permit, &Limits::default());
        }
        assert_eq!(pacer.take(ms(20)), Err(ms(2030)));
    }

    #[test]
    fn a_request_that_was_slow_leaves_the_window_as_late() {
        let mut pacer = Pacer::new(Pacer::WINDOW);
        let limits = Limits {
            limit: Some(2),
            ..Limits::default()
        };
        // With a handshake it takes 300 ms, without one 10 ms.
        let slow = pacer.take(ms(0)).unwrap();
        pacer.answered(ms(300), slow, &limits);
        let quick = pacer.take(ms(300)).unwrap();
        pacer.answered(ms(310), quick, &limits);
        assert_eq!(pacer.take(ms(310)), Err(ms(2030)), "290 ms + 2050 ms");
    }

    #[test]
    fn requests_without_an_answer_count_until_they_have_one() {
        let mut pacer = Pacer::new(Pacer::WINDOW);
        let limits = Limits {
            limit: Some(2),
            ..Limits::default()
        };
        let first = pacer.take(ms(0)).unwrap();
        pacer.answered(ms(10), first, &limits);
        let hanging = [pacer.take(ms(5000)).unwrap(), pacer.take(ms(5000)).unwrap()];
        assert!(pacer.take(ms(9000)).is_err());
        pacer.withdraw(hanging[0]);
        assert!(pacer.take(ms(9000)).is_ok());
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now = Timestamp::from_unix_ms(1_445_412_470_000); // Wed, 21 Oct 2015 07:27:50 GMT
        for (text, expected) in [
            ("120", Some(ms(120_000))),
            (" 0 ", Some(ms(0))),
            ("1.5", Some(ms(1500))),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(ms(10_000))),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(ms(0))),
            ("99999999999", Some(LONGEST_PAUSE)),
            ("-5", None),
            ("soon", None),
            ("NaN", None),
        ] {
            let limits = Limits::read(headers(&[("retry-after", text)]), now);
            assert_eq!(limits.retry_after, expected, "{text}");
        }
    }

    #[test]
    fn every_limit_header_is_read() {
        let pairs = [
            ("x-ratelimit-limit", "80"),
            ("x-ratelimit-remaining", "79"),
            ("x-ratelimit-reset", "2"),
            ("x-token-cost", "10"),
            ("x-daily-ratelimit-token-limit", "30000"),
            ("x-daily-ratelimit-token-remaining", "29990"),
        ];
        let limits = Limits::read(headers(&pairs), Timestamp::from_unix_ms(0));
        assert_eq!(
            limits,
            Limits {
                limit: Some(80),
                remaining: Some(79),
                reset: Some(ms(2000)),
                retry_after: None,
                cost: Some(10),
                daily_limit: Some(30_000),
                daily_remaining: Some(29_990),
            }
        );
    }
}
