//! V.250 and what a modem says of itself (3GPP TS 27.007, 5), and vendors' own commands.

use std::time::Duration;

use super::super::Profile;
use super::super::answer::Refusal;
use super::super::at::{Command, Form};
use super::{Answer, Engine, Later, Reply, Settings};

impl Engine {
    pub(super) fn general(&mut self, command: &Command) -> Option<Answer> {
        let done = Ok(Reply::Done);
        Some(match (command.name.as_str(), &command.form) {
            ("E", Form::Do(value @ (0 | 1))) => {
                self.settings.echo = *value == 1;
                done
            }
            ("V", Form::Do(value @ (0 | 1))) => {
                self.settings.verbose = *value == 1;
                done
            }
            ("Q", Form::Do(value @ (0 | 1))) => {
                self.settings.quiet = *value == 1;
                done
            }
            ("Z" | "&F", Form::Do(0)) => {
                // The switch for the vendor's lines survives: it belongs to the stick, not to the profile.
                let chatter = self.settings.chatter;
                self.settings = Settings::new(self.traits());
                self.settings.chatter = chatter;
                done
            }
            ("X" | "L" | "M" | "H" | "P" | "T" | "&W" | "&S" | "&Y" | "&C" | "&D" | "&K", Form::Do(value)) => {
                let most = match command.name.as_str() {
                    "&K" => 6,
                    "X" => 4,
                    "L" => 3,
                    "M" | "&C" | "&D" => 2,
                    _ => 1,
                };
                if *value <= most { done } else { Err(Refusal::Error) }
            }
            ("A" | "O", Form::Do(_)) | ("D", _) => Err(Refusal::NoCarrier),
            ("I", Form::Do(_)) => self.identify(),
            ("&V", Form::Do(_)) => self.say(&format!("E{} V1 Q0 X4", u8::from(self.settings.echo))),
            (name, form) if name.strip_prefix('S').is_some_and(|rest| !rest.is_empty()) => {
                self.register_s(name, form)
            }
            ("+CGMI" | "+GMI", Form::Do(_)) => self.say(self.traits().manufacturer),
            ("+CGMM" | "+GMM", Form::Do(_)) => self.say(self.traits().model),
            ("+CGMR" | "+GMR", Form::Do(_)) => self.say(self.traits().revision),
            ("+CGSN" | "+GSN", Form::Do(_)) => {
                let imei = self.options.imei.clone();
                self.say(&imei)
            }
            ("+GCAP", Form::Do(_)) => self.say(&format!("+GCAP: {}", self.traits().capabilities)),
            (
                "+CGMI" | "+GMI" | "+CGMM" | "+GMM" | "+CGMR" | "+GMR" | "+CGSN" | "+GSN" | "+GCAP",
                Form::Test,
            )
            | (
                "+IFC" | "+ICF" | "+IPR" | "+CCLK" | "+CMER" | "+CVHU" | "+CRC" | "+CR" | "+FCLASS",
                Form::Set(_),
            ) => done,
            ("+CMEE", Form::Test) => self.say("+CMEE: (0-2)"),
            ("+CMEE", Form::Read) => self.say(&format!("+CMEE: {}", self.settings.cmee)),
            ("+CMEE", Form::Set(given)) => match given.required(0) {
                Ok(value @ 0..=2) => {
                    self.settings.cmee = value;
                    done
                }
                _ => Err(Refusal::Cme(50)),
            },
            ("+CSCS", Form::Test) => self.say("+CSCS: (\"GSM\",\"IRA\",\"UCS2\",\"HEX\",\"8859-1\")"),
            ("+CSCS", Form::Read) => self.say(&format!("+CSCS: \"{}\"", self.settings.charset)),
            ("+CSCS", Form::Set(given)) => {
                let name = given.loose(0).unwrap_or_default().to_ascii_uppercase();
                if ["GSM", "IRA", "UCS2", "HEX", "8859-1"].contains(&name.as_str()) {
                    self.settings.charset = name;
                    done
                } else {
                    Err(Refusal::Cme(50))
                }
            }
            ("+CPAS", Form::Do(_)) => self.say("+CPAS: 0"),
            ("+CBC", Form::Do(_)) => self.say("+CBC: 0,93,4050"),
            ("+IPR", Form::Read) => self.say("+IPR: 115200"),
            ("+IPR", Form::Test) => self.say("+IPR: (),(9600,19200,38400,57600,115200)"),
            ("+FCLASS", Form::Read) => self.say("0"),
            ("+FCLASS", Form::Test) => self.say("+FCLASS: (0)"),
            ("+CCLK", Form::Read) => {
                let at = self.wall_time().strftime("%y/%m/%d,%H:%M:%S+00").to_string();
                self.say(&format!("+CCLK: \"{at}\""))
            }
            ("+CIND", Form::Test) => self.say(
                "+CIND: (\"battchg\",(0-5)),(\"signal\",(0-5)),(\"service\",(0,1)),(\"message\",(0,1)),(\"call\",(0,\
                 1)),(\"roam\",(0,1)),(\"smsfull\",(0,1))",
            ),
            ("+CIND", Form::Read) => self.indicators(),
            ("+CMER", Form::Test) => self.say("+CMER: (0-3),(0),(0),(0-1),(0,1)"),
            _ => return None,
        })
    }

    fn identify(&mut self) -> Answer {
        let traits = self.traits();
        let imei = self.options.imei.clone();
        match self.options.profile {
            Profile::Sim800 => return self.say("SIM800 R14.18"),
            Profile::Ec25 => {
                for line in [traits.manufacturer, traits.model] {
                    self.info(line);
                }
                self.info(&format!("Revision: {}", traits.revision));
            }
            Profile::Generic | Profile::Sim7600 | Profile::Huawei => {
                self.info(&format!("Manufacturer: {}", traits.manufacturer));
                self.info(&format!("Model: {}", traits.model));
                self.info(&format!("Revision: {}", traits.revision));
                self.info(&format!("IMEI: {imei}"));
                self.info(&format!("+GCAP: {}", traits.capabilities));
            }
        }
        Ok(Reply::Done)
    }

    fn register_s(&mut self, name: &str, form: &Form) -> Answer {
        let register: u32 = name
            .get(1..)
            .and_then(|number| number.parse().ok())
            .ok_or(Refusal::Error)?;
        match form {
            Form::Read => {
                let value = self.settings.registers.get(&register).ok_or(Refusal::Error)?;
                let text = format!("{value:03}");
                self.say(&text)
            }
            Form::Set(given) => {
                let value = given.number(0)?.unwrap_or(0);
                // The line ends are the usual ones and stay so.
                let fixed = matches!((register, value), (3, 13) | (4, 10) | (5, 8));
                if value > 255 || ((3..=5).contains(&register) && !fixed) {
                    return Err(Refusal::Error);
                }
                self.settings.registers.insert(register, value);
                Ok(Reply::Done)
            }
            Form::Do(_) | Form::Test => Err(Refusal::Error),
        }
    }

    fn indicators(&mut self) -> Answer {
        let registered = u8::from(self.radio.registration.is_registered());
        let roaming = u8::from(self.radio.registration == super::super::Registration::Roaming);
        let signal = self.radio.signal / 6;
        let memory = self.memory_for_incoming();
        let full = u8::from(!self.memories.has_room(memory));
        let unread = u8::from(
            self.memories
                .list(memory)
                .iter()
                .any(|(_, stored)| stored.stat == super::super::memory::Stat::Unread),
        );
        self.say(&format!(
            "+CIND: 5,{signal},{registered},{unread},0,{roaming},{full}"
        ))
    }

    /// Switches off and on again after the answer.
    #[expect(clippy::unnecessary_wraps, reason = "an arm of a command like all others")]
    fn power_cycle(&mut self, said: &str) -> Answer {
        self.result_code(Ok(()));
        if !said.is_empty() {
            self.line_out(said.as_bytes());
        }
        Ok(Reply::Later(Duration::ZERO, Later::Restart))
    }

    pub(super) fn vendor(&mut self, command: &Command) -> Option<Answer> {
        match self.options.profile {
            Profile::Generic => None,
            Profile::Sim800 => self.sim800(command),
            Profile::Sim7600 => self.sim7600(command),
            Profile::Ec25 => self.ec25(command),
            Profile::Huawei => self.huawei(command),
        }
    }

    fn sim800(&mut self, command: &Command) -> Option<Answer> {
        let (pin, puk) = self.tries();
        Some(match (command.name.as_str(), &command.form) {
            ("+CSPN", Form::Read) => {
                self.with_card(|engine| format!("+CSPN: \"{}\",0", engine.options.operator.0))
            }
            ("+SPIC", Form::Do(_)) => self.say(&format!("+SPIC: {pin},3,{puk},10")),
            ("+CPOWD", Form::Set(_)) => self.power_cycle("NORMAL POWER DOWN"),
            ("+CIURC" | "+CSCLK" | "+CSMINS" | "+EXUNSOL", Form::Set(_)) => Ok(Reply::Done),
            ("+CSMINS", Form::Read) => {
                let present = u8::from(self.options.has_sim);
                self.say(&format!("+CSMINS: 0,{present}"))
            }
            _ => return None,
        })
    }

    fn sim7600(&mut self, command: &Command) -> Option<Answer> {
        let (pin, puk) = self.tries();
        Some(match (command.name.as_str(), &command.form) {
            ("+CICCID", Form::Do(_)) => self.with_card(|engine| format!("+ICCID: {}", engine.options.iccid)),
            ("+SPIC", Form::Do(_)) => self.say(&format!("+SPIC: {pin},3,{puk},10")),
            ("+CPSI", Form::Read) => self
                .say("+CPSI: LTE,Online,262-01,0x1A2B,30786313,257,EUTRAN-BAND3,1300,5,5,-95,-950,-650,15"),
            ("+CNSMOD", Form::Read) => self.say("+CNSMOD: 0,8"),
            ("+CNMP", Form::Read) => self.say("+CNMP: 2"),
            ("+CNMP" | "+CSCLK" | "+CNSMOD" | "+CATR", Form::Set(_)) => Ok(Reply::Done),
            ("+CRESET", Form::Do(_)) => self.power_cycle(""),
            _ => return None,
        })
    }

    fn ec25(&mut self, command: &Command) -> Option<Answer> {
        let (pin, puk) = self.tries();
        Some(match (command.name.as_str(), &command.form) {
            ("+QCCID", Form::Do(_)) => self.with_card(|engine| format!("+QCCID: {}", engine.options.iccid)),
            ("+QPINC", Form::Set(_) | Form::Read) => self.say(&format!("+QPINC: \"SC\",{pin},{puk}")),
            ("+QINISTAT", Form::Do(_)) => {
                let state = if self.card.ready { 7 } else { 0 };
                self.say(&format!("+QINISTAT: {state}"))
            }
            ("+QSIMSTAT", Form::Read) => {
                let present = u8::from(self.options.has_sim);
                self.say(&format!("+QSIMSTAT: 0,{present}"))
            }
            ("+QNWINFO", Form::Do(_)) => self.say("+QNWINFO: \"FDD LTE\",\"26201\",\"LTE BAND 3\",1300"),
            ("+QCSQ", Form::Do(_)) => self.say("+QCSQ: \"LTE\",65,-95,150,-10"),
            ("+QURCCFG", Form::Read) => self.say("+QURCCFG: \"urcport\",\"usbat\""),
            ("+QURCCFG" | "+QCFG" | "+QINDCFG" | "+QSIMSTAT" | "+QSCLK", Form::Set(_)) => Ok(Reply::Done),
            ("+QPOWD", Form::Do(_) | Form::Set(_)) => self.power_cycle("POWERED DOWN"),
            _ => return None,
        })
    }

    fn huawei(&mut self, command: &Command) -> Option<Answer> {
        let (pin, puk) = self.tries();
        Some(match (command.name.as_str(), &command.form) {
            ("^CURC", Form::Set(given)) => match given.required(0) {
                Ok(how @ 0..=2) => {
                    self.settings.chatter = how != 0;
                    Ok(Reply::Done)
                }
                _ => Err(Refusal::Cme(50)),
            },
            ("^CURC", Form::Read) => {
                let how = u8::from(self.settings.chatter);
                self.say(&format!("^CURC: {how}"))
            }
            ("^CPIN", Form::Read) => match self.need_card() {
                Ok(()) => self.say(&format!("^CPIN: READY,,{puk},{pin},10,3")),
                Err(Refusal::Cme(11)) => self.say(&format!("^CPIN: SIM PIN,{pin},{puk},{pin},10,3")),
                Err(Refusal::Cme(12)) => self.say(&format!("^CPIN: SIM PUK,{puk},{puk},{pin},10,3")),
                Err(refusal) => Err(refusal),
            },
            ("^ICCID", Form::Read) => self.with_card(|engine| format!("^ICCID: {}", engine.options.iccid)),
            ("^SYSINFO", Form::Do(_)) => {
                let service = if self.radio.registration.is_registered() {
                    2
                } else {
                    0
                };
                let roaming = u8::from(self.radio.registration == super::super::Registration::Roaming);
                self.say(&format!("^SYSINFO:{service},3,{roaming},17,1,,7"))
            }
            ("^SYSINFOEX", Form::Do(_)) => self.say("^SYSINFOEX:2,3,0,1,,6,\"LTE\",101,\"LTE\""),
            ("^HCSQ", Form::Read) => self.say("^HCSQ:\"LTE\",55,53,161,26"),
            ("^CARDMODE", Form::Do(_)) => self.say("^CARDMODE: 2"),
            ("^RFSWITCH", Form::Read) => self.say("^RFSWITCH:1,1"),
            (
                "^BOOT" | "^U2DIAG" | "^SYSCFG" | "^SYSCFGEX" | "^SETPORT" | "^PORTSEL" | "^STSF",
                Form::Set(_),
            ) => Ok(Reply::Done),
            ("^RESET", Form::Do(_)) => self.power_cycle(""),
            _ => return None,
        })
    }
}
