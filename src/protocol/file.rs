//! Names and types of files from outside: neither is believed.

use std::borrow::Cow;

/// Longest file name that is kept, in bytes.
const MAX_NAME: usize = 128;
/// MIME type of a file about which nothing is known.
pub const UNKNOWN: &str = "application/octet-stream";
/// How many bytes at the start of a file are looked at to tell a text.
const LOOKED_AT: usize = 4096;

/// A type that its bytes show.
struct Known {
    mime: &'static str,
    extension: &'static str,
    /// Where the bytes stand.
    at: usize,
    bytes: &'static [u8],
}

const fn known(mime: &'static str, extension: &'static str, at: usize, bytes: &'static [u8]) -> Known {
    Known {
        mime,
        extension,
        at,
        bytes,
    }
}

/// The types that phones, cameras and chat bridges send. The first that fits counts.
const KNOWN: [Known; 33] = [
    known("image/jpeg", "jpg", 0, b"\xff\xd8\xff"),
    known("image/png", "png", 0, b"\x89PNG\r\n\x1a\n"),
    known("image/gif", "gif", 0, b"GIF87a"),
    known("image/gif", "gif", 0, b"GIF89a"),
    // The length of the RIFF container stands before the kind.
    known("image/webp", "webp", 8, b"WEBPVP8"),
    known("audio/wav", "wav", 8, b"WAVEfmt "),
    known("video/x-msvideo", "avi", 8, b"AVI LIST"),
    known("image/tiff", "tif", 0, b"II*\0"),
    known("image/tiff", "tif", 0, b"MM\0*"),
    known("application/pdf", "pdf", 0, b"%PDF-"),
    // ISO base media (ISO/IEC 14496-12, section 4.3): the brand says what is inside.
    known("image/heic", "heic", 4, b"ftyphei"),
    known("image/heic", "heic", 4, b"ftypmif1"),
    known("image/avif", "avif", 4, b"ftypavif"),
    known("audio/mp4", "m4a", 4, b"ftypM4A"),
    known("video/quicktime", "mov", 4, b"ftypqt"),
    known("video/3gpp", "3gp", 4, b"ftyp3g"),
    known("video/mp4", "mp4", 4, b"ftyp"),
    known("video/webm", "webm", 0, b"\x1a\x45\xdf\xa3"),
    known("audio/ogg", "ogg", 0, b"OggS"),
    known("audio/flac", "flac", 0, b"fLaC"),
    known("audio/amr", "amr", 0, b"#!AMR\n"),
    known("audio/amr-wb", "awb", 0, b"#!AMR-WB\n"),
    known("audio/mpeg", "mp3", 0, b"ID3"),
    // An MPEG frame begins with eleven bits set; then version, layer and whether a checksum follows.
    known("audio/mpeg", "mp3", 0, b"\xff\xfb"),
    known("audio/mpeg", "mp3", 0, b"\xff\xfa"),
    known("audio/mpeg", "mp3", 0, b"\xff\xf3"),
    known("audio/mpeg", "mp3", 0, b"\xff\xf2"),
    known("audio/aac", "aac", 0, b"\xff\xf1"),
    known("audio/aac", "aac", 0, b"\xff\xf9"),
    known("text/vcard", "vcf", 0, b"BEGIN:VCARD"),
    known("text/calendar", "ics", 0, b"BEGIN:VCALENDAR"),
    known("application/zip", "zip", 0, b"PK\x03\x04"),
    known("application/gzip", "gz", 0, b"\x1f\x8b\x08"),
];

/// Types of text that no program takes for a page or a script.
const PLAIN: [(&str, &str); 5] = [
    ("text/plain", "txt"),
    ("text/csv", "csv"),
    ("application/json", "json"),
    ("text/vcard", "vcf"),
    ("text/calendar", "ics"),
];

/// The MIME type of a file: what its bytes show. What the sender claims counts only where the bytes cannot
/// contradict it, and never for a type that could act as a page.
#[must_use]
pub fn mime(bytes: &[u8], claimed: Option<&str>) -> Cow<'static, str> {
    let claimed = claimed.and_then(essence);
    if let Some(known) = by_bytes(bytes) {
        // Office documents are archives: the claim says which, and nothing acts on an archive by itself.
        return match claimed {
            Some(claimed) if known.mime == "application/zip" && is_document(&claimed) => Cow::Owned(claimed),
            _ => Cow::Borrowed(known.mime),
        };
    }
    let plain = |name: &str| {
        PLAIN
            .iter()
            .find(|(mime, _)| *mime == name)
            .map(|(mime, _)| *mime)
    };
    if looks_like_text(bytes) {
        return Cow::Borrowed(match &claimed {
            _ if looks_like_markup(bytes) => UNKNOWN,
            None => "text/plain",
            Some(claimed) if claimed == UNKNOWN => "text/plain",
            Some(claimed) => plain(claimed).unwrap_or(UNKNOWN),
        });
    }
    // Binary, and none of the table: a claim of the table or of a text is wrong.
    let believable = |claimed: &String| {
        !KNOWN.iter().any(|known| known.mime == claimed)
            && !is_active(claimed)
            && plain(claimed).is_none()
            && ["application/", "audio/", "video/"]
                .iter()
                .any(|class| claimed.starts_with(class))
    };
    claimed
        .filter(believable)
        .map_or(Cow::Borrowed(UNKNOWN), Cow::Owned)
}

/// Whether a browser could run what is in a file of this type: such a file is offered as unknown bytes only.
#[must_use]
pub fn is_active(mime: &str) -> bool {
    let Some(essence) = essence(mime) else {
        return true;
    };
    ["html", "xml", "svg", "script", "xsl", "mhtml", "multipart/", "text/css", "wasm"]
        .iter()
        .any(|part| essence.contains(part))
        // Office documents have "xml" in their names and are archives.
        && !is_document(&essence)
}

/// Whether the bytes are of a type that they show themselves, such as a picture.
#[must_use]
pub fn is_recognised(bytes: &[u8]) -> bool {
    by_bytes(bytes).is_some()
}

/// The name under which a file is kept: without folders, control characters and marks that turn the direction of
/// writing (which make `exe.jpg` of `gpj.exe`), not too long, never empty.
#[must_use]
pub fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let visible: String = last
        .chars()
        .filter(|c| !c.is_control() && !turns_direction(*c))
        .collect();
    let mut clean = visible.trim().trim_start_matches('.').to_owned();
    if clean.len() > MAX_NAME {
        // The end of a name says what kind of file it is.
        let extension = clean
            .rsplit_once('.')
            .map(|(_, end)| end)
            .filter(|end| end.len() <= 16);
        let extension = extension.map(|end| format!(".{end}")).unwrap_or_default();
        let mut cut = MAX_NAME - extension.len();
        while !clean.is_char_boundary(cut) {
            cut -= 1;
        }
        clean.truncate(cut);
        clean.push_str(&extension);
    }
    if clean.is_empty() {
        "file".to_owned()
    } else {
        clean
    }
}

/// A clean name for a file of this type; without a name from the sender it says what the file is.
#[must_use]
pub fn name(given: Option<&str>, mime: &str) -> String {
    let extension = KNOWN
        .iter()
        .map(|known| (known.mime, known.extension))
        .chain(PLAIN)
        .find(|(known, _)| *known == mime)
        .map(|(_, extension)| extension);
    let given = given.map(str::trim).filter(|name| !name.is_empty());
    let clean = clean_name(given.unwrap_or_else(|| match mime.split('/').next() {
        Some("image") => "picture",
        Some("video") => "video",
        Some("audio") => "audio",
        _ => "file",
    }));
    match extension {
        Some(extension) if !clean.contains('.') => clean_name(&format!("{clean}.{extension}")),
        _ => clean,
    }
}

fn by_bytes(bytes: &[u8]) -> Option<&'static Known> {
    KNOWN.iter().find(|known| {
        bytes
            .get(known.at..)
            .is_some_and(|rest| rest.starts_with(known.bytes))
    })
}

/// Type and subtype in small letters, without parameters; `None` when it is no MIME type (RFC 6838, section 4.2).
fn essence(mime: &str) -> Option<String> {
    let essence = mime
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let (class, kind) = essence.split_once('/')?;
    let is_name = |name: &str| {
        (1..=127).contains(&name.len())
            && name
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&c))
    };
    (is_name(class) && is_name(kind)).then_some(essence)
}

fn is_document(essence: &str) -> bool {
    essence.starts_with("application/vnd.openxmlformats-officedocument.")
        || essence.starts_with("application/vnd.oasis.opendocument.")
}

fn looks_like_text(bytes: &[u8]) -> bool {
    let start = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The cut may go through a letter.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(start.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|c| c.is_control() && !"\t\r\n\u{c}".contains(c))
}

fn looks_like_markup(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(bytes.get(..LOOKED_AT).unwrap_or(bytes)).to_ascii_lowercase();
    start
        .trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
        .starts_with('<')
        || ["<html", "<script", "<svg", "<!doctype"]
            .iter()
            .any(|tag| start.contains(tag))
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_say_what_a_file_is() {
        for (bytes, expected) in [
            (&b"\xff\xd8\xff\xe0\0\x10JFIF"[..], "image/jpeg"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
            (b"GIF89a\x01\0\x01\0", "image/gif"),
            (b"RIFF\x24\0\0\0WEBPVP8L", "image/webp"),
            (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
            (b"%PDF-1.7\n", "application/pdf"),
            (b"\0\0\0\x20ftypisom\0\0\x02\0", "video/mp4"),
            (b"\0\0\0\x18ftyp3gp4", "video/3gpp"),
            (b"\0\0\0\x18ftypheic", "image/heic"),
            (b"OggS\0\x02\0\0OpusHead", "audio/ogg"),
            (b"ID3\x04\0", "audio/mpeg"),
            (b"\xff\xfb\x90\x64", "audio/mpeg"),
            (b"#!AMR\n\x3c", "audio/amr"),
            (b"#!AMR-WB\n\x3c", "audio/amr-wb"),
            (b"BEGIN:VCARD\r\nVERSION:3.0", "text/vcard"),
            ("Grüße".as_bytes(), "text/plain"),
            (b"\x00\x01\x02", UNKNOWN),
            (b"", UNKNOWN),
        ] {
            assert_eq!(mime(bytes, None), expected, "{bytes:?}");
            // A claim that contradicts them changes nothing.
            assert_ne!(mime(bytes, Some("text/html")), "text/html");
            if is_recognised(bytes) {
                assert_eq!(mime(bytes, Some("image/svg+xml")), expected);
            }
        }
    }

    #[test]
    fn a_claim_counts_only_where_the_bytes_cannot_contradict_it() {
        let word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        for (bytes, claimed, expected) in [
            (&b"PK\x03\x04\x14"[..], word, word),
            (b"PK\x03\x04\x14", "image/png", "application/zip"),
            (b"a;b\n1;2\n", "text/csv; charset=utf-8", "text/csv"),
            (b"a;b\n1;2\n", "image/png", UNKNOWN),
            (b"alert(1)", "application/javascript", UNKNOWN),
            (b"<html>", "text/plain", UNKNOWN),
            (b" \n<svg onload=x>", "image/png", UNKNOWN),
            (b"hello <SCRIPT>", "text/plain", UNKNOWN),
            (
                b"\xd0\xcf\x11\xe0\xa1",
                "application/msword",
                "application/msword",
            ),
            (b"\xd0\xcf\x11\xe0\xa1", "image/jpeg", UNKNOWN),
            (b"\xd0\xcf\x11\xe0\xa1", "application/xhtml+xml", UNKNOWN),
            (b"\xd0\xcf\x11\xe0\xa1", "text/plain", UNKNOWN),
            (b"\xd0\xcf\x11\xe0\xa1", "application/x\r\nset-cookie: a", UNKNOWN),
        ] {
            assert_eq!(mime(bytes, Some(claimed)), expected, "{claimed}");
        }
    }

    #[test]
    fn a_file_name_loses_its_folders() {
        for (name, clean) in [
            ("roof.jpg", "roof.jpg"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\ann\\roof.jpg", "roof.jpg"),
            ("..", "file"),
            ("", "file"),
            ("a/", "file"),
            ("Größe \u{1F600}.pdf", "Größe \u{1F600}.pdf"),
            ("a\r\nb\0.txt", "ab.txt"),
            ("photo\u{202e}gpj.exe", "photogpj.exe"),
        ] {
            assert_eq!(clean_name(name), clean, "{name:?}");
        }
        let long = clean_name(&format!("{}.pdf", "ü".repeat(300)));
        assert!(long.len() <= 128 && long.ends_with("ü.pdf"), "{long}");
    }

    #[test]
    fn a_file_without_a_name_is_called_what_it_is() {
        assert_eq!(name(None, "image/jpeg"), "picture.jpg");
        assert_eq!(name(Some(" "), "audio/amr"), "audio.amr");
        assert_eq!(name(Some("roof"), "image/png"), "roof.png");
        assert_eq!(name(Some("a/roof.jpeg"), "image/jpeg"), "roof.jpeg");
        assert_eq!(name(None, UNKNOWN), "file");
    }

    proptest! {
        #[test]
        fn no_name_makes_the_cleaner_panic_or_keep_a_folder(given in ".{0,300}") {
            let clean = clean_name(&given);
            prop_assert!(!clean.is_empty() && clean.len() <= MAX_NAME);
            prop_assert!(!clean.contains(['/', '\\', '\0', '\n']) && !clean.starts_with('.'));
            let named = name(Some(&given), "image/png");
            prop_assert!(!named.is_empty() && named.len() <= MAX_NAME);
        }

        #[test]
        fn no_bytes_and_no_claim_make_an_active_type(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            claimed in "(text|image|application)/(html|svg\\+xml|javascript|xhtml\\+xml|xml|pdf|x-[a-z]{1,5})|.{0,20}",
        ) {
            let mime = mime(&bytes, Some(&claimed));
            prop_assert!(!is_active(&mime), "{mime}");
        }
    }
}
