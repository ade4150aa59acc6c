//! The network as the modem sees it: registration, operator, signal, USSD (3GPP TS 27.007, 7 and 8).

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::answer::{NOT_ALLOWED, Refusal};
use super::super::at::{Command, Form, Parameters};
use super::super::options::{Options, Registration};
use super::super::pdu::{gsm7, hex, unhex};
use super::{Answer, Engine, Later, Reply, Timer};

/// How long a look for networks takes.
const SCAN: Duration = Duration::from_millis(500);
/// From `+CUSD` to the network's word.
const USSD: Duration = Duration::from_millis(50);
const AREA: &str = "1A2B";
const CELL: &str = "01D5C309";

#[derive(Debug)]
pub(super) struct Radio {
    /// `+CFUN`.
    pub(super) function: u32,
    /// What it is now.
    pub(super) registration: Registration,
    /// What the network answers when it looks.
    pub(super) wanted: Registration,
    /// `+COPS=2`.
    deregistered: bool,
    /// Format of `+COPS?`.
    format: u32,
    pub(super) signal: u8,
    pub(super) ussd: BTreeMap<String, String>,
}

impl Radio {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            function: 1,
            registration: Registration::None,
            wanted: options.registration,
            deregistered: false,
            format: 0,
            signal: options.signal,
            ussd: BTreeMap::from([("*100#".to_owned(), "Balance: 12.34 EUR".to_owned())]),
        }
    }
}

impl Engine {
    /// The modem looks for its network and finds it after a while.
    pub(super) fn look_for_network(&mut self, wait: Duration) {
        if self.radio.function == 1
            && !self.radio.deregistered
            && self.card.state().is_ok()
            && self.card.ready
        {
            self.set_registration(Registration::Searching);
            self.after(wait, Timer::Register);
        }
    }

    pub(super) fn register(&mut self) {
        if self.radio.function == 1 && !self.radio.deregistered && self.card.state().is_ok() {
            self.set_registration(self.radio.wanted);
            self.pump();
        }
    }

    pub(super) fn set_registration(&mut self, registration: Registration) {
        if self.radio.registration == registration {
            return;
        }
        self.radio.registration = registration;
        for (name, how) in [
            ("CREG", self.settings.creg),
            ("CGREG", self.settings.cgreg),
            ("CEREG", self.settings.cereg),
        ] {
            if how > 0 {
                let line = format!("+{name}: {}", self.registration_text(how));
                self.unasked(line.as_bytes(), None);
            }
        }
    }

    fn registration_text(&self, how: u32) -> String {
        let registration = self.radio.registration;
        if how >= 2 && registration.is_registered() {
            format!("{},\"{AREA}\",\"{CELL}\",7", registration.number())
        } else {
            registration.number().to_string()
        }
    }

    pub(super) fn radio_command(&mut self, command: &Command) -> Option<Answer> {
        Some(match (command.name.as_str(), &command.form) {
            ("+CREG" | "+CGREG" | "+CEREG", form) => self.registration_command(&command.name, form),
            ("+COPS", form) => self.operator(form),
            ("+CSQ", Form::Test) => self.say("+CSQ: (0-31,99),(0-7,99)"),
            ("+CSQ", Form::Do(_)) => {
                let signal = if self.radio.function == 1 && self.radio.wanted != Registration::None {
                    self.radio.signal
                } else {
                    99
                };
                self.say(&format!("+CSQ: {signal},99"))
            }
            ("+CESQ", Form::Do(_)) => self.say("+CESQ: 99,99,255,255,20,50"),
            ("+CFUN", form) => self.function(form),
            ("+CGATT", Form::Read) => {
                let attached = u8::from(self.radio.registration.is_registered());
                self.say(&format!("+CGATT: {attached}"))
            }
            ("+CGATT" | "+CGDCONT" | "+CGACT" | "+CGEREP" | "+CTZR" | "+CTZU", Form::Set(_))
            | ("+CGDCONT" | "+CGACT", Form::Read) => Ok(Reply::Done),
            ("+CGATT", Form::Test) => self.say("+CGATT: (0,1)"),
            ("+CGDCONT", Form::Test) => self.say("+CGDCONT: (1-16),\"IP\",,,(0-2),(0-4)"),
            ("+CEER", Form::Do(_)) => self.say("+CEER: No cause information available"),
            ("+CUSD", form) => self.ussd(form),
            _ => return None,
        })
    }

    /// One information text.
    #[expect(clippy::unnecessary_wraps, reason = "an arm of a command like all others")]
    pub(super) fn say(&mut self, text: &str) -> Answer {
        self.info(text);
        Ok(Reply::Done)
    }

    fn registration_command(&mut self, name: &str, form: &Form) -> Answer {
        let how = match name {
            "+CREG" => self.settings.creg,
            "+CGREG" => self.settings.cgreg,
            _ => self.settings.cereg,
        };
        match form {
            Form::Test => self.say(&format!("{name}: (0-2)")),
            Form::Read => {
                let text = format!("{name}: {how},{}", self.registration_text(how));
                self.say(&text)
            }
            Form::Set(given) => {
                let how = given.required(0)?;
                if how > 2 {
                    return Err(Refusal::Cme(50));
                }
                match name {
                    "+CREG" => self.settings.creg = how,
                    "+CGREG" => self.settings.cgreg = how,
                    _ => self.settings.cereg = how,
                }
                Ok(Reply::Done)
            }
            Form::Do(_) => Err(Refusal::Error),
        }
    }

    fn operator(&mut self, form: &Form) -> Answer {
        self.need_card()?;
        let (name, code) = self.options.operator.clone();
        match form {
            Form::Test => Ok(Reply::Later(
                SCAN,
                Later::Info(format!(
                    "+COPS: (2,\"{name}\",\"{name}\",\"{code}\",7),(3,\"Other\",\"Other\",\"26202\",7),,(0-4),(0-2)"
                )),
            )),
            Form::Read => {
                let mode = if self.radio.deregistered { 2 } else { 0 };
                if !self.radio.registration.is_registered() {
                    return self.say(&format!("+COPS: {mode}"));
                }
                let shown = if self.radio.format == 2 { code } else { name };
                let format = self.radio.format;
                self.say(&format!("+COPS: {mode},{format},\"{shown}\",7"))
            }
            Form::Set(given) => match given.required(0)? {
                0 => {
                    self.radio.deregistered = false;
                    if !self.radio.registration.is_registered() {
                        self.look_for_network(self.options.register_time);
                    }
                    Ok(Reply::Done)
                }
                mode @ (1 | 4) => {
                    let wanted = given.loose(2).ok_or(Refusal::Error)?;
                    self.radio.deregistered = false;
                    if wanted == name || wanted == code || mode == 4 {
                        self.look_for_network(self.options.register_time);
                        Ok(Reply::Done)
                    } else {
                        self.set_registration(Registration::Denied);
                        Err(Refusal::Cme(30))
                    }
                }
                2 => {
                    self.radio.deregistered = true;
                    self.set_registration(Registration::None);
                    Ok(Reply::Done)
                }
                3 => {
                    self.radio.format = given.number(1)?.filter(|format| *format <= 2).unwrap_or(0);
                    Ok(Reply::Done)
                }
                _ => Err(Refusal::Cme(50)),
            },
            Form::Do(_) => Err(Refusal::Error),
        }
    }

    fn function(&mut self, form: &Form) -> Answer {
        match form {
            Form::Test => self.say("+CFUN: (0,1,4),(0,1)"),
            Form::Read => self.say(&format!("+CFUN: {}", self.radio.function)),
            Form::Set(given) => {
                let function = given.required(0)?;
                let reset = given.number(1)?.unwrap_or(0);
                if !matches!(function, 0 | 1 | 4) || reset > 1 {
                    return Err(Refusal::Cme(50));
                }
                if reset == 1 {
                    self.result_code(Ok(()));
                    return Ok(Reply::Later(Duration::ZERO, Later::Restart));
                }
                let before = std::mem::replace(&mut self.radio.function, function);
                if before == function {
                    return Ok(Reply::Done);
                }
                if function == 1 {
                    self.look_for_network(self.options.register_time);
                } else {
                    self.set_registration(Registration::None);
                }
                Ok(Reply::Done)
            }
            Form::Do(_) => Err(Refusal::Error),
        }
    }

    /// `+CUSD` (7.15).
    fn ussd(&mut self, form: &Form) -> Answer {
        let given = match form {
            Form::Test => return self.say("+CUSD: (0-2)"),
            Form::Read => {
                let how = u8::from(self.settings.ussd);
                return self.say(&format!("+CUSD: {how}"));
            }
            Form::Set(given) => given,
            Form::Do(_) => return Err(Refusal::Error),
        };
        let how = given.required(0)?;
        if how > 2 {
            return Err(Refusal::Cme(50));
        }
        self.settings.ussd = how == 1;
        let Some(code) = given.loose(1).map(str::to_owned) else {
            return Ok(Reply::Done);
        };
        self.need_card()?;
        if !self.radio.registration.is_registered() {
            return Err(Refusal::Cme(30));
        }
        let code = self.ussd_code(&code, given)?;
        let line = match self.radio.ussd.get(&code) {
            Some(text) => {
                let text = if self.traits().ussd_packed {
                    hex(&gsm7::pack(&gsm7::encode(text).unwrap_or_default(), 0))
                } else {
                    String::from_utf8_lossy(&self.in_charset(text)).into_owned()
                };
                format!("+CUSD: 0,\"{text}\",15")
            }
            None => "+CUSD: 4".to_owned(),
        };
        if self.settings.ussd {
            self.after(USSD, Timer::Line(line));
        }
        Ok(Reply::Done)
    }

    fn ussd_code(&self, code: &str, given: &Parameters) -> Result<String, Refusal> {
        if given.number(2)?.is_some_and(|dcs| dcs > 255) {
            return Err(Refusal::Cme(50));
        }
        if self.traits().ussd_packed {
            let octets = unhex(code).map_err(|_| NOT_ALLOWED)?;
            let count = octets.len() * 8 / 7;
            let mut text =
                gsm7::decode(&gsm7::unpack(&octets, count, 0), gsm7::Tables::default()).unwrap_or_default();
            // Seven zero bits at the end are no character (3GPP TS 23.038, 6.1.2.3.1).
            if count % 8 == 0 {
                text.truncate(text.trim_end_matches(['@', '\r']).len());
            }
            return Ok(text);
        }
        self.out_of_charset(code.as_bytes()).ok_or(Refusal::Cme(50))
    }
}
