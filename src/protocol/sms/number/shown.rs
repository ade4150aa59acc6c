//! Numbers as people write them: `+447700900142` becomes `+44 7700 900142`.

use std::borrow::Cow;

use super::countries;

/// How the digits of a mobile number are grouped, by country code. Other countries get groups of three.
const GROUPS: &str = "1:3-3-4 7:3-3-2-2 31:1-8 32:3-2-2-2 33:1-2-2-2-2 36:2-3-4 41:2-3-2-2 44:4-6 45:2-2-2-2 46:2-3-2-2 \
     47:3-2-3 49:3-7 49:3-8 52:2-4-4 55:2-5-4 60:2-3-4 60:2-4-4 64:2-3-4 65:4-4 81:2-4-4 82:2-4-4 84:2-3-2-2 86:3-4-4 \
     90:3-3-2-2 91:5-5 92:3-7 98:3-3-4 27:2-3-4 20:2-4-4 254:3-6 234:3-3-4 353:2-3-4 357:2-6 358:2-3-4 370:3-5 375:2-3-2-2 \
     380:2-3-4 385:2-3-4 386:2-3-3 852:4-4 966:2-3-4 971:2-3-4 972:2-3-4 994:2-3-2-2 998:2-3-2-2";

/// An E.164 number in its international form, in groups. Anything else, and a number of a length that its country
/// does not have, is returned as it is.
#[must_use]
pub fn international_form(address: &str) -> Cow<'_, str> {
    grouped(address).map_or(Cow::Borrowed(address), Cow::Owned)
}

fn grouped(address: &str) -> Option<String> {
    let digits = address.strip_prefix('+')?;
    if !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let country = countries::by_digits(digits).filter(|country| country.fits(digits))?;
    let mut rest = digits.strip_prefix(country.code)?;
    let mut text = format!("+{}", country.code);
    let mut take = |size: usize| {
        let (group, behind) = rest.split_at_checked(size)?;
        text.push(' ');
        text.push_str(group);
        rest = behind;
        Some(behind.len())
    };
    let mut left = digits.len() - country.code.len();
    let own = GROUPS
        .split_ascii_whitespace()
        .filter_map(|entry| entry.split_once(':'))
        .filter(|(code, _)| *code == country.code)
        .map(|(_, groups)| groups.split('-').filter_map(|size| size.parse::<usize>().ok()))
        .find(|groups| groups.clone().sum::<usize>() == left);
    if let Some(sizes) = own {
        for size in sizes {
            take(size)?;
        }
        return Some(text);
    }
    while left > 0 {
        // The last group has two to four digits, never one.
        let size = match left {
            0..=4 => left,
            5 => 2,
            8 => 4,
            _ => 3,
        };
        left = take(size)?;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_shown_in_the_groups_of_their_country() {
        for (number, shown) in [
            ("+447700900142", "+44 7700 900142"),
            ("+14155552671", "+1 415 555 2671"),
            ("+31612345678", "+31 6 12345678"),
            ("+33612345678", "+33 6 12 34 56 78"),
            ("+4915112345678", "+49 151 12345678"),
            ("+34612345678", "+34 612 345 678"),
            ("+919876543210", "+91 98765 43210"),
            ("+37254212345", "+372 5421 2345"),
            ("+3725421234", "+372 542 1234"),
        ] {
            assert_eq!(international_form(number), shown);
        }
    }

    #[test]
    fn what_is_no_number_of_a_country_is_shown_as_it_is() {
        for address in [
            "",
            "+",
            "PayPal",
            "12345",
            "07700900142",
            "+15550001",
            "+44",
            "+999123456789",
            "!a1b2",
            "+4477x0900142",
        ] {
            assert_eq!(international_form(address), address);
        }
    }

    #[test]
    fn each_grouping_belongs_to_a_country_and_has_a_length_that_occurs_there() {
        for entry in GROUPS.split_ascii_whitespace() {
            let (code, groups) = entry.split_once(':').unwrap();
            let length: usize = groups.split('-').map(|size| size.parse::<usize>().unwrap()).sum();
            let fits = countries::all()
                .iter()
                .any(|(_, of, (least, most))| *of == code && (*least..=*most).contains(&length));
            assert!(fits, "{entry}");
        }
    }

    proptest! {
        #[test]
        fn no_digit_is_lost_or_added(number in "\\+[0-9]{1,16}") {
            let shown = international_form(&number).into_owned();
            prop_assert_eq!(shown.replace(' ', ""), number);
            prop_assert!(!shown.ends_with(' ') && !shown.contains("  "));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            prop_assert_eq!(international_form(&text).replace(' ', ""), text.replace(' ', ""));
        }
    }
}
