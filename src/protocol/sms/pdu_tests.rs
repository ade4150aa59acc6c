//! PDUs beside the nasty ones.

use std::time::Duration;

use super::pdu::{Alphabet, Coding};
use super::test_pdus::{Made, alone, octets, read};
use super::{Assembler, Step, decode_incoming};

/// Checked with python-messaging 0.5.13, which reads the same.
const NOTIFICATION: &str = "AF848C82985431008D908919802B3434373730303930303132332F545950453D504C4D4E009609EA4772C3BCC39F65008A808E02\
                            87158805810303F48083687474703A2F2F6D6D732E6578616D706C652E6E65742F3100";

#[test]
fn an_mms_notification_in_two_parts_is_shown_as_what_cannot_be_fetched() {
    // The content type as a number, and as a text.
    for head in [
        "010603BE",
        "0106226170706C69636174696F6E2F766E642E7761702E6D6D732D6D65737361676500",
    ] {
        let push = octets(&format!("{head}{NOTIFICATION}"));
        let (first, second) = push.split_at(40);
        let made = |number, data: &[u8]| {
            Made {
                coding: 0x04,
                header: &[5, 4, 0x0b, 0x84, 0x23, 0xf0, 0, 3, 5, 2, number],
                data,
                ..Made::default()
            }
            .read()
        };
        let mut assembler = Assembler::new(Duration::from_secs(60));
        assembler.receive(made(2, second), (), Duration::ZERO);
        let Step::Complete(whole) = assembler.receive(made(1, first), (), Duration::ZERO) else {
            panic!()
        };
        assert_eq!(
            whole.text(),
            "MMS \"Grüße\" from +447700900123, 35 kB, cannot be fetched: http://mms.example.net/1"
        );
    }
}

#[test]
fn a_compressed_message_says_so() {
    let message = Made {
        coding: 0x20,
        data: &[1, 2, 3],
        ..Made::default()
    };
    // The length counts octets here, not septets as `Made` writes it.
    let hex = message.hex();
    let received = alone(read(&hex));
    assert_eq!(received.text(), "(compressed message, which cannot be read)");
}

#[test]
fn octets_without_a_port_are_shown_as_text_when_they_are() {
    let made = |data| {
        Made {
            coding: 4,
            data,
            ..Made::default()
        }
        .read()
    };
    assert_eq!(alone(made(b"plain")).text(), "plain");
    assert_eq!(
        alone(made(&[0, 1, 0xff])).text(),
        "(binary message, 3 octets: 0001ff)"
    );
}

#[test]
fn zeroes_that_fill_a_text_up_are_left_out() {
    let data = &[0, b'o', 0, b'k', 0, 0, 0, 0];
    let message = Made {
        coding: 8,
        data,
        ..Made::default()
    };
    assert_eq!(alone(message.read()).text(), "ok");
}

#[test]
fn all_groups_of_data_coding_schemes_are_told_apart() {
    use Alphabet::{Gsm7, Octets, Utf16};
    for (octet, alphabet, class, waiting) in [
        (0x00, Gsm7, None, false),
        (0x03, Gsm7, None, false),
        (0x04, Octets, None, false),
        (0x08, Utf16, None, false),
        (0x0c, Gsm7, None, false),
        (0x11, Gsm7, Some(1), false),
        (0x1a, Utf16, Some(2), false),
        (0x44, Octets, None, false),
        (0x58, Utf16, Some(0), false),
        (0x84, Gsm7, None, false),
        (0xc0, Gsm7, None, true),
        (0xd8, Gsm7, None, true),
        (0xe8, Utf16, None, true),
        (0xf0, Gsm7, Some(0), false),
        (0xf1, Gsm7, Some(1), false),
        (0xf5, Octets, Some(1), false),
        (0xf6, Octets, Some(2), false),
    ] {
        let coding = Coding::from_octet(octet);
        assert_eq!(
            (coding.alphabet, coding.class, coding.waiting),
            (alphabet, class, waiting),
            "{octet:x}"
        );
        assert!(!coding.compressed);
    }
    assert!(Coding::from_octet(0x28).compressed);
}

#[test]
fn what_is_no_message_from_the_network_says_where_and_why() {
    for (hex, error) in [
        (
            "",
            "octet 0: it ends before the end of the service centre's address",
        ),
        ("FF", "octet 0: an address of 255 digits"),
        ("00", "octet 1: it ends before the end of the message type"),
        ("0001", "octet 1: a message to the network, not from it"),
        ("0004FF", "octet 2: an address of 255 digits"),
        (
            "00040C9194",
            "octet 4: it ends before the end of the sender's address",
        ),
        (
            "00040C91947111325476",
            "octet 10: it ends before the end of the protocol identifier",
        ),
    ] {
        assert_eq!(decode_incoming(&octets(hex)).unwrap_err().to_string(), error);
    }
}
