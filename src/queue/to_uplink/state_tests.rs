use super::*;

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn trouble(scope: Scope) -> Outcome {
    Outcome::Retry {
        reason: "Pipedrive has a fault of its own.".to_owned(),
        after: None,
        scope,
    }
}

#[test]
fn a_429_holds_everything_for_as_long_as_it_says_and_late_answers_do_not_change_that() {
    let mut state = State::new(Patience::default(), 8);
    let (now, sms) = (Duration::from_secs(100), channel("sms"));
    let limited = || Outcome::Retry {
        reason: "Pipedrive asks to slow down (429).".to_owned(),
        after: Some(Duration::from_secs(7)),
        scope: Scope::Everything,
    };
    let begun: Vec<_> = (0..3)
        .map(|n| (ConversationId(n), state.begin(Some(ConversationId(n)))))
        .collect();
    for ((conversation, era), outcome) in begun.into_iter().zip([limited(), limited(), Outcome::Accepted]) {
        state.judge(now, era, &sms, Some(conversation), outcome, 0);
        state.settle(conversation, now);
    }
    assert_eq!(state.room(now + Duration::from_millis(6999)), 0);
    assert_eq!(state.next_alarm(now), Some(Duration::from_secs(107)));
    let later = now + Duration::from_secs(7);
    assert_eq!(state.room(later), 1);
    assert!(state.excluded().is_empty());
    let era = state.begin(Some(ConversationId(1)));
    assert_eq!(state.room(later), 0);
    state.judge(later, era, &sms, Some(ConversationId(1)), Outcome::Accepted, 0);
    assert_eq!(state.room(later), 8);
}

#[test]
fn five_unclear_failures_in_a_row_hold_everything_and_a_success_between_them_does_not() {
    let mut state = State::new(Patience::default(), 8);
    let (now, sms) = (Duration::ZERO, channel("sms"));
    let fail = |state: &mut State, n: u64, outcome: Outcome| {
        let era = state.begin(Some(ConversationId(n)));
        state.judge(now, era, &sms, Some(ConversationId(n)), outcome, 0);
        state.settle(ConversationId(n), now);
    };
    for n in 0..4 {
        fail(&mut state, n, trouble(Scope::Unclear));
    }
    fail(&mut state, 10, Outcome::Accepted);
    for n in 20..24 {
        fail(&mut state, n, trouble(Scope::Unclear));
    }
    assert!(state.current_hold().is_none());
    fail(&mut state, 30, trouble(Scope::Unclear));
    assert_eq!(state.current_hold().unwrap().kind, HoldKind::Trouble);
    assert_eq!(state.room(now), 0);
}

#[test]
fn a_token_that_stays_refused_is_tried_ever_more_rarely() {
    let mut state = State::new(Patience::default(), 8);
    let (mut now, sms) = (Duration::ZERO, channel("sms"));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let era = state.begin(None);
        let outcome = Outcome::NotAuthorized {
            reason: "Pipedrive does not accept the access token (401).".to_owned(),
        };
        state.judge(now, era, &sms, None, outcome, u32::MAX);
        let until = state.current_hold().unwrap().until;
        pauses.push(until.saturating_sub(now).as_secs());
        now = until;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 900, 900]);
}

#[test]
fn the_pacer_learns_from_the_answers() {
    let mut state = State::new(Patience::default(), 8);
    let limits = Limits {
        limit: Some(2),
        remaining: Some(0),
        ..Limits::default()
    };
    state.learn(Duration::ZERO, &limits);
    assert!(state.take(Duration::ZERO).is_err());
    assert!(state.take(Duration::from_secs(3)).is_ok());
}

#[test]
fn one_conversation_that_fails_again_and_again_says_nothing_about_the_others() {
    let mut state = State::new(Patience::default(), 8);
    let (now, sms, stuck) = (Duration::ZERO, channel("sms"), ConversationId(1));
    for _ in 0..20 {
        let era = state.begin(Some(stuck));
        state.judge(now, era, &sms, Some(stuck), trouble(Scope::Unclear), 0);
        state.settle(stuck, now);
    }
    assert!(state.current_hold().is_none());
    assert_eq!(state.waits()[&stuck].attempts, 20);
    assert_eq!(state.room(now), 8);
}

#[test]
fn an_answer_from_before_a_person_registered_the_channel_does_not_unlink_it_again() {
    let mut state = State::new(Patience::default(), 8);
    let (now, sms, conversation) = (Duration::ZERO, channel("sms"), ConversationId(1));
    let unknown = || Outcome::ChannelUnlinked {
        reason: "Pipedrive does not know this channel any more.".to_owned(),
    };
    let era = state.begin(Some(conversation));
    state.retry_now();
    let consequence = state.judge(now, era, &sms, Some(conversation), unknown(), 0);
    assert_eq!(consequence, Consequence::Waits);
    let era = state.begin(Some(conversation));
    let consequence = state.judge(now, era, &sms, Some(conversation), unknown(), 0);
    assert!(matches!(consequence, Consequence::Unlinked(_)));
}
