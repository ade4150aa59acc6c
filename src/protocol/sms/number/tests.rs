use super::*;

fn from(home: &str, kind: TypeOfNumber, value: &str) -> Peer {
    let address = PduAddress {
        kind,
        plan: 1,
        value: value.to_owned(),
    };
    let home = if home.is_empty() {
        Home::NOWHERE
    } else {
        Home::new(home).unwrap()
    };
    home.peer(&address)
}

#[test]
fn one_customer_is_one_address_however_the_network_writes_the_number() {
    use TypeOfNumber::{International, National, Unknown};
    for (home, kind, written, number) in [
        ("GB", International, "447700900123", "+447700900123"),
        ("GB", Unknown, "00447700900123", "+447700900123"),
        ("GB", Unknown, "07700900123", "+447700900123"),
        ("gb", National, "7700900123", "+447700900123"),
        ("GB", National, "07700900123", "+447700900123"),
        ("GB", Unknown, "447700900123", "+447700900123"),
        ("GB", International, "4407700900123", "+447700900123"),
        ("GB", International, "00447700900123", "+447700900123"),
        ("GB", Unknown, "4915112345678", "+4915112345678"),
        ("DE", Unknown, "015112345678", "+4915112345678"),
        ("DE", Unknown, "03012345678", "+493012345678"),
        // Italy has no prefix: its 0 belongs to the number.
        ("IT", National, "0612345678", "+390612345678"),
        ("IT", Unknown, "3401234567", "+393401234567"),
        ("IT", International, "390612345678", "+390612345678"),
        ("US", Unknown, "2125550123", "+12125550123"),
        ("US", Unknown, "12125550123", "+12125550123"),
        ("US", Unknown, "011447700900123", "+447700900123"),
        ("CA", National, "6135550123", "+16135550123"),
        ("RU", Unknown, "89161234567", "+79161234567"),
        ("RU", Unknown, "810447700900123", "+447700900123"),
        ("HU", Unknown, "06201234567", "+36201234567"),
        ("IN", Unknown, "919876543210", "+919876543210"),
        ("IN", Unknown, "9198765432", "+919198765432"),
        ("AU", Unknown, "0011447700900123", "+447700900123"),
        ("AU", Unknown, "0412345678", "+61412345678"),
        ("MX", International, "5215512345678", "+525512345678"),
        ("MX", Unknown, "5512345678", "+525512345678"),
        ("BY", Unknown, "80291234567", "+375291234567"),
        ("NO", Unknown, "40612345", "+4740612345"),
        ("", International, "447700900123", "+447700900123"),
        ("", Unknown, "00447700900123", "+447700900123"),
    ] {
        let peer = from(home, kind, written);
        assert_eq!(peer.as_str(), number, "{written} in {home}");
        assert!(matches!(peer, Peer::Number(_)), "{written} in {home}");
        assert!(peer.is_answerable());
        assert_eq!(peer.to_pdu().unwrap().to_string(), number);
    }
}

#[test]
fn short_codes_and_names_stay_as_they_are_and_are_not_answerable() {
    use TypeOfNumber::{Alphanumeric, International, National, Subscriber, Unknown};
    for (home, kind, written) in [
        ("GB", Unknown, "12345"),
        ("GB", National, "60006"),
        ("GB", International, "12345"),
        ("GB", Subscriber, "12345"),
        ("GB", Subscriber, "*100#"),
        ("GB", Unknown, "*100#"),
        ("FI", Unknown, "123456"),
        ("", Unknown, "12345"),
        ("GB", Alphanumeric, "Bank Ö1"),
        ("GB", Alphanumeric, "12345"),
    ] {
        let peer = from(home, kind, written);
        assert_eq!(peer.as_str(), written, "{home}");
        assert!(!peer.is_answerable(), "{written} in {home}");
    }
    assert_eq!(from("GB", Alphanumeric, "Bank Ö1").to_pdu(), None);
    assert_eq!(from("GB", Unknown, ""), Peer::Unknown);
    assert_eq!(from("GB", Alphanumeric, "A\n\u{c}B\r").as_str(), "AB");
    assert_eq!(from("GB", Alphanumeric, "\u{c}"), Peer::Unknown);
    // A number that a gateway has sent as a name is a number nevertheless.
    assert!(from("GB", Alphanumeric, "+447700900123").is_answerable());
}

#[test]
fn without_a_home_country_digits_without_a_country_code_stay_as_they_are() {
    let peer = from("", TypeOfNumber::Unknown, "07700900123");
    assert_eq!(peer.as_str(), "07700900123");
    assert!(peer.is_answerable());
    assert_eq!(Home::new("XX"), None);
    assert_eq!(Home::new("G"), None);
}

#[test]
fn a_number_is_understood_as_people_write_it() {
    let home = Home::new("GB").unwrap();
    for text in [
        "+44 7700 900123",
        "+44 (0)7700 900-123",
        "0044 7700/900.123",
        "(07700) 900 123",
        "tel:+447700900123",
        "\u{202a}+44\u{a0}7700 900123\u{202c}",
    ] {
        let peer = home.recipient(text).unwrap();
        assert_eq!(peer.as_str(), "+447700900123", "{text}");
    }
    assert_eq!(home.recipient("12345").unwrap().as_str(), "12345");
    for text in [
        "",
        "+",
        "Bank",
        "0044x7700",
        "+44",
        "123456789012345678901",
        "+4477009001231234",
    ] {
        assert_eq!(home.recipient(text), None, "{text}");
    }
}

#[test]
fn every_country_of_the_table_can_be_read() {
    let entries = countries::all();
    assert!(entries.len() > 240, "{}", entries.len());
    for (iso, code, (least, most)) in entries {
        assert!(iso.bytes().all(|c| c.is_ascii_uppercase()), "{iso}");
        assert!(
            (1..=3).contains(&code.len()) && code.bytes().all(|c| c.is_ascii_digit()),
            "{iso}"
        );
        assert!(least <= most && (4..=13).contains(&least), "{iso}");
    }
}
