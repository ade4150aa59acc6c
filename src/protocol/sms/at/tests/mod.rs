//! Transcripts of dialogues: bytes in, commands out. They lie in `tests/transcripts` and read as
//!
//! ```text
//! ready                      the start-up of a modem without peculiarities is done
//! < +CMTI: "SM",3            a line of the modem          << \r\n>\x20    its bytes
//! > AT+CMGR=3                the command that must follow  >> \x1b        the bytes
//! ! received SM 3 00ff       the event that must follow
//! ? signal -95               what is known of the modem
//! wait 10s                   time passes
//! submit 1 2 00aabb          a call of the driver
//! nothing                    neither a command nor an event is left
//! ```

mod bytes;

use std::collections::VecDeque;
use std::time::Duration;

use super::{Action, Dialogue, Event, Memory, Place, SendOutcome, Settings, Source};

/// A start-up without peculiarities: what is asked, and what the modem says.
const STARTUP: [(&str, &str); 9] = [
    ("AT+CGMI", "Example\r\n\r\nOK"),
    ("AT+CGMM", "M1\r\n\r\nOK"),
    ("AT+CGMR", "1.0\r\n\r\nOK"),
    ("AT+CGSN", "861234567890123\r\n\r\nOK"),
    ("AT+CFUN?", "+CFUN: 1\r\n\r\nOK"),
    ("AT+CPIN?", "+CPIN: READY\r\n\r\nOK"),
    ("AT+CIMI", "204081234567890\r\n\r\nOK"),
    ("AT+CPMS=?", "+CPMS: (\"SM\"),(\"SM\"),(\"SM\")\r\n\r\nOK"),
    ("AT+CREG?", "+CREG: 2,1,\"00C3\",\"0F12\"\r\n\r\nOK"),
];

struct Play {
    dialogue: Dialogue,
    now: Duration,
    actions: VecDeque<Action>,
}

impl Play {
    fn new() -> Self {
        Self {
            dialogue: Dialogue::new(Settings::default(), Duration::ZERO),
            now: Duration::ZERO,
            actions: VecDeque::new(),
        }
    }

    fn collect(&mut self) {
        while let Some(action) = self.dialogue.next_action() {
            if action != Action::Event(Event::StateChanged) {
                self.actions.push_back(action);
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.dialogue.receive(bytes, self.now);
        self.collect();
    }

    /// Lets time pass, with every deadline in between.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            let Some(next) = self.dialogue.deadline().filter(|next| *next <= end) else {
                break;
            };
            assert!(next >= self.now, "a deadline in the past");
            self.now = next;
            self.dialogue.tick(self.now);
            self.collect();
            if !self.actions.is_empty() && self.dialogue.deadline().is_some_and(|next| next <= self.now) {
                break;
            }
        }
        self.now = end;
    }

    fn start(&mut self) {
        self.collect();
        for _ in 0..200 {
            match self.actions.pop_front() {
                Some(Action::Event(Event::Ready)) => {
                    assert!(self.actions.is_empty(), "{:?}", self.actions);
                    return;
                }
                Some(Action::Write(bytes)) => {
                    let command = String::from_utf8(bytes).unwrap();
                    let command = command.trim_end_matches('\r');
                    let known = STARTUP.iter().find(|(asked, _)| *asked == command);
                    let answer = known.map_or("OK", |(_, answer)| answer);
                    if command != "\x1b" {
                        self.bytes(format!("\r\n{answer}\r\n").as_bytes());
                    }
                }
                Some(Action::Event(_)) => {}
                None => {
                    let next = self.dialogue.deadline().expect("the start-up stands still");
                    self.now = next;
                    self.dialogue.tick(next);
                    self.collect();
                }
            }
        }
        panic!("the start-up has no end");
    }

    fn place(&self, memory: &str, index: &str) -> Place {
        Place {
            memory: Memory::new(memory).unwrap(),
            index: index.parse().unwrap(),
            epoch: self.dialogue.epoch,
        }
    }

    fn known(&self, what: &str) -> String {
        let state = self.dialogue.state();
        match what {
            "registered" => state.registered().as_str().to_owned(),
            "operator" => state.operator.clone().unwrap_or_default(),
            "signal" => state.signal_dbm.map_or_else(String::new, |dbm| dbm.to_string()),
            "storage" => state
                .storage
                .map_or_else(String::new, |(used, total)| format!("{used}/{total}")),
            "full" => state.storage_full.to_string(),
            "unreadable" => state.unreadable.to_string(),
            "sim" => format!("{:?}", state.sim),
            "imsi" => state.imsi.clone().unwrap_or_default(),
            "imei" => state.imei.clone().unwrap_or_default(),
            "model" => state.model.clone().unwrap_or_default(),
            "profile" => self.dialogue.profile().name().to_owned(),
            other => panic!("nothing is known as {other}"),
        }
    }

    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        match (word, words.as_slice()) {
            ("ready", _) => self.start(),
            ("<", _) => self.bytes(format!("\r\n{rest}\r\n").as_bytes()),
            ("<<", _) => self.bytes(&unescaped(rest)),
            (">", _) => self.expect(&Action::Write(format!("{rest}\r").into_bytes())),
            (">>", _) => self.expect(&Action::Write(unescaped(rest))),
            ("!", _) => match self.actions.pop_front() {
                Some(Action::Event(event)) => assert_eq!(in_words(&event), rest),
                other => panic!("no event: {other:?}"),
            },
            ("?", [what, ..]) => {
                let expected = rest.split_once(' ').map_or("", |(_, expected)| expected);
                assert_eq!(self.known(what), expected);
            }
            ("wait", [span]) => self.wait(humantime::parse_duration(span).unwrap()),
            ("nothing", _) => assert!(self.actions.is_empty(), "{:?}", self.actions),
            ("submit", [tag, length, pdu]) => {
                let pdu = data_encoding::HEXLOWER.decode(pdu.as_bytes()).unwrap();
                let (tag, length) = (tag.parse().unwrap(), length.parse().unwrap());
                self.dialogue.submit(tag, pdu, length, self.now);
            }
            ("delete", [memory, index]) => self.dialogue.delete(self.place(memory, index), self.now),
            ("release", [memory, index]) => self.dialogue.release(self.place(memory, index)),
            ("confirm", _) => self.dialogue.confirm(self.now),
            ("ussd", [tag, code]) => self.dialogue.ussd(tag.parse().unwrap(), code, self.now),
            ("pin", [pin]) => self.dialogue.enter_pin(pin, self.now),
            ("no-pin", _) => self.dialogue.without_pin(false),
            ("refused-pin", _) => self.dialogue.without_pin(true),
            ("close", _) => self.dialogue.close(rest),
            _ => panic!("not a line of a transcript"),
        }
        self.collect();
    }

    fn expect(&mut self, expected: &Action) {
        // The start-up ends with silence: it takes no line of the transcript.
        let found = self.actions.pop_front();
        assert_eq!(found.as_ref(), Some(expected), "then: {:?}", self.actions);
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'x') => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
            }
            other => panic!("unknown escape {other:?}"),
        }
    }
    bytes
}

fn in_words(event: &Event) -> String {
    match event {
        Event::Ready => "ready".to_owned(),
        Event::Restarted => "restarted".to_owned(),
        Event::PinNeeded => "pin needed".to_owned(),
        Event::SimReady => "sim ready".to_owned(),
        Event::PinRefused(reason) => format!("pin refused: {reason}"),
        Event::StateChanged => "state changed".to_owned(),
        Event::Received { source, pdu } => {
            let pdu = data_encoding::HEXLOWER.encode(pdu);
            match source {
                Source::Stored(place) => format!("received {} {} {pdu}", place.memory, place.index),
                Source::Direct => format!("received direct {pdu}"),
            }
        }
        Event::Deleted { place, freed } => {
            let word = if *freed { "deleted" } else { "not deleted" };
            format!("{word} {} {}", place.memory, place.index)
        }
        Event::Sent { tag, outcome } => match outcome {
            SendOutcome::Accepted(Some(reference)) => format!("sent {tag} accepted {reference}"),
            SendOutcome::Accepted(None) => format!("sent {tag} accepted"),
            SendOutcome::Refused(error) => format!("sent {tag} refused: {error}"),
            SendOutcome::NotStarted(reason) => format!("sent {tag} not started: {reason}"),
            SendOutcome::Unknown(reason) => format!("sent {tag} unknown: {reason}"),
        },
        Event::LateReference { tag, reference } => format!("late {tag} {reference}"),
        Event::Ussd { tag, outcome } => match outcome {
            Ok(answer) => format!("ussd {tag} {:?} dcs {}", answer.text, answer.dcs),
            Err(reason) => format!("ussd {tag} failed: {reason}"),
        },
        Event::Lost(reason) => format!("lost: {reason}"),
    }
}

fn play(name: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/transcripts/{name}.txt"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut play = Play::new();
    play.collect();
    let mut played = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play.line(line)));
        assert!(outcome.is_ok(), "{name}.txt:{}: {line}", number + 1);
        played += 1;
    }
    assert!(played >= 4, "{name} says too little");
}

/// One test per transcript; a transcript without a test is found by `every_transcript_is_played`.
macro_rules! transcripts {
    ($($name:ident),+ $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),+];
        $(#[test]
        fn $name() {
            play(stringify!($name));
        })+
    };
}

transcripts!(
    a_generic_modem_is_made_ready_in_order,
    a_huawei_stick_starts_counting_at_zero_and_says_when_it_is_full,
    a_quectel_module_restarts_and_tells_its_news_to_this_port,
    a_sim800_that_boots_is_waited_for,
    a_sim7600_announces_multimedia_messages_with_more_fields,
    a_busy_sim_is_asked_again,
    a_sim_pin_is_entered_once_and_a_wrong_one_never_again,
    a_pin_that_was_refused_before_a_restart_is_not_tried,
    a_missing_sim_is_waited_for,
    a_pin_state_without_ok_is_an_answer,
    news_stand_before_inside_and_after_answers,
    news_between_a_read_and_its_pdu_do_not_tear_them_apart,
    news_between_send_and_prompt_do_not_disturb_it,
    echo_is_not_an_answer,
    echo_that_returns_tells_of_a_restart,
    a_restart_after_ctrl_z_leaves_the_outcome_unknown,
    a_restart_before_the_prompt_leaves_nothing_started,
    no_prompt_ends_with_escape_and_nothing_sent,
    reports_that_a_modem_kept_while_nobody_listened_are_read,
    no_answer_after_ctrl_z_is_unknown_and_never_repeated,
    a_prompt_that_nobody_asked_for_is_left,
    a_full_memory_is_drained,
    a_place_is_freed_only_after_it_is_stored_and_may_be_used_again,
    a_place_from_before_a_restart_is_not_freed,
    a_report_is_confirmed_only_in_phase_2,
    a_stored_report_is_read_from_its_memory,
    errors_of_the_network_reach_the_sender,
    ussd_answers_may_have_several_lines,
    settings_that_a_modem_words_differently_do_not_begin_anew_for_ever,
    a_silent_modem_is_given_up,
    text_mode_is_left_again,
    a_garbled_entry_stays_in_the_memory,
);

#[test]
fn every_transcript_is_played() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name
            .strip_suffix(".txt")
            .expect("a transcript ends with .txt")
            .to_owned();
        assert!(NAMES.contains(&name.as_str()), "nobody plays {name}");
        count += 1;
    }
    assert_eq!(count, NAMES.len());
}
