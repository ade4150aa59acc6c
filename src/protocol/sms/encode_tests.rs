//! Choosing an encoding and cutting into parts.

use std::time::Duration;

use super::charset::{Language, Tables, transliterate};
use super::encode::plan;
use super::pdu::{Alphabet, Validity, join};
use super::{EncodeError, PduAddress, Reference, SubmitOptions, decode_submit, encode_submit};

fn to() -> PduAddress {
    PduAddress::number("+447700900123").unwrap()
}

/// Alphabet and number of parts.
fn chosen(text: &str, options: &SubmitOptions) -> (Alphabet, Tables, usize) {
    let plan = plan(text, options);
    (plan.alphabet, plan.tables, plan.parts())
}

const fn tables(locking: Option<Language>, single: Option<Language>) -> Tables {
    Tables { locking, single }
}

#[test]
fn a_text_takes_as_many_parts_as_the_standard_says() {
    let narrow = SubmitOptions::default();
    let wide = SubmitOptions {
        reference: Reference::Wide(7),
        ..SubmitOptions::default()
    };
    for (text, with_narrow, with_wide) in [
        (String::new(), 1, 1),
        ("a".repeat(160), 1, 1),
        ("a".repeat(161), 2, 2),
        ("a".repeat(304), 2, 2),
        ("a".repeat(306), 2, 3),
        ("a".repeat(307), 3, 3),
        // An escape and its character are not cut in two: 76 of them fit into 153 septets.
        ("€".repeat(80), 1, 1),
        ("€".repeat(152), 2, 2),
        ("€".repeat(153), 3, 3),
        ("ж".repeat(70), 1, 1),
        ("ж".repeat(71), 2, 2),
        ("ж".repeat(134), 2, 3),
        ("ж".repeat(135), 3, 3),
        // 33 pairs fit into 67 units.
        ("😀".repeat(35), 1, 1),
        ("😀".repeat(66), 2, 2),
        ("😀".repeat(67), 3, 3),
    ] {
        let what = text.chars().next().unwrap_or(' ');
        let count = text.chars().count();
        assert_eq!(chosen(&text, &narrow).2, with_narrow, "{count} {what}");
        assert_eq!(chosen(&text, &wide).2, with_wide, "{count} {what}, wide");
    }
}

#[test]
fn the_cheapest_encoding_that_carries_the_text_is_chosen() {
    let plain = SubmitOptions::default();
    let turkish = SubmitOptions {
        languages: vec![Language::Turkish],
        ..SubmitOptions::default()
    };
    let hindi = SubmitOptions {
        languages: vec![Language::Turkish, Language::Hindi],
        ..SubmitOptions::default()
    };
    let (turk, dev) = (Some(Language::Turkish), Some(Language::Hindi));
    // What the default alphabet carries stays there.
    assert_eq!(chosen("Grüße", &turkish), (Alphabet::Gsm7, Tables::DEFAULT, 1));
    assert_eq!(chosen("ışık", &plain), (Alphabet::Utf16, Tables::DEFAULT, 1));
    assert_eq!(chosen("ışık", &turkish), (Alphabet::Gsm7, tables(None, turk), 1));
    // Many of them: one septet each beats two.
    let many = "ış".repeat(60);
    assert_eq!(chosen(&many, &turkish), (Alphabet::Gsm7, tables(turk, None), 1));
    assert_eq!(chosen(&many, &plain).2, 2);
    let text = "मैं कल आऊँगा".repeat(11);
    assert_eq!(chosen(&text, &hindi), (Alphabet::Gsm7, tables(dev, None), 1));
    assert_eq!(chosen("मैं ışık", &hindi), (Alphabet::Utf16, Tables::DEFAULT, 1));
}

#[test]
fn a_text_over_the_limit_is_refused_with_the_parts_that_it_needs() {
    let options = SubmitOptions {
        max_parts: 3,
        ..SubmitOptions::default()
    };
    let error = encode_submit(&"a".repeat(460), &to(), &options).unwrap_err();
    assert_eq!(error, EncodeError::TooManyParts { needed: 4, limit: 3 });
    assert_eq!(error.to_string(), "the text needs 4 parts, 3 are allowed");
    assert_eq!(encode_submit(&"a".repeat(459), &to(), &options).unwrap().len(), 3);
    let all = SubmitOptions {
        max_parts: 255,
        ..SubmitOptions::default()
    };
    assert_eq!(
        encode_submit(&"a".repeat(153 * 255), &to(), &all).unwrap().len(),
        255
    );
    assert!(encode_submit(&"a".repeat(153 * 255 + 1), &to(), &all).is_err());
}

#[test]
fn a_name_is_not_sent_to() {
    let name = PduAddress {
        kind: super::TypeOfNumber::Alphanumeric,
        plan: 0,
        value: "12345".to_owned(),
    };
    assert_eq!(
        encode_submit("x", &name, &SubmitOptions::default()),
        Err(EncodeError::Recipient)
    );
    assert_eq!(PduAddress::number("Bank"), None);
    assert_eq!(PduAddress::number("+44*"), None);
}

#[test]
fn transliteration_happens_only_where_the_whole_text_fits_the_alphabet_then() {
    let options = SubmitOptions {
        transliterate: true,
        ..SubmitOptions::default()
    };
    let sent = |text: &str| {
        let parts = encode_submit(text, &to(), &options).unwrap();
        join(
            &parts
                .iter()
                .map(|part| decode_submit(&part.pdu).unwrap().body)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(sent("“It’s” – fine…\u{a0}Ž"), "\"It's\" - fine... Z");
    // An emoji needs UTF-16 anyway: then everything stays as it is.
    assert_eq!(sent("“It’s” 😀"), "“It’s” 😀");
    // What the alphabet has is not touched.
    assert_eq!(transliterate("é à ñ ß € [Ç]"), "é à ñ ß € [Ç]");
    assert_eq!(transliterate("ç ł 漢"), "c l 漢");
}

#[test]
fn the_first_octet_says_what_is_in_the_pdu() {
    let options = SubmitOptions {
        validity: Some(Duration::from_secs(24 * 3600)),
        report: true,
        flash: true,
        ..SubmitOptions::default()
    };
    let parts = encode_submit("Hi", &to(), &options).unwrap();
    assert_eq!(
        data_encoding::HEXUPPER.encode(&parts[0].pdu),
        "0031000C914477000910320010A702C834"
    );
    assert_eq!(
        (parts[0].tpdu_length, parts[0].number, parts[0].total),
        (16, 1, 1)
    );
    let read = decode_submit(&parts[0].pdu).unwrap();
    assert!(read.report && read.coding.is_flash() && !read.reject_duplicates && !read.reply_path);
    assert_eq!(
        read.validity,
        Some(Validity::Relative(Duration::from_secs(24 * 3600)))
    );
}

#[test]
fn a_validity_is_rounded_up_to_what_can_be_said() {
    let minute = 60;
    let day = 24 * 60 * minute;
    for (asked, said) in [
        (0, 5 * minute),
        (6 * minute, 10 * minute),
        (12 * 60 * minute, 12 * 60 * minute),
        (12 * 60 * minute + 1, 12 * 60 * minute + 30 * minute),
        (day + 1, 2 * day),
        (30 * day, 30 * day),
        (30 * day + 1, 35 * day),
        (1000 * day, 63 * 7 * day),
    ] {
        let options = SubmitOptions {
            validity: Some(Duration::from_secs(asked)),
            ..SubmitOptions::default()
        };
        let parts = encode_submit("x", &to(), &options).unwrap();
        let read = decode_submit(&parts[0].pdu).unwrap().validity;
        assert_eq!(
            read,
            Some(Validity::Relative(Duration::from_secs(said))),
            "{asked}"
        );
    }
}
