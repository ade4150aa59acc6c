use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<Vec<Item>, BookError> {
    let mut book = Book::default();
    book.push(bytes)?;
    book.finish()?;
    Ok(std::iter::from_fn(|| book.next_item()).collect())
}

fn contacts(text: &str) -> Vec<(u64, String, Vec<String>)> {
    let items = read(text.as_bytes()).unwrap();
    items
        .into_iter()
        .map(|item| match item {
            Item::Contact(contact) => (
                contact.line,
                contact.name,
                [contact.numbers, contact.devices].concat(),
            ),
            Item::Skipped { line, why } => (line, format!("- {why}"), Vec::new()),
        })
        .collect()
}

fn one(line: u64, name: &str, numbers: &[&str]) -> (u64, String, Vec<String>) {
    (
        line,
        name.to_owned(),
        numbers.iter().map(|&n| n.to_owned()).collect(),
    )
}

#[test]
fn a_plain_table_is_read_whatever_separates_it() {
    for separator in [",", ";", "\t"] {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!(
                "Name{separator}Phone{end}Ann Smith{separator}07700 900142{end}\"Ben, \"\"B\"\"; Co\"{separator}+44 20 7946 0018"
            );
            let line = |number| if end == "\r" { 1 } else { number };
            assert_eq!(
                contacts(&text)
                    .iter()
                    .map(|(_, name, numbers)| (name.as_str(), numbers[0].as_str()))
                    .collect::<Vec<_>>(),
                [
                    ("Ann Smith", "07700 900142"),
                    ("Ben, \"B\"; Co", "+44 20 7946 0018")
                ]
            );
            if end != "\r" {
                assert_eq!(contacts(&text)[1].0, line(3), "{text:?}");
            }
        }
    }
}

#[test]
fn googles_export_is_read() {
    let text = "First Name,Middle Name,Last Name,Phonetic First Name,Nickname,File As,Organization Name,E-mail 1 - Label,\
                E-mail 1 - Value,Phone 1 - Label,Phone 1 - Value,Phone 2 - Label,Phone 2 - Value\n\
                Ann,M.,Smith,,,,Acme,* Home,ann@example.com,Mobile,07700 900142 ::: 07700 900143,Home Fax,020 7946 0018\n\
                ,,,,,,Acme,,,Work,020 7946 0000,,\n\
                Bob,,,,,,,,bob@example.com,,,,\n";
    assert_eq!(
        contacts(text),
        [
            one(
                2,
                "Ann M. Smith",
                &["07700 900142", "07700 900143", "020 7946 0018"]
            ),
            one(3, "Acme", &["020 7946 0000"]),
            one(4, "- there is no phone number", &[]),
        ]
    );
}

#[test]
fn outlooks_export_is_read_with_its_marks_and_its_old_encoding() {
    let headings = "\"Title\",\"First Name\",\"Last Name\",\"Company\",\"Business Fax\",\"Business Phone\",\"Mobile Phone\",\"Pager\"";
    let text = format!("\u{feff}{headings}\r\n,\"Zoë\",\"Müller\",,\"1\",\"2\",\"3\",\"4\"\r\n");
    assert_eq!(contacts(&text), [one(2, "Zoë Müller", &["2", "3"])]);
    let mut old = format!("{headings}\r\n,\"Zo").into_bytes();
    old.extend(b"\xeb\",\"M\xfcller \x96 \x8aek\",,,\"2\",,\r\n");
    let Item::Contact(contact) = read(&old).unwrap().remove(0) else {
        panic!("no contact");
    };
    assert_eq!(contact.name, "Zoë Müller – Šek");
}

#[test]
fn beside_a_first_name_a_name_is_the_last_one() {
    let text = "sep=;\nVorname;Name;Handy;Gerät\nAnn;Smith;0151 1234567;x\n;;;\n";
    assert_eq!(contacts(text), [one(3, "Ann Smith", &["0151 1234567"])]);
}

#[test]
fn a_device_has_an_address_that_is_no_number() {
    let text = "name,device\nPump station 3,0004A30B001C0530\n";
    assert_eq!(contacts(text), [one(2, "Pump station 3", &["0004A30B001C0530"])]);
    let Item::Contact(contact) = read(text.as_bytes()).unwrap().remove(0) else {
        panic!("no contact");
    };
    let addresses: Vec<_> = contact.addresses(Home::NOWHERE).collect();
    assert_eq!(addresses, [Ok(Address::new("0004A30B001C0530").unwrap())]);
}

#[test]
fn a_file_that_is_no_address_book_says_why() {
    for (bytes, why) in [
        (&b""[..], "the file is empty"),
        (b"\xef\xbb\xbf \r\n", "the file is empty"),
        (b"Ann,07700900142\nBen,07700900143\n", "it has no name"),
        (b"name,mail\nAnn,ann@example.com\n", "it has no phone number"),
        (b"\xff\xfen\0a\0m\0e\0,\0p\0h\0o\0n\0e\0\n\0", "not UTF-8"),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_quotation_mark_that_is_never_closed_costs_what_is_behind_it_and_says_so() {
    let mut text = "name,phone\nAnn,1\n\"Ben,2\n".to_owned();
    text.push_str(&"Cid,3\n".repeat(20_000));
    let read = contacts(&text);
    assert_eq!(read[0], one(2, "Ann", &["1"]));
    assert!(read[1].1.contains("quotation mark"), "{read:?}");
    assert_eq!((read[1].0, read.len()), (3, 2));
}

#[test]
fn a_vcard_of_each_version_is_read() {
    let text = "BEGIN:VCARD\r\nVERSION:3.0\r\nN:Smith;Ann;M.;Dr.;\r\nFN:Ann Smith\\, Acme\r\nitem1.TEL;TYPE=CELL,VOICE:+44 7700\r\n  900142\r\n\
                TEL;type=FAX:1\r\nEND:VCARD\r\n\
                begin:vcard\nversion:4.0\nfn;language=en:Ben\ntel;value=uri;type=\"voice,cell\":tel:+31-6-12345678;ext=3\nend:vcard\n\
                BEGIN:VCARD\nVERSION:2.1\nN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:M=C3=BCller;J=C3=\n=B6rg;;;\nTEL;CELL:0151 1234567\n\
                AGENT:\nBEGIN:VCARD\nFN:Not him\nTEL:9\nEND:VCARD\nEND:VCARD\n\
                BEGIN:VCARD\nORG:Acme Ltd;Sales\nTEL:020 7946 0000\nPHOTO;ENCODING=b:AAAA";
    let mut text = text.to_owned();
    text.push_str(&"A".repeat(100_000));
    text.push_str("\nEND:VCARD\nBEGIN:VCARD\nFN:Nobody\nEND:VCARD\nBEGIN:VCARD\nFN:Cut\nTEL:1");
    let read = contacts(&text);
    assert_eq!(
        read.iter()
            .map(|(_, name, numbers)| (name.as_str(), numbers.concat()))
            .collect::<Vec<_>>(),
        [
            ("Ann Smith, Acme", "+44 7700 900142".to_owned()),
            ("Ben", "tel:+31-6-12345678;ext=3".to_owned()),
            ("Jörg Müller", "0151 1234567".to_owned()),
            ("Acme Ltd", "020 7946 0000".to_owned()),
            ("- there is no phone number", String::new()),
            ("- the vCard has no end", String::new()),
        ]
    );
    assert_eq!((read[0].0, read[1].0, read[2].0), (1, 9, 14));
}

#[test]
fn one_number_is_one_address_however_it_is_written() {
    let home = Home::new("GB").unwrap();
    for number in [
        "07700 900142",
        "+44 7700 900142",
        "0044 7700 900142",
        "+44 (0)7700-900142",
        "tel:+44-7700-900142;ext=1",
        "447700900142",
    ] {
        assert_eq!(
            address_of(number, home),
            Ok(Address::new("+447700900142").unwrap()),
            "{number}"
        );
    }
    assert_eq!(
        address_of("07700 900142", Home::NOWHERE).unwrap_err().to_string(),
        "\"07700 900142\" has no country code, and the home country is not known"
    );
    for text in [
        "",
        "call me",
        "12 ext",
        "+",
        "07700900142 07700900143 07700900144",
    ] {
        assert!(address_of(text, home).is_err(), "{text}");
    }
    assert_eq!(address_of("7777", home), Ok(Address::new("7777").unwrap()));
}

#[test]
fn a_name_is_one_line_that_steers_nothing() {
    assert_eq!(
        clean_name(" Ann\n\tSmith\u{202e} \u{7}x ").as_deref(),
        Some("Ann Smith x")
    );
    assert_eq!(clean_name("\u{feff}\u{202e} \n"), None);
    assert_eq!(clean_name(&"ab ".repeat(300)).unwrap().chars().count(), MAX_NAME);
}

proptest! {
    #[test]
    fn how_a_file_is_cut_into_pieces_changes_nothing(
        lines in prop::collection::vec("[a-cA\",;=: \\\\0-9+é]{0,12}", 0..12),
        vcard: bool,
        size in 1_usize..40,
    ) {
        let head = if vcard { "BEGIN:VCARD\nFN:" } else { "name,phone,first\r\n" };
        let text = format!("{head}{}", lines.join("\r\n"));
        let whole = read(text.as_bytes());
        let mut book = Book::default();
        let mut outcome = Ok(());
        for piece in text.as_bytes().chunks(size) {
            outcome = outcome.and_then(|()| book.push(piece));
        }
        let pieces = outcome.and_then(|()| book.finish()).map(|()| std::iter::from_fn(|| book.next_item()).collect::<Vec<_>>());
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn a_quoted_table_comes_back_as_it_was(
        rows in prop::collection::vec(("[a-zA-Z\",; é]{0,20}", "\\+[0-9]{7,15}"), 1..20)
    ) {
        let lines: Vec<String> = rows
            .iter()
            .map(|(name, number)| format!("\"{}\",{number}\r\n", name.replace('"', "\"\"")))
            .collect();
        let text = format!("name,phone\r\n{}", lines.concat());
        let items = read(text.as_bytes()).unwrap();
        prop_assert_eq!(items.len(), rows.len());
        for ((line, item), (name, number)) in (2_u64..).zip(&items).zip(&rows) {
            match item {
                Item::Contact(contact) => {
                    prop_assert_eq!(contact.line, line);
                    prop_assert_eq!(Some(contact.name.clone()), clean_name(name));
                    prop_assert_eq!(&contact.numbers, &vec![number.clone()]);
                }
                Item::Skipped { .. } => prop_assert_eq!(clean_name(name), None),
            }
        }
    }
}
