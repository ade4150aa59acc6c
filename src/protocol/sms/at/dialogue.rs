//! The engine: one command at a time, answers told from news, time limits.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::error::ModemError;
use super::line::{Header, HeaderKind};
use super::lines::{Lines, Piece};
use super::profile::Profile;
use super::startup::{self, PinStage, Step};
use super::state::{Memory, ModemState};
use super::work::{Sending, Work};
use super::{Action, Event, Place, SendOutcome, Settings};

const ESCAPE: u8 = 0x1b;
const CTRL_Z: u8 = 0x1a;
/// The stream must be silent for this long before a new beginning, so that no late answer is taken for another.
const QUIET: Duration = Duration::from_millis(300);
/// A stream that is never silent is spoken to after this time.
const LOUD: Duration = Duration::from_secs(3);
/// For the answer to a bare `AT`.
const PROBE: Duration = Duration::from_secs(3);
/// How many of them may stay without answer: a modem that finds its speed needs a few.
const PROBES: u32 = 5;
/// Commands in a row that may stay without answer.
const SILENT: u32 = 3;
/// For the prompt: a busy modem takes seconds.
const PROMPT: Duration = Duration::from_secs(10);
/// A `>` without its blank counts as a prompt after this time.
const BARE_PROMPT: Duration = Duration::from_millis(500);
/// For the network to take a message.
const NETWORK: Duration = Duration::from_secs(120);

/// What a command is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Probe,
    Step(Step),
    EnterPin,
    Select(Memory),
    List(Memory),
    Read(Place),
    Delete(Place),
    Confirm,
    /// `AT+CPMS?` or `AT+CNMI?` and their like: the answer is read from its name.
    Look,
    Send(u64),
    Ussd(u64),
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) text: String,
    pub(super) purpose: Purpose,
    pub(super) until: Duration,
    /// First line of the answer, where it is one.
    pub(super) answer: Option<String>,
    pub(super) echoed: bool,
    /// The PDU of a message as digits, once it has been written with Ctrl-Z.
    pub(super) written: Option<String>,
    pub(super) reference: Option<u8>,
}

/// Finding out whether the modem listens.
#[derive(Clone, Copy, Debug)]
enum Sync {
    /// Waiting for silence; then a probe is written.
    Settle { quiet_at: Duration, latest: Duration },
    /// `AT` is on its way.
    Probe { tries: u32 },
    /// It was answered: once the stream is silent all is well.
    Calm { quiet_at: Duration, latest: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Ready,
    Lost,
}

/// The dialogue with one modem over one connection.
#[derive(Debug)]
pub struct Dialogue {
    pub(super) settings: Settings,
    pub(super) now: Duration,
    lines: Lines,
    actions: VecDeque<Action>,
    pub(super) stage: Stage,
    sync: Option<Sync>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) headers: Vec<Header>,
    pub(super) ussd_text: Option<(String, Duration)>,
    bare_prompt_since: Option<Duration>,
    escaped_at: Option<Duration>,
    silent: u32,
    /// A message whose outcome was reported as unknown.
    pub(super) late: Option<u64>,
    pub(super) script: VecDeque<Step>,
    pub(super) tries: u32,
    pub(super) wait_until: Option<Duration>,
    pub(super) pin: Option<String>,
    pub(super) pin_stage: PinStage,
    pub(super) profile: Profile,
    pub(super) primary: Memory,
    pub(super) to_drain: Vec<Memory>,
    /// The memory that reads, lists and deletions mean now.
    pub(super) selected: Option<Memory>,
    pub(super) phase2: bool,
    pub(super) news: Option<&'static str>,
    pub(super) echo_is_off: bool,
    pub(super) begin_again: bool,
    /// Moves on when the modem starts anew.
    pub(super) epoch: u32,
    /// Places whose message the driver has and has not deleted.
    pub(super) handed: BTreeSet<(Memory, u16)>,
    pub(super) work: Work,
    pub(super) state: ModemState,
    told: ModemState,
}

impl Dialogue {
    /// Begins the dialogue on a connection that has just been opened.
    #[must_use]
    pub fn new(settings: Settings, now: Duration) -> Self {
        let mut dialogue = Self {
            settings,
            now,
            lines: Lines::default(),
            actions: VecDeque::new(),
            stage: Stage::Starting,
            sync: None,
            in_flight: None,
            headers: Vec::new(),
            ussd_text: None,
            bare_prompt_since: None,
            escaped_at: None,
            silent: 0,
            late: None,
            script: startup::script(),
            tries: 0,
            wait_until: None,
            pin: None,
            pin_stage: PinStage::NotAsked,
            profile: settings.profile.unwrap_or_default(),
            primary: Memory::SIM,
            to_drain: Vec::new(),
            selected: None,
            phase2: false,
            news: None,
            echo_is_off: false,
            begin_again: false,
            epoch: 0,
            handed: BTreeSet::new(),
            work: Work::new(now + settings.poll),
            state: ModemState::default(),
            told: ModemState::default(),
        };
        // A daemon that was killed may have left a prompt open.
        dialogue.escape();
        dialogue.settle();
        dialogue
    }

    /// What is known of the modem.
    #[must_use]
    pub fn state(&self) -> &ModemState {
        &self.state
    }

    /// The modem's family.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether a message can be submitted.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Takes bytes of the modem.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        self.now = self.now.max(now);
        if let Some(Sync::Settle { quiet_at, latest } | Sync::Calm { quiet_at, latest }) = &mut self.sync {
            *quiet_at = (self.now + QUIET).min(*latest);
        }
        for byte in bytes {
            if self.stage == Stage::Lost {
                return;
            }
            match self.lines.push(*byte, self.ussd_text.is_some()) {
                Some(Piece::Line(line)) => self.line(&line),
                Some(Piece::Prompt) => self.prompt(),
                None => {}
            }
        }
        self.bare_prompt_since = match self.bare_prompt_since {
            since if self.lines.is_at_bare_prompt() && self.ussd_text.is_none() => since.or(Some(self.now)),
            _ => None,
        };
        self.advance();
    }

    /// Lets time pass. To be called when [`Self::deadline`] is reached; earlier does no harm.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let now = self.now;
        if self
            .bare_prompt_since
            .is_some_and(|since| since + BARE_PROMPT <= now)
        {
            self.bare_prompt_since = None;
            self.lines.clear();
            self.prompt();
        }
        if self.ussd_text.as_ref().is_some_and(|(_, until)| *until <= now)
            && let Some((text, _)) = self.ussd_text.take()
        {
            self.ussd_answered(&text);
        }
        match self.sync {
            Some(Sync::Settle { quiet_at, .. }) if quiet_at <= now => self.probe(0),
            Some(Sync::Calm { quiet_at, .. }) if quiet_at <= now => self.sync = None,
            _ => {}
        }
        if self
            .in_flight
            .as_ref()
            .is_some_and(|command| command.until <= now)
        {
            self.timed_out();
        }
        self.ussd_timed_out();
        self.advance();
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        if self.stage == Stage::Lost {
            return None;
        }
        let sync = self.sync.and_then(|sync| match sync {
            Sync::Settle { quiet_at, .. } | Sync::Calm { quiet_at, .. } => Some(quiet_at),
            Sync::Probe { .. } => None,
        });
        let idle = self.in_flight.is_none() && self.sync.is_none();
        [
            sync,
            self.in_flight.as_ref().map(|command| command.until),
            self.bare_prompt_since.map(|since| since + BARE_PROMPT),
            self.ussd_text.as_ref().map(|(_, until)| *until),
            self.wait_until.filter(|_| idle),
            self.work.ussd_deadline(),
            self.work.look_at().filter(|_| idle && self.stage == Stage::Ready),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to do, until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() && self.state != self.told {
            self.told = self.state.clone();
            return Some(Action::Event(Event::StateChanged));
        }
        self.actions.pop_front()
    }

    pub(super) fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }

    fn write(&mut self, bytes: Vec<u8>) {
        self.actions.push_back(Action::Write(bytes));
    }

    /// Leaves a prompt, if there is one.
    fn escape(&mut self) {
        self.escaped_at = Some(self.now);
        self.write(vec![ESCAPE]);
    }

    fn settle(&mut self) {
        let now = self.now;
        self.sync = Some(Sync::Settle {
            quiet_at: now + QUIET,
            latest: now + LOUD,
        });
    }

    fn probe(&mut self, tries: u32) {
        self.sync = Some(Sync::Probe { tries });
        self.issue("AT".to_owned(), Purpose::Probe, PROBE);
    }

    pub(super) fn issue(&mut self, text: String, purpose: Purpose, patience: Duration) {
        let mut bytes = text.clone().into_bytes();
        bytes.push(b'\r');
        self.write(bytes);
        self.in_flight = Some(InFlight {
            text,
            purpose,
            until: self.now + patience,
            answer: None,
            echoed: false,
            written: None,
            reference: None,
        });
    }

    /// Issues the next command when nothing is in the way.
    pub(super) fn advance(&mut self) {
        if self.stage == Stage::Lost
            || self.sync.is_some()
            || self.in_flight.is_some()
            || self.ussd_text.is_some()
        {
            return;
        }
        if self.stage == Stage::Ready && self.begin_again {
            self.begin_again = false;
            // The start-up asks for the same.
            self.work.leave_looks();
            self.stage = Stage::Starting;
            self.script = startup::script();
            self.tries = 0;
        }
        if self.stage == Stage::Starting {
            if self.wait_until.is_some_and(|until| until > self.now) {
                return;
            }
            self.wait_until = None;
            if let Some((text, purpose, patience)) = self.next_step() {
                return self.issue(text, purpose, patience);
            }
            self.stage = Stage::Ready;
            self.work.looked(self.now + self.settings.poll);
            self.event(Event::Ready);
        }
        if let Some((text, purpose, patience)) = self.next_work() {
            let patience = if matches!(purpose, Purpose::Send(_)) {
                PROMPT
            } else {
                patience
            };
            self.issue(text, purpose, patience);
        }
    }

    fn prompt(&mut self) {
        let awaited = matches!(
            self.in_flight,
            Some(InFlight {
                purpose: Purpose::Send(_),
                written: None,
                ..
            })
        );
        let sending = self.work.sending.as_ref().filter(|_| awaited);
        let Some(pdu) = sending.map(Sending::digits) else {
            // One that nobody asked for: what is written next would be sent as a message.
            if self
                .escaped_at
                .is_none_or(|at| at + Duration::from_secs(1) <= self.now)
            {
                self.escape();
            }
            return;
        };
        let mut bytes = pdu.clone().into_bytes();
        bytes.push(CTRL_Z);
        self.write(bytes);
        if let Some(command) = &mut self.in_flight {
            command.written = Some(pdu);
            command.until = self.now + NETWORK;
        }
    }

    /// The command in flight has its final answer.
    pub(super) fn finish(&mut self, result: Result<(), ModemError>) {
        let Some(command) = self.in_flight.take() else {
            return;
        };
        self.silent = 0;
        let left = |header: &&Header| matches!(header.kind, HeaderKind::Listed { .. });
        self.work.garbled = u16::try_from(self.headers.iter().filter(left).count()).unwrap_or(u16::MAX);
        match command.purpose {
            Purpose::Probe => {
                let tries = match self.sync {
                    Some(Sync::Probe { tries }) => tries,
                    _ => 0,
                };
                // The escape before it may have been read as the beginning of the command.
                if result.is_err() && tries < PROBES {
                    return self.probe(tries + 1);
                }
                let now = self.now;
                self.sync = Some(Sync::Calm {
                    quiet_at: now + QUIET / 3,
                    latest: now + LOUD,
                });
            }
            Purpose::Step(step) => self.stepped(step, result, command.answer, command.echoed),
            Purpose::EnterPin => self.pin_entered(result),
            Purpose::Send(tag) => {
                let outcome = match (command.reference, result) {
                    (Some(reference), _) => SendOutcome::Accepted(Some(reference)),
                    (None, Ok(())) if command.written.is_some() => SendOutcome::Accepted(None),
                    (None, Ok(())) => SendOutcome::NotStarted("the modem gave no prompt".to_owned()),
                    (None, Err(error)) if error.counts_as_sent() => SendOutcome::Accepted(None),
                    (None, Err(error)) if error.may_have_been_sent() && command.written.is_some() => {
                        SendOutcome::Unknown(error.to_string())
                    }
                    (None, Err(error)) => {
                        if error.is_storage_full() {
                            self.storage_is_full();
                        }
                        SendOutcome::Refused(error)
                    }
                };
                self.sent(tag, outcome);
            }
            other => self.worked(other, result, command.answer.is_some()),
        }
        if !matches!(
            self.in_flight,
            Some(InFlight {
                purpose: Purpose::Read(_) | Purpose::List(_),
                ..
            })
        ) {
            // Headers of an answer that is over.
            self.headers
                .retain(|header| matches!(header.kind, HeaderKind::Message | HeaderKind::Report));
        }
    }

    fn sent(&mut self, tag: u64, outcome: SendOutcome) {
        self.work.sending = None;
        self.late = matches!(outcome, SendOutcome::Unknown(_)).then_some(tag);
        self.event(Event::Sent { tag, outcome });
    }

    /// No final answer came in time.
    fn timed_out(&mut self) {
        let Some(command) = self.in_flight.take() else {
            return;
        };
        self.headers.clear();
        if matches!(command.purpose, Purpose::Probe) {
            let tries = match self.sync {
                Some(Sync::Probe { tries }) => tries + 1,
                _ => 0,
            };
            if tries < PROBES {
                return self.probe(tries);
            }
            return self.lose("the modem does not answer: is this its port for AT commands?".to_owned());
        }
        self.silent += 1;
        match command.purpose {
            Purpose::Send(tag) => {
                self.escape();
                let outcome = match (command.written, command.reference) {
                    (_, Some(reference)) => SendOutcome::Accepted(Some(reference)),
                    (Some(_), None) => SendOutcome::Unknown(format!(
                        "the network's answer did not come within {} s",
                        NETWORK.as_secs()
                    )),
                    (None, None) => SendOutcome::NotStarted(format!(
                        "the modem gave no prompt within {} s",
                        PROMPT.as_secs()
                    )),
                };
                self.sent(tag, outcome);
            }
            Purpose::EnterPin => self.pin_refused("the modem did not say whether it was right"),
            Purpose::Step(Step::Sim) if command.answer.is_some() => {
                self.silent = 0;
                self.stepped(Step::Sim, Ok(()), command.answer, command.echoed);
            }
            Purpose::Step(step) => self.script.push_front(step),
            other => self.worked(other, Err(ModemError::Plain), false),
        }
        if self.silent >= SILENT {
            return self.lose("the modem no longer answers".to_owned());
        }
        self.settle();
    }

    /// The modem has started anew: what was in flight has failed.
    pub(super) fn restarted(&mut self) {
        let in_flight = self.in_flight.take();
        let sending = self.work.sending.take();
        self.fail_sending(in_flight.as_ref(), sending, "the modem started anew");
        let interrupted = self.stage == Stage::Ready || self.epoch > 0 || self.selected.is_some();
        self.forget();
        self.stage = Stage::Starting;
        self.script = startup::script();
        if interrupted {
            self.event(Event::Restarted);
        }
        self.settle();
    }

    fn fail_sending(&mut self, in_flight: Option<&InFlight>, sending: Option<Sending>, reason: &str) {
        let Some(sending) = sending else {
            return;
        };
        let outcome = match in_flight {
            Some(InFlight {
                purpose: Purpose::Send(_),
                reference: Some(reference),
                ..
            }) => SendOutcome::Accepted(Some(*reference)),
            Some(InFlight {
                purpose: Purpose::Send(_),
                written: Some(_),
                ..
            }) => SendOutcome::Unknown(format!("{reason} while it was sending the message")),
            _ => SendOutcome::NotStarted(reason.to_owned()),
        };
        self.sent(sending.tag, outcome);
    }

    /// Forgets what does not outlive the modem's own memory.
    fn forget(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.headers.clear();
        self.ussd_text = None;
        self.handed.clear();
        self.work.forget();
        self.ussd_failed("the modem started anew");
        self.selected = None;
        self.echo_is_off = false;
        self.begin_again = false;
        self.tries = 0;
        self.silent = 0;
        self.wait_until = None;
        self.pin = None;
        self.pin_stage = PinStage::NotAsked;
        self.state.gsm = super::Registered::Unknown;
        self.state.lte = super::Registered::Unknown;
        self.state.signal_dbm = None;
    }

    /// Ends the dialogue, as when the connection is gone: what was in flight has its honest outcome.
    pub fn close(&mut self, reason: &str) {
        if self.stage == Stage::Lost {
            return;
        }
        let in_flight = self.in_flight.take();
        let sending = self.work.sending.take();
        self.fail_sending(in_flight.as_ref(), sending, reason);
        self.ussd_failed(reason);
        self.stage = Stage::Lost;
        self.sync = None;
    }

    pub(super) fn lose(&mut self, reason: String) {
        self.close(&reason);
        self.event(Event::Lost(reason));
    }
}
