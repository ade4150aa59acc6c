//! Pipedrive's two limits: a burst per token in a rolling window of 2 s, and a daily budget of tokens per company.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The window in which the burst is counted.
const WINDOW: Duration = Duration::from_secs(2);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Limits in force; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls in any 2 seconds.
    pub burst: Option<u32>,
    /// Tokens from midnight to midnight UTC.
    pub daily_tokens: Option<u64>,
}

/// Pipedrive's plans, as far as limits depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// 80 calls per 2 s, factor 1.
    Lite,
    /// 160 calls per 2 s, factor 2.
    Growth,
    /// 400 calls per 2 s, factor 5.
    Premium,
    /// 480 calls per 2 s, factor 7.
    Ultimate,
}

impl Limits {
    /// The limits of a plan with this many seats.
    #[must_use]
    pub fn of_plan(plan: Plan, seats: u32) -> Self {
        let (burst, factor) = match plan {
            Plan::Lite => (80, 1),
            Plan::Growth => (160, 2),
            Plan::Premium => (400, 5),
            Plan::Ultimate => (480, 7),
        };
        Self {
            burst: Some(burst),
            daily_tokens: Some(30_000 * factor * u64::from(seats)),
        }
    }
}

/// Counts calls against the limits.
pub(super) struct Limiter {
    pub(super) limits: Limits,
    window: VecDeque<Instant>,
    day: i64,
    spent: u64,
}

/// The outcome for one call.
pub(super) struct Taken {
    /// What every answer carries.
    pub(super) headers: Vec<(&'static str, String)>,
    /// Why the call is refused with 429, if it is.
    pub(super) refused: Option<&'static str>,
}

impl Limiter {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            window: VecDeque::new(),
            day: 0,
            spent: 0,
        }
    }

    /// Counts one call of this cost, unless a limit is reached. `budget_empty` treats the day's budget as spent.
    pub(super) fn take(&mut self, cost: u64, budget_empty: bool, now: Instant, unix_ms: i64) -> Taken {
        let day = unix_ms.div_euclid(DAY_MS);
        if day != self.day {
            self.day = day;
            self.spent = 0;
        }
        while self
            .window
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) >= WINDOW)
        {
            self.window.pop_front();
        }
        let daily_left = self
            .limits
            .daily_tokens
            .map(|budget| budget.saturating_sub(self.spent));
        let used = u32::try_from(self.window.len()).unwrap_or(u32::MAX);
        let refused = if budget_empty || daily_left.is_some_and(|left| left < cost) {
            Some("daily budget of tokens is spent")
        } else if self.limits.burst.is_some_and(|burst| used >= burst) {
            Some("too many calls within 2 seconds")
        } else {
            None
        };
        if refused.is_none() {
            if self.limits.burst.is_some() {
                self.window.push_back(now);
            }
            self.spent += cost;
        }
        Taken {
            headers: self.headers(cost, budget_empty, now),
            refused,
        }
    }

    /// Forgets what was spent today, as midnight does.
    pub(super) const fn new_day(&mut self) {
        self.spent = 0;
    }

    /// Tokens spent since midnight.
    pub(super) const fn spent(&self) -> u64 {
        self.spent
    }

    fn headers(&self, cost: u64, budget_empty: bool, now: Instant) -> Vec<(&'static str, String)> {
        let mut headers = vec![("x-token-cost", cost.to_string())];
        if let Some(burst) = self.limits.burst {
            let used = u32::try_from(self.window.len()).unwrap_or(u32::MAX);
            let reset = self.window.front().map_or(WINDOW, |first| {
                WINDOW.saturating_sub(now.saturating_duration_since(*first))
            });
            headers.push(("x-ratelimit-limit", burst.to_string()));
            headers.push(("x-ratelimit-remaining", burst.saturating_sub(used).to_string()));
            headers.push((
                "x-ratelimit-reset",
                reset.as_millis().div_ceil(1000).max(1).to_string(),
            ));
        }
        if let Some(budget) = self.limits.daily_tokens {
            let left = if budget_empty {
                0
            } else {
                budget.saturating_sub(self.spent)
            };
            headers.push(("x-daily-ratelimit-token-limit", budget.to_string()));
            headers.push(("x-daily-ratelimit-token-remaining", left.to_string()));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(taken: &Taken, name: &str) -> String {
        taken
            .headers
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.clone())
            .unwrap_or_default()
    }

    #[test]
    fn the_burst_is_counted_in_a_rolling_window_of_two_seconds() {
        let mut limiter = Limiter::new(Limits {
            burst: Some(3),
            daily_tokens: None,
        });
        let start = Instant::now();
        for (after_ms, accepted, left, reset) in [
            (0, true, "2", "2"),
            (1_500, true, "1", "1"),
            (1_600, true, "0", "1"),
            (1_700, false, "0", "1"),
            // The first call has left the window, the other two have not.
            (2_000, true, "0", "2"),
            (2_100, false, "0", "2"),
            (3_600, true, "1", "1"),
        ] {
            let taken = limiter.take(10, false, start + Duration::from_millis(after_ms), 0);
            assert_eq!(taken.refused.is_none(), accepted, "after {after_ms} ms");
            assert_eq!(
                header(&taken, "x-ratelimit-remaining"),
                left,
                "after {after_ms} ms"
            );
            assert_eq!(header(&taken, "x-ratelimit-reset"), reset, "after {after_ms} ms");
            assert_eq!(header(&taken, "x-ratelimit-limit"), "3");
        }
    }

    #[test]
    fn the_daily_budget_is_spent_by_cost_and_comes_back_at_midnight() {
        let mut limiter = Limiter::new(Limits {
            burst: None,
            daily_tokens: Some(26),
        });
        let now = Instant::now();
        assert!(limiter.take(10, false, now, 0).refused.is_none());
        assert!(limiter.take(10, false, now, 0).refused.is_none());
        let refused = limiter.take(10, false, now, 0);
        assert!(refused.refused.is_some());
        assert_eq!(header(&refused, "x-daily-ratelimit-token-remaining"), "6");
        assert!(
            limiter.take(6, false, now, 0).refused.is_none(),
            "a DELETE still fits"
        );
        assert!(
            limiter.take(10, false, now, DAY_MS).refused.is_none(),
            "the next day"
        );
    }

    #[test]
    fn a_refused_call_costs_nothing() {
        let mut limiter = Limiter::new(Limits {
            burst: Some(1),
            daily_tokens: Some(100),
        });
        let now = Instant::now();
        limiter.take(10, false, now, 0);
        limiter.take(10, false, now, 0);
        assert_eq!(limiter.spent(), 10);
    }

    #[test]
    fn plans_have_the_documented_limits() {
        assert_eq!(
            Limits::of_plan(Plan::Growth, 3),
            Limits {
                burst: Some(160),
                daily_tokens: Some(180_000)
            }
        );
    }
}
