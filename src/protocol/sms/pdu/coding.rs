//! Data coding scheme: 3GPP TS 23.038, section 4.

/// How the user data is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// GSM 7 bit.
    Gsm7,
    /// Octets without a meaning here.
    Octets,
    /// UCS-2, read as UTF-16.
    Utf16,
}

/// What a data coding scheme says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// The alphabet. Reserved ones are read as GSM 7 bit, as the standard says.
    pub alphabet: Alphabet,
    /// Message class 0 to 3, where one is given; 0 is shown at once and not kept by phones ("flash").
    pub class: Option<u8>,
    /// Compressed by the algorithm of 3GPP TS 23.042, which nobody uses and which is not read here.
    pub compressed: bool,
    /// The network's sign that something waits (voice mail, fax): group 11xx.
    pub waiting: bool,
}

impl Coding {
    /// Reads the octet.
    #[must_use]
    pub const fn from_octet(octet: u8) -> Self {
        let plain = Self {
            alphabet: Alphabet::Gsm7,
            class: None,
            compressed: false,
            waiting: false,
        };
        let class = Some(octet & 3);
        match octet >> 4 {
            // 00xx: general; 01xx: the same with automatic deletion, which concerns phones only.
            0..=7 => Self {
                alphabet: match (octet >> 2) & 3 {
                    1 => Alphabet::Octets,
                    2 => Alphabet::Utf16,
                    _ => Alphabet::Gsm7,
                },
                class: if octet & 0x10 == 0 { None } else { class },
                compressed: octet & 0x20 != 0,
                waiting: false,
            },
            0xc | 0xd => Self {
                waiting: true,
                ..plain
            },
            0xe => Self {
                alphabet: Alphabet::Utf16,
                waiting: true,
                ..plain
            },
            // Bit 3 is reserved and zero.
            0xf => Self {
                alphabet: if octet & 4 == 0 {
                    Alphabet::Gsm7
                } else {
                    Alphabet::Octets
                },
                class,
                ..plain
            },
            // 1000 to 1011: reserved.
            _ => plain,
        }
    }

    /// Whether a phone shows it at once and keeps nothing.
    #[must_use]
    pub const fn is_flash(self) -> bool {
        matches!(self.class, Some(0))
    }
}
