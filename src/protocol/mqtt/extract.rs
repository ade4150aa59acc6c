//! Values out of a topic and a payload.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use data_encoding::{BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use serde_json::Value;

use super::error::MappingError;
use super::spec::{Condition, Decode, Extract, OneOrMany, Scalar};
use super::topic::fill_vars;

/// One packet, parsed as JSON at most once.
pub(super) struct Document<'a> {
    payload: &'a [u8],
    captures: &'a BTreeMap<String, String>,
    json: OnceCell<Result<Value, String>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(payload: &'a [u8], captures: &'a BTreeMap<String, String>) -> Self {
        Self {
            payload,
            captures,
            json: OnceCell::new(),
        }
    }

    /// The payload as it came.
    pub(super) const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload as JSON.
    pub(super) fn json(&self) -> Result<&Value, String> {
        self.json
            .get_or_init(|| {
                serde_json::from_slice(self.payload).map_err(|error| {
                    if self.payload.is_empty() {
                        "the payload is empty".to_owned()
                    } else if std::str::from_utf8(self.payload).is_err() {
                        "the payload is binary, not JSON".to_owned()
                    } else {
                        format!(
                            "the payload is not JSON (line {}, column {})",
                            error.line(),
                            error.column()
                        )
                    }
                })
            })
            .as_ref()
            .map_err(Clone::clone)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Tokens of a JSON pointer; `*` stands for any element of an array.
    Pointer(Vec<String>),
    /// Literal text and captures.
    Text(String),
    /// The payload.
    Raw,
}

/// An [`Extract`], checked.
#[derive(Clone, Debug)]
pub(super) struct Extractor {
    spelling: String,
    place: Place,
    decode: Decode,
}

impl Extractor {
    pub(super) fn compile(
        key: &str,
        spec: &Extract,
        names: &[&str],
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, MappingError> {
        Ok(Self {
            spelling: spec.at.clone(),
            place: compile_place(key, &spec.at, names, vars)?,
            decode: spec.decode,
        })
    }

    /// Where the value is looked for, for people.
    pub(super) fn spelling(&self) -> &str {
        &self.spelling
    }

    /// The value; `None` when it is not there (or `null`).
    pub(super) fn get(&self, document: &Document<'_>) -> Result<Option<String>, String> {
        self.get_from(None, document)
    }

    /// The value, with pointers that start at `element` instead of the payload.
    pub(super) fn get_from(
        &self,
        element: Option<&Value>,
        document: &Document<'_>,
    ) -> Result<Option<String>, String> {
        let text = match &self.place {
            Place::Raw if self.decode == Decode::Utf8 => {
                let text = std::str::from_utf8(document.payload);
                return text
                    .map(|text| Some(text.to_owned()))
                    .map_err(|_| "the payload is binary, not text".to_owned());
            }
            Place::Raw => String::from_utf8_lossy(document.payload).into_owned(),
            Place::Text(text) => fill_vars(text, document.captures),
            Place::Pointer(tokens) => match find(element.map_or_else(|| document.json(), Ok)?, tokens) {
                None | Some(Value::Null) => return Ok(None),
                Some(value) => scalar_text(value)
                    .ok_or_else(|| format!("{} is {}, not a text", self.spelling, kind(value)))?,
            },
        };
        self.unpack(&text).map(Some)
    }

    /// Every value where `*` stands for each element, not only the first.
    pub(super) fn each(&self, document: &Document<'_>) -> Result<Vec<String>, String> {
        let Place::Pointer(tokens) = &self.place else {
            return Ok(self.get(document)?.into_iter().collect());
        };
        let mut found = Vec::new();
        find_all(document.json()?, tokens, &mut found);
        found
            .into_iter()
            .filter_map(scalar_text)
            .map(|text| self.unpack(&text))
            .collect()
    }

    /// The value; it is an error when it is not there.
    pub(super) fn require(&self, key: &str, document: &Document<'_>) -> Result<String, String> {
        self.get(document)
            .and_then(|value| value.ok_or_else(|| format!("there is no {} in the payload", self.spelling)))
            .map_err(|reason| format!("`{key}` cannot be read: {reason}"))
    }

    fn unpack(&self, text: &str) -> Result<String, String> {
        let bytes = match self.decode {
            Decode::Utf8 => return Ok(text.to_owned()),
            Decode::Base64 => {
                let plain: String = text
                    .chars()
                    .filter(|c| !c.is_ascii_whitespace() && *c != '=')
                    .map(|c| match c {
                        '-' => '+',
                        '_' => '/',
                        other => other,
                    })
                    .collect();
                BASE64_NOPAD
                    .decode(plain.as_bytes())
                    .map_err(|_| format!("{} is not base64", self.spelling))?
            }
            Decode::Node => {
                let number: u32 = text
                    .trim()
                    .parse()
                    .map_err(|_| format!("{} is not the number of a node", self.spelling))?;
                return Ok(format!("!{number:08x}"));
            }
            Decode::Hex => HEXLOWER_PERMISSIVE
                .decode(text.trim().as_bytes())
                .map_err(|_| format!("{} is not hexadecimal", self.spelling))?,
        };
        let text =
            String::from_utf8(bytes).map_err(|_| format!("{} holds binary data, not text", self.spelling))?;
        // Small devices send fixed-size buffers.
        Ok(text.trim_end_matches('\0').to_owned())
    }
}

pub(super) fn compile_place(
    key: &str,
    at: &str,
    names: &[&str],
    vars: &BTreeMap<String, String>,
) -> Result<Place, MappingError> {
    if at == "raw" {
        return Ok(Place::Raw);
    }
    if let Some(pointer) = at.strip_prefix('/') {
        let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
        return Ok(Place::Pointer(pointer.split('/').map(unescape).collect()));
    }
    if !at.contains('{') {
        return Err(MappingError::wrong(
            key,
            at,
            "this is not a place in the payload",
            format!("write a JSON pointer such as \"/{at}\", a capture such as \"{{name}}\", or \"raw\""),
        ));
    }
    let filled = fill_vars(at, vars);
    let mut rest = filled.as_str();
    while let Some((_, tail)) = rest.split_once('{') {
        let Some((name, after)) = tail.split_once('}') else {
            return Err(MappingError::wrong(
                key,
                at,
                "a brace is not closed",
                "write \"{name}\"",
            ));
        };
        if !names.contains(&name) {
            let remedy = if names.is_empty() {
                "name a level of the topic, e.g. `topic = \"sms/{number}\"`".to_owned()
            } else {
                format!("use one of {}, or give it a value in `vars`", names.join(", "))
            };
            return Err(MappingError::wrong(
                key,
                at,
                format!("the topic has no level named {name:?}"),
                remedy,
            ));
        }
        rest = after;
    }
    Ok(Place::Text(filled))
}

pub(super) fn find<'v>(value: &'v Value, tokens: &[String]) -> Option<&'v Value> {
    let Some((token, rest)) = tokens.split_first() else {
        return Some(value);
    };
    match value {
        Value::Object(map) => find(map.get(token)?, rest),
        Value::Array(list) if token == "*" => list
            .iter()
            .find_map(|element| find(element, rest).filter(|found| !found.is_null())),
        Value::Array(list) => find(list.get(token.parse::<usize>().ok()?)?, rest),
        _ => None,
    }
}

pub(super) fn find_all<'v>(value: &'v Value, tokens: &[String], found: &mut Vec<&'v Value>) {
    let Some((token, rest)) = tokens.split_first() else {
        found.push(value);
        return;
    };
    match value {
        Value::Array(list) if token == "*" => list.iter().for_each(|element| find_all(element, rest, found)),
        _ => {
            if let Some(next) = find(value, std::slice::from_ref(token)) {
                find_all(next, rest, found);
            }
        }
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
        _ => "empty",
    }
}

/// A [`Condition`], checked.
#[derive(Clone, Debug)]
pub(super) struct Check {
    at: Extractor,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    OneOf(Vec<Scalar>),
    NoneOf(Vec<Scalar>),
    Exists(bool),
}

impl Check {
    pub(super) fn compile(
        key: &str,
        spec: &Condition,
        names: &[&str],
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, MappingError> {
        let at = Extract {
            at: spec.at.clone(),
            decode: spec.decode,
        };
        let values = |values: &OneOrMany<Scalar>| -> Vec<Scalar> {
            let filled = |value: &Scalar| match value {
                Scalar::Text(text) => Scalar::Text(fill_vars(text, vars)),
                other => other.clone(),
            };
            values.0.iter().map(filled).collect()
        };
        let test = match (&spec.eq, &spec.ne, spec.exists) {
            (Some(list), None, None) => Test::OneOf(values(list)),
            (None, Some(list), None) => Test::NoneOf(values(list)),
            (None, None, Some(exists)) => Test::Exists(exists),
            _ => {
                return Err(MappingError::wrong(
                    key,
                    spec.at.clone(),
                    "a condition needs exactly one of `eq`, `ne` and `exists`",
                    "write e.g. { at = \"/type\", eq = \"received\" }",
                ));
            }
        };
        Ok(Self {
            at: Extractor::compile(key, &at, names, vars)?,
            test,
        })
    }

    /// Whether the condition holds. An error when that cannot be told, because the payload is not readable at all.
    pub(super) fn holds(&self, document: &Document<'_>) -> Result<bool, String> {
        let found = match &self.at.place {
            Place::Pointer(tokens) if self.at.decode == Decode::Utf8 => {
                find(document.json()?, tokens).filter(|value| !value.is_null())
            }
            Place::Pointer(_) | Place::Text(_) | Place::Raw => {
                let text = self.at.get(document)?;
                return Ok(self
                    .test
                    .holds(text.as_deref(), text.is_some(), document.captures));
            }
        };
        let text = found.and_then(scalar_text);
        Ok(self
            .test
            .holds(text.as_deref(), found.is_some(), document.captures))
    }

    /// The condition in words.
    pub(super) fn words(&self) -> String {
        let list = |values: &[Scalar]| {
            values
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" or ")
        };
        let at = &self.at.spelling;
        match &self.test {
            Test::OneOf(values) => format!("{at} is not {}", list(values)),
            Test::NoneOf(values) => format!("{at} is {}", list(values)),
            Test::Exists(true) => format!("there is no {at}"),
            Test::Exists(false) => format!("there is a {at}"),
        }
    }
}

impl Test {
    fn holds(&self, text: Option<&str>, exists: bool, captures: &BTreeMap<String, String>) -> bool {
        let among = |values: &[Scalar]| {
            text.is_some_and(|text| {
                values.iter().any(|value| match value {
                    Scalar::Bool(flag) => text == if *flag { "true" } else { "false" },
                    Scalar::Integer(number) => text.parse() == Ok(*number),
                    Scalar::Text(expected) if expected.contains('{') => text == fill_vars(expected, captures),
                    Scalar::Text(expected) => text == expected,
                })
            })
        };
        match self {
            Self::OneOf(values) => among(values),
            Self::NoneOf(values) => !among(values),
            Self::Exists(expected) => exists == *expected,
        }
    }
}
