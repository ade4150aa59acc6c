//! Messages that other gateways stumble over, each with what comes of it.
//!
//! They are real ones or made after real ones. `tests/modem/nasty.rs` brings them through the driver, and has cases 24
//! (lines in between) and 25 (crashes and places that are used again).

use std::time::Duration;

use data_encoding::HEXUPPER;

use super::charset::{self, Language, Tables};
use super::pdu::{Body, Damage, Kind, Part, Problem, Silence, join};
use super::test_pdus::{Made, PRE, alone, part_of, read, report, septets, text, try_read};
use super::{Assembler, Content, Home, ReportOutcome, Step, TypeOfNumber};
use crate::domain::Timestamp;

#[test]
fn case_1_seven_characters_do_not_become_eight() {
    let message = read(&format!("{PRE}00731D98C56B3DD00"));
    assert_eq!(text(&message), "1234567");
    assert_eq!(message.from.to_string(), "+491711234567");
    assert_eq!(message.smsc.unwrap().to_string(), "+49171076000");
}

#[test]
fn case_2_an_at_sign_at_the_end_stays() {
    assert_eq!(text(&read(&format!("{PRE}00831D98C56B3DD00"))), "1234567@");
}

#[test]
fn case_3_the_extension_table_is_read() {
    let message = read(&format!("{PRE}016E14D7943D9A036A9CD6BC3DBF436BE0D70A3D003"));
    assert_eq!(text(&message), "a€^{}\\[~]|\u{c}z");
}

#[test]
fn case_4_an_escape_split_over_two_parts_comes_together() {
    let mut first = septets("price 5 ");
    first.push(0x1b);
    let one = part_of(&[0, 3, 9, 2, 1], &first);
    let two = part_of(&[0, 3, 9, 2, 2], &[0x65, 0x21]);
    assert_eq!(join(&[one.body.clone(), two.body.clone()]), "price 5 €!");
    // Each alone: an escape says nothing, and the second part shows what is left.
    assert_eq!(text(&one), "price 5 ");
    assert_eq!(text(&two), "e!");
}

#[test]
fn case_5_a_lone_escape_at_the_end_says_nothing() {
    let mut data = septets("hello");
    data.push(0x1b);
    assert_eq!(text(&part_of(&[], &data)), "hello");
}

#[test]
fn case_6_an_undefined_extension_character_is_shown_as_its_base_character() {
    assert_eq!(text(&part_of(&[], &[0x1b, 0x41, 0x1b, 0x1b, 0x42])), "A B");
    // The carriage return control of the extension table is one too.
    assert_eq!(text(&part_of(&[], &[0x1b, 0x0d])), "\r");
}

#[test]
fn case_7_a_surrogate_pair_split_over_two_parts_comes_together() {
    let made = |number, data: &[u8]| {
        Made {
            coding: 8,
            header: &[0, 3, 9, 2, number],
            data,
            ..Made::default()
        }
        .read()
        .body
    };
    let parts = [made(1, &[0, b'a', 0xd8, 0x3d]), made(2, &[0xde, 0x00, 0, b'b'])];
    assert_eq!(join(&parts), "a😀b");
    assert_eq!(join(&parts[..1]), "a\u{fffd}");
    // A unit that was cut in two as well.
    assert_eq!(
        join(&[made(1, &[0, b'a', 0xd8]), made(2, &[0x3d, 0xde, 0x00])]),
        "a😀"
    );
    // With a part missing in between nothing is glued together that does not belong together.
    let gap = super::pdu::join_with_gaps([Some(&parts[0]), None, Some(&parts[1])], "[…]");
    assert_eq!(gap, "a\u{fffd}[…]\u{fffd}b");
}

#[test]
fn case_8_sixteen_bit_references_are_read_and_the_order_of_arrival_does_not_matter() {
    let two = part_of(&[8, 4, 0x12, 0x34, 2, 2], &septets("world"));
    assert_eq!(
        two.part,
        Some(Part {
            reference: 0x1234,
            wide: true,
            total: 2,
            number: 2
        })
    );
    let one = part_of(&[8, 4, 0x12, 0x34, 2, 1], &septets("hello "));
    let mut assembler = Assembler::new(Duration::from_secs(60));
    assert_eq!(
        assembler.receive(two, 2, Duration::ZERO),
        Step::Waiting { missing: 1 }
    );
    let Step::Complete(whole) = assembler.receive(one, 1, Duration::from_secs(1)) else {
        panic!()
    };
    assert_eq!(whole.text(), "hello world");
    assert_eq!(whole.tokens, [1, 2]);
}

#[test]
fn case_9_a_part_that_comes_twice_counts_once() {
    let one = || part_of(&[0, 3, 7, 2, 1], &septets("ab"));
    let two = part_of(&[0, 3, 7, 2, 2], &septets("cd"));
    let mut assembler = Assembler::new(Duration::from_secs(60));
    assembler.receive(one(), 1, Duration::ZERO);
    assert_eq!(assembler.receive(one(), 2, Duration::ZERO), Step::Repeated(2));
    let Step::Complete(whole) = assembler.receive(two, 3, Duration::ZERO) else {
        panic!()
    };
    assert_eq!((whole.text().as_str(), whole.tokens), ("abcd", vec![1, 3]));
}

#[test]
fn case_10_two_senders_with_one_reference_do_not_mix() {
    let made = |from, number, text| {
        Made {
            from,
            header: &[0, 3, 7, 2, number],
            data: &septets(text),
            ..Made::default()
        }
        .read()
    };
    let (anna, ben) = ("0C91947111325476", "0C91947111325477");
    let mut assembler = Assembler::new(Duration::from_secs(60));
    assembler.receive(made(anna, 1, "anna 1 "), (), Duration::ZERO);
    assembler.receive(made(ben, 2, "ben 2"), (), Duration::ZERO);
    let Step::Complete(first) = assembler.receive(made(ben, 1, "ben 1 "), (), Duration::ZERO) else {
        panic!()
    };
    let Step::Complete(second) = assembler.receive(made(anna, 2, "anna 2"), (), Duration::ZERO) else {
        panic!()
    };
    assert_eq!(first.text(), "ben 1 ben 2");
    assert_eq!(second.text(), "anna 1 anna 2");
    assert_eq!(first.from.to_string(), "+491711234577");
}

#[test]
fn case_11_a_part_with_an_impossible_number_is_a_message_of_its_own() {
    for header in [
        [0, 3, 7, 2, 0],
        [0, 3, 7, 2, 3],
        [0, 3, 7, 0, 0],
        [0, 3, 7, 0, 1],
        [0, 3, 7, 1, 1],
    ] {
        let message = part_of(&header, &septets("hello"));
        assert_eq!(message.part, None, "{header:?}");
        assert_eq!(message.header.0.len(), 1);
        assert_eq!(alone(message).text(), "hello");
    }
}

#[test]
fn case_12_the_turkish_single_shift_table_is_read() {
    let message = part_of(
        &[0x24, 1, 1],
        &[0x1b, 0x73, 0x1b, 0x67, 0x1b, 0x69, 0x1b, 0x53, 0x61],
    );
    assert_eq!(text(&message), "şğıŞa");
}

#[test]
fn case_13_the_turkish_locking_table_is_read() {
    let message = part_of(&[0x25, 1, 1], &[0x04, 0x0b, 0x07, 0x1d]);
    assert_eq!(text(&message), "€Ğış");
    assert_eq!(
        message.body,
        Body::Septets {
            septets: vec![0x04, 0x0b, 0x07, 0x1d],
            tables: Tables {
                locking: Some(Language::Turkish),
                single: None
            }
        }
    );
}

#[test]
fn case_14_hindi_tables_are_read_together() {
    let message = part_of(&[0x25, 1, 6, 0x24, 1, 6], &[0x05, 0x06, 0x07]);
    assert_eq!(text(&message), "इईउ");
    // Identifiers that mean nothing leave the default tables (23.038, 6.2.1.2.4).
    assert_eq!(
        text(&part_of(&[0x25, 1, 14, 0x24, 1, 0], &[0x41, 0x1b, 0x65])),
        "A€"
    );
}

#[test]
fn case_15_alphanumeric_senders_keep_their_letters() {
    let field = |text: &str| {
        let mut packed = Vec::new();
        let digits = (septets(text).len() * 7).div_ceil(4);
        charset::pack_after(&mut packed, &septets(text));
        format!("{digits:02X}D0{}", HEXUPPER.encode(&packed))
    };
    for name in ["Bank Ö1", "A", "ELEVEN CHAR", "EIGHT  8", "DHL"] {
        let message = Made {
            from: &field(name),
            ..Made::default()
        }
        .read();
        assert_eq!(message.from.kind, TypeOfNumber::Alphanumeric);
        assert_eq!(message.from.value, name);
        let peer = Home::NOWHERE.peer(&message.from);
        assert_eq!((peer.as_str(), peer.is_answerable()), (name, false));
    }
    // The length in whole octets, as some networks count.
    let field = field("Bank Ö1").replacen("0D", "0E", 1);
    let message = Made {
        from: &field,
        ..Made::default()
    }
    .read();
    assert_eq!(message.from.value, "Bank Ö1");
}

#[test]
fn case_16_short_codes_stay_as_they_are() {
    let home = Home::new("DE").unwrap();
    for (from, code) in [
        ("05C12143F5", "12345"),
        ("05812143F5", "12345"),
        ("05C11A00FB", "*100#"),
    ] {
        let message = Made {
            from,
            ..Made::default()
        }
        .read();
        let peer = home.peer(&message.from);
        assert_eq!((peer.as_str(), peer.is_answerable()), (code, false), "{from}");
    }
}

#[test]
fn case_17_flash_messages_are_texts() {
    for coding in [0x10, 0xf0] {
        let data = septets("now");
        let message = Made {
            coding,
            data: &data,
            ..Made::default()
        }
        .read();
        assert!(message.coding.is_flash(), "{coding:x}");
        assert_eq!(message.kind, Kind::Text);
        let received = alone(message);
        assert!(received.flash);
        assert_eq!(received.text(), "now");
    }
    let utf16 = Made {
        coding: 0x18,
        data: &[0x20, 0xac],
        ..Made::default()
    };
    assert_eq!(text(&utf16.read()), "€");
}

#[test]
fn case_18_a_wap_push_is_not_a_text() {
    let message = Made {
        coding: 0xf5,
        header: &[5, 4, 0x0b, 0x84, 0x23, 0xf0],
        data: b"\x01\x06\x01\xae\x02\x05j\0E\xc6\x0c\x03example.org\0\x01\x03Hi\0\x01\x01",
        ..Made::default()
    }
    .read();
    assert_eq!(
        message.kind,
        Kind::PortAddressed {
            destination: 2948,
            source: 9200
        }
    );
    let received = alone(message);
    assert_eq!(received.content, Content::Program { port: 2948 });
    assert_eq!(received.text(), "(message for a program, port 2948: not a text)");
}

#[test]
fn case_19_signs_and_type_0_are_silent() {
    for coding in [0xc8, 0xd8, 0xe8] {
        let message = Made {
            coding,
            data: &[0, 0x20],
            ..Made::default()
        }
        .read();
        assert_eq!(message.kind, Kind::Silent(Silence::MessageWaiting), "{coding:x}");
    }
    let type_0 = Made {
        protocol: 0x40,
        ..Made::default()
    };
    assert_eq!(type_0.read().kind, Kind::Silent(Silence::Type0));
    // As an element of the header: silent unless there is a text to keep.
    assert_eq!(
        part_of(&[1, 2, 0x00, 3], &septets("3 new")).kind,
        Kind::Silent(Silence::MessageWaiting)
    );
    assert_eq!(
        part_of(&[1, 2, 0x80, 3], &[]).kind,
        Kind::Silent(Silence::MessageWaiting)
    );
    assert_eq!(part_of(&[1, 2, 0x80, 3], &septets("3 new")).kind, Kind::Text);
}

#[test]
fn case_20_a_time_stamp_that_is_no_time_is_none() {
    let at = |time| {
        Made {
            time,
            ..Made::default()
        }
        .read()
        .sent_at
    };
    for garbage in [
        "00000000000000",
        "62011021000FFF",
        "FFFFFFFFFFFFFF",
        "62310121000080",
        "62201321000080",
        "62011042000080",
        "62011021060080",
        "62011021000FF0",
    ] {
        assert_eq!(at(garbage), None, "{garbage}");
    }
    let utc = |text: &str| {
        Some(Timestamp::from_unix_ms(
            text.parse::<jiff::Timestamp>().unwrap().as_millisecond(),
        ))
    };
    assert_eq!(at("62011021000080"), utc("2026-10-01T10:00:00Z"));
    // The zone counts quarters of an hour; the sign is in the middle of the octet.
    assert_eq!(at("62300121436580"), utc("2026-03-10T10:34:56Z"));
    assert_eq!(at("6230012143658A"), utc("2026-03-10T19:34:56Z"));
    assert_eq!(at("62300121436522"), utc("2026-03-10T07:04:56Z"));
    assert_eq!(at("42209221436500"), utc("2024-02-29T12:34:56Z"));
    assert_eq!(at("52209221436500"), None);
}

#[test]
fn case_21_lengths_that_lie_lose_as_little_as_possible() {
    // More user data announced than there is: what came is the text, marked.
    let message = read(&format!("{PRE}01431D98C56B3DD00"));
    assert_eq!(message.damage, Some(Damage::Shortened));
    assert_eq!(
        alone(message).text(),
        "1234567@\n(damaged: the end of the message is missing)"
    );

    // A header longer than the user data: nothing can be read, but it is known from whom it was.
    let hex = Made {
        header: &[0, 3, 7, 2, 1],
        data: &septets("ab"),
        ..Made::default()
    }
    .hex()
    .replace("050003070201", "500003070201");
    let error = try_read(&hex).unwrap_err();
    assert_eq!(error.problem, Problem::HeaderTooLong);
    assert_eq!(error.from.unwrap().to_string(), "+491711234567");

    // An element that reaches beyond the header: the text stands, the element does not.
    let message = part_of(&[0, 9, 7, 2, 1], &septets("hello"));
    assert_eq!(message.damage, Some(Damage::Header));
    assert_eq!((message.part, message.header.0.len()), (None, 0));
    assert_eq!(
        alone(message).text(),
        "hello\n(damaged: the header of the message is damaged)"
    );
}

#[test]
fn case_22_odd_and_empty_user_data_is_read() {
    let odd = Made {
        coding: 8,
        data: &[0, b'a', 0, b'b', 0],
        ..Made::default()
    };
    assert_eq!(text(&odd.read()), "ab");
    assert_eq!(text(&Made::default().read()), "");
    let utf16 = Made {
        coding: 8,
        ..Made::default()
    };
    assert_eq!(alone(utf16.read()).text(), "");
}

#[test]
fn case_23_status_reports_tell_final_from_not_final() {
    let hex =
        |status: &str| format!("07919471016700F006420C919471113254766201102100008062011021003080{status}");
    let delivered = report(&hex("00"));
    assert_eq!(delivered.reference, 0x42);
    assert_eq!(delivered.recipient.to_string(), "+491711234567");
    assert_eq!(delivered.outcome, ReportOutcome::Delivered);
    assert_eq!(
        delivered.discharged_at.unwrap().unix_ms() - delivered.sent_at.unwrap().unix_ms(),
        3000
    );
    let pending = report(&hex("30")).outcome;
    assert_eq!(pending, ReportOutcome::Pending(0x30));
    assert!(!pending.is_final());
    // Parameter indicator, protocol, coding and text after it do not matter.
    let expired = report(&hex("4607000804")).outcome;
    assert_eq!(expired, ReportOutcome::Failed(0x46));
    assert!(expired.is_final());
    assert_eq!(expired.as_str(), "validity period expired");
    assert_eq!(report(&hex("01")).outcome, ReportOutcome::Unconfirmed(1));
}
