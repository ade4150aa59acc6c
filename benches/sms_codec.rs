//! What reading and writing short messages costs, on one thread.
//!
//! `cargo bench --profile e2e --bench sms_codec`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measuring program"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use pipepost::protocol::sms::charset::Language;
use pipepost::protocol::sms::{
    Assembler, Home, Incoming, PduAddress, SubmitOptions, decode_incoming, encode_submit,
};

const AT_LEAST: Duration = Duration::from_millis(500);

/// Repeats `work` for some time; microseconds for each.
fn cost(what: &str, mut work: impl FnMut()) {
    let (mut times, start) = (0_u32, Instant::now());
    while start.elapsed() < AT_LEAST {
        for _ in 0..100 {
            work();
        }
        times += 100;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(times);
    println!("{what:<58} {:>8.2} µs {:>12.0}/s", each * 1e6, 1.0 / each);
}

/// A text as it comes from the network: what `encode_submit` makes, with another head.
fn incoming(text: &str, options: &SubmitOptions) -> Vec<Vec<u8>> {
    let to = PduAddress::number("+447700900123").unwrap();
    let parts = encode_submit(text, &to, options).unwrap();
    let deliver = |pdu: &[u8]| {
        // Service centre, first octet, reference, address of 8 octets, protocol and coding, then the user data.
        let mut made = vec![0, pdu[1] & 0x40];
        made.extend(&pdu[3..13]);
        made.extend([0x62, 0x01, 0x10, 0x21, 0, 0, 0x80]);
        made.extend(&pdu[13..]);
        made
    };
    parts.iter().map(|part| deliver(&part.pdu)).collect()
}

fn read(pdus: &[Vec<u8>]) -> String {
    let mut assembler = Assembler::new(Duration::from_secs(60));
    for pdu in pdus {
        let Ok(Incoming::Deliver(deliver)) = decode_incoming(black_box(pdu)) else {
            panic!("not a message")
        };
        if let pipepost::protocol::sms::Step::Complete(received) =
            assembler.receive(*deliver, (), Duration::ZERO)
        {
            return received.text();
        }
    }
    panic!("not complete")
}

fn main() {
    let plain = SubmitOptions::default();
    let all = SubmitOptions {
        languages: Language::ALL.to_vec(),
        transliterate: true,
        ..SubmitOptions::default()
    };
    let to = PduAddress::number("+447700900123").unwrap();
    let gsm = "The roof leaks again. Could somebody look at it tomorrow? ".repeat(3)[..160].to_owned();
    let utf16 = "Крыша опять течёт 😀. ".repeat(3);
    let hindi = "मैं कल आऊँगा ".repeat(11);
    let long = gsm.repeat(4);

    for (what, text) in [
        ("1 part, GSM 7 bit, 160 characters", &gsm),
        ("1 part, UTF-16", &utf16),
        ("5 parts, GSM 7 bit, 640 characters", &long),
    ] {
        let pdus = incoming(text, &plain);
        assert_eq!(read(&pdus), *text);
        cost(&format!("read: {what}"), || drop(black_box(read(&pdus))));
    }
    for (what, text, options) in [
        ("1 part, GSM 7 bit, 160 characters", &gsm, &plain),
        ("1 part, UTF-16", &utf16, &plain),
        ("5 parts, GSM 7 bit, 640 characters", &long, &plain),
        ("1 part, all languages allowed, Hindi", &hindi, &all),
        ("1 part, all languages allowed, UTF-16", &utf16, &all),
    ] {
        cost(&format!("write: {what}"), || {
            black_box(encode_submit(black_box(text), &to, options).is_ok());
        });
    }
    let home = Home::new("GB").unwrap();
    for (what, number) in [("international", "00447700900123"), ("national", "07700900123")] {
        cost(&format!("number: {what}"), || {
            black_box(home.recipient(black_box(number)));
        });
    }
}
