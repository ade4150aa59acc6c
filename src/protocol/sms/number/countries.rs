//! Countries: calling code, prefixes, and how long a mobile number is.

use std::sync::LazyLock;

/// Numbers of one country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Country {
    /// ITU-T E.164 country code.
    pub(super) code: &'static str,
    /// What is dialled before a foreign number, separated by spaces.
    pub(super) international: &'static str,
    /// What is dialled before a number of the same country, separated by spaces; the first that fits counts.
    pub(super) trunk: &'static str,
    /// Digits of a mobile number without the trunk prefix: the fewest, the most.
    pub(super) digits: (usize, usize),
}

/// International prefix, trunk prefix, and the countries that have them, each as ISO 3166 code, calling code and
/// digits of a mobile number. A country stands before those that share its calling code.
const COUNTRIES: [(&str, &str, &str); 27] = [
    (
        "00",
        "0",
        "AE971:9 AF93:9 AL355:9 AM374:8 AR54:10-11 AT43:7-13 AZ994:9 BA387:8-9 BD880:10 BE32:9 BG359:8-9 \
         BO591:8 CD243:7-9 CH41:9 CN86:11 DE49:10-11 DZ213:9 EC593:9 EG20:10 ER291:7 ET251:9 FI358:7-10 \
         FR33:9 GB44:10 GE995:9 GF594:9 GH233:9 GP590:9 HR385:8-9 IE353:9 IL972:9 IN91:10 IQ964:10 \
         IR98:10 JO962:9 KG996:9 KI686:8 KP850:10 LA856:9-10 LB961:7-8 LI423:7-9 LK94:9 LR231:7-9 LY218:9 \
         MA212:9 MC377:8-9 MD373:8 ME382:8 MG261:9 MK389:8 MM95:7-10 MQ596:9 MW265:9 MY60:9-10 NA264:9 \
         NL31:9-11 NP977:10 NZ64:8-10 PE51:9 PH63:10 PK92:10 PM508:6-9 PS970:9 PY595:9 RE262:9 RO40:9 \
         RS381:8-10 RW250:9 SA966:9 SD249:9 SE46:9 SI386:8 SK421:9 SL232:8 SO252:7-9 SS211:9 SY963:9 \
         TR90:10 UA380:9 UY598:8 VE58:10 VN84:9 XK383:8 YE967:9 ZA27:7-9 ZM260:9 ZW263:9 AX358:7-10 \
         BL590:9 EH212:9 GG44:10 IM44:10 JE44:10 MF590:9 YT262:9",
    ),
    (
        "00",
        "",
        "AC247:5 AD376:6-9 AO244:9 AW297:7 BF226:8 BH973:8 BI257:8 BJ229:10 BN673:7 BT975:8 BW267:8 \
         BZ501:7 CF236:8 CG242:9 CI225:10 CK682:5 CM237:9 CR506:8 CW599:7-8 CY357:8 CZ420:9 DJ253:8 \
         DK45:8 EE372:7-8 ES34:9 FJ679:7 FK500:5 FM691:7 FO298:6 GA241:7-8 GI350:8 GL299:6 GM220:7-9 \
         GN224:9 GQ240:9 GR30:10 GT502:8 GW245:9 HN504:8 HT509:8 IO246:7 IS354:7-9 IT39:9-10 KM269:7 \
         KW965:8 LS266:8 LU352:9 LV371:8 ML223:8 MO853:8 MR222:8 MT356:8 MV960:7 MX52:10 MZ258:9 NC687:6 \
         NE227:8 NF672:6 NI505:8 NO47:8 NR674:7 NU683:4-7 OM968:8 PA507:7-8 PF689:8 PG675:8 PL48:9 \
         PT351:9 QA974:8 SB677:5-7 SC248:7 SH290:5 SM378:8 SN221:9 SR597:7 ST239:7 SV503:8 SZ268:8 \
         TD235:8 TG228:8 TK690:4-7 TL670:8 TN216:8 TO676:7 TV688:6-7 UZ998:9 VU678:7 WF681:6 BQ599:7 \
         SJ47:8 TA290:4 VA39:9-10",
    ),
    (
        "011",
        "1",
        "MH692:7 US1:10 AG1:10 AI1:10 AS1:10 BB1:10 BM1:10 BS1:10 CA1:10 DM1:10 DO1:10 GD1:10 GU1:10 \
         JM1:10 KN1:10 KY1:10 LC1:10 MP1:10 MS1:10 PR1:10 SX1:10 TC1:10 TT1:10 VC1:10 VG1:10 VI1:10",
    ),
    ("0011", "0", "AU61:9 CC61:9 CX61:9"),
    ("000", "0", "KE254:9 TZ255:9 UG256:9"),
    ("810", "8", "RU7:10 TM993:8 KZ7:10"),
    ("0", "", "CV238:7 WS685:7-10"),
    ("001", "", "GY592:7 HK852:8"),
    ("", "0", "BR55:10-11"),
    ("810", "80 8", "BY375:9"),
    ("", "", "CL56:9"),
    ("009 007 005", "0", "CO57:10"),
    ("119", "0", "CU53:8"),
    ("00", "06", "HU36:9"),
    ("001 007 008 009", "0", "ID62:9-12"),
    ("010", "0", "JP81:10"),
    ("001 007 008", "0", "KH855:8-9"),
    ("001 002 005 006 008", "0", "KR82:9-10"),
    ("00", "0 8", "LT370:8"),
    ("001", "0", "MN976:8"),
    ("00 020", "", "MU230:8"),
    ("009", "0", "NG234:10"),
    ("011 012", "", "PW680:7"),
    ("000 001 002 008", "", "SG65:8"),
    ("001 004 005 006 007 008 009", "0", "TH66:9"),
    ("810", "", "TJ992:9"),
    ("002 005 006 007 009", "0", "TW886:9"),
];

fn entry(text: &'static str) -> Option<(&'static str, &'static str, (usize, usize))> {
    let (iso, rest) = text.split_at_checked(2)?;
    let (code, digits) = rest.split_once(':')?;
    let (least, most) = digits.split_once('-').unwrap_or((digits, digits));
    Some((iso, code, (least.parse().ok()?, most.parse().ok()?)))
}

/// The first entry that is wanted.
fn find(wanted: impl Fn(&str, &str) -> bool) -> Option<Country> {
    COUNTRIES.iter().find_map(|(international, trunk, countries)| {
        let (_, code, digits) = countries
            .split(' ')
            .filter_map(entry)
            .find(|(iso, code, _)| wanted(iso, code))?;
        Some(Country {
            code,
            international,
            trunk,
            digits,
        })
    })
}

/// The country of an ISO 3166 code; upper and lower case are one.
pub(super) fn by_iso(code: &str) -> Option<Country> {
    find(|iso, _| iso.eq_ignore_ascii_case(code))
}

/// The country that digits after a `+` begin with. No calling code is the beginning of another one, and none is longer
/// than three digits, so these decide.
pub(super) fn by_digits(digits: &str) -> Option<Country> {
    // Everyone who is shown is looked up: two kB of memory spare reading the table each time.
    static PLACES: LazyLock<Vec<u16>> = LazyLock::new(places);
    let Some(three) = digits.get(..3).and_then(|three| three.parse::<usize>().ok()) else {
        return find(|_, code| digits.starts_with(code));
    };
    let place = usize::from(PLACES.get(three)?.checked_sub(1)?);
    let (international, trunk, countries) = COUNTRIES.get(place / MAX_TEXT)?;
    let text = countries.get(place % MAX_TEXT..)?.split(' ').next()?;
    let (_, code, digits) = entry(text)?;
    Some(Country {
        code,
        international,
        trunk,
        digits,
    })
}

/// More than the longest text of [`COUNTRIES`] has, so that both indices fit into 16 bits.
const MAX_TEXT: usize = 2048;

/// For each three digits that a number may begin with, the first entry whose code they begin with: its row times
/// [`MAX_TEXT`], its offset, and one; 0 when there is none.
fn places() -> Vec<u16> {
    let mut places = vec![0; 1000];
    for (row, (_, _, countries)) in COUNTRIES.iter().enumerate() {
        let mut offset = 0;
        for text in countries.split(' ') {
            let code = entry(text).map_or("", |(_, code, _)| code);
            let behind = 10_usize.pow(3_u32.saturating_sub(u32::try_from(code.len()).unwrap_or(3)));
            let first = code.parse::<usize>().map_or(1000, |code| code * behind);
            let place = u16::try_from(row * MAX_TEXT + offset + 1).unwrap_or(0);
            for free in places
                .iter_mut()
                .skip(first)
                .take(behind)
                .filter(|old| **old == 0)
            {
                *free = place;
            }
            offset += text.len() + 1;
        }
    }
    places
}

/// Every entry; a text that is no entry counts as one of country `??`.
#[cfg(test)]
pub(super) fn all() -> Vec<(&'static str, &'static str, (usize, usize))> {
    let texts = COUNTRIES
        .iter()
        .flat_map(|(_, _, countries)| countries.split_ascii_whitespace());
    texts
        .map(|text| entry(text).unwrap_or(("??", "", (0, 0))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_lead_to_the_first_entry_that_they_begin_with() {
        for three in 0..1000 {
            let digits = format!("{three:03}4567");
            assert_eq!(
                by_digits(&digits),
                find(|_, code| digits.starts_with(code)),
                "{digits}"
            );
        }
        for few in 0..100 {
            let digits = few.to_string();
            assert_eq!(
                by_digits(&digits),
                find(|_, code| digits.starts_with(code)),
                "{digits}"
            );
        }
    }

    #[test]
    fn no_text_is_longer_than_its_index_can_say() {
        assert!(COUNTRIES.iter().all(|(_, _, text)| text.len() < MAX_TEXT));
        assert!(u16::try_from(COUNTRIES.len() * MAX_TEXT).is_ok());
    }
}
