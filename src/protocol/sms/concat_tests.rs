//! Joining parts over time.

use std::time::Duration;

use super::charset::Tables;
use super::pdu::{Body, Coding, Header, Kind};
use super::{Assembler, Deliver, PduAddress, Step};
use crate::domain::Timestamp;
use crate::protocol::sms::pdu::Part;

const LIMIT: Duration = Duration::from_secs(3600);

/// Part `number` of `total` with reference 7, sent so many seconds after some time.
fn part(number: u8, total: u8, text: &str, sent: i64) -> Deliver {
    Deliver {
        smsc: None,
        from: PduAddress::number("+447700900123").unwrap(),
        sent_at: Some(Timestamp::from_unix_ms(1_769_744_285_000 + sent * 1000)),
        kind: Kind::Text,
        part: Some(Part {
            reference: 7,
            wide: false,
            total,
            number,
        }),
        body: Body::Septets {
            septets: super::charset::encode_septets(text, Tables::DEFAULT).unwrap(),
            tables: Tables::DEFAULT,
        },
        protocol: 0,
        coding: Coding::from_octet(0),
        header: Header::default(),
        damage: None,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_incomplete_message_is_given_up_after_the_limit_as_what_came_and_says_so() {
    let mut assembler = Assembler::new(LIMIT);
    assembler.receive(part(1, 5, "one ", 0), 1, at(0));
    assembler.receive(part(4, 5, " four", 0), 4, at(100));
    assert_eq!(assembler.next_expiry(), Some(at(3700)));
    assert_eq!(assembler.expire(at(3699)), []);
    let given_up = assembler.expire(at(3700));
    assert_eq!(given_up.len(), 1);
    assert_eq!(
        given_up[0].text(),
        "one […] four[…]\n(incomplete: parts 2, 3, 5 of 5 are missing)"
    );
    assert_eq!(given_up[0].missing, [2, 3, 5]);
    assert_eq!(given_up[0].tokens, [1, 4]);
    assert_eq!((assembler.waiting(), assembler.next_expiry()), (0, None));

    // What comes late is given up in its turn.
    assembler.receive(part(2, 2, "late", 0), 2, at(4000));
    assert_eq!(
        assembler.expire(at(9999))[0].text(),
        "[…]late\n(incomplete: part 1 of 2 is missing)"
    );
}

#[test]
fn the_next_message_with_the_same_reference_is_another_message() {
    let mut assembler = Assembler::new(LIMIT);
    // The second part of the first message was lost; the phone does not count its messages.
    assembler.receive(part(1, 2, "first ", 0), 1, at(0));
    assert_eq!(
        assembler.receive(part(1, 2, "second ", 600), 2, at(600)),
        Step::Waiting { missing: 1 }
    );
    let Step::Complete(whole) = assembler.receive(part(2, 2, "message", 601), 3, at(601)) else {
        panic!()
    };
    assert_eq!(
        (whole.text().as_str(), whole.tokens),
        ("second message", vec![2, 3])
    );
    assert_eq!(assembler.waiting(), 1);
}

#[test]
fn parts_that_interleave_find_the_message_that_was_sent_at_their_time() {
    let mut assembler = Assembler::new(LIMIT);
    assembler.receive(part(1, 2, "a1 ", 0), (), at(0));
    assembler.receive(part(1, 2, "b1 ", 60), (), at(60));
    let Step::Complete(first) = assembler.receive(part(2, 2, "a2", 1), (), at(61)) else {
        panic!()
    };
    let Step::Complete(second) = assembler.receive(part(2, 2, "b2", 61), (), at(62)) else {
        panic!()
    };
    assert_eq!(
        (first.text().as_str(), second.text().as_str()),
        ("a1 a2", "b1 b2")
    );
}

#[test]
fn parts_that_were_sent_further_apart_than_the_limit_do_not_belong_together() {
    let mut assembler = Assembler::new(LIMIT);
    assembler.receive(part(1, 2, "old", 0), (), at(0));
    let step = assembler.receive(part(2, 2, "new", 7200), (), at(1));
    assert_eq!(step, Step::Waiting { missing: 1 });
    assert_eq!(assembler.waiting(), 2);
}

#[test]
fn somebody_who_sends_first_parts_only_does_not_fill_the_memory() {
    let mut assembler = Assembler::new(LIMIT);
    for number in 0..Assembler::<()>::MAX_PENDING + 3 {
        let mut first = part(1, 2, "x", 0);
        first.from = PduAddress::number(&format!("{:010}", number + 1)).unwrap();
        assembler.receive(first, (), at(5));
    }
    assert_eq!(assembler.next_expiry(), Some(Duration::ZERO));
    let given_up = assembler.expire(at(5));
    assert_eq!(given_up.len(), 3);
    assert_eq!(given_up[0].from.to_string(), "0000000001");
    assert_eq!(assembler.waiting(), Assembler::<()>::MAX_PENDING);
    assert_eq!(assembler.next_expiry(), Some(at(5) + LIMIT));
}
