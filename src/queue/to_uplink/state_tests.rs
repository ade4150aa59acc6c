use super::*;
use crate::protocol::retry::Limits;

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn one() -> InstallationId {
    InstallationId::of_configured_token()
}

/// A request of the one installation ends with `outcome`.
fn judge(
    state: &mut State,
    now: Duration,
    ticket: Ticket,
    conversation: Option<ConversationId>,
    outcome: Outcome,
    jitter: u32,
) -> Consequence {
    let asked = Asked {
        installation: &one(),
        ticket,
        channel: &channel("sms"),
        conversation,
    };
    state.judge(now, asked, outcome.into(), jitter)
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
    let mut state = State::new(Patience::default(), 8, None);
    let now = Duration::from_secs(100);
    let limited = || Outcome::Retry {
        reason: "Pipedrive asks to slow down (429).".to_owned(),
        after: Some(Duration::from_secs(7)),
        scope: Scope::Everything,
    };
    let begun: Vec<_> = (0..3)
        .map(|n| {
            (
                ConversationId(n),
                state.begin(&one(), Some(ConversationId(n)), now).unwrap(),
            )
        })
        .collect();
    for ((conversation, era), outcome) in begun.into_iter().zip([limited(), limited(), Outcome::Accepted]) {
        judge(&mut state, now, era, Some(conversation), outcome, 0);
        state.settle(conversation, now);
    }
    assert_eq!(state.room_of(&one(), now + Duration::from_millis(6999)), 0);
    assert_eq!(state.next_alarm(now), Some(Duration::from_secs(107)));
    let later = now + Duration::from_secs(7);
    assert_eq!(state.room_of(&one(), later), 1);
    assert!(state.excluded().is_empty());
    let era = state.begin(&one(), Some(ConversationId(1)), later).unwrap();
    assert_eq!(state.room_of(&one(), later), 0);
    judge(
        &mut state,
        later,
        era,
        Some(ConversationId(1)),
        Outcome::Accepted,
        0,
    );
    assert_eq!(state.room_of(&one(), later), 8);
}

#[test]
fn five_unclear_failures_in_a_row_hold_everything_and_a_success_between_them_does_not() {
    let mut state = State::new(Patience::default(), 8, None);
    let now = Duration::ZERO;
    let fail = |state: &mut State, n: u64, outcome: Outcome| {
        let era = state.begin(&one(), Some(ConversationId(n)), now).unwrap();
        judge(state, now, era, Some(ConversationId(n)), outcome, 0);
        state.settle(ConversationId(n), now);
    };
    for n in 0..4 {
        fail(&mut state, n, trouble(Scope::Unclear));
    }
    fail(&mut state, 10, Outcome::Accepted);
    for n in 20..24 {
        fail(&mut state, n, trouble(Scope::Unclear));
    }
    assert!(state.hold_of(&one()).is_none());
    fail(&mut state, 30, trouble(Scope::Unclear));
    assert_eq!(state.hold_of(&one()).unwrap().kind, HoldKind::Trouble);
    assert_eq!(state.room_of(&one(), now), 0);
}

#[test]
fn a_token_that_stays_refused_is_tried_ever_more_rarely() {
    let mut state = State::new(Patience::default(), 8, None);
    let mut now = Duration::ZERO;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let era = state.begin(&one(), None, now).unwrap();
        let outcome = Outcome::NotAuthorized {
            reason: "Pipedrive does not accept the access token (401).".to_owned(),
        };
        judge(&mut state, now, era, None, outcome, u32::MAX);
        let until = state.hold_of(&one()).unwrap().until;
        pauses.push(until.saturating_sub(now).as_secs());
        now = until;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 900, 900]);
}

fn answer(limits: Limits) -> Delivered {
    Delivered {
        outcome: Outcome::Accepted,
        limits,
    }
}

fn judge_answer(
    state: &mut State,
    now: Duration,
    installation: &InstallationId,
    ticket: Ticket,
    answer: Delivered,
) {
    let asked = Asked {
        installation,
        ticket,
        channel: &channel("sms"),
        conversation: Some(ConversationId(1)),
    };
    state.judge(now, asked, answer, 0);
}

#[test]
fn the_pacer_learns_from_the_answers() {
    let mut state = State::new(Patience::default(), 8, None);
    let limits = Limits {
        limit: Some(2),
        remaining: Some(0),
        ..Limits::default()
    };
    let ticket = state.begin(&one(), None, Duration::ZERO).unwrap();
    judge_answer(&mut state, Duration::ZERO, &one(), ticket, answer(limits));
    assert!(state.begin(&one(), None, Duration::ZERO).is_err());
    assert!(state.begin(&one(), None, Duration::from_secs(3)).is_ok());
}

#[test]
fn the_tokens_of_the_day_hold_one_company_until_its_midnight_with_a_question_each_hour() {
    let noon = Timestamp::from_unix_ms(20_000 * 86_400_000 + 43_200_000);
    let mut state = State::new(Patience::default(), 8, None);
    let (poor, rich) = (InstallationId::of_user(1, 7), InstallationId::of_user(2, 8));
    let mut now = Duration::ZERO;
    state.advance(now, noon);
    let spent = || Outcome::Retry {
        reason: "The API tokens of the company are used up for today (429).".to_owned(),
        after: None,
        scope: Scope::Day,
    };
    let mut questions = 0;
    while state.wall(now) < budget::midnight(noon) {
        state.advance(now, noon.plus_ms(milliseconds(now)));
        assert_eq!(state.room_of(&rich, now), 8);
        if state.room_of(&poor, now) > 0 {
            let ticket = state.begin(&poor, Some(ConversationId(1)), now).unwrap();
            judge_answer(&mut state, now, &poor, ticket, spent().into());
            state.settle(ConversationId(1), now);
            assert_eq!(state.hold_of(&poor).unwrap().kind, HoldKind::Day);
            questions += 1;
        }
        now += Duration::from_secs(60);
    }
    assert!((12..=13).contains(&questions), "{questions}");
}

#[test]
fn users_of_one_company_spend_the_same_tokens() {
    let mut state = State::new(Patience::default(), 8, Some(100));
    let (one, two) = (InstallationId::of_user(1, 7), InstallationId::of_user(1, 8));
    let now = Duration::ZERO;
    for _ in 0..10 {
        let ticket = state.begin(&one, Some(ConversationId(1)), now).unwrap();
        judge_answer(&mut state, now, &one, ticket, answer(Limits::default()));
        state.settle(ConversationId(1), now);
    }
    assert_eq!((state.room_of(&one, now), state.room_of(&two, now)), (0, 0));
}

#[test]
fn one_conversation_that_fails_again_and_again_says_nothing_about_the_others() {
    let mut state = State::new(Patience::default(), 8, None);
    let (now, stuck) = (Duration::ZERO, ConversationId(1));
    for _ in 0..20 {
        let era = state.begin(&one(), Some(stuck), now).unwrap();
        judge(&mut state, now, era, Some(stuck), trouble(Scope::Unclear), 0);
        state.settle(stuck, now);
    }
    assert!(state.hold_of(&one()).is_none());
    assert_eq!(state.waits()[&stuck].attempts, 20);
    assert_eq!(state.room_of(&one(), now), 8);
}

#[test]
fn an_answer_from_before_a_person_registered_the_channel_does_not_unlink_it_again() {
    let mut state = State::new(Patience::default(), 8, None);
    let (now, conversation) = (Duration::ZERO, ConversationId(1));
    let unknown = || Outcome::ChannelUnlinked {
        reason: "Pipedrive does not know this channel any more.".to_owned(),
    };
    let era = state.begin(&one(), Some(conversation), now).unwrap();
    state.retry_now();
    let consequence = judge(&mut state, now, era, Some(conversation), unknown(), 0);
    assert_eq!(consequence, Consequence::Waits);
    let era = state.begin(&one(), Some(conversation), now).unwrap();
    let consequence = judge(&mut state, now, era, Some(conversation), unknown(), 0);
    assert!(matches!(consequence, Consequence::Unlinked(_)));
}

#[test]
fn that_the_own_budget_is_spent_is_said_once_a_day_and_company() {
    let mut state = State::new(Patience::default(), 8, Some(2 * budget::RECEIVE));
    let morning = Timestamp::from_unix_ms(1_769_744_285_000);
    let (first, colleague) = (InstallationId::of_user(7, 1), InstallationId::of_user(7, 2));
    state.advance(Duration::ZERO, morning);
    let spend = |state: &mut State, now| {
        let wall = state.wall(now);
        state.budget(&first, now).count(wall, budget::RECEIVE);
    };
    spend(&mut state, Duration::ZERO);
    assert!(!state.has_just_spent(&first, Duration::ZERO));
    spend(&mut state, Duration::ZERO);
    assert!(state.has_just_spent(&first, Duration::ZERO));
    assert!(!state.has_just_spent(&first, Duration::from_secs(60)));
    assert!(!state.has_just_spent(&colleague, Duration::from_secs(60)));
    let tomorrow = Duration::from_secs(24 * 60 * 60);
    assert!(!state.has_just_spent(&first, tomorrow));
    spend(&mut state, tomorrow);
    spend(&mut state, tomorrow);
    assert!(state.has_just_spent(&first, tomorrow));
}
