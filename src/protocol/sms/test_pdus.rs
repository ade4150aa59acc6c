//! PDUs for tests.

use std::time::Duration;

use data_encoding::HEXUPPER;

use super::charset::{self, Tables};
use super::pdu::{Alphabet, Coding, join};
use super::{Assembler, Deliver, Incoming, PduError, Received, StatusReport, Step, decode_incoming};

/// Service centre, message without header, sender +491711235467, protocol 0, GSM 7 bit, 2026-10-01 12:00:00 +02:00.
pub(super) const PRE: &str = "07919471016700F0040C9194711132547600006201102100008";

pub(super) fn octets(hex: &str) -> Vec<u8> {
    HEXUPPER.decode(hex.to_ascii_uppercase().as_bytes()).unwrap()
}

pub(super) fn try_read(hex: &str) -> Result<Deliver, PduError> {
    match decode_incoming(&octets(hex))? {
        Incoming::Deliver(deliver) => Ok(*deliver),
        Incoming::StatusReport(report) => panic!("{report:?}"),
    }
}

pub(super) fn read(hex: &str) -> Deliver {
    try_read(hex).unwrap()
}

pub(super) fn report(hex: &str) -> StatusReport {
    match decode_incoming(&octets(hex)).unwrap() {
        Incoming::StatusReport(report) => *report,
        Incoming::Deliver(deliver) => panic!("{deliver:?}"),
    }
}

/// A message as it comes from the network, in one part.
pub(super) struct Made<'a> {
    /// Length, type and digits, as octets.
    pub(super) from: &'a str,
    pub(super) protocol: u8,
    pub(super) coding: u8,
    pub(super) time: &'a str,
    /// Elements, without the length of the header.
    pub(super) header: &'a [u8],
    /// Octets, or septets when `coding` says so.
    pub(super) data: &'a [u8],
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self {
            from: "0C91947111325476",
            protocol: 0,
            coding: 0,
            time: "62011021000080",
            header: &[],
            data: &[],
        }
    }
}

impl Made<'_> {
    pub(super) fn hex(&self) -> String {
        let mut pdu = octets("07919471016700F0");
        pdu.push(if self.header.is_empty() { 0x04 } else { 0x44 });
        pdu.extend(octets(self.from));
        pdu.extend([self.protocol, self.coding]);
        pdu.extend(octets(self.time));
        let mut data = self.header.to_vec();
        if !data.is_empty() {
            data.insert(0, u8::try_from(data.len()).unwrap());
        }
        let septets = Coding::from_octet(self.coding).alphabet == Alphabet::Gsm7;
        let length = if septets {
            charset::pack_after(&mut data, self.data)
        } else {
            data.extend(self.data);
            data.len()
        };
        pdu.push(u8::try_from(length).unwrap());
        pdu.append(&mut data);
        HEXUPPER.encode(&pdu)
    }

    pub(super) fn read(&self) -> Deliver {
        read(&self.hex())
    }
}

pub(super) fn text(deliver: &Deliver) -> String {
    join(std::slice::from_ref(&deliver.body))
}

pub(super) fn alone(deliver: Deliver) -> Received<()> {
    match Assembler::new(Duration::from_secs(60)).receive(deliver, (), Duration::ZERO) {
        Step::Complete(received) => received,
        step => panic!("{step:?}"),
    }
}

pub(super) fn part_of(header: &[u8], data: &[u8]) -> Deliver {
    Made {
        header,
        data,
        ..Made::default()
    }
    .read()
}

pub(super) fn septets(text: &str) -> Vec<u8> {
    charset::encode_septets(text, Tables::DEFAULT).unwrap()
}
