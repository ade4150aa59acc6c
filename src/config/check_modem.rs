//! Checks of `[[modem]]` and of the channels that it carries.

use super::check::{Check, keys};
use super::effective::Effective;
use super::raw;
use super::source::nearest;
use super::tree::Step;
use super::{Channel, Modem, ModemPort};
use crate::protocol::sms::Home;
use crate::protocol::sms::at::Profile;
use crate::protocol::sms::charset::Language;

impl Check<'_> {
    pub(super) fn modems(&mut self, effective: &mut Effective) -> Vec<Modem> {
        let mut modems: Vec<Modem> = Vec::new();
        for (index, mut raw) in self.elements::<raw::Modem>("modem") {
            let at = |key: &str| keys!["modem", index, key];
            let name = raw.name.0.clone();
            self.twice("modem", "name", index, &name);
            self.resolve(&at("port"), &mut raw.port);
            self.resolve(&at("pin_file"), &mut raw.pin_file);
            let port = self.modem_port(index, &raw);
            if let Some(port) = &port
                && let Some(other) = modems.iter().find(|other| other.port == *port)
            {
                let message = format!("the modems {:?} and {name:?} are at the same port", other.name);
                let hint = Some("give each its own port, or leave one of them out".to_owned());
                self.error(&keys!["modem", index], message, hint);
            }
            let pin = self.secret(
                &at("pin_file"),
                raw.pin_file.as_ref(),
                &format!("modem-{name}-pin"),
                format!("modem.{name}.pin"),
            );
            if let Some(pin) = &pin {
                let digits = pin.expose().bytes().all(|byte| byte.is_ascii_digit());
                if !digits || !(4..=8).contains(&pin.expose().len()) {
                    let hint = Some("the file holds the PIN alone, on one line".to_owned());
                    self.error(&at("pin_file"), "a PIN has 4 to 8 digits", hint);
                }
            }
            let home = self.home(&at("home_country"), raw.home_country.as_deref());
            let languages = self.languages(index, &raw.languages);
            self.range(&at("baud"), raw.baud, 1200, 4_000_000);
            self.range(&at("max_parts"), raw.max_parts, 1, 255);
            self.range(&at("daily_cap"), raw.daily_cap, 1, 1_000_000);
            let pacing = self.span(&at("pacing"), raw.pacing, 0, 3600);
            let incomplete_after = self.span(&at("incomplete_after"), raw.incomplete_after, 60, 7 * 86_400);
            let validity = raw
                .validity
                .map(|validity| self.span(&at("validity"), validity, 300, 441 * 86_400));
            effective.modem.push(raw.clone());
            let Some(port) = port else { continue };
            modems.push(Modem {
                name,
                port,
                baud: raw.baud,
                profile: match raw.profile {
                    raw::ModemProfile::Auto => None,
                    raw::ModemProfile::Generic => Some(Profile::Generic),
                    raw::ModemProfile::Sim800 => Some(Profile::Sim800),
                    raw::ModemProfile::Sim7600 => Some(Profile::Sim7600),
                    raw::ModemProfile::Ec25 => Some(Profile::Ec25),
                    raw::ModemProfile::Huawei => Some(Profile::Huawei),
                },
                pin,
                home,
                reports: raw.reports,
                max_parts: raw.max_parts,
                languages,
                transliterate: raw.transliterate,
                validity,
                daily_cap: raw.daily_cap,
                pacing,
                incomplete_after,
            });
        }
        modems
    }

    fn modem_port(&mut self, index: usize, raw: &raw::Modem) -> Option<ModemPort> {
        let at = |key: &str| keys!["modem", index, key];
        if raw.usb_interface.is_some() && raw.usb.is_none() {
            let message = "\"usb_interface\" has no effect without \"usb\"";
            self.error(&at("usb_interface"), message, None);
        }
        if let Some(which) = &raw.manager {
            return self.managed_modem(index, raw, which);
        }
        if raw.bus.is_some() {
            let message = "\"bus\" has no effect without \"modem_manager\"";
            self.error(&at("bus"), message, None);
        }
        match (&raw.port, &raw.usb) {
            (Some(port), None) => Some(ModemPort::Path(port.clone())),
            (None, Some(usb)) => {
                let identity = usb.split_once(':').and_then(|(vendor, product)| {
                    let number =
                        |text: &str| (text.len() == 4).then(|| u16::from_str_radix(text, 16).ok())?;
                    Some((number(vendor)?, number(product)?))
                });
                let Some((vendor, product)) = identity else {
                    let hint =
                        Some("write it as lsusb does: vendor and product, such as 1e0e:9001".to_owned());
                    self.error(
                        &at("usb"),
                        format!("{usb:?} is no identity of a USB device"),
                        hint,
                    );
                    return None;
                };
                Some(ModemPort::Usb {
                    vendor,
                    product,
                    interface: raw.usb_interface,
                })
            }
            (Some(_), Some(_)) => {
                let hint = Some("keep one of them".to_owned());
                self.error(
                    &at("usb"),
                    "both \"port\" and \"usb\" say where the modem is",
                    hint,
                );
                None
            }
            (None, None) => {
                let hint = "add port = \"/dev/serial/by-id/…\" (ls /dev/serial/by-id shows what there is), usb = \
                            \"vendor:product\" as lsusb shows it, or modem_manager = \"any\"";
                let message = format!("the modem {:?} has no port", raw.name.0);
                self.error(&keys!["modem", index], message, Some(hint.to_owned()));
                None
            }
        }
    }

    /// A modem that is used through ModemManager.
    fn managed_modem(&mut self, index: usize, raw: &raw::Modem, which: &str) -> Option<ModemPort> {
        let at = |key: &str| keys!["modem", index, key];
        let other = [("port", raw.port.is_some()), ("usb", raw.usb.is_some())];
        if let Some((key, _)) = other.into_iter().find(|(_, given)| *given) {
            let hint = Some("keep one of them".to_owned());
            let message = format!("both \"modem_manager\" and {key:?} say where the modem is");
            self.error(&at("modem_manager"), message, hint);
            return None;
        }
        if !matches!(raw.profile, raw::ModemProfile::Auto) {
            let message =
                "\"profile\" has no effect with \"modem_manager\": ModemManager finds out by itself";
            self.error(&at("profile"), message, None);
        }
        if !raw.languages.is_empty() {
            let message =
                "\"languages\" has no effect with \"modem_manager\", which knows no national tables";
            self.error(&at("languages"), message, None);
        }
        if !cfg!(feature = "modem-manager") {
            let hint = Some("use the modem's serial port: port = \"/dev/serial/by-id/…\"".to_owned());
            let message = "this program was built without ModemManager (cargo feature \"modem-manager\")";
            self.error(&at("modem_manager"), message, hint);
            return None;
        }
        Some(ModemPort::Manager {
            which: (which != "any").then(|| which.to_owned()),
            bus: raw.bus.clone(),
        })
    }

    /// The country of a key, if one is given.
    pub(super) fn home(&mut self, path: &[Step], country: Option<&str>) -> Home {
        let Some(country) = country else {
            return Home::NOWHERE;
        };
        Home::new(country).unwrap_or_else(|| {
            let hint = Some("write the two letters of ISO 3166, such as NL, GB or DE".to_owned());
            let message = format!("{country:?} is no country that is known here");
            self.error(path, message, hint);
            Home::NOWHERE
        })
    }

    fn languages(&mut self, index: usize, names: &[String]) -> Vec<Language> {
        let mut languages = Vec::new();
        for (place, name) in names.iter().enumerate() {
            if let Some(language) = Language::from_name(name) {
                languages.push(language);
                continue;
            }
            let known = Language::ALL.map(Language::name);
            let hint = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("there are: {}", known.join(", ")),
            };
            let message = format!("there are no tables for the language {name:?}");
            self.error(&keys!["modem", index, "languages", place], message, Some(hint));
        }
        languages
    }

    pub(super) fn channel_modem(&mut self, index: usize, raw: &raw::Channel, earlier: &[Channel]) {
        if raw.device.is_some() {
            let hint = Some("write kind = \"mqtt\", or leave device out".to_owned());
            let message = "\"device\" has no effect: the kind of this channel is \"sms\"";
            self.error(&keys!["channel", index, "device"], message, hint);
        }
        let Some(modem) = &raw.modem else {
            let hint = Some("add modem = \"…\", the name of a [[modem]]".to_owned());
            let message = format!("the channel {:?} has no modem", raw.id.as_str());
            self.error(&keys!["channel", index], message, hint);
            return;
        };
        let at = keys!["channel", index, "modem"];
        if self.refers_to(&at, "modem", modem)
            && let Some(other) = earlier.iter().find(|other| other.modem.as_ref() == Some(modem))
        {
            let hint = Some("a modem carries one channel: its SIM has one number".to_owned());
            let message = format!(
                "the modem {modem:?} already belongs to the channel {:?}",
                other.id.as_str()
            );
            self.error(&at, message, hint);
        }
    }

    pub(super) fn unused_modems(&mut self, modems: &[Modem], channels: &[Channel]) {
        if self.findings.has_errors() {
            return;
        }
        for (index, modem) in modems.iter().enumerate() {
            if !channels
                .iter()
                .any(|channel| channel.modem.as_ref() == Some(&modem.name))
            {
                let hint = Some(format!(
                    "add a [[channel]] with kind = \"sms\" and modem = {:?}",
                    modem.name
                ));
                let message = format!("the modem {:?} belongs to no channel: it is not used", modem.name);
                self.warning(&keys!["modem", index], message, hint);
            }
            if modem.home == Home::NOWHERE {
                let hint = Some("add home_country = \"…\", the two letters of the SIM's country".to_owned());
                let message = format!(
                    "the modem {:?} has no home country: one customer may appear under several numbers",
                    modem.name
                );
                self.warning(&keys!["modem", index], message, hint);
            }
        }
    }
}
