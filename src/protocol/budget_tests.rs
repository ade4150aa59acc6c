use proptest::prelude::*;

use super::*;

const MIDNIGHT: i64 = 20_000 * DAY_MS;

fn at(hour: i64, minute: i64) -> Timestamp {
    Timestamp::from_unix_ms(MIDNIGHT + (hour * 60 + minute) * MINUTE_MS)
}

fn said(limit: u64, remaining: u64) -> Limits {
    Limits {
        daily_limit: Some(limit),
        daily_remaining: Some(remaining),
        ..Limits::default()
    }
}

fn call(budget: &mut Budget, now: Timestamp, limits: &Limits) {
    budget.begin(RECEIVE);
    budget.end(now, RECEIVE, false, limits);
}

#[test]
fn a_steady_rate_says_when_the_budget_ends() {
    let mut budget = Budget::new(Some(30_000), Spent::default(), at(8, 0));
    // Six messages a minute are 3,600 tokens an hour.
    for minute in 0..60 {
        for _ in 0..6 {
            call(&mut budget, at(8, minute), &Limits::default());
        }
    }
    let now = Timestamp::from_unix_ms(at(8, 59).unix_ms() + 59_999);
    assert_eq!(budget.left(now), Some(26_400));
    let Forecast::EndsAt(ends) = budget.forecast(now) else {
        panic!("{:?}", budget.forecast(now));
    };
    let hours = (ends.unix_ms() - now.unix_ms()) / (60 * MINUTE_MS);
    assert_eq!(hours, 7, "26,400 tokens at 3,600 an hour");
    assert_eq!(
        budget.words(now),
        "26400 of 30000 tokens left today, 3600 spent here; at this rate the budget ends at 16:19 UTC"
    );
    assert_eq!(budget.statuses(now), Statuses::AfterMessages);
    // After a quiet quarter of an hour it lasts.
    assert_eq!(budget.forecast(at(9, 30)), Forecast::Lasts);
    assert_eq!(budget.statuses(at(9, 30)), Statuses::ByAge);
}

#[test]
fn the_last_tenth_is_for_new_messages_and_midnight_brings_everything_back() {
    let mut budget = Budget::new(None, Spent::default(), at(8, 0));
    call(&mut budget, at(8, 0), &said(1000, 90));
    assert_eq!(budget.statuses(at(12, 0)), Statuses::Wait);
    assert_eq!(budget.room(at(12, 0), RECEIVE), usize::MAX);
    call(&mut budget, at(12, 0), &said(1000, 9));
    assert_eq!(
        budget.room(at(12, 0), RECEIVE),
        1,
        "one finds out whether that is so"
    );
    assert_eq!(budget.room(at(12, 0), DELETE), usize::MAX);
    budget.begin(RECEIVE);
    assert_eq!(budget.room(at(12, 0), RECEIVE), 0);
    budget.end(at(12, 0), RECEIVE, true, &Limits::default());
    assert_eq!(budget.forecast(at(12, 0)), Forecast::Empty { until: at(24, 0) });
    assert_eq!(budget.left(at(24, 0)), Some(1000));
    assert_eq!(budget.room(at(24, 0), RECEIVE), usize::MAX);
    assert_eq!(budget.spent(at(24, 0)), 0);
}

#[test]
fn the_count_survives_a_restart_on_the_same_day_and_not_the_night() {
    let mut budget = Budget::new(Some(100), Spent::default(), at(8, 0));
    for _ in 0..10 {
        call(&mut budget, at(8, 0), &Limits::default());
    }
    let kept = serde_json::to_vec(budget.record()).unwrap();
    let again = Budget::new(Some(100), serde_json::from_slice(&kept).unwrap(), at(9, 0));
    assert_eq!(again.room(at(9, 0), RECEIVE), 0);
    assert!(again.is_own_limit(at(9, 0), RECEIVE));
    assert_eq!(again.room(at(24, 1), RECEIVE), usize::MAX);
}

#[test]
fn requests_on_their_way_are_counted_before_their_answer() {
    let mut budget = Budget::new(Some(25), Spent::default(), at(8, 0));
    budget.begin(RECEIVE);
    assert!(budget.room(at(8, 0), RECEIVE) > 0);
    budget.begin(RECEIVE);
    assert_eq!(budget.room(at(8, 0), RECEIVE), 0);
    budget.end(at(8, 0), RECEIVE, true, &Limits::default());
    assert!(budget.room(at(8, 0), RECEIVE) > 0, "a refused call costs nothing");
}

#[test]
fn an_answer_that_was_overtaken_changes_nothing_and_a_midnight_of_the_server_is_seen() {
    let mut budget = Budget::new(None, Spent::default(), at(8, 0));
    budget.begin(RECEIVE);
    budget.begin(RECEIVE);
    for remaining in [5000, 4980, 4990, 4970] {
        budget.begin(RECEIVE);
        budget.end(at(8, 0), RECEIVE, false, &said(30_000, remaining));
    }
    budget.withdraw(2 * RECEIVE);
    assert_eq!(budget.left(at(8, 0)), Some(4970));
    call(&mut budget, at(22, 0), &said(30_000, 29_990));
    assert_eq!(budget.left(at(22, 0)), Some(29_990));
    assert_eq!(budget.limit(), Some(30_000));
}

#[test]
fn what_a_call_really_cost_counts_and_others_spend_too() {
    let mut budget = Budget::new(Some(1000), Spent::default(), at(8, 0));
    let dear = Limits {
        cost: Some(40),
        ..Limits::default()
    };
    call(&mut budget, at(8, 0), &dear);
    assert_eq!(budget.spent(at(8, 0)), 40);
    call(&mut budget, at(8, 0), &said(30_000, 900));
    assert_eq!(
        budget.left(at(8, 0)),
        Some(900),
        "what the company has left is less"
    );
    budget.count(at(8, 0), DELETE);
    assert_eq!(budget.left(at(8, 0)), Some(894));
}

#[test]
fn a_429_of_the_day_waits_as_long_as_it_says_else_until_midnight_with_a_question_each_hour() {
    let seconds = Duration::from_secs;
    let limits = |retry_after: Option<Duration>, reset: Option<Duration>| Limits {
        reset,
        retry_after,
        ..Limits::default()
    };
    for (limits, now, expected) in [
        (limits(Some(seconds(7200)), None), at(9, 0), seconds(7200)),
        (limits(None, Some(seconds(5000))), at(9, 0), seconds(5000)),
        (limits(None, Some(seconds(2))), at(9, 0), seconds(3600)),
        (limits(None, None), at(23, 50), seconds(607)),
    ] {
        assert_eq!(pause(long_pause(&limits), now, 7), expected);
    }
}

proptest! {
    #[test]
    fn no_forecast_overflows_and_none_lies_in_the_past(
        left: u64, spent: u64, span in 1u64..900_000, now in 0i64..4_000_000_000_000,
    ) {
        let now = Timestamp::from_unix_ms(now);
        match forecast(left, spent, Duration::from_millis(span), now, midnight(now)) {
            Forecast::EndsAt(ends) => prop_assert!(ends >= now && ends < midnight(now)),
            Forecast::Empty { .. } => prop_assert!(left < RECEIVE),
            Forecast::Lasts | Forecast::Unknown => {}
        }
    }

    #[test]
    fn what_is_spent_never_exceeds_what_is_allowed(
        allowed in 0u64..500, steps in prop::collection::vec((0i64..40_000, any::<bool>()), 1..200),
    ) {
        let mut budget = Budget::new(Some(allowed), Spent::default(), at(0, 0));
        let (mut now, mut open) = (at(0, 0), 0);
        for (step, begin) in steps {
            now = now.plus_ms(step);
            if begin && budget.room(now, RECEIVE) > 0 {
                budget.begin(RECEIVE);
                open += 1;
            } else if open > 0 {
                budget.end(now, RECEIVE, false, &Limits::default());
                open -= 1;
            }
            prop_assert!(budget.spent(now) <= allowed);
        }
    }
}
