//! SMS-DELIVER: 3GPP TS 23.040, section 9.2.2.1.

use super::super::PduAddress;
use super::body::{self, Body, UserData};
use super::coding::Coding;
use super::header::Header;
use super::reader::{Damage, PduError, Reader};
use super::{USER_DATA_HEADER, time};
use crate::domain::Timestamp;

/// A message from the network, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// The service centre that it came through.
    pub smsc: Option<PduAddress>,
    /// Who sent it.
    pub from: PduAddress,
    /// When the service centre got it; `None` when the stamp is no time.
    pub sent_at: Option<Timestamp>,
    /// What to do with it.
    pub kind: Kind,
    /// Which part of a message it is; `None` when it is a message of its own.
    pub part: Option<Part>,
    /// The content.
    pub body: Body,
    /// Protocol identifier (section 9.2.3.9).
    pub protocol: u8,
    /// How the content is coded.
    pub coding: Coding,
    /// All elements of the user data header.
    pub header: Header,
    /// What was wrong with it.
    pub damage: Option<Damage>,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text for a person.
    Text,
    /// For a program, not a person. MMS notifications come to port 2948 ([`Content`](super::super::Content)).
    PortAddressed {
        /// Whom it is for.
        destination: u16,
        /// Whom it is from.
        source: u16,
    },
    /// To be acknowledged and not shown.
    Silent(Silence),
}

/// Why a message is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// "Type 0": the network finds out whether the phone is on (section 9.2.3.9).
    Type0,
    /// A sign that voice mail or something else waits.
    MessageWaiting,
    /// Data for the SIM.
    SimData,
}

/// Which part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// The same in all parts of a message.
    pub reference: u16,
    /// Whether the reference has 16 bits; the same number with 8 bits is another message.
    pub wide: bool,
    /// How many parts there are: 2 to 255.
    pub total: u8,
    /// Which one this is: 1 to `total`.
    pub number: u8,
}

const TYPE_0: u8 = 0x40;
const SIM_DATA_DOWNLOAD: u8 = 0x7f;

pub(super) fn read(
    reader: &mut Reader<'_>,
    first: u8,
    smsc: Option<PduAddress>,
) -> Result<Deliver, PduError> {
    let from = reader.address("sender's address")?;
    match read_rest(reader, first) {
        Ok((protocol, coding, sent_at, data)) => {
            let kind = kind(protocol, coding, &data);
            Ok(Deliver {
                smsc,
                from,
                sent_at,
                kind,
                part: data.header.part(),
                body: data.body,
                protocol,
                coding,
                header: data.header,
                damage: data.damage,
            })
        }
        Err(error) => Err(PduError {
            from: Some(Box::new(from)),
            ..error
        }),
    }
}

type Rest = (u8, Coding, Option<Timestamp>, UserData);

fn read_rest(reader: &mut Reader<'_>, first: u8) -> Result<Rest, PduError> {
    let protocol = reader.octet("protocol identifier")?;
    let coding = Coding::from_octet(reader.octet("data coding scheme")?);
    let sent_at = time::timestamp(reader.array("time stamp")?);
    let data = body::read(reader, coding, first & USER_DATA_HEADER != 0)?;
    Ok((protocol, coding, sent_at, data))
}

fn kind(protocol: u8, coding: Coding, data: &UserData) -> Kind {
    if protocol == TYPE_0 {
        return Kind::Silent(Silence::Type0);
    }
    if protocol == SIM_DATA_DOWNLOAD {
        return Kind::Silent(Silence::SimData);
    }
    // The group of the data coding scheme is for signs alone; a header may come with a text that is to be kept.
    let sign_alone = data
        .header
        .waiting()
        .is_some_and(|keep| !keep || data.body.is_empty());
    if coding.waiting || sign_alone {
        return Kind::Silent(Silence::MessageWaiting);
    }
    match data.header.ports() {
        Some((destination, source)) => Kind::PortAddressed { destination, source },
        None => Kind::Text,
    }
}
