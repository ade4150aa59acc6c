//! What the codec makes of whole PDUs.

use proptest::prelude::*;

use super::charset::Language;
use super::pdu::join;
use super::{
    PduAddress, Reference, SubmitOptions, decode_incoming, decode_submit, decode_tpdu, encode_submit,
};

proptest! {
    #[test]
    fn no_octets_make_a_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let read = [decode_incoming(&octets).is_ok(), decode_tpdu(&octets).is_ok(), decode_submit(&octets).is_ok()];
        std::hint::black_box(read);
    }

    #[test]
    fn every_text_survives_its_parts(
        text in prop_oneof!["[ -~€äöüßñÇ\n]{0,900}", "[a-zşğıİçö {}€]{0,400}", ".{0,400}", "[\u{1f600}-\u{1f640}a]{0,300}"],
        languages in proptest::sample::subsequence(Language::ALL.to_vec(), 0..4),
        reference in prop_oneof![any::<u8>().prop_map(Reference::Narrow), any::<u16>().prop_map(Reference::Wide)],
    ) {
        // A byte order mark is the one character that is not shown.
        let text = text.replace('\u{feff}', "");
        let options = SubmitOptions { languages, reference, max_parts: 255, ..SubmitOptions::default() };
        let to = PduAddress::number("+447700900123").unwrap();
        let parts = encode_submit(&text, &to, &options).unwrap();
        let mut bodies = Vec::new();
        for part in &parts {
            let read = decode_submit(&part.pdu).unwrap();
            prop_assert_eq!(&read.to, &to);
            prop_assert_eq!(read.damage, None);
            prop_assert_eq!(part.tpdu_length, part.pdu.len() - 1);
            let number = read.part.map_or((1, 1), |part| (part.number, part.total));
            prop_assert_eq!(number, (part.number, part.total));
            bodies.push(read.body);
        }
        // No character is cut in two: each part alone is readable.
        let alone: String = bodies.iter().map(|body| join(std::slice::from_ref(body))).collect();
        prop_assert_eq!(&alone, &text);
        prop_assert_eq!(join(&bodies), text);
    }
}
