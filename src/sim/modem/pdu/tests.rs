use jiff::Timestamp;

use super::*;

/// An SMS-SUBMIT with a relative validity period to +491710000002.
fn submit(first: u8, dcs: u8, length: u8, data: &[u8]) -> Vec<u8> {
    let mut pdu = vec![0, first, 0];
    pdu.extend(address("+491710000002"));
    pdu.extend([0, dcs, 167, length]);
    pdu.extend(data);
    pdu
}

fn read(pdu: &[u8]) -> Result<Submit, PduError> {
    read_submit(pdu, pdu.len() - 1)
}

#[test]
fn a_text_is_packed_as_in_the_specification_s_example() {
    // 3GPP TS 23.038, 6.1.2.1: "hellohello" as everybody knows it.
    let septets = gsm7::encode("hellohello").unwrap();
    assert_eq!(hex(&gsm7::pack(&septets, 0)), "E8329BFD4697D9EC37");
    for fill in 0..7 {
        let packed = gsm7::pack(&septets, fill);
        assert_eq!(gsm7::unpack(&packed, septets.len(), fill), septets, "{fill}");
    }
    let extended = "a€[|]{}^~\\b";
    let septets = gsm7::encode(extended).unwrap();
    assert_eq!(gsm7::decode(&septets, gsm7::Tables::default()).unwrap(), extended);
    assert_eq!(gsm7::encode("日"), None);
}

#[test]
fn shift_tables_give_turkish_letters() {
    let tables = gsm7::Tables {
        locking: 1,
        single: 0,
    };
    assert_eq!(gsm7::decode(&[4, 0x0b, 7, 0x1d], tables).unwrap(), "€Ğış");
    let tables = gsm7::Tables {
        locking: 0,
        single: 1,
    };
    assert_eq!(gsm7::decode(&[0x1b, 0x69, 0x69], tables).unwrap(), "ıi");
    assert_eq!(
        gsm7::decode(
            &[0x41],
            gsm7::Tables {
                locking: 0,
                single: 9
            }
        ),
        None
    );
}

#[test]
fn an_incoming_text_is_what_a_known_tool_makes_of_it() {
    // The head of the message in many tutorials: service centre, sender, time.
    let text = Text::new(
        "+31641600986",
        "How are you?",
        "2002-08-26T19:37:41Z".parse::<Timestamp>().unwrap(),
    );
    let pdus = text.pdus("+312406000000");
    assert_eq!(pdus.len(), 1);
    assert_eq!(
        hex(&pdus[0]),
        "0791134260000000040B911346610089F60000208062917314000CC8F71D14969741F977FD07"
    );
}

#[test]
fn long_texts_are_cut_between_whole_characters() {
    let at = Timestamp::UNIX_EPOCH;
    for (text, wide, parts) in [
        ("x".repeat(160), false, 1),
        ("x".repeat(161), false, 2),
        ("x".repeat(306), false, 2),
        ("x".repeat(307), false, 3),
        ("x".repeat(304), true, 2),
        ("x".repeat(305), true, 3),
        ("ж".repeat(70), false, 1),
        ("ж".repeat(134), false, 2),
        ("ж".repeat(135), false, 3),
        (format!("{}€tail", "x".repeat(152)), false, 1),
        (format!("{}€tail{}", "x".repeat(152), "y".repeat(20)), false, 2),
        (format!("{}🙂{}", "ж".repeat(66), "ж".repeat(20)), false, 2),
    ] {
        let message = Text {
            wide,
            reference: 0x1234,
            ..Text::new("+4915550001", &text, at)
        };
        let pdus = message.pdus("+491710760000");
        assert_eq!(pdus.len(), parts, "{text}");
        let bodies: Vec<Body> = pdus.iter().map(|pdu| read_deliver(pdu).unwrap().body).collect();
        assert_eq!(join(&bodies.iter().collect::<Vec<_>>()).unwrap(), text);
        for body in &bodies {
            let alone = join(&[body]).unwrap();
            assert!(!alone.contains('\u{fffd}'), "{alone}");
        }
    }
    let cut = Text {
        cut_anywhere: true,
        ..Text::new("+4915550001", &format!("{}🙂ж", "ж".repeat(66)).repeat(2), at)
    };
    let pdus = cut.pdus("+491710760000");
    let bodies: Vec<Body> = pdus.iter().map(|pdu| read_deliver(pdu).unwrap().body).collect();
    assert!(join(&[&bodies[0]]).unwrap().contains('\u{fffd}'));
    assert_eq!(join(&bodies.iter().collect::<Vec<_>>()).unwrap(), cut.text);
}

#[test]
fn senders_are_numbers_short_codes_and_names() {
    for (sender, octets) in [
        ("+491713920017", "0C91947131290071"),
        ("12345", "05812143F5"),
        ("*100#", "05811A00FB"),
        ("Bank", "07D0C2B07B0D"),
    ] {
        assert_eq!(hex(&address(sender)), octets, "{sender}");
        let pdu = Text::new(sender, "x", Timestamp::UNIX_EPOCH)
            .pdus("+491710760000")
            .remove(0);
        assert_eq!(read_deliver(&pdu).unwrap().from, sender);
    }
}

#[test]
fn a_zone_west_of_greenwich_has_its_sign() {
    let text = Text {
        zone: -14,
        ..Text::new("+4915550001", "x", "2026-01-02T03:04:05Z".parse().unwrap())
    };
    let read = read_deliver(&text.pdus("+491710760000")[0]).unwrap();
    assert_eq!(read.timestamp, "26/01/01,23:34:05-14");
}

#[test]
fn a_well_formed_submit_is_read() {
    let sent = read(&submit(0x31, 0, 10, &unhex("E8329BFD4697D9EC37").unwrap())).unwrap();
    assert_eq!(
        (sent.to.as_str(), sent.wants_report, sent.part),
        ("+491710000002", true, None)
    );
    assert_eq!(join(&[&sent.body]).unwrap(), "hellohello");
    let part = read(&submit(0x51, 8, 8, &[5, 0, 3, 7, 2, 1, 0x04, 0x36])).unwrap();
    assert_eq!(
        part.part,
        Some(Part {
            reference: 7,
            wide: false,
            total: 2,
            number: 1
        })
    );
    assert_eq!(join(&[&part.body]).unwrap(), "ж");
}

#[test]
fn malformed_submits_are_refused_with_the_reason() {
    use PduError as E;
    let hello = unhex("E8329BFD4697D9EC37").unwrap();
    let good = submit(0x11, 0, 10, &hello);
    assert_eq!(
        read_submit(&good, 3),
        Err(E::Length {
            declared: 3,
            actual: good.len() - 1
        })
    );
    assert_eq!(read(&submit(0x12, 0, 10, &hello)), Err(E::Kind));
    for dcs in [0x0c, 0x20, 0x80, 0xf8] {
        assert_eq!(read(&submit(0x11, dcs, 10, &hello)), Err(E::Coding(dcs)));
    }
    for length in [8, 12, 161] {
        let found = read(&submit(0x11, 0, length, &hello));
        assert!(
            matches!(found, Err(E::UserDataLength { .. })),
            "{length}: {found:?}"
        );
    }
    for (dcs, data) in [
        (8, &[][..]),
        (8, &[9, 0, 3][..]),
        (8, &[5, 0, 4, 7, 2, 1, 4, 0x36][..]),
        (8, &[4, 0, 3, 7, 2, 1, 4, 0x36][..]),
        (8, &[5, 0, 3, 7, 2, 0, 4, 0x36][..]),
        (8, &[5, 0, 3, 7, 2, 3, 4, 0x36][..]),
        (8, &[5, 0, 3, 7, 0, 0, 4, 0x36][..]),
        (8, &[5, 0, 3, 7, 2, 1, 4][..]),
    ] {
        let found = read(&submit(0x51, dcs, u8::try_from(data.len()).unwrap(), data));
        assert!(matches!(found, Err(E::Header(_))), "{data:02x?}: {found:?}");
    }
    let with_address = |octets: &[u8]| {
        let mut pdu = vec![0, 0x11, 0];
        pdu.extend(octets);
        pdu.extend([0, 0, 167, 10]);
        pdu.extend(&hello);
        read(&pdu)
    };
    for octets in [
        &[0, 0x91][..],
        &[21, 0x91, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1][..],
        &[2, 0x11, 0x21][..],
        &[3, 0x91, 0x21, 0x03][..],
        &[4, 0x91, 0x21, 0xf3][..],
        &[2, 0x91, 0xb1][..],
        &[7, 0xd0, 0xc2, 0xb0, 0xdb, 0x0d][..],
    ] {
        let found = with_address(octets);
        assert!(
            matches!(found, Err(E::Address { .. })),
            "{octets:02x?}: {found:?}"
        );
    }
    assert_eq!(unhex("0X"), Err(E::Hex));
    assert_eq!(unhex("012"), Err(E::Hex));
}

#[test]
fn no_octets_make_it_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = submit(0x51, 8, 8, &[5, 0, 3, 7, 2, 1, 0x04, 0x36]);
    for _ in 0..20_000 {
        let mut pdu = good.clone();
        for _ in 0..=next() % 4 {
            let place = usize::try_from(next()).unwrap() % pdu.len();
            pdu[place] = next().to_le_bytes()[0];
        }
        pdu.truncate(usize::try_from(next()).unwrap() % (pdu.len() + 1));
        drop(read_submit(&pdu, pdu.len().saturating_sub(1)));
        drop(read_deliver(&pdu));
        drop(read_report(&pdu));
        assert!(head(&pdu).class.is_none_or(|class| class < 4));
    }
}
