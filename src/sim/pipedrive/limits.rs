//! Pipedrive's two limits: a burst per token in a rolling window of 2 s, and a daily budget of tokens per company.

use std::collections::{HashMap, VecDeque};
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
    /// Tokens from midnight to midnight UTC, by the server's clock.
    pub daily_tokens: Option<u64>,
    /// Leaves out `x-token-cost`: not every answer of Pipedrive has it.
    pub hide_cost: bool,
    /// Leaves out `x-daily-ratelimit-token-…`, likewise.
    pub hide_daily: bool,
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
            ..Self::default()
        }
    }
}

/// Counts calls against the limits.
pub(super) struct Limiter {
    pub(super) limits: Limits,
    /// Calls of the last two seconds by who made them.
    windows: HashMap<String, VecDeque<Instant>>,
    day: i64,
    /// Tokens spent since midnight by company.
    spent: HashMap<i64, u64>,
}

/// One call to be counted.
#[derive(Clone, Copy)]
pub(super) struct Spending<'a> {
    /// Whose burst is counted.
    pub(super) key: &'a str,
    /// Whose budget is spent.
    pub(super) company: i64,
    /// The company's own limits.
    pub(super) limits: Option<Limits>,
    /// In tokens.
    pub(super) cost: u64,
    /// The day's budget is treated as spent.
    pub(super) budget_empty: bool,
}

/// The outcome for one call.
pub(super) struct Taken {
    /// What every answer carries.
    pub(super) headers: Vec<(&'static str, String)>,
    /// Why the call is refused with 429, if it is.
    pub(super) refused: Option<&'static str>,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            windows: HashMap::new(),
            day: 0,
            spent: HashMap::new(),
        }
    }

    /// Counts one call, unless a limit is reached.
    pub(super) fn take(&mut self, call: Spending<'_>, now: Instant, unix_ms: i64) -> Taken {
        let limits = call.limits.unwrap_or(self.limits);
        let day = unix_ms.div_euclid(DAY_MS);
        if day != self.day {
            self.day = day;
            self.spent.clear();
        }
        let window = self.windows.entry(call.key.to_owned()).or_default();
        while window
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) >= WINDOW)
        {
            window.pop_front();
        }
        let spent = self.spent.entry(call.company).or_default();
        let daily_left = limits.daily_tokens.map(|budget| budget.saturating_sub(*spent));
        let used = u32::try_from(window.len()).unwrap_or(u32::MAX);
        let refused = if call.budget_empty || daily_left.is_some_and(|left| left < call.cost) {
            Some("daily budget of tokens is spent")
        } else if limits.burst.is_some_and(|burst| used >= burst) {
            Some("too many calls within 2 seconds")
        } else {
            None
        };
        if refused.is_none() {
            if limits.burst.is_some() {
                window.push_back(now);
            }
            *spent += call.cost;
        }
        let headers = headers(limits, call, window, *spent, now);
        Taken { headers, refused }
    }

    /// Forgets what was spent today, as midnight does.
    pub(super) fn new_day(&mut self) {
        self.spent.clear();
    }

    /// Tokens spent since midnight, by all companies.
    pub(super) fn spent(&self) -> u64 {
        self.spent.values().sum()
    }
}

fn headers(
    limits: Limits,
    call: Spending<'_>,
    window: &VecDeque<Instant>,
    spent: u64,
    now: Instant,
) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if !limits.hide_cost {
        headers.push(("x-token-cost", call.cost.to_string()));
    }
    if let Some(burst) = limits.burst {
        let used = u32::try_from(window.len()).unwrap_or(u32::MAX);
        let reset = window.front().map_or(WINDOW, |first| {
            WINDOW.saturating_sub(now.saturating_duration_since(*first))
        });
        headers.push(("x-ratelimit-limit", burst.to_string()));
        headers.push(("x-ratelimit-remaining", burst.saturating_sub(used).to_string()));
        headers.push((
            "x-ratelimit-reset",
            reset.as_millis().div_ceil(1000).max(1).to_string(),
        ));
    }
    if let Some(budget) = limits.daily_tokens.filter(|_| !limits.hide_daily) {
        let left = if call.budget_empty {
            0
        } else {
            budget.saturating_sub(spent)
        };
        headers.push(("x-daily-ratelimit-token-limit", budget.to_string()));
        headers.push(("x-daily-ratelimit-token-remaining", left.to_string()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spending(cost: u64) -> Spending<'static> {
        Spending {
            key: "1/11",
            company: 1,
            limits: None,
            cost,
            budget_empty: false,
        }
    }

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
            ..Limits::default()
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
            let taken = limiter.take(spending(10), start + Duration::from_millis(after_ms), 0);
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
            daily_tokens: Some(26),
            ..Limits::default()
        });
        let now = Instant::now();
        assert!(limiter.take(spending(10), now, 0).refused.is_none());
        assert!(limiter.take(spending(10), now, 0).refused.is_none());
        let refused = limiter.take(spending(10), now, 0);
        assert!(refused.refused.is_some());
        assert_eq!(header(&refused, "x-daily-ratelimit-token-remaining"), "6");
        assert!(
            limiter.take(spending(6), now, 0).refused.is_none(),
            "a DELETE still fits"
        );
        assert!(
            limiter.take(spending(10), now, DAY_MS).refused.is_none(),
            "the next day"
        );
    }

    #[test]
    fn a_refused_call_costs_nothing() {
        let mut limiter = Limiter::new(Limits {
            burst: Some(1),
            daily_tokens: Some(100),
            ..Limits::default()
        });
        let now = Instant::now();
        limiter.take(spending(10), now, 0);
        limiter.take(spending(10), now, 0);
        assert_eq!(limiter.spent(), 10);
    }

    #[test]
    fn plans_have_the_documented_limits() {
        assert_eq!(
            Limits::of_plan(Plan::Growth, 3),
            Limits {
                burst: Some(160),
                daily_tokens: Some(180_000),
                ..Limits::default()
            }
        );
    }

    #[test]
    fn the_burst_belongs_to_a_token_and_the_budget_to_its_company() {
        let mut limiter = Limiter::new(Limits {
            burst: Some(1),
            daily_tokens: Some(20),
            ..Limits::default()
        });
        let now = Instant::now();
        let colleague = Spending {
            key: "1/12",
            ..spending(10)
        };
        let stranger = Spending {
            key: "2/21",
            company: 2,
            limits: Some(Limits::of_plan(Plan::Lite, 1)),
            ..spending(10)
        };
        assert!(limiter.take(spending(10), now, 0).refused.is_none());
        assert!(limiter.take(spending(10), now, 0).refused.is_some(), "the burst");
        assert!(limiter.take(colleague, now, 0).refused.is_none(), "his own burst");
        assert_eq!(
            limiter.take(colleague, now + WINDOW, 0).refused,
            Some("daily budget of tokens is spent")
        );
        let taken = limiter.take(stranger, now, 0);
        assert_eq!(header(&taken, "x-daily-ratelimit-token-remaining"), "29990");
        assert_eq!(header(&taken, "x-ratelimit-remaining"), "79");
    }

    #[test]
    fn optional_headers_can_be_left_out() {
        let mut limiter = Limiter::new(Limits {
            hide_cost: true,
            hide_daily: true,
            ..Limits::of_plan(Plan::Lite, 1)
        });
        let taken = limiter.take(spending(10), Instant::now(), 0);
        let names: Vec<_> = taken.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
        );
    }
}
