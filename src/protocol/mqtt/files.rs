//! Files in a payload.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use data_encoding::{Encoding, HEXLOWER_PERMISSIVE, Specification, Translate};
use serde_json::Value;

use super::error::MappingError;
use super::extract::{Document, Extractor, Place, compile_place, find, find_all, kind};
use super::mapping::numbered;
use super::spec::{AttachmentSpec, Extract, OneOrMany, Packing};
use crate::domain::{ByteSize, ReceivedAttachment};
use crate::protocol::file;

/// `max_size` where the mapping gives none.
const DEFAULT_SIZE: u64 = 5 << 20;
/// Largest `max_size`: no packet of MQTT carries more.
const MOST: u64 = 256 << 20;
/// Files and links that one message may bring. Each file costs a sync of the disk.
const MAX_FILES: usize = 10;
/// Longest link that goes into a text, in bytes.
const MAX_LINK: usize = 2048;
/// What a packet holds beside a file: text, numbers, names.
const BESIDE: u64 = 4096;

/// Base64 of both alphabets; padding is taken off before. Devices leave bits behind the last byte, and the line
/// breaks of mail, as they are.
static BASE64: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    specification.translate = Translate {
        from: "-_".to_owned(),
        to: "+/".to_owned(),
    };
    specification.ignore.push_str(" \t\r\n");
    specification.check_trailing_bits = false;
    specification.encoding().ok()
});

/// What a payload brought beside its text.
#[derive(Default)]
struct Found {
    files: Vec<ReceivedAttachment>,
    /// For the text: links, and what was left out and why.
    lines: Vec<String>,
}

impl Found {
    const fn is_empty(&self) -> bool {
        self.files.is_empty() && self.lines.is_empty()
    }
}

/// The `attachments` of a block, checked.
#[derive(Clone, Debug)]
pub(super) struct Files(Vec<Source>);

#[derive(Clone, Debug)]
struct Source {
    each: Option<Vec<String>>,
    content: Option<Place>,
    packing: Packing,
    url: Option<Extractor>,
    name: Option<Extractor>,
    mime: Option<Extractor>,
    max_size: u64,
}

impl Files {
    pub(super) fn compile(
        key: &str,
        specs: Option<&OneOrMany<AttachmentSpec>>,
        names: &[&str],
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, MappingError> {
        let Some(specs) = specs else {
            return Ok(Self(Vec::new()));
        };
        numbered(specs, &format!("{key}.attachments"))
            .map(|(key, spec)| Source::compile(&key, spec, names, vars))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Bytes of the largest packet that fits `max_size`; `None` when files never come in the payload.
    pub(super) fn largest_packet(&self) -> Option<u64> {
        self.0.iter().filter_map(Source::largest_packet).max()
    }

    /// The text of a message, with a line for each file that is a link or had to be left out, and its files.
    pub(super) fn read_with_text(
        &self,
        text: Option<&Extractor>,
        document: &Document<'_>,
    ) -> Result<(String, Vec<ReceivedAttachment>), String> {
        let found = match (self.read(document), text) {
            (Ok(found), _) => found,
            // The payload is not JSON: then the text says what is wrong, or is all there is.
            (Err(_), Some(_)) => Found::default(),
            (Err(reason), None) => return Err(format!("`attachments` cannot be read: {reason}")),
        };
        let mut lines = Vec::new();
        match text {
            Some(text) if found.is_empty() => lines.push(text.require("text", document)?),
            // A file without a text is a message, too.
            Some(text) => match text.get(document) {
                Ok(text) => lines.extend(text.filter(|text| !text.trim().is_empty())),
                Err(reason) => lines.push(format!("[the text could not be read: {reason}]")),
            },
            None if found.is_empty() => return Err("there is no file in the payload".to_owned()),
            None => {}
        }
        lines.extend(found.lines);
        Ok((lines.join("\n"), found.files))
    }

    /// The files of a payload. An error when the payload is not readable at all.
    fn read(&self, document: &Document<'_>) -> Result<Found, String> {
        let mut found = Found::default();
        let mut too_many = 0;
        for source in &self.0 {
            for element in source.elements(document)? {
                if found.files.len() + found.lines.len() >= MAX_FILES {
                    too_many += usize::from(source.is_there(element, document));
                } else {
                    source.read(element, document, &mut found);
                }
            }
        }
        if too_many > 0 {
            found.lines.push(format!(
                "[{too_many} more {} left out: {MAX_FILES} are the limit]",
                if too_many == 1 { "file was" } else { "files were" }
            ));
        }
        Ok(found)
    }
}

impl Source {
    fn compile(
        key: &str,
        spec: &AttachmentSpec,
        names: &[&str],
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, MappingError> {
        let extractor = |name: &str, at: Option<&String>| {
            let extract = at.map(|at| Extract {
                at: at.clone(),
                decode: super::spec::Decode::Utf8,
            });
            extract
                .map(|extract| Extractor::compile(&format!("{key}.{name}"), &extract, names, vars))
                .transpose()
        };
        let pointer = |name: &str, at: &str| {
            let key = format!("{key}.{name}");
            match compile_place(&key, at, names, vars)? {
                Place::Pointer(tokens) => Ok(tokens),
                Place::Text(_) | Place::Raw => Err(MappingError::wrong(
                    key,
                    at,
                    "this is not a JSON pointer",
                    "write where it is in the payload, e.g. \"/files\"",
                )),
            }
        };
        let each = spec.each.as_deref().map(|at| pointer("each", at)).transpose()?;
        let content = match (&spec.at, &spec.url) {
            (Some(at), _) if at == "raw" => Some(Place::Raw),
            (Some(at), _) => Some(Place::Pointer(pointer("at", at)?)),
            (None, Some(_)) => None,
            // The elements of the list are the content.
            (None, None) if each.is_some() => Some(Place::Pointer(Vec::new())),
            (None, None) => {
                return Err(MappingError::missing(
                    format!("{key}.at"),
                    "say where the file is, e.g. at = \"/image\" for base64, or url = \"/image_url\"",
                ));
            }
        };
        if each.is_some() && matches!(content, Some(Place::Raw)) {
            return Err(MappingError::wrong(
                format!("{key}.at"),
                "raw",
                "the whole payload is no element of `each`",
                "write a JSON pointer that starts at an element, or leave `each` out",
            ));
        }
        let packing = spec.decode.unwrap_or_default();
        if packing == Packing::Bytes && !matches!(content, Some(Place::Raw)) {
            return Err(MappingError::wrong(
                format!("{key}.decode"),
                "bytes",
                "a JSON value never holds plain bytes",
                "write at = \"raw\" if the whole payload is the file, else \"base64\" or \"hex\"",
            ));
        }
        let max_size = spec.max_size.unwrap_or(ByteSize(DEFAULT_SIZE));
        if !(1..=MOST).contains(&max_size.0) {
            return Err(MappingError::wrong(
                format!("{key}.max_size"),
                max_size.to_string(),
                "no packet carries that",
                format!("write a size up to {}", ByteSize(MOST)),
            ));
        }
        Ok(Self {
            each,
            content,
            packing,
            url: extractor("url", spec.url.as_ref())?,
            name: extractor("name", spec.name.as_ref())?,
            mime: extractor("type", spec.mime.as_ref())?,
            max_size: max_size.0,
        })
    }

    fn largest_packet(&self) -> Option<u64> {
        self.content.as_ref()?;
        let packed = match self.packing {
            Packing::Base64 => self.max_size.div_ceil(3) * 4,
            Packing::Hex => self.max_size * 2,
            Packing::Bytes => self.max_size,
        };
        Some(packed + BESIDE)
    }

    /// Where the pointers start: the elements of `each`, or the payload (`None`).
    fn elements<'d>(&self, document: &'d Document<'_>) -> Result<Vec<Option<&'d Value>>, String> {
        if matches!(self.content, Some(Place::Raw)) {
            return Ok(vec![None]);
        }
        let json = document.json()?;
        let Some(each) = &self.each else {
            return Ok(vec![None]);
        };
        let mut found = Vec::new();
        find_all(json, each, &mut found);
        let mut elements = Vec::new();
        for value in found {
            match value {
                Value::Array(list) => elements.extend(list.iter().map(Some)),
                Value::Null => {}
                single => elements.push(Some(single)),
            }
        }
        Ok(elements)
    }

    /// The packed content; `None` when there is none.
    fn packed<'d>(
        &self,
        element: Option<&'d Value>,
        document: &'d Document<'_>,
    ) -> Result<Option<Cow<'d, [u8]>>, String> {
        let value = match &self.content {
            None => return Ok(None),
            Some(Place::Pointer(tokens)) => {
                let start = match element {
                    Some(element) => element,
                    None => document.json()?,
                };
                find(start, tokens)
            }
            Some(Place::Raw | Place::Text(_)) => {
                let payload = document.payload();
                return Ok((!payload.is_empty()).then_some(Cow::Borrowed(payload)));
            }
        };
        match value {
            None | Some(Value::Null | Value::Bool(false)) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(Cow::Borrowed(text.as_bytes()))),
            Some(Value::Number(_) | Value::Bool(true)) => Err("it is not a text".to_owned()),
            Some(other) => Err(format!("it is {}, not a text", kind(other))),
        }
    }

    /// A value beside the content.
    fn beside(
        extractor: Option<&Extractor>,
        element: Option<&Value>,
        document: &Document<'_>,
    ) -> Option<String> {
        let value = extractor?.get_from(element, document).ok()??;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn is_there(&self, element: Option<&Value>, document: &Document<'_>) -> bool {
        self.packed(element, document)
            .map_or(true, |content| content.is_some())
            || Self::beside(self.url.as_ref(), element, document).is_some()
    }

    fn read(&self, element: Option<&Value>, document: &Document<'_>, found: &mut Found) {
        let given = Self::beside(self.name.as_ref(), element, document);
        let given = given.as_deref();
        let link = || Self::beside(self.url.as_ref(), element, document);
        let link = match self.packed(element, document) {
            Ok(None) => link(),
            // Some devices put either the content or where to get it into one place.
            Ok(Some(text)) if is_link(&text) => Some(String::from_utf8_lossy(&text).into_owned()),
            packed => {
                let content = packed.and_then(|packed| self.unpack(&packed.unwrap_or_default()));
                match content {
                    Ok((bytes, inner)) => {
                        let claimed = Self::beside(self.mime.as_ref(), element, document).or(inner);
                        let mime = file::mime(&bytes, claimed.as_deref());
                        found.files.push(ReceivedAttachment {
                            name: file::name(given, &mime),
                            mime: mime.into_owned(),
                            bytes,
                        });
                        return;
                    }
                    Err(reason) => {
                        found
                            .lines
                            .push(format!("[a file{} was left out: {reason}]", quoted(given)));
                        link()
                    }
                }
            }
        };
        if let Some(link) = link {
            found.lines.push(link_line(&link, given));
        }
    }

    /// The content and the type that a `data:` URI claims.
    fn unpack(&self, packed: &[u8]) -> Result<(Vec<u8>, Option<String>), String> {
        let too_large = |size: usize| {
            let size = u64::try_from(size).unwrap_or(u64::MAX);
            (size > self.max_size).then(|| {
                let most = ByteSize(self.max_size).rounded();
                match ByteSize(size).rounded() {
                    same if same == most => {
                        format!("it has {size} bytes, and {} are the limit", self.max_size)
                    }
                    shown => format!("it has {shown}, and {most} are the limit"),
                }
            })
        };
        let (bytes, claimed) = match self.packing {
            Packing::Bytes => {
                if let Some(reason) = too_large(packed.len()) {
                    return Err(reason);
                }
                (packed.to_vec(), None)
            }
            Packing::Hex => {
                let digits = packed.trim_ascii();
                if let Some(reason) = too_large(digits.len() / 2) {
                    return Err(reason);
                }
                let bytes = HEXLOWER_PERMISSIVE.decode(digits);
                (bytes.map_err(|_| "it is not hexadecimal".to_owned())?, None)
            }
            Packing::Base64 => {
                let (text, claimed) = data_uri(packed)?;
                // The exact size matters only near the limit.
                if too_large(text.len() / 4 * 3).is_some()
                    && let Some(reason) = too_large(decoded_len(text))
                {
                    return Err(reason);
                }
                (base64(text)?, claimed)
            }
        };
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok((bytes, claimed))
    }
}

/// The base64 part of a `data:` URI (RFC 2397) with the type before it; anything else is all base64.
fn data_uri(packed: &[u8]) -> Result<(&[u8], Option<String>), String> {
    let text = packed.trim_ascii();
    let scheme = text.get(..5).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"data:") {
        return Ok((text, None));
    }
    let comma = text.iter().position(|c| *c == b',');
    let (head, content) = comma
        .and_then(|at| Some((text.get(5..at)?, text.get(at + 1..)?)))
        .ok_or("it is a data: URI without content")?;
    let head = String::from_utf8_lossy(head);
    let mut parts = head.split(';');
    let mime = parts.next().unwrap_or_default().trim().to_owned();
    if !parts.any(|part| part.trim().eq_ignore_ascii_case("base64")) {
        return Err("it is a data: URI without base64".to_owned());
    }
    Ok((content, Some(mime).filter(|mime| !mime.is_empty())))
}

/// How many bytes base64 stands for.
fn decoded_len(text: &[u8]) -> usize {
    let letters = text
        .iter()
        .filter(|c| !c.is_ascii_whitespace() && **c != b'=')
        .count();
    letters / 4 * 3 + (letters % 4).saturating_sub(1)
}

/// Reads base64 of either alphabet, with or without padding, with white space in it.
fn base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut rest = text.trim_ascii();
    while let Some(shorter) = rest.strip_suffix(b"=") {
        rest = shorter.trim_ascii_end();
    }
    let decoded = BASE64.as_ref().and_then(|base64| base64.decode(rest).ok());
    decoded.ok_or_else(|| "it is not base64".to_owned())
}

/// Whether a text is the base64 of a file whose bytes show what it is.
pub(super) fn recognised(text: &str) -> bool {
    data_uri(text.as_bytes())
        .and_then(|(text, _)| base64(text))
        .is_ok_and(|bytes| file::is_recognised(&bytes))
}

fn is_link(text: &[u8]) -> bool {
    let starts = |scheme: &[u8]| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    starts(b"https://") || starts(b"http://")
}

fn quoted(name: Option<&str>) -> String {
    name.map(|name| format!(" \"{}\"", file::clean_name(name)))
        .unwrap_or_default()
}

/// The gateway never fetches what a payload names: who may write to the device could make it read the local network.
fn link_line(link: &str, name: Option<&str>) -> String {
    let fits = is_link(link.as_bytes())
        && link.len() <= MAX_LINK
        && !link.contains(|c: char| c.is_control() || c.is_whitespace());
    if !fits {
        return format!(
            "[a file{} was left out: its address is no http or https link]",
            quoted(name)
        );
    }
    match name {
        Some(name) => format!("{}: {link}", file::clean_name(name)),
        None => link.to_owned(),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
