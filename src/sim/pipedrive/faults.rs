//! Misbehaviour of Pipedrive that can be switched on while the sandbox runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What goes wrong with calls to the Channels API. Everything off is the default; rates lie between 0 and 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent switches, shown as such on the page"
)]
pub struct Faults {
    /// Every answer waits this long (milliseconds).
    pub latency_ms: u64,
    /// Share of calls answered with 502, without doing anything.
    pub server_error: f64,
    /// Share of calls whose connection is closed before anything is done.
    pub drop_before: f64,
    /// Share of calls whose connection is closed after the work is done: the caller cannot know.
    pub drop_after: f64,
    /// Share of calls that are done and answered with truncated JSON.
    pub broken_json: f64,
    /// Share of calls answered with 429 although the limit is not reached.
    pub too_many: f64,
    /// Every call is answered with 403 and an HTML page, as the edge in front of Pipedrive does.
    pub html_403: bool,
    /// Every call is answered with this status (404 or 410) and a body that is not Pipedrive's: the endpoints are
    /// gone.
    pub gone: Option<u16>,
    /// The access token is refused.
    pub unauthorized: bool,
    /// The token's user is no admin: channels cannot be registered.
    pub admin_only: bool,
    /// The daily budget counts as spent.
    pub budget_empty: bool,
    /// The OAuth server answers 503 to the app.
    pub oauth_down: bool,
    /// The OAuth server does what the app asks and closes the connection without an answer.
    pub oauth_drop_after: bool,
    /// Everything is switched off after this many calls that met a fault.
    pub only_next: Option<u32>,
}

impl Faults {
    /// These faults with the named ones replaced; the error says what is wrong with the change.
    pub fn changed(&self, change: &Value) -> Result<Self, String> {
        let Some(change) = change.as_object() else {
            return Err("faults must be an object".to_owned());
        };
        let mut merged = serde_json::to_value(self).map_err(|e| e.to_string())?;
        if let Some(merged) = merged.as_object_mut() {
            merged.extend(change.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let faults: Self = serde_json::from_value(merged).map_err(|e| e.to_string())?;
        faults.check()?;
        Ok(faults)
    }

    /// Refuses rates outside 0 to 1 and a "gone" status other than 404 and 410.
    pub fn check(&self) -> Result<(), String> {
        for (name, rate) in [
            ("server_error", self.server_error),
            ("drop_before", self.drop_before),
            ("drop_after", self.drop_after),
            ("broken_json", self.broken_json),
            ("too_many", self.too_many),
        ] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name} must lie between 0 and 1, not {rate}"));
            }
        }
        match self.gone {
            None | Some(404 | 410) => Ok(()),
            Some(other) => Err(format!("gone must be 404 or 410, not {other}")),
        }
    }
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Injected {
    Nothing,
    ServerError,
    DropBefore,
    DropAfter,
    BrokenJson,
    TooMany,
    Html403,
    Gone(u16),
    Unauthorized,
    BudgetEmpty,
}

impl Injected {
    /// Words for the call log.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::ServerError => "fault: 502",
            Self::DropBefore => "fault: connection dropped before processing",
            Self::DropAfter => "fault: connection dropped after processing",
            Self::BrokenJson => "fault: truncated JSON",
            Self::TooMany => "fault: 429",
            Self::Html403 => "fault: 403 with HTML",
            Self::Gone(_) => "fault: endpoints gone",
            Self::Unauthorized => "fault: token refused",
            Self::BudgetEmpty => "fault: daily budget empty",
        }
    }
}

/// The faults in force and the dice.
pub(super) struct Dice {
    pub(super) faults: Faults,
    seed: u64,
}

impl Dice {
    pub(super) const fn new(faults: Faults) -> Self {
        Self { faults, seed: 1 }
    }

    /// Decides what happens to the next call and how long it waits (milliseconds). The same sequence of faults
    /// comes out of every run.
    pub(super) fn roll(&mut self) -> (Injected, u64) {
        let faults = self.faults.clone();
        let injected = if let Some(status) = faults.gone {
            Injected::Gone(status)
        } else if faults.html_403 {
            Injected::Html403
        } else if faults.unauthorized {
            Injected::Unauthorized
        } else if faults.budget_empty {
            Injected::BudgetEmpty
        } else {
            [
                (faults.drop_before, Injected::DropBefore),
                (faults.server_error, Injected::ServerError),
                (faults.too_many, Injected::TooMany),
                (faults.drop_after, Injected::DropAfter),
                (faults.broken_json, Injected::BrokenJson),
            ]
            .into_iter()
            .find(|(rate, _)| *rate > 0.0 && self.random() < *rate)
            .map_or(Injected::Nothing, |(_, injected)| injected)
        };
        if let Some(left) = faults.only_next
            && (injected != Injected::Nothing || faults.latency_ms > 0)
        {
            match left {
                0 | 1 => self.faults = Faults::default(),
                _ => self.faults.only_next = Some(left - 1),
            }
        }
        (injected, faults.latency_ms)
    }

    /// A number in [0, 1): the top 32 bits of a `SplitMix64`.
    fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let top = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX);
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_replaces_only_the_named_faults() {
        let faults = Faults {
            latency_ms: 5,
            ..Faults::default()
        };
        let changed = faults.changed(&json!({"server_error": 0.5})).unwrap();
        assert_eq!(
            changed,
            Faults {
                latency_ms: 5,
                server_error: 0.5,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn a_change_that_makes_no_sense_is_refused_in_words() {
        for (change, word) in [
            (json!({"serverError": 1}), "serverError"),
            (json!({"drop_after": 1.5}), "drop_after"),
            (json!({"gone": 500}), "gone"),
            (json!([]), "object"),
        ] {
            let error = Faults::default().changed(&change).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_rate_is_met_over_many_calls() {
        let mut dice = Dice::new(Faults {
            server_error: 0.3,
            ..Faults::default()
        });
        let hits = (0..10_000)
            .filter(|_| dice.roll().0 == Injected::ServerError)
            .count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
    }

    #[test]
    fn faults_end_after_the_wanted_number_of_calls() {
        let mut dice = Dice::new(Faults {
            drop_after: 1.0,
            only_next: Some(2),
            ..Faults::default()
        });
        let met: Vec<_> = (0..4).map(|_| dice.roll().0).collect();
        assert_eq!(
            met,
            [
                Injected::DropAfter,
                Injected::DropAfter,
                Injected::Nothing,
                Injected::Nothing
            ]
        );
    }
}
