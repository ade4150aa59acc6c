//! The commands that make a modem ready, in their order.

use std::collections::VecDeque;
use std::time::Duration;

use super::Event;
use super::dialogue::{Dialogue, Purpose};
use super::error::ModemError;
use super::line::fields;
use super::profile::Profile;
use super::state::{Memory, Sim};

/// Pause before a busy SIM is asked again.
const BUSY: Duration = Duration::from_secs(2);
/// Pause before a SIM that is absent, locked or broken is asked again.
const BLOCKED: Duration = Duration::from_secs(15);
/// How often a modem that has just been switched on may refuse what it must be able to do.
const PATIENCE: u32 = 30;

/// How news of messages and reports may be asked for, best first (3GPP TS 27.005, section 3.4.1): stored messages
/// are announced, reports come at once or else are stored, and are asked for only where they can be had.
pub(super) const NEWS: [&str; 8] = [
    "2,1,0,1,0",
    "2,1,0,1,1",
    "1,1,0,1,0",
    "1,1,0,1,1",
    "2,1,0,2,0",
    "1,1,0,2,0",
    "2,1,0,0,0",
    "1,1,0,0,0",
];

/// One step of the start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A command whose refusal does no harm; its answer, if any, is read from its name.
    Plain(&'static str),
    EchoOff,
    Manufacturer,
    Model,
    Revision,
    Imei,
    Functionality,
    Sim,
    /// The SIM's own number, from its file.
    CardFile,
    /// The same, by a command that many makes have.
    Card,
    Imsi,
    PduMode,
    Phase2,
    Memories,
    SelectMemories,
    Drain,
    News(usize),
}

/// The whole start-up.
pub(super) fn script() -> VecDeque<Step> {
    use Step::{
        Drain, EchoOff, Functionality, Imei, Imsi, Manufacturer, Memories, Model, News, PduMode, Phase2,
        Plain, Revision, Sim,
    };
    [
        EchoOff,
        Plain("ATV1"),
        Plain("AT+CMEE=1"),
        Manufacturer,
        Model,
        Revision,
        Imei,
        Functionality,
        Sim,
        Imsi,
        Plain("AT+CSCS=\"GSM\""),
        PduMode,
        Phase2,
        Memories,
        Plain("AT+CREG=2"),
        Plain("AT+CEREG=2"),
        Drain,
        News(0),
        Drain,
        Plain("AT+COPS=3,0"),
        Plain("AT+CSQ"),
        Plain("AT+CREG?"),
        Plain("AT+CEREG?"),
        Plain("AT+COPS?"),
    ]
    .into()
}

/// How far the SIM's PIN has come since the modem started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PinStage {
    #[default]
    NotAsked,
    /// The modem was asked which SIM it is.
    CardAsked,
    Asked,
    Given,
}

impl Step {
    /// Its command; `None` for a step that has none.
    pub(super) fn command(self, dialogue: &Dialogue) -> Option<String> {
        Some(match self {
            Self::Plain(command) => command.to_owned(),
            Self::EchoOff => "ATE0".to_owned(),
            Self::Manufacturer => "AT+CGMI".to_owned(),
            Self::Model => "AT+CGMM".to_owned(),
            Self::Revision => "AT+CGMR".to_owned(),
            Self::Imei => "AT+CGSN".to_owned(),
            Self::Functionality => "AT+CFUN?".to_owned(),
            Self::Sim => "AT+CPIN?".to_owned(),
            // EF ICCID, which is read without a PIN (3GPP TS 31.102, section 4.2.; TS 51.011, section 10.1.1).
            Self::CardFile => "AT+CRSM=176,12258,0,0,10".to_owned(),
            Self::Card => "AT+CCID".to_owned(),
            Self::Imsi => "AT+CIMI".to_owned(),
            Self::PduMode => "AT+CMGF=0".to_owned(),
            Self::Phase2 => "AT+CSMS=1".to_owned(),
            Self::Memories => "AT+CPMS=?".to_owned(),
            Self::SelectMemories => {
                let memory = dialogue.primary;
                format!("AT+CPMS=\"{memory}\",\"{memory}\",\"{memory}\"")
            }
            Self::News(candidate) => format!("AT+CNMI={}", NEWS.get(candidate)?),
            Self::Drain => return None,
        })
    }

    /// How long its answer may take.
    pub(super) const fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Sim | Self::Memories | Self::SelectMemories | Self::Phase2 | Self::PduMode => 20,
            Self::Plain(_) => 30,
            _ => 10,
        })
    }
}

impl Dialogue {
    /// A step has its answer: says what comes next.
    pub(super) fn stepped(
        &mut self,
        step: Step,
        result: Result<(), ModemError>,
        text: Option<String>,
        echoed: bool,
    ) {
        match step {
            Step::Manufacturer => self.state.manufacturer = text,
            Step::Model => {
                self.state.model = text;
                self.profile = self.settings.profile.unwrap_or_else(|| {
                    Profile::detect(
                        self.state.manufacturer.as_deref().unwrap_or_default(),
                        self.state.model.as_deref().unwrap_or_default(),
                    )
                });
                for command in self.profile.commands().iter().rev() {
                    self.script.push_front(Step::Plain(command));
                }
            }
            Step::Revision => self.state.revision = text,
            Step::Imei => self.state.imei = text.map(|text| digits(&text)).filter(|text| !text.is_empty()),
            Step::Imsi => {
                self.state.imsi = text.map(|text| digits(&text)).filter(|text| !text.is_empty());
                if result.is_err() && self.tries < 5 {
                    self.again(step, BUSY);
                    return;
                }
            }
            Step::Sim => return self.sim(result, text),
            Step::CardFile => {
                self.state.iccid = text.and_then(|text| card_of_file(&text));
                if self.state.iccid.is_none() {
                    self.script.push_front(Step::Card);
                }
            }
            Step::Card => self.state.iccid = text.and_then(|text| card(&digits(&text))),
            Step::PduMode => {
                if let Err(error) = result {
                    return self.insist(step, error, "the modem does not hand over messages as octets");
                }
            }
            Step::Phase2 => self.phase2 = result.is_ok(),
            Step::Memories => match result {
                Ok(()) => {
                    self.memories(text.as_deref().unwrap_or_default());
                    self.script.push_front(Step::SelectMemories);
                }
                Err(error) => return self.insist(step, error, "the modem has no memory for messages"),
            },
            Step::SelectMemories => match result {
                Ok(()) => self.selected = Some(self.primary),
                Err(error) => {
                    return self.insist(step, error, "the modem's memory for messages cannot be used");
                }
            },
            Step::News(candidate) => match result {
                Ok(()) => self.news = NEWS.get(candidate).copied(),
                Err(_) if candidate + 1 < NEWS.len() => self.script.push_front(Step::News(candidate + 1)),
                // Without any news the regular look at the memory finds messages.
                Err(_) => self.news = None,
            },
            Step::Functionality => {
                if text.is_some_and(|text| text.trim() != "1") {
                    self.script.push_front(Step::Plain("AT+CFUN=1"));
                }
            }
            // Some modems echo whatever they are told; only a change tells of a restart.
            Step::Plain("ATV1") => self.echo_is_off = !echoed,
            Step::Plain(_) | Step::EchoOff | Step::Drain => {}
        }
        self.tries = 0;
    }

    fn again(&mut self, step: Step, pause: Duration) {
        self.tries = self.tries.saturating_add(1);
        self.script.push_front(step);
        self.wait_until = Some(self.now + pause);
    }

    /// A step without which nothing works: a modem that starts may refuse it for a while.
    fn insist(&mut self, step: Step, error: ModemError, without: &str) {
        if error.requires_pause() {
            // The SIM went away in between.
            self.tries = 0;
            self.script.push_front(step);
            self.again(Step::Sim, BUSY);
        } else if self.tries >= PATIENCE {
            self.lose(format!("{without}: {error}"));
        } else {
            self.again(step, BUSY);
        }
    }

    fn sim(&mut self, result: Result<(), ModemError>, text: Option<String>) {
        let text = text.unwrap_or_default();
        let sim = match result {
            Ok(()) if text.starts_with("READY") => Sim::Ready,
            // The other answers of this kind ask for the phone's own locks.
            Ok(()) if text == "SIM PIN" => Sim::PinNeeded,
            Ok(()) if text == "SIM PUK" => Sim::PukNeeded,
            Err(ModemError::Cme(10) | ModemError::Cms(310)) => Sim::Absent,
            Err(ModemError::Cme(11) | ModemError::Cms(311)) => Sim::PinNeeded,
            Err(ModemError::Cme(12) | ModemError::Cms(316)) => Sim::PukNeeded,
            Err(error) if (error.is_busy() || error == ModemError::Plain) && self.tries < PATIENCE => {
                return self.again(Step::Sim, BUSY);
            }
            Ok(()) | Err(_) => Sim::Unusable,
        };
        match sim {
            Sim::Ready => {
                self.tries = 0;
                self.pin_stage = PinStage::NotAsked;
                self.state.sim = Sim::Ready;
                self.event(Event::SimReady);
            }
            Sim::PinNeeded => match self.pin_stage {
                // A refused PIN may be the right one of another SIM.
                PinStage::NotAsked => {
                    self.pin_stage = PinStage::CardAsked;
                    self.script.push_front(Step::Sim);
                    self.script.push_front(Step::CardFile);
                }
                PinStage::CardAsked => {
                    self.pin_stage = PinStage::Asked;
                    self.state.sim = Sim::PinNeeded;
                    self.event(Event::PinNeeded);
                    self.again(Step::Sim, BLOCKED);
                }
                // A SIM that has just taken its PIN may say so a moment later.
                PinStage::Given if self.tries < 5 => self.again(Step::Sim, BUSY),
                PinStage::Given => {
                    self.pin_refused("the SIM still asks for it");
                    self.script.push_front(Step::Sim);
                }
                PinStage::Asked => self.again(Step::Sim, BLOCKED),
            },
            other => {
                self.state.sim = other;
                self.again(Step::Sim, BLOCKED);
            }
        }
    }

    /// Gives the PIN that [`Event::PinNeeded`] asked for. The caller has recorded that it is tried.
    pub fn enter_pin(&mut self, pin: &str, now: Duration) {
        self.now = self.now.max(now);
        let plausible = (4..=8).contains(&pin.len()) && pin.bytes().all(|byte| byte.is_ascii_digit());
        if !plausible {
            self.pin_refused("a PIN has 4 to 8 digits");
        } else if self.state.sim == Sim::PinNeeded && self.pin_stage == PinStage::Asked {
            self.pin = Some(pin.to_owned());
            self.wait_until = None;
        }
        self.advance();
    }

    /// Says that there is no PIN that may be tried; the SIM stays locked until someone unlocks it. `refused`: the
    /// one that there is was refused before.
    pub fn without_pin(&mut self, refused: bool) {
        if refused {
            self.state.sim = Sim::PinRefused;
        }
        self.advance();
    }

    pub(super) fn pin_entered(&mut self, result: Result<(), ModemError>) {
        match result {
            Ok(()) => {
                self.pin_stage = PinStage::Given;
                self.tries = 0;
                self.wait_until = Some(self.now + BUSY / 2);
            }
            Err(error) => self.pin_refused(&error.to_string()),
        }
    }

    pub(super) fn pin_refused(&mut self, reason: &str) {
        self.state.sim = Sim::PinRefused;
        self.pin_stage = PinStage::Asked;
        self.wait_until = Some(self.now + BLOCKED);
        self.event(Event::PinRefused(reason.to_owned()));
    }

    /// Chooses from the answer to `AT+CPMS=?`: `("SM","ME"),("SM"),("SM")`.
    fn memories(&mut self, text: &str) {
        let lists: Vec<Vec<Memory>> = fields(text)
            .iter()
            .map(|field| {
                let names = field.text.trim_matches(['(', ')']).split(',');
                names
                    .filter_map(|name| Memory::new(name.trim_matches(['"', ' '])))
                    .collect()
            })
            .collect();
        let in_all = |memory: &Memory| lists.iter().all(|list| list.is_empty() || list.contains(memory));
        let readable = lists.first().cloned().unwrap_or_default();
        let sim = Memory::new("SM").filter(|sim| readable.contains(sim) && in_all(sim));
        let chosen = sim.or_else(|| readable.iter().copied().find(in_all));
        self.primary = chosen.unwrap_or(self.primary);
        // What came before the gateway did may lie in another memory, in SR reports. MT is SM and ME together; BM holds
        // no messages.
        self.to_drain = readable
            .into_iter()
            .filter(|memory| *memory != self.primary && matches!(memory.as_str(), "SM" | "ME" | "SR"))
            .take(3)
            .collect();
        self.to_drain.push(self.primary);
    }

    /// The next command of the start-up.
    pub(super) fn next_step(&mut self) -> Option<(String, Purpose, Duration)> {
        loop {
            if let Some(pin) = self.pin.take() {
                return Some((
                    format!("AT+CPIN=\"{pin}\""),
                    Purpose::EnterPin,
                    Duration::from_secs(30),
                ));
            }
            if let Some(list) = self.next_list() {
                return Some(list);
            }
            let step = self.script.pop_front()?;
            if step == Step::Drain {
                self.drain();
                continue;
            }
            if let Some(command) = step.command(self) {
                return Some((command, Purpose::Step(step), step.patience()));
            }
        }
    }
}

/// The number in the answer `144,0,"98941000…"` to a read of the SIM's file: each octet has its digits swapped.
fn card_of_file(text: &str) -> Option<String> {
    let fields = fields(text);
    let octets = fields
        .get(2)
        .filter(|_| fields.first().is_some_and(|f| f.text == "144"))?;
    let pairs = octets.text.as_bytes().chunks_exact(2);
    let swapped: String = pairs
        .flat_map(|pair| pair.iter().rev())
        .map(|digit| char::from(*digit))
        .collect();
    card(&swapped)
}

/// What all ways of asking have in common: some leave out the check digit, some fill up.
fn card(digits: &str) -> Option<String> {
    let number: String = digits.chars().take_while(char::is_ascii_digit).take(18).collect();
    (number.len() == 18).then_some(number)
}

/// The digits of `+CGSN: "861234567890123"` and of a bare number.
fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).take(20).collect()
}
