//! The SIM card: PIN and PUK (3GPP TS 27.007, 8.3 and 7.4).

use super::super::answer::{NOT_ALLOWED, NOT_SUPPORTED, Refusal};
use super::super::at::{Command, Form, Parameters};
use super::super::options::Options;
use super::{Answer, Engine, Reply};

const TRIES: u32 = 3;
const PUK_TRIES: u32 = 10;
const PUK: &str = "12345678";

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a card's states are independent of each other"
)]
pub(super) struct Card {
    present: bool,
    pin: String,
    /// Whether the card asks for it.
    asks: bool,
    unlocked: bool,
    tries: u32,
    puk_tries: u32,
    /// Whether the modem has read it.
    pub(super) ready: bool,
    /// How often a PIN was given that was wrong.
    pub(super) wrong_pins: usize,
}

impl Card {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            present: options.has_sim,
            pin: options.pin.clone().unwrap_or_else(|| "0000".to_owned()),
            asks: options.pin.is_some(),
            unlocked: false,
            tries: TRIES,
            puk_tries: PUK_TRIES,
            ready: false,
            wrong_pins: 0,
        }
    }

    pub(super) fn restart(&mut self) {
        self.unlocked = false;
        self.ready = false;
    }

    /// Whether it can be used; else the `+CME ERROR` that says why not.
    pub(super) fn state(&self) -> Result<(), u16> {
        if !self.present {
            Err(10)
        } else if self.puk_tries == 0 {
            Err(13)
        } else if self.tries == 0 {
            Err(12)
        } else if self.asks && !self.unlocked {
            Err(11)
        } else {
            Ok(())
        }
    }

    fn wrong(&mut self) -> Refusal {
        self.wrong_pins += 1;
        self.tries = self.tries.saturating_sub(1);
        Refusal::Cme(if self.tries == 0 { 12 } else { 16 })
    }

    /// Checks the PIN for something that needs it.
    fn check(&mut self, pin: &str) -> Result<(), Refusal> {
        if self.tries == 0 {
            return Err(Refusal::Cme(12));
        }
        if pin != self.pin {
            return Err(self.wrong());
        }
        self.tries = TRIES;
        Ok(())
    }
}

fn is_pin(text: &str) -> bool {
    (4..=8).contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit())
}

impl Engine {
    /// For commands that need the card.
    pub(super) fn need_card(&self) -> Result<(), Refusal> {
        if self.radio.function == 0 {
            return Err(Refusal::Cme(13));
        }
        self.card.state().map_err(Refusal::Cme)?;
        if self.card.ready {
            Ok(())
        } else {
            Err(Refusal::Cme(14))
        }
    }

    /// For commands of TS 27.005, which has its own numbers for the same.
    pub(super) fn need_card_for_messages(&self) -> Result<(), Refusal> {
        self.need_card().map_err(|refusal| match refusal {
            Refusal::Cme(code) => Refusal::Cms(match code {
                10 => 310,
                11 => 311,
                12 => 316,
                14 => 314,
                _ => 313,
            }),
            other => other,
        })
    }

    pub(super) fn card_command(&mut self, command: &Command) -> Option<Answer> {
        let done = Ok(Reply::Done);
        Some(match (command.name.as_str(), &command.form) {
            ("+CPIN" | "+CIMI" | "+CNUM" | "+CCID", Form::Test) => done,
            ("+CPIN", Form::Read) => self.read_pin(),
            ("+CPIN", Form::Set(given)) => self.give_pin(given),
            ("+CPINR", Form::Do(_)) => {
                self.info(&format!("+CPINR: SIM PIN,{},{TRIES}", self.card.tries));
                self.info(&format!("+CPINR: SIM PUK,{},{PUK_TRIES}", self.card.puk_tries));
                done
            }
            ("+CPINR", Form::Set(_)) => {
                self.info(&format!("+CPINR: SIM PIN,{},{TRIES}", self.card.tries));
                done
            }
            ("+CLCK", Form::Test) => {
                self.info("+CLCK: (\"SC\",\"FD\")");
                done
            }
            ("+CPWD", Form::Test) => {
                self.info("+CPWD: (\"SC\",8)");
                done
            }
            ("+CRSM", Form::Set(given)) => self.read_file(given),
            ("+CLCK", Form::Set(given)) => self.lock(given),
            ("+CPWD", Form::Set(given)) => self.change_pin(given),
            ("+CIMI", Form::Do(_)) => self.with_card(|engine| engine.options.imsi.clone()),
            ("+CCID", Form::Do(_) | Form::Read) => {
                let bare = self.options.profile == super::super::Profile::Sim800;
                self.with_card(|engine| {
                    let head = if bare { "" } else { "+CCID: " };
                    format!("{head}{}", engine.options.iccid)
                })
            }
            ("+CNUM", Form::Do(_)) => self.with_card(|engine| {
                let number = &engine.options.own_number;
                let kind = if number.starts_with('+') { 145 } else { 129 };
                format!("+CNUM: \"\",\"{number}\",{kind}")
            }),
            _ => return None,
        })
    }

    /// An information text that only a card can give.
    pub(super) fn with_card(&mut self, text: impl Fn(&Self) -> String) -> Answer {
        self.need_card()?;
        let text = text(self);
        self.info(&text);
        Ok(Reply::Done)
    }

    /// Tries for the PIN that are left, and for the PUK.
    pub(super) fn tries(&self) -> (u32, u32) {
        (self.card.tries, self.card.puk_tries)
    }

    fn read_pin(&mut self) -> Answer {
        let text = match self.need_card() {
            Ok(()) => "READY",
            Err(Refusal::Cme(11)) => "SIM PIN",
            Err(Refusal::Cme(12)) => "SIM PUK",
            Err(refusal) => return Err(refusal),
        };
        self.info(&format!("+CPIN: {text}"));
        Ok(Reply::Done)
    }

    fn give_pin(&mut self, given: &Parameters) -> Answer {
        let first = given.loose(0).ok_or(Refusal::Error)?.to_owned();
        let second = given.loose(1).map(str::to_owned);
        match (self.card.state(), second) {
            (Err(11), None) => {
                if !is_pin(&first) {
                    return Err(Refusal::Cme(50));
                }
                self.card.check(&first)?;
                self.unlocked();
                Ok(Reply::Done)
            }
            (Err(12), Some(pin)) => {
                if first != PUK {
                    self.card.puk_tries = self.card.puk_tries.saturating_sub(1);
                    return Err(Refusal::Cme(if self.card.puk_tries == 0 { 13 } else { 16 }));
                }
                if !is_pin(&pin) {
                    return Err(Refusal::Cme(50));
                }
                self.card.pin = pin;
                self.card.tries = TRIES;
                self.card.puk_tries = PUK_TRIES;
                self.unlocked();
                Ok(Reply::Done)
            }
            (Err(12), None) => Err(Refusal::Cme(12)),
            (Err(11), Some(_)) | (Ok(()), _) => Err(NOT_ALLOWED),
            (Err(code), _) => Err(Refusal::Cme(code)),
        }
    }

    fn unlocked(&mut self) {
        self.card.unlocked = true;
        if self.options.profile == super::super::Profile::Sim800 {
            self.after(
                self.options.boot_step,
                super::Timer::Line("+CPIN: READY".to_owned()),
            );
        }
        self.look_for_network(self.options.register_time);
    }

    /// `+CRSM`: READ BINARY of the card's number and of the network code's length; other files are not found (3GPP TS
    /// 51.011, 9.4 and 10.3).
    fn read_file(&mut self, given: &Parameters) -> Answer {
        let (command, file) = (given.required(0)?, given.required(1)?);
        match self.need_card() {
            // The card's own number is open to everybody (3GPP TS 51.011, 10.1.1).
            Err(Refusal::Cme(11 | 12)) if file == 0x2fe2 => {}
            other => other?,
        }
        let text = match (command, file) {
            (176, 0x2fe2) => {
                let digits = format!("{:F<20}", self.options.iccid);
                let swapped: Vec<String> = digits
                    .as_bytes()
                    .chunks(2)
                    .map(|pair| pair.iter().rev().copied().map(char::from).collect())
                    .collect();
                format!("+CRSM: 144,0,\"{}\"", swapped.concat())
            }
            (176, 0x6fad) => "+CRSM: 144,0,\"00000002\"".to_owned(),
            (176 | 178 | 192, _) => "+CRSM: 106,130".to_owned(),
            _ => return Err(NOT_SUPPORTED),
        };
        self.say(&text)
    }

    fn lock(&mut self, given: &Parameters) -> Answer {
        let facility = given.loose(0).ok_or(Refusal::Error)?.to_ascii_uppercase();
        let mode = given.required(1)?;
        self.need_card()?;
        if facility == "FD" {
            return match mode {
                2 => {
                    self.info("+CLCK: 0");
                    Ok(Reply::Done)
                }
                _ => Err(NOT_SUPPORTED),
            };
        }
        if facility != "SC" {
            return Err(NOT_SUPPORTED);
        }
        match mode {
            2 => {
                self.info(&format!("+CLCK: {}", u8::from(self.card.asks)));
                Ok(Reply::Done)
            }
            0 | 1 => {
                let pin = given.loose(2).ok_or(Refusal::Error)?.to_owned();
                self.card.check(&pin)?;
                self.card.asks = mode == 1;
                self.card.unlocked = true;
                Ok(Reply::Done)
            }
            _ => Err(Refusal::Cme(50)),
        }
    }

    fn change_pin(&mut self, given: &Parameters) -> Answer {
        let (facility, old, new) = match (given.loose(0), given.loose(1), given.loose(2)) {
            (Some(facility), Some(old), Some(new)) => (facility, old.to_owned(), new.to_owned()),
            _ => return Err(Refusal::Error),
        };
        if !facility.eq_ignore_ascii_case("SC") {
            return Err(NOT_SUPPORTED);
        }
        self.need_card()?;
        // A card that does not ask for its PIN does not change it either (3GPP TS 31.101, 11.1.10).
        if !self.card.asks || !is_pin(&new) {
            return Err(NOT_ALLOWED);
        }
        self.card.check(&old)?;
        self.card.pin = new;
        Ok(Reply::Done)
    }
}
