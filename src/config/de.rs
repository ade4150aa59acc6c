//! Gives the merged tree its type through serde, and says where it does not fit.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, Unexpected, Visitor};

use super::source::{Findings, Place, Sources, names_a_secret, nearest};
use super::tree::{Entry, Node, Step, Value};

/// Why a value does not fit.
#[derive(Debug)]
pub(super) struct Misfit {
    what: What,
    at: Option<Place>,
    /// Keys from the inside to the outside.
    path: Vec<Step>,
}

#[derive(Debug)]
enum What {
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    UnknownWord {
        word: String,
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    WrongKind {
        found: String,
        expected: String,
    },
    Other(String),
}

impl Misfit {
    fn new(what: What) -> Self {
        Self {
            what,
            at: None,
            path: Vec::new(),
        }
    }

    fn placed(mut self, place: &Place) -> Self {
        self.at.get_or_insert_with(|| place.clone());
        self
    }

    fn inside(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe().0)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(What::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(_) => "a text".to_owned(),
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => "a whole number".to_owned(),
            Unexpected::Float(_) => "a number with a fraction".to_owned(),
            Unexpected::Bool(_) => "true or false".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a table".to_owned(),
            other => other.to_string(),
        };
        Self::new(What::WrongKind {
            found,
            expected: in_words(&expected.to_string()),
        })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = in_words(&expected.to_string());
        match found {
            Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Bool(_) => {
                let found = found.to_string();
                let found = found.split('`').nth(1).unwrap_or("this").to_owned();
                Self::new(What::WrongKind { found, expected })
            }
            _ => Self::new(What::Other(format!("expected {expected}"))),
        }
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey {
            key: key.to_owned(),
            known,
        })
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::UnknownWord {
            word: word.to_owned(),
            known,
        })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(What::MissingKey(key))
    }
}

/// What serde's visitors expect, in words for someone who does not write Rust.
fn in_words(expected: &str) -> String {
    match expected {
        "a string" | "string" => "a text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "path string" => "a path in quotes".to_owned(),
        text if text.starts_with("struct ") => "a table".to_owned(),
        text => text.to_owned(),
    }
}

impl Misfit {
    /// Message and hint.
    fn describe(&self) -> (String, Option<String>) {
        let key = self.path.iter().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        match &self.what {
            What::UnknownKey { key, .. } if names_a_secret(key) => (
                format!("{key:?} does not belong in the configuration: it is a secret"),
                Some(secret_remedy(key)),
            ),
            What::UnknownKey { key, known } => (format!("unknown key {key:?}"), suggestion(key, known)),
            What::UnknownWord { word, known } => {
                let of = key.map(|key| format!(" for {key:?}")).unwrap_or_default();
                (format!("unknown value {word:?}{of}"), suggestion(word, known))
            }
            What::MissingKey(key) => (format!("the key {key:?} is missing"), None),
            What::WrongKind { found, expected } => match key {
                Some(key) => (format!("{key:?} must be {expected}, not {found}"), None),
                None => (format!("expected {expected}, found {found}"), None),
            },
            What::Other(message) => match key {
                Some(key) => (format!("{key:?} cannot be used: {message}"), None),
                None => (message.clone(), None),
            },
        }
    }
}

fn suggestion(word: &str, known: &[&str]) -> Option<String> {
    if let Some(meant) = nearest(word, known.iter().copied()) {
        return Some(format!("did you mean {meant:?}?"));
    }
    let list: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
    (!list.is_empty()).then(|| format!("known here: {}", list.join(", ")))
}

/// How to give the gateway the secret that someone wrote into the configuration.
fn secret_remedy(key: &str) -> String {
    let (file_key, credential) = match key {
        "access_token" | "token" => ("access_token_file", "access-token"),
        "client_secret" | "secret" => ("client_secret_file", "client-secret"),
        "pin" => ("pin_file", "modem-<name>-pin"),
        _ => ("password_file", "broker-<name>-password"),
    };
    format!(
        "write it to a file that only the service can read and name that file with {file_key} = \"…\", \
         or pass it as the systemd credential {credential:?}; then change the secret, it was readable here"
    )
}

/// Gives one table its type. Every misfit becomes a finding: a key that does not fit is reported and left out,
/// and the rest is tried again, so that one mistake does not hide the next. `None` when nothing usable is left.
pub(super) fn typed<T: DeserializeOwned>(node: &Node, findings: &mut Findings) -> Option<T> {
    let mut node = node.clone();
    let mut left_out: Vec<String> = Vec::new();
    loop {
        let misfit = match T::deserialize(Reader {
            node: &node,
            sources: &findings.sources,
        }) {
            Ok(value) => return Some(value),
            Err(misfit) => misfit,
        };
        // A key that was left out as unusable was reported already.
        if let (What::MissingKey(key), true) = (&misfit.what, misfit.path.is_empty())
            && left_out.iter().any(|left_out| left_out == key)
        {
            return None;
        }
        let (message, hint) = misfit.describe();
        findings.error(misfit.at.as_ref(), message, hint);
        let outermost = match (misfit.path.last(), misfit.what) {
            (Some(Step::Key(key)), _) => key.clone(),
            (_, What::UnknownKey { key, .. }) => key,
            _ => return None,
        };
        node.remove(&outermost)?;
        left_out.push(outermost);
    }
}

/// Reads one node as serde data.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    sources: &'a Sources,
}

impl<'a> Reader<'a> {
    fn with(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    /// The text of a variable of the environment: it has no type of its own.
    fn untyped(self) -> Option<&'a str> {
        self.node
            .text()
            .filter(|_| self.sources.is_variable(&self.node.at))
    }

    fn place<T>(self, result: Result<T, Misfit>) -> Result<T, Misfit> {
        result.map_err(|misfit| misfit.placed(&self.node.at))
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::HugeInteger(_) => Err(Misfit::new(What::Other("the number is too large".to_owned()))),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Time(_) => Err(Misfit::new(What::WrongKind {
                found: "a date or time".to_owned(),
                expected: "a text in quotes".to_owned(),
            })),
            Value::List(items) => visitor.visit_seq(Items {
                reader: self,
                items: items.iter().enumerate(),
            }),
            Value::Table(entries) => visitor.visit_map(Entries {
                reader: self,
                rest: entries.iter(),
                current: None,
            }),
        }
    }
}

macro_rules! from_text {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            match self.untyped().map(|text| text.trim().parse::<$type>()) {
                Some(Ok(value)) => self.place(visitor.$visit(value)),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.place(self.visit(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.place(visitor.visit_some(self))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.place(visitor.visit_newtype_struct(self))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let access = match &self.node.value {
            Value::Text(word) => Variant {
                word,
                place: &self.node.at,
                content: None,
            },
            Value::Table(entries) => match entries.as_slice() {
                [Entry { key, key_at, node }] => Variant {
                    word: key,
                    place: key_at,
                    content: Some(self.with(node)),
                },
                _ => return self.place(Err(de::Error::invalid_type(Unexpected::Map, &"a text in quotes"))),
            },
            _ => {
                let what = What::WrongKind {
                    found: self.node.kind().to_owned(),
                    expected: "a text in quotes".to_owned(),
                };
                return self.place(Err(Misfit::new(what)));
            }
        };
        self.place(visitor.visit_enum(access))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let Some(text) = self.untyped() else {
            return self.deserialize_any(visitor);
        };
        let items: Vec<Node> = text
            .split(',')
            .map(|item| Node {
                value: Value::Text(item.trim().to_owned()),
                at: self.node.at.clone(),
            })
            .collect();
        self.place(visitor.visit_seq(Items {
            reader: self,
            items: items.iter().enumerate(),
        }))
    }

    from_text! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i64 i64, deserialize_i16 visit_i64 i64, deserialize_i32 visit_i64 i64,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_i64 i64, deserialize_u16 visit_i64 i64,
        deserialize_u32 visit_i64 i64, deserialize_u64 visit_i64 i64,
        deserialize_f32 visit_f64 f64, deserialize_f64 visit_f64 f64
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a, I> {
    reader: Reader<'a>,
    items: I,
}

impl<'de, 'b, I: Iterator<Item = (usize, &'b Node)>> de::SeqAccess<'de> for Items<'_, I> {
    type Error = Misfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let reader = Reader {
            node,
            sources: self.reader.sources,
        };
        seed.deserialize(reader)
            .map(Some)
            .map_err(|misfit| misfit.placed(&node.at).inside(Step::Index(index)))
    }
}

struct Entries<'a> {
    reader: Reader<'a>,
    rest: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Misfit;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        self.current = self.rest.next();
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key = de::value::StrDeserializer::<Misfit>::new(&entry.key);
        seed.deserialize(key)
            .map(Some)
            .map_err(|misfit| misfit.placed(&entry.key_at))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Misfit> {
        let Some(entry) = self.current else {
            return Err(de::Error::custom("value before its key"));
        };
        seed.deserialize(self.reader.with(&entry.node))
            .map_err(|misfit| misfit.placed(&entry.node.at).inside(Step::Key(entry.key.clone())))
    }
}

struct Variant<'a> {
    word: &'a str,
    place: &'a Place,
    content: Option<Reader<'a>>,
}

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Misfit;
    type Variant = Content<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), Misfit> {
        let word = de::value::StrDeserializer::<Misfit>::new(self.word);
        let variant = seed
            .deserialize(word)
            .map_err(|misfit| misfit.placed(self.place))?;
        Ok((variant, Content(self.content)))
    }
}

struct Content<'a>(Option<Reader<'a>>);

impl Content<'_> {
    fn reader(&self) -> Result<Reader<'_>, Misfit> {
        self.0
            .ok_or_else(|| Misfit::new(What::Other("this word needs a value".to_owned())))
    }
}

impl<'de> de::VariantAccess<'de> for Content<'_> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(Misfit::new(What::Other("this word takes no value".to_owned()))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Misfit> {
        seed.deserialize(self.reader()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.reader()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.reader()?.deserialize_any(visitor)
    }
}
