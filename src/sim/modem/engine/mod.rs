//! The modem without its cable: bytes and time in, bytes out.

mod card;
mod control;
mod deliver;
mod general;
mod messages;
mod radio;
mod send;
mod text_mode;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::answer::{self, Refusal};
use super::at::{self, Command};
use super::memory::{Memories, Memory};
use super::options::{Counts, Interruption, Options, Place};
use super::profile::{Boot, Traits};

use card::Card;
use deliver::Air;
use radio::Radio;
use send::{Outgoing, Prompt};

/// Characters of a command line.
const LONGEST_LINE: usize = 1024;
/// Input that is kept while a command runs.
const LONGEST_BACKLOG: usize = 4096;
/// How long a half-typed line holds up what the modem has to say by itself.
const TYPING: Duration = Duration::from_millis(200);
/// Command lines that are remembered for a look.
const REMEMBERED: usize = 1000;
/// Output that nobody takes.
const LONGEST_OUTPUT: usize = 256 * 1024;

const ESCAPE: u8 = 0x1b;
const CTRL_Z: u8 = 0x1a;

/// What commands change and `ATZ` resets.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the modem's own switches, each with its own command"
)]
struct Settings {
    echo: bool,
    verbose: bool,
    quiet: bool,
    cmee: u32,
    charset: String,
    text_mode: bool,
    /// `+CSMS`: messages that are handed over directly have to be acknowledged.
    phase_2_plus: bool,
    memories: [Memory; 3],
    cnmi: [u32; 5],
    /// `+CSMP`: first octet, validity period, protocol identifier, data coding scheme.
    csmp: [u32; 4],
    show_header: bool,
    more_to_send: u32,
    creg: u32,
    cgreg: u32,
    cereg: u32,
    ussd: bool,
    /// Huawei's `^CURC`.
    chatter: bool,
    registers: BTreeMap<u32, u32>,
}

impl Settings {
    fn new(traits: &Traits) -> Self {
        let memory = match traits.memory {
            "ME" => Memory::Me,
            _ => Memory::Sm,
        };
        Self {
            echo: true,
            verbose: true,
            quiet: false,
            cmee: 0,
            charset: "GSM".to_owned(),
            text_mode: false,
            phase_2_plus: false,
            memories: [memory; 3],
            cnmi: traits.cnmi,
            csmp: [17, 167, 0, 0],
            show_header: false,
            more_to_send: 0,
            creg: 0,
            cgreg: 0,
            cereg: 0,
            ussd: false,
            chatter: true,
            registers: BTreeMap::from([(0, 0), (3, 13), (4, 10), (5, 8), (7, 60)]),
        }
    }
}

#[derive(Debug)]
enum State {
    Off,
    Command,
    Prompt(Prompt),
    /// A command runs; its answer comes later.
    Busy,
}

/// What a command leads to.
enum Reply {
    Done,
    Prompt(Prompt),
    /// The answer comes after a while.
    Later(Duration, Later),
}

type Answer = Result<Reply, Refusal>;

/// What is done before a late answer.
#[derive(Debug)]
enum Later {
    Render(Result<(), Refusal>),
    Info(String),
    Send(Box<Outgoing>),
    Restart,
}

#[derive(Debug)]
enum Timer {
    Boot(usize),
    Register,
    Later(Later),
    Held,
    Pump,
    Unacknowledged(u64),
    Report(Vec<u8>),
    Line(String),
    Chatter,
}

/// One information text of an answer.
#[derive(Debug)]
enum Piece {
    Info(Vec<u8>),
    /// A line and the PDU or text that belongs to it.
    Pair(Vec<u8>, Vec<u8>),
}

/// The modem. Give it the time with every call, as the time since its start; it has no clock.
#[derive(Debug)]
pub struct Engine {
    options: Options,
    now: Duration,
    state: State,
    settings: Settings,
    card: Card,
    radio: Radio,
    memories: Memories,
    air: Air,
    line: Vec<u8>,
    line_since: Duration,
    last_line: String,
    backlog: VecDeque<u8>,
    pieces: Vec<Piece>,
    output: Vec<u8>,
    /// Lines that wait for the end of a prompt or of a half-typed line.
    held: Vec<Vec<u8>>,
    timers: BTreeMap<(Duration, u64), Timer>,
    timer_count: u64,
    interruptions: VecDeque<(Place, Interruption)>,
    /// Delays every answer.
    slow: Duration,
    /// Says nothing at all until then.
    deaf_until: Duration,
    remembered: VecDeque<String>,
    counts: Counts,
}

impl Engine {
    /// A modem that is switched on at the time zero.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let traits = options.profile.traits();
        let mut engine = Self {
            now: Duration::ZERO,
            state: State::Off,
            settings: Settings::new(traits),
            card: Card::new(&options),
            radio: Radio::new(&options),
            memories: Memories::new(traits, options.sim_places),
            air: Air::new(&options),
            line: Vec::new(),
            line_since: Duration::ZERO,
            last_line: String::new(),
            backlog: VecDeque::new(),
            pieces: Vec::new(),
            output: Vec::new(),
            held: Vec::new(),
            timers: BTreeMap::new(),
            timer_count: 0,
            interruptions: VecDeque::new(),
            slow: Duration::ZERO,
            deaf_until: Duration::ZERO,
            remembered: VecDeque::new(),
            counts: Counts::default(),
            options,
        };
        if engine.options.booted {
            engine.state = State::Command;
            engine.card.ready = true;
            engine.radio.registration = super::Registration::None;
            engine.look_for_network(Duration::ZERO);
            engine.start_chatter();
            engine.tick(Duration::ZERO);
        } else {
            engine.boot();
        }
        engine
    }

    fn traits(&self) -> &'static Traits {
        self.options.profile.traits()
    }

    /// Takes bytes from the cable.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) {
        self.tick(now);
        if self.deaf_until > self.now {
            return;
        }
        for byte in bytes {
            self.byte(*byte);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        while let Some(entry) = self.timers.first_entry() {
            let due = entry.key().0;
            if due > now {
                break;
            }
            let timer = entry.remove();
            self.now = self.now.max(due);
            self.fire(timer);
        }
        self.now = self.now.max(now);
    }

    /// When [`Engine::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes what the modem has written.
    #[must_use]
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.deaf_until > self.now || self.output.len() > LONGEST_OUTPUT {
            return;
        }
        self.output.extend(bytes);
    }

    fn after(&mut self, wait: Duration, timer: Timer) {
        self.timer_count += 1;
        self.timers.insert((self.now + wait, self.timer_count), timer);
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Boot(step) => self.boot_step(step),
            Timer::Register => self.register(),
            Timer::Later(later) => self.late(later),
            Timer::Held => self.release_held(),
            Timer::Pump => self.pump(),
            Timer::Unacknowledged(id) => self.unacknowledged(id),
            Timer::Report(pdu) => self.report_arrives(pdu),
            Timer::Line(line) => self.unasked(line.as_bytes(), None),
            Timer::Chatter => self.chatter(),
        }
    }

    fn byte(&mut self, byte: u8) {
        match &self.state {
            State::Off => {}
            State::Busy => {
                if self.backlog.len() < LONGEST_BACKLOG {
                    self.backlog.push_back(byte);
                }
            }
            State::Command => self.command_byte(byte),
            State::Prompt(_) => self.prompt_byte(byte),
        }
    }

    fn command_byte(&mut self, byte: u8) {
        if self.settings.echo && (byte == b'\r' || byte == 8 || (0x20..0x7f).contains(&byte)) {
            self.write(&[byte]);
        }
        match (self.line.len(), byte) {
            (0, b'A' | b'a') => {
                self.line.push(byte);
                self.line_since = self.now;
            }
            // Before the A nothing counts.
            (0, _) | (1, b'A' | b'a') => {}
            (1, b'/') => {
                self.line.clear();
                let again = self.last_line.clone();
                self.run_line(&again);
            }
            (1, b'T' | b't') => self.line.push(byte),
            (1, _) => self.line.clear(),
            (_, b'\r') => {
                let line = std::mem::take(&mut self.line);
                if line.len() > LONGEST_LINE {
                    self.finish(Err(Refusal::Error));
                    return;
                }
                let body = String::from_utf8_lossy(line.get(2..).unwrap_or_default()).into_owned();
                self.last_line.clone_from(&body);
                self.run_line(&body);
            }
            (length, 8) => self.line.truncate(length.saturating_sub(1).max(2)),
            (_, 0..0x20) => {}
            (length, _) if length > LONGEST_LINE => {}
            _ => self.line.push(byte),
        }
        if self.line.is_empty() {
            self.release_held();
        }
    }

    fn run_line(&mut self, body: &str) {
        self.counts.lines += 1;
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(format!("AT{body}"));
        self.pieces.clear();
        let Some(commands) = at::parse(body) else {
            return self.finish(Err(Refusal::Error));
        };
        let last = commands.len().saturating_sub(1);
        for (index, command) in commands.iter().enumerate() {
            match self.run(command) {
                Ok(Reply::Done) => {}
                // A prompt and a late answer end the line; what follows would belong to the message.
                Ok(_) if index != last => return self.finish(Err(Refusal::Error)),
                Ok(Reply::Prompt(prompt)) => return self.open_prompt(prompt),
                Ok(Reply::Later(wait, later)) => {
                    self.state = State::Busy;
                    return self.after(wait, Timer::Later(later));
                }
                Err(refusal) => return self.finish(Err(refusal)),
            }
        }
        self.finish(Ok(()));
    }

    fn run(&mut self, command: &Command) -> Answer {
        self.general(command)
            .or_else(|| self.card_command(command))
            .or_else(|| self.radio_command(command))
            .or_else(|| self.message_settings(command))
            .or_else(|| self.message_command(command))
            .or_else(|| self.vendor(command))
            .unwrap_or(Err(Refusal::Error))
    }

    /// An information text of the answer.
    fn info(&mut self, text: &str) {
        self.pieces.push(Piece::Info(text.as_bytes().to_vec()));
    }

    fn late(&mut self, later: Later) {
        match later {
            Later::Render(result) => self.render(result),
            Later::Info(text) => {
                self.info(&text);
                self.finish(Ok(()));
            }
            Later::Send(outgoing) => self.send_ends(*outgoing),
            Later::Restart => self.restart(),
        }
    }

    /// Ends a command.
    fn finish(&mut self, result: Result<(), Refusal>) {
        if self.slow.is_zero() {
            self.render(result);
        } else {
            self.state = State::Busy;
            self.after(self.slow, Timer::Later(Later::Render(result)));
        }
    }

    fn render(&mut self, result: Result<(), Refusal>) {
        self.state = State::Busy;
        self.interrupt(Place::BeforeAnswer);
        for (index, piece) in std::mem::take(&mut self.pieces).into_iter().enumerate() {
            if index > 0 {
                self.interrupt(Place::InsideAnswer);
            }
            match piece {
                Piece::Info(text) => self.line_out(&text),
                Piece::Pair(head, body) => {
                    self.line_out(&head);
                    self.interrupt(Place::BeforePdu);
                    self.write(&body);
                    self.write(b"\r\n");
                }
            }
        }
        self.interrupt(Place::BeforeResult);
        self.result_code(result);
        self.back_to_commands();
    }

    fn back_to_commands(&mut self) {
        self.state = State::Command;
        self.release_held();
        while matches!(self.state, State::Command | State::Prompt(_)) {
            let Some(byte) = self.backlog.pop_front() else {
                break;
            };
            self.byte(byte);
        }
    }

    /// A line with its ends, as `ATV` wants them.
    fn line_out(&mut self, text: &[u8]) {
        if self.settings.verbose {
            self.write(b"\r\n");
        }
        self.write(text);
        self.write(b"\r\n");
    }

    fn result_code(&mut self, result: Result<(), Refusal>) {
        if self.settings.quiet {
            return;
        }
        let cmee = self.settings.cmee;
        let (text, number) = match result {
            Ok(()) => ("OK".to_owned(), Some("0")),
            Err(Refusal::NoCarrier) => ("NO CARRIER".to_owned(), Some("3")),
            Err(Refusal::Cme(code)) if cmee == 1 => (format!("+CME ERROR: {code}"), None),
            Err(Refusal::Cms(code)) if cmee == 1 => (format!("+CMS ERROR: {code}"), None),
            Err(refusal @ Refusal::Cme(_)) if cmee == 2 => {
                (format!("+CME ERROR: {}", answer::words(refusal)), None)
            }
            Err(refusal @ Refusal::Cms(_)) if cmee == 2 => {
                (format!("+CMS ERROR: {}", answer::words(refusal)), None)
            }
            Err(_) => ("ERROR".to_owned(), Some("4")),
        };
        if self.settings.verbose {
            self.line_out(text.as_bytes());
        } else {
            self.write(number.unwrap_or(&text).as_bytes());
            self.write(b"\r");
        }
    }

    /// Says something by itself, as soon as it may.
    fn unasked(&mut self, line: &[u8], body: Option<&[u8]>) {
        if matches!(self.state, State::Off) {
            return;
        }
        let mut text = Vec::new();
        if self.settings.verbose {
            text.extend(b"\r\n");
        }
        text.extend(line);
        text.extend(b"\r\n");
        if let Some(body) = body {
            text.extend(body);
            text.extend(b"\r\n");
        }
        let typing = !self.line.is_empty() && self.now < self.line_since + TYPING;
        if typing || matches!(self.state, State::Prompt(_)) {
            self.held.push(text);
            if typing {
                self.after(TYPING, Timer::Held);
            }
        } else {
            self.write(&text);
        }
    }

    fn release_held(&mut self) {
        if matches!(self.state, State::Command | State::Busy) {
            for text in std::mem::take(&mut self.held) {
                self.write(&text);
            }
        }
    }

    /// Plays the next interruption, if this is its place.
    fn interrupt(&mut self, place: Place) {
        while self.interruptions.front().is_some_and(|(at, _)| *at == place) {
            match self.interruptions.pop_front() {
                Some((_, Interruption::Line(line))) => self.unasked(line.as_bytes(), None),
                Some((_, Interruption::Pdu(pdu))) => self.arrives(pdu),
                None => {}
            }
        }
    }

    /// Loses everything but its memories and begins anew.
    fn boot(&mut self) {
        self.state = State::Off;
        self.settings = Settings::new(self.traits());
        self.line.clear();
        self.backlog.clear();
        self.pieces.clear();
        self.held.clear();
        self.timers.retain(|_, timer| matches!(timer, Timer::Report(_)));
        self.card.restart();
        self.radio.registration = super::Registration::None;
        self.radio.function = 1;
        self.take_back_unacknowledged();
        self.counts.ready = false;
        self.counts.registered = false;
        self.after(self.options.boot_time, Timer::Boot(0));
    }

    fn restart(&mut self) {
        self.counts.restarts += 1;
        self.boot();
    }

    fn boot_step(&mut self, step: usize) {
        if step == 0 {
            self.state = State::Command;
        }
        let Some(what) = self.traits().boot.get(step) else {
            return;
        };
        match what {
            Boot::Line(line) => self.unasked(line.as_bytes(), None),
            Boot::Pin => {
                let line = match self.card.state() {
                    Ok(()) => "+CPIN: READY",
                    Err(11) => "+CPIN: SIM PIN",
                    Err(12) => "+CPIN: SIM PUK",
                    Err(_) => "+CPIN: NOT INSERTED",
                };
                self.unasked(line.as_bytes(), None);
            }
            Boot::SimState => {
                let present = u8::from(self.options.has_sim);
                self.unasked(format!("^SIMST:{present}").as_bytes(), None);
            }
            Boot::Ready => {
                self.card.ready = true;
                self.look_for_network(self.options.register_time);
                self.start_chatter();
            }
        }
        self.after(self.options.boot_step, Timer::Boot(step + 1));
    }

    fn start_chatter(&mut self) {
        if let Some((every, _)) = self.traits().chatter {
            self.after(every, Timer::Chatter);
        }
    }

    fn chatter(&mut self) {
        if let Some((every, lines)) = self.traits().chatter {
            if self.settings.chatter {
                for line in lines {
                    self.unasked(line.as_bytes(), None);
                }
            }
            self.after(every, Timer::Chatter);
        }
    }
}
