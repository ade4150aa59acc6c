//! Settings and memories of 3GPP TS 27.005: `+CMGF`, `+CSMS`, `+CPMS`, `+CNMI`, `+CMGL`, `+CMGR`, `+CMGD` and others.

use super::super::answer::{INVALID_INDEX, Refusal};
use super::super::at::{Command, Form, Parameters};
use super::super::memory::{Memory, Stat, Stored};
use super::super::pdu::{hex, is_international};
use super::{Answer, Engine, Piece, Reply};

const WRONG: Refusal = Refusal::Cms(303);

impl Engine {
    pub(super) fn message_settings(&mut self, command: &Command) -> Option<Answer> {
        let done = Ok(Reply::Done);
        Some(match (command.name.as_str(), &command.form) {
            ("+CMGF", Form::Test) => self.say("+CMGF: (0,1)"),
            ("+CMGF", Form::Read) => self.say(&format!("+CMGF: {}", u8::from(self.settings.text_mode))),
            ("+CMGF", Form::Do(_)) => {
                self.settings.text_mode = false;
                done
            }
            ("+CMGF", Form::Set(given)) => match given.required(0) {
                Ok(value @ (0 | 1)) => {
                    self.settings.text_mode = value == 1;
                    done
                }
                _ => Err(WRONG),
            },
            ("+CSMS", Form::Test) => self.say("+CSMS: (0,1)"),
            ("+CSMS", Form::Read) => {
                let service = u8::from(self.settings.phase_2_plus);
                self.say(&format!("+CSMS: {service},1,1,1"))
            }
            ("+CSMS", Form::Set(given)) => match given.required(0) {
                Ok(value @ (0 | 1)) => {
                    self.settings.phase_2_plus = value == 1;
                    self.say("+CSMS: 1,1,1")
                }
                _ => Err(WRONG),
            },
            ("+CPMS", form) => self.preferred_memories(form),
            ("+CNMI", form) => self.indications(form),
            ("+CSCA" | "+CSMP", Form::Test) | ("+CSAS" | "+CRES" | "+CSCB", Form::Do(_) | Form::Set(_)) => {
                done
            }
            ("+CSCA", Form::Read) => self.read_service_centre(),
            ("+CSCA", Form::Set(given)) => self.set_service_centre(given),
            ("+CSMP", Form::Read) => {
                let [first, validity, pid, dcs] = self.settings.csmp;
                self.say(&format!("+CSMP: {first},{validity},{pid},{dcs}"))
            }
            ("+CSMP", Form::Set(given)) => self.text_parameters(given),
            ("+CSDH", Form::Test) => self.say("+CSDH: (0,1)"),
            ("+CSDH", Form::Read) => self.say(&format!("+CSDH: {}", u8::from(self.settings.show_header))),
            ("+CSDH", Form::Set(given)) => match given.required(0) {
                Ok(value @ (0 | 1)) => {
                    self.settings.show_header = value == 1;
                    done
                }
                _ => Err(WRONG),
            },
            ("+CSCB", Form::Read) => self.say("+CSCB: 0,\"\",\"\""),
            ("+CMMS", Form::Test) => self.say("+CMMS: (0-2)"),
            ("+CMMS", Form::Read) => self.say(&format!("+CMMS: {}", self.settings.more_to_send)),
            ("+CMMS", Form::Set(given)) => match given.required(0) {
                Ok(value @ 0..=2) => {
                    self.settings.more_to_send = value;
                    done
                }
                _ => Err(WRONG),
            },
            _ => return None,
        })
    }

    fn text_parameters(&mut self, given: &Parameters) -> Answer {
        let mut changed = self.settings.csmp;
        for (index, value) in changed.iter_mut().enumerate() {
            // An absolute validity period is a string; what is kept of it does not matter here.
            if let Ok(Some(number)) = given.number(index) {
                *value = number;
            }
        }
        if changed.iter().any(|value| *value > 255) || changed[0] & 3 > 1 {
            return Err(Refusal::Cms(305));
        }
        self.settings.csmp = changed;
        Ok(Reply::Done)
    }

    fn read_service_centre(&mut self) -> Answer {
        self.need_card_for_messages()?;
        let number = self.options.service_centre.clone();
        let kind = if is_international(&number) { 145 } else { 129 };
        let shown = self.in_charset(&number);
        let mut line = b"+CSCA: \"".to_vec();
        line.extend(shown);
        line.extend(format!("\",{kind}").as_bytes());
        self.pieces.push(Piece::Info(line));
        Ok(Reply::Done)
    }

    fn set_service_centre(&mut self, given: &Parameters) -> Answer {
        self.need_card_for_messages()?;
        let number = given.text(0)?.ok_or(WRONG)?;
        let number = self.out_of_charset(number.as_bytes()).ok_or(WRONG)?;
        let digits = number.trim_start_matches('+');
        if digits.len() > 20 || !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(WRONG);
        }
        self.options.service_centre = if given.number(1)? == Some(145) && !is_international(&number) {
            format!("+{digits}")
        } else {
            number
        };
        Ok(Reply::Done)
    }

    /// The memory that new messages go to.
    pub(super) fn memory_for_incoming(&self) -> Memory {
        let [_, _, memory] = self.settings.memories;
        memory
    }

    fn preferred_memories(&mut self, form: &Form) -> Answer {
        self.need_card_for_messages()?;
        match form {
            Form::Test => {
                let quoted = |names: &[Memory]| {
                    let names: Vec<String> = names
                        .iter()
                        .map(|memory| format!("\"{}\"", memory.name()))
                        .collect();
                    format!("({})", names.join(","))
                };
                let all = self.memories.names();
                let writable: Vec<Memory> = all
                    .iter()
                    .copied()
                    .filter(|memory| *memory != Memory::Sr)
                    .collect();
                self.say(&format!(
                    "+CPMS: {},{},{}",
                    quoted(&all),
                    quoted(&writable),
                    quoted(&writable)
                ))
            }
            Form::Read => {
                let parts: Vec<String> = self
                    .settings
                    .memories
                    .iter()
                    .map(|memory| {
                        let (used, total) = self.memories.usage(*memory);
                        format!("\"{}\",{used},{total}", memory.name())
                    })
                    .collect();
                self.say(&format!("+CPMS: {}", parts.join(",")))
            }
            Form::Set(given) => {
                if !(1..=3).contains(&given.len()) {
                    return Err(Refusal::Cms(302));
                }
                let mut wanted = self.settings.memories;
                for (index, place) in wanted.iter_mut().enumerate() {
                    if let Some(name) = given.loose(index) {
                        let memory = self.memories.by_name(name).ok_or(Refusal::Cms(302))?;
                        if memory == Memory::Sr && index > 0 {
                            return Err(Refusal::Cms(302));
                        }
                        *place = memory;
                    }
                }
                self.settings.memories = wanted;
                let parts: Vec<String> = wanted
                    .iter()
                    .map(|memory| {
                        let (used, total) = self.memories.usage(*memory);
                        format!("{used},{total}")
                    })
                    .collect();
                self.space_or_settings_changed();
                self.say(&format!("+CPMS: {}", parts.join(",")))
            }
            Form::Do(_) => Err(Refusal::Error),
        }
    }

    fn indications(&mut self, form: &Form) -> Answer {
        let ranges = self.traits().cnmi_ranges;
        match form {
            Form::Test => {
                let shown: Vec<String> = ranges
                    .iter()
                    .map(|range| {
                        let values: Vec<String> = range.iter().map(ToString::to_string).collect();
                        format!("({})", values.join(","))
                    })
                    .collect();
                self.say(&format!("+CNMI: {}", shown.join(",")))
            }
            Form::Read => {
                let shown: Vec<String> = self.settings.cnmi.iter().map(ToString::to_string).collect();
                self.say(&format!("+CNMI: {}", shown.join(",")))
            }
            Form::Set(given) => {
                if given.len() > 5 {
                    return Err(WRONG);
                }
                let mut wanted = self.settings.cnmi;
                for (index, (value, range)) in wanted.iter_mut().zip(ranges).enumerate() {
                    if let Some(number) = given.number(index)? {
                        if !range.contains(&number) {
                            return Err(WRONG);
                        }
                        *value = number;
                    }
                }
                self.settings.cnmi = wanted;
                self.release_buffered();
                self.space_or_settings_changed();
                Ok(Reply::Done)
            }
            Form::Do(_) => {
                self.settings.cnmi = [0; 5];
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn message_command(&mut self, command: &Command) -> Option<Answer> {
        if let (
            "+CMGL" | "+CMGR" | "+CMGD" | "+CMGS" | "+CMGW" | "+CMSS" | "+CNMA",
            Form::Do(_) | Form::Set(_) | Form::Test,
        ) = (command.name.as_str(), &command.form)
            && let Err(refusal) = self.need_card_for_messages()
        {
            return Some(Err(refusal));
        }
        let empty = Parameters::default();
        let given = match &command.form {
            Form::Set(given) => given,
            _ => &empty,
        };
        Some(match (command.name.as_str(), &command.form) {
            ("+CMGL", Form::Test) => {
                if self.settings.text_mode {
                    self.say("+CMGL: (\"REC UNREAD\",\"REC READ\",\"STO UNSENT\",\"STO SENT\",\"ALL\")")
                } else {
                    self.say("+CMGL: (0-4)")
                }
            }
            ("+CMGL", Form::Do(_) | Form::Set(_)) => self.list(given),
            ("+CMGR" | "+CMGS" | "+CMGW" | "+CMSS", Form::Test) => Ok(Reply::Done),
            ("+CMGR", Form::Set(_)) => self.read(given),
            ("+CMGD", Form::Test) => self.deletable(),
            ("+CMGD", Form::Set(_)) => self.delete(given),
            ("+CMGS", Form::Set(_)) => self.submit(given),
            ("+CMGW", Form::Do(_) | Form::Set(_)) => self.write_message(given),
            ("+CMSS", Form::Set(_)) => self.send_stored(given),
            ("+CNMA", Form::Test) => self.say("+CNMA: (0-2)"),
            ("+CNMA", Form::Do(_) | Form::Set(_)) => self.acknowledge(given),
            _ => return None,
        })
    }

    /// The memory that messages are read from.
    pub(super) fn memory_for_reading(&self) -> Memory {
        let [memory, _, _] = self.settings.memories;
        memory
    }

    fn list(&mut self, given: &Parameters) -> Answer {
        let memory = self.memory_for_reading();
        let wanted: Option<Stat> = if self.settings.text_mode {
            let name = given.loose(0).unwrap_or("REC UNREAD").to_ascii_uppercase();
            match Stat::ALL.into_iter().find(|stat| stat.words() == name) {
                Some(stat) => Some(stat),
                None if name == "ALL" => None,
                None => return Err(Refusal::Cms(305)),
            }
        } else {
            match given.number(0)?.unwrap_or(0) {
                4 => None,
                number => Some(
                    Stat::ALL
                        .into_iter()
                        .find(|stat| usize::try_from(number) == Ok(stat.number()))
                        .ok_or(Refusal::Cms(304))?,
                ),
            }
        };
        let keep_unread = given.number(1)? == Some(1);
        for (index, stored) in self.memories.list(memory) {
            if wanted.is_some_and(|wanted| wanted != stored.stat) {
                continue;
            }
            let piece = if self.settings.text_mode {
                self.listed_as_text(index, &stored)
            } else {
                let alpha = self.alpha();
                let (stat, length) = (stored.stat.number(), stored.length());
                Piece::Pair(
                    format!("+CMGL: {index},{stat},{alpha},{length}").into_bytes(),
                    hex(&stored.pdu).into_bytes(),
                )
            };
            self.pieces.push(piece);
            if !keep_unread {
                self.mark_read(memory, index);
            }
        }
        Ok(Reply::Done)
    }

    /// The name in the phone book, which is never there: some makes write it as an empty string.
    pub(super) fn alpha(&self) -> &'static str {
        use super::super::Profile;
        match self.options.profile {
            Profile::Sim800 | Profile::Sim7600 => "\"\"",
            Profile::Generic | Profile::Ec25 | Profile::Huawei => "",
        }
    }

    fn mark_read(&mut self, memory: Memory, index: u32) {
        if let Some(stored) = self.memories.get_mut(memory, index)
            && stored.stat == Stat::Unread
        {
            stored.stat = Stat::Read;
        }
    }

    fn read(&mut self, given: &Parameters) -> Answer {
        let memory = self.memory_for_reading();
        let index = given.required(0)?;
        let keep_unread = given.number(1)? == Some(1);
        let Some(stored) = self.memories.get(memory, index).cloned() else {
            return self.empty_place(memory, index);
        };
        let piece = if self.settings.text_mode {
            self.read_as_text(&stored)
        } else {
            let alpha = self.alpha();
            Piece::Pair(
                format!("+CMGR: {},{alpha},{}", stored.stat.number(), stored.length()).into_bytes(),
                hex(&stored.pdu).into_bytes(),
            )
        };
        self.pieces.push(piece);
        if !keep_unread {
            self.mark_read(memory, index);
        }
        Ok(Reply::Done)
    }

    fn empty_place(&self, memory: Memory, index: u32) -> Answer {
        if self.memories.exists(memory, index) && self.traits().empty_is_ok {
            Ok(Reply::Done)
        } else {
            Err(INVALID_INDEX)
        }
    }

    fn deletable(&mut self) -> Answer {
        let memory = self.memory_for_reading();
        let used: Vec<String> = self
            .memories
            .list(memory)
            .iter()
            .map(|(index, _)| index.to_string())
            .collect();
        self.say(&format!("+CMGD: ({}),(0-4)", used.join(",")))
    }

    fn delete(&mut self, given: &Parameters) -> Answer {
        let memory = self.memory_for_reading();
        let index = given.required(0)?;
        let flag = given.number(1)?.unwrap_or(0);
        let gone = |stored: &Stored| match flag {
            1 => stored.stat == Stat::Read,
            2 => matches!(stored.stat, Stat::Read | Stat::Sent),
            3 => stored.stat != Stat::Unread,
            _ => true,
        };
        match flag {
            0 => {
                if self.memories.remove(memory, index).is_none() {
                    return self.empty_place(memory, index);
                }
                self.counts.deleted += 1;
            }
            1..=4 => {
                for (index, stored) in self.memories.list(memory) {
                    if gone(&stored) {
                        self.memories.remove(memory, index);
                        self.counts.deleted += 1;
                    }
                }
            }
            _ => return Err(Refusal::Cms(304)),
        }
        self.space_or_settings_changed();
        Ok(Reply::Done)
    }
}
