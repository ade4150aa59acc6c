//! A message as `ModemManager` shows it.

use super::bus::{self, Properties};
use crate::domain::Timestamp;
use crate::driver::sms::intake::Arrival;
use crate::driver::sms::records::{Hash, hash};
use crate::protocol::sms::pdu::{Body, MmsNotification, join};
use crate::protocol::sms::{Content, PduAddress, Received, ReportOutcome, StatusReport, TypeOfNumber};

/// States of a message (`MMSmsState`).
mod state {
    pub(super) const RECEIVING: u32 = 2;
    pub(super) const RECEIVED: u32 = 3;
}

/// Kinds of messages (`MMSmsPduType`).
mod kind {
    pub(super) const STATUS_REPORT: u32 = 3;
}

/// What to do with a message.
pub(super) enum Look {
    /// It came in: for the intake.
    Arrived(Arrival),
    /// Parts of it are missing.
    Receiving,
    /// Nothing: it is going out, or lies in the memory since it did.
    NotIncoming,
}

/// Reads a message; `imsi` is the SIM's, and with `give_up` it is taken as it is.
pub(super) fn read(properties: &Properties, imsi: &str, give_up: bool) -> Look {
    let is_report = bus::number(properties, "PduType") == Some(kind::STATUS_REPORT);
    let is_whole = match bus::number(properties, "State") {
        Some(state::RECEIVED) => true,
        Some(state::RECEIVING) if give_up => false,
        Some(state::RECEIVING) => return Look::Receiving,
        _ => return Look::NotIncoming,
    };
    let number = bus::text(properties, "Number").unwrap_or_default();
    if is_report {
        return Look::Arrived(Arrival::Report(Box::new(report(properties, &number))));
    }
    let text = bus::text(properties, "Text").unwrap_or_default();
    let data = bus::octets(properties, "Data");
    let stamp = bus::text(properties, "Timestamp").unwrap_or_default();
    let centre = bus::text(properties, "SMSC").unwrap_or_default();
    let token = hash(&[
        b"ModemManager",
        imsi.as_bytes(),
        number.as_bytes(),
        stamp.as_bytes(),
        centre.as_bytes(),
        text.as_bytes(),
        &data,
        &[u8::from(is_whole)],
    ]);
    let content = if !is_whole && text.is_empty() {
        Content::Unreadable(
            "a text message in several parts, of which not all came; ModemManager does not hand over those that did",
        )
    } else if text.is_empty() && !data.is_empty() {
        match MmsNotification::read(&data) {
            Some(notification) => Content::Mms(notification),
            None => Content::Text(join(&[Body::Octets(data)])),
        }
    } else if is_whole {
        Content::Text(text.replace('\0', ""))
    } else {
        Content::Text(format!("{text}\n(incomplete: parts of it are missing)"))
    };
    Look::Arrived(Arrival::Message(Box::new(Received {
        from: address(&number),
        sent_at: timestamp(&stamp),
        flash: false,
        content,
        total: 1,
        missing: Vec::new(),
        damage: None,
        tokens: vec![token.first_chunk::<16>().copied().unwrap_or_default() as Hash],
    })))
}

fn report(properties: &Properties, number: &str) -> StatusReport {
    let status = bus::number(properties, "DeliveryState").and_then(|status| u8::try_from(status).ok());
    let reference = bus::number(properties, "MessageReference").and_then(|number| u8::try_from(number).ok());
    StatusReport {
        reference: reference.unwrap_or_default(),
        recipient: address(number),
        sent_at: bus::text(properties, "Timestamp").and_then(|stamp| timestamp(&stamp)),
        discharged_at: bus::text(properties, "DischargeTimestamp").and_then(|stamp| timestamp(&stamp)),
        // What ModemManager cannot tell is no outcome.
        outcome: ReportOutcome::from_octet(status.unwrap_or(0xff)),
    }
}

/// The other side; what is no number is a name.
fn address(number: &str) -> PduAddress {
    PduAddress::number(number).unwrap_or_else(|| PduAddress {
        kind: TypeOfNumber::Alphanumeric,
        plan: 0,
        value: number.to_owned(),
    })
}

/// ISO 8601 with a zone, which may be hours only: `2026-03-01T09:30:00+01`. `None` for what is no time.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let plausible = (1970..2400).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let offset = match rest.chars().next() {
        None | Some('Z') => 0,
        Some(sign @ ('+' | '-')) => {
            let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
            let hours: i64 = digits.get(..2)?.parse().ok()?;
            let minutes: i64 = digits.get(2..4).map_or(Some(0), |minutes| minutes.parse().ok())?;
            (hours * 60 + minutes) * if sign == '-' { -1 } else { 1 }
        }
        Some(_) => return None,
    };
    // Days since 1970 in the proleptic Gregorian calendar, counted in years that begin in March.
    let years = year - i64::from(month <= 2);
    let era = years.div_euclid(400);
    let of_era = years.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute - offset) * 60 + second;
    plausible.then(|| Timestamp::from_unix_ms(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_every_form_of_zone() {
        let read = |text| timestamp(text).map(Timestamp::to_iso8601);
        let at = Some("2026-03-01T08:30:00.000Z".to_owned());
        for text in [
            "2026-03-01T09:30:00+01",
            "2026-03-01T09:30:00+01:00",
            "2026-03-01T09:30:00+0100",
            "2026-03-01T08:30:00Z",
            "2026-03-01T14:15:00+05:45",
            "2026-03-01T02:30:00.5-06",
            "2026-03-01T08:30:00",
        ] {
            assert_eq!(read(text), at, "{text}");
        }
        assert_eq!(
            read("2024-02-29T23:59:59-00:15").as_deref(),
            Some("2024-03-01T00:14:59.000Z")
        );
        for text in [
            "",
            "2000-00-00T00:00:00+00",
            "yesterday at nine o'clock",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
