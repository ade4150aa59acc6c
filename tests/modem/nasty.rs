//! The messages of `protocol/sms/nasty_tests.rs` on their whole way: from the network through the modem and the driver to
//! what a person reads. The numbers are the same.

use pipepost::domain::*;
use pipepost::sim::modem::{Interruption, Options, Place, Profile};

use crate::gateway::*;

const ANNA: &str = "0C91947111325476";
const BEN: &str = "0C91947111325477";
const AT: [u8; 7] = [0x62, 0x01, 0x10, 0x21, 0x00, 0x00, 0x80];

/// An SMS-DELIVER with its service centre, as octets; the text as septets or octets, as `coding` says.
struct Made<'a> {
    from: &'a str,
    protocol: u8,
    coding: u8,
    time: [u8; 7],
    header: &'a [u8],
    data: &'a [u8],
}

const PLAIN: Made<'static> = Made {
    from: ANNA,
    protocol: 0,
    coding: 0,
    time: AT,
    header: &[],
    data: &[],
};

impl Made<'_> {
    fn pdu(&self) -> Vec<u8> {
        let mut pdu = octets("07919471016700F0");
        pdu.push(if self.header.is_empty() { 0x04 } else { 0x44 });
        pdu.extend(octets(self.from));
        pdu.extend([self.protocol, self.coding]);
        pdu.extend(self.time);
        let mut header = Vec::new();
        if !self.header.is_empty() {
            header.push(u8::try_from(self.header.len()).unwrap());
            header.extend(self.header);
        }
        let (length, data) = if matches!(self.coding, 0 | 0x10 | 0xf0) {
            let filled = (header.len() * 8).div_ceil(7);
            let shift = filled * 7 - header.len() * 8;
            (filled + self.data.len(), packed(self.data, shift))
        } else {
            (header.len() + self.data.len(), self.data.to_vec())
        };
        pdu.push(u8::try_from(length).unwrap());
        pdu.extend(header);
        pdu.extend(data);
        pdu
    }
}

/// Septets behind `shift` bits of nothing.
fn packed(septets: &[u8], shift: usize) -> Vec<u8> {
    let mut octets = vec![0; (shift + septets.len() * 7).div_ceil(8)];
    for (at, septet) in septets.iter().enumerate() {
        for bit in 0..7 {
            let place = shift + at * 7 + bit;
            octets[place / 8] |= (septet >> bit & 1) << (place % 8);
        }
    }
    octets
}

fn octets(hex: &str) -> Vec<u8> {
    data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap()
}

const ANNA_IS: &str = "+491711234567";

#[tokio::test]
async fn cases_1_to_22_that_are_one_message_arrive_as_what_a_person_should_read() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let plain = |data| Made { data, ..PLAIN }.pdu();
    let with = |header, data| {
        Made {
            header,
            data,
            ..PLAIN
        }
        .pdu()
    };
    let from = |from| {
        Made {
            from,
            data: b"hi",
            ..PLAIN
        }
        .pdu()
    };
    let coded = |coding, header, data| {
        Made {
            coding,
            header,
            data,
            ..PLAIN
        }
        .pdu()
    };
    let bank = data_encoding::HEXUPPER.encode(&packed(b"Bank \x5c1", 0));
    let eleven = data_encoding::HEXUPPER.encode(&packed(b"ELEVEN CHAR", 0));
    let push = coded(0xf5, &[5, 4, 0x0b, 0x84, 0x23, 0xf0], b"\x01\x06\x01\xae");
    let mut too_short = plain(b"1234567\0");
    *too_short.iter_mut().rev().nth(7).unwrap() = 20;
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("1", plain(b"1234567"), ANNA_IS, "1234567"),
        ("2", plain(b"1234567\0"), ANNA_IS, "1234567@"),
        ("3", plain(&[0x61, 0x1b, 0x65, 0x1b, 0x3c]), ANNA_IS, "a€["),
        ("5", plain(&[0x68, 0x69, 0x1b]), ANNA_IS, "hi"),
        ("6", plain(&[0x1b, 0x41]), ANNA_IS, "A"),
        ("11", with(&[0, 3, 7, 2, 0], b"zero"), ANNA_IS, "zero"),
        (
            "11",
            with(&[0, 3, 7, 2, 3], b"three of two"),
            ANNA_IS,
            "three of two",
        ),
        (
            "11",
            with(&[0, 3, 7, 0, 1], b"one of none"),
            ANNA_IS,
            "one of none",
        ),
        ("12", with(&[0x24, 1, 1], &[0x1b, 0x73, 0x61]), ANNA_IS, "şa"),
        (
            "13",
            with(&[0x25, 1, 1], &[0x04, 0x0b, 0x07, 0x1d]),
            ANNA_IS,
            "€Ğış",
        ),
        (
            "14",
            with(&[0x25, 1, 6, 0x24, 1, 6], &[0x05, 0x06, 0x07]),
            ANNA_IS,
            "इईउ",
        ),
        ("15", from(&format!("0DD0{bank}")), "Bank Ö1", "hi"),
        ("15", from(&format!("14D0{eleven}")), "ELEVEN CHAR", "hi"),
        ("16", from("05C12143F5"), "12345", "hi"),
        ("16", from("05C11A00FB"), "*100#", "hi"),
        ("17", coded(0x10, &[], b"flash"), ANNA_IS, "flash"),
        ("17", coded(0xf0, &[], b"flash too"), ANNA_IS, "flash too"),
        (
            "18",
            push,
            ANNA_IS,
            "(message for a program, port 2948: not a text)",
        ),
        (
            "21",
            too_short,
            ANNA_IS,
            "1234567@\n(damaged: the end of the message is missing)",
        ),
        ("22", coded(8, &[], &[0, b'o', 0, b'd', 0]), ANNA_IS, "od"),
        ("22", plain(b""), ANNA_IS, ""),
    ];
    for (count, (case, pdu, from, text)) in cases.into_iter().enumerate() {
        bring(&modem, &pdu);
        deleted(&modem, count + 1).await;
        gateway.incoming_are(count + 1).await;
        let all = gateway.incoming().await;
        let arrived = all.contains(&(from.to_owned(), text.to_owned()));
        assert!(arrived, "case {case}: {all:?}");
    }
    assert_eq!(gateway.store.counts().unmapped, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn cases_4_7_8_9_and_10_parts_come_together_whatever_is_cut_and_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let part = |from, coding, header: &[u8], data: &[u8]| {
        Made {
            from,
            coding,
            header,
            data,
            ..PLAIN
        }
        .pdu()
    };
    let wide = part(ANNA, 0, &[8, 4, 0x12, 0x34, 2, 2], b"world");
    for pdu in [
        // 4 and 7: an escape, and a character of two units, are cut in two.
        part(ANNA, 0, &[0, 3, 1, 2, 1], b"price 5 \x1b"),
        part(ANNA, 0, &[0, 3, 1, 2, 2], b"e!"),
        part(ANNA, 8, &[0, 3, 2, 2, 1], &[0, b'a', 0xd8, 0x3d]),
        part(ANNA, 8, &[0, 3, 2, 2, 2], &[0xde, 0x00, 0, b'b']),
        // 8 and 9: the second part comes first, and twice.
        wide.clone(),
        wide,
        part(ANNA, 0, &[8, 4, 0x12, 0x34, 2, 1], b"hello "),
        // 10: two senders with one reference.
        part(ANNA, 0, &[0, 3, 7, 2, 1], b"anna 1 "),
        part(BEN, 0, &[0, 3, 7, 2, 2], b"ben 2"),
        part(ANNA, 0, &[0, 3, 7, 2, 2], b"anna 2"),
        part(BEN, 0, &[0, 3, 7, 2, 1], b"ben 1 "),
    ] {
        bring(&modem, &pdu);
    }
    let mut all = gateway.incoming_are(5).await;
    deleted(&modem, 11).await;
    all.sort();
    let anna = |text: &str| (ANNA_IS.to_owned(), text.to_owned());
    let mut expected = vec![
        anna("price 5 €!"),
        anna("a😀b"),
        anna("hello world"),
        anna("anna 1 anna 2"),
        ("+491711234577".to_owned(), "ben 1 ben 2".to_owned()),
    ];
    expected.sort();
    assert_eq!(all, expected);
    gateway.stop().await;
}

#[tokio::test]
async fn case_17_a_flash_message_that_the_modem_shows_itself_is_confirmed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), talkative());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let flash = Made {
        coding: 0x10,
        data: b"now",
        ..PLAIN
    };
    bring(&modem, &flash.pdu());
    assert_eq!(
        gateway.incoming_are(1).await,
        [(ANNA_IS.to_owned(), "now".to_owned())]
    );
    modem
        .wait_for(|counts| counts.acknowledged == 1, LIMIT)
        .await
        .unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn case_19_signs_for_the_phone_are_taken_from_the_modem_and_shown_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    for (count, coding) in [0xc8, 0xd8, 0xe8].into_iter().enumerate() {
        let waiting = Made {
            coding,
            data: &[0, 0x20],
            ..PLAIN
        };
        bring(&modem, &waiting.pdu());
        deleted(&modem, count + 1).await;
    }
    let type_0 = Made {
        protocol: 0x40,
        ..PLAIN
    };
    bring(&modem, &type_0.pdu());
    write(&modem, "+31612345678", "a text");
    assert_eq!(gateway.incoming_are(1).await[0].1, "a text");
    gateway.stop().await;
}

#[tokio::test]
async fn case_20_a_message_without_a_time_has_that_of_its_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let began = Timestamp::from_system_time(std::time::SystemTime::now());
    for (count, time) in [[0; 7], [0xff; 7], [0x62, 0x01, 0x10, 0x21, 0x00, 0x0f, 0xff]]
        .into_iter()
        .enumerate()
    {
        let message = Made {
            time,
            data: b"when?",
            ..PLAIN
        };
        bring(&modem, &message.pdu());
        deleted(&modem, count + 1).await;
    }
    gateway.incoming_are(3).await;
    let times = gateway
        .store
        .read(|reader| {
            let found = reader.conversations(&channel(), 10, None, 10)?.0;
            let all = found.into_iter().flat_map(|view| view.messages);
            Ok(all.map(|message| message.created_at).collect::<Vec<_>>())
        })
        .await
        .unwrap();
    assert_eq!(times.len(), 3);
    for time in times {
        let age = time.unix_ms() - began.unix_ms();
        assert!((0..60_000).contains(&age), "{age} ms");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn case_23_a_report_with_more_in_it_is_read_and_still_trying_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    // The reports come by hand.
    modem.with(|engine| engine.fate(Vec::new()));
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let (id, outcome) = gateway.send(ANNA_IS, "Hello Anna").await;
    assert_eq!(outcome, Attempt::Sent);
    let reference = modem.with(|engine| engine.sent()[0].reference);
    let report = |rest: &str| {
        let stamps = "62011021000080".repeat(2);
        octets(&format!("07919471016700F006{reference:02X}{ANNA}{stamps}{rest}"))
    };
    bring(&modem, &report("30"));
    modem
        .wait_for(|counts| counts.acknowledged == 1, LIMIT)
        .await
        .unwrap();
    gateway.state(id, |state| *state == OutgoingState::Sent).await;
    bring(&modem, &report("4607000804"));
    let state = gateway
        .state(id, |state| matches!(state, OutgoingState::Rejected(_)))
        .await;
    assert_eq!(
        state,
        OutgoingState::Rejected("validity period expired".to_owned())
    );
    gateway.stop().await;
}

#[tokio::test]
async fn case_24_a_text_that_is_announced_inside_a_list_of_texts_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    for number in 0..3 {
        write(&modem, "+31612345678", &format!("stored {number}"));
    }
    let between = Made {
        data: b"inside",
        ..PLAIN
    };
    modem.with(|engine| engine.interrupt_next(Place::InsideAnswer, Interruption::Pdu(between.pdu())));
    let gateway = Gateway::start(folder.path());
    let all = gateway.incoming_are(4).await;
    assert!(
        all.contains(&(ANNA_IS.to_owned(), "inside".to_owned())),
        "{all:?}"
    );
    assert_eq!(modem.with(|engine| engine.interruptions()), 0, "it came inside");
    deleted(&modem, 4).await;
    gateway.stop().await;
}

#[tokio::test]
async fn case_25_a_kill_before_the_deletion_makes_no_second_copy_and_a_place_that_is_used_again_hides_nothing()
 {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    // The store has them, the driver does not hear of it: the kill comes between.
    gateway.say_nothing_of_what_is_stored();
    write(&modem, "+31612345678", "stored, not deleted");
    gateway.incoming_are(1).await;
    gateway.crash().await;
    assert_eq!((modem.counts().stored, modem.counts().deleted), (1, 0));
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    deleted(&modem, 1).await;
    assert_eq!(gateway.incoming().await.len(), 1, "no second copy");
    // Again, and before the gateway is back another program empties the place and another text takes it.
    gateway.say_nothing_of_what_is_stored();
    write(&modem, "+31612345678", "the second");
    gateway.incoming_are(2).await;
    gateway.crash().await;
    assert_eq!(modem.counts().stored, 1);
    {
        use std::io::Write as _;
        let mut port = std::fs::OpenOptions::new()
            .write(true)
            .open(folder.path().join("modem"))
            .unwrap();
        port.write_all(b"AT+CMGD=1\r").unwrap();
    }
    modem
        .wait_for(|counts| counts.stored == 0, LIMIT)
        .await
        .unwrap_or_else(|counts| panic!("{counts:?}"));
    write(&modem, "+31687654321", "in the same place");
    let gateway = Gateway::start(folder.path());
    let all = gateway.incoming_are(3).await;
    assert!(all.contains(&("+31687654321".to_owned(), "in the same place".to_owned())));
    deleted(&modem, 3).await;
    gateway.stop().await;
}

#[tokio::test]
async fn texts_that_come_while_the_modem_boots_are_found_on_every_make() {
    for profile in [
        Profile::Generic,
        Profile::Sim800,
        Profile::Sim7600,
        Profile::Ec25,
        Profile::Huawei,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let modem = plug(
            folder.path(),
            Options {
                profile,
                // In the network long before it listens to commands: what comes is stored and announced to nobody.
                booted: false,
                ..options()
            },
        );
        for number in 0..3 {
            write(&modem, "+31612345678", &format!("early {number}"));
        }
        let mut gateway = Gateway::start(folder.path());
        gateway.incoming_are(3).await;
        gateway.up().await;
        modem.with(pipepost::sim::modem::Engine::restart_now);
        write(&modem, "+31612345678", "while it starts anew");
        gateway.incoming_are(4).await;
        deleted(&modem, 4).await;
        gateway.stop().await;
    }
}
