//! The merged configuration before it has a type: values that know where they were written.

use toml::de::{DeTable, DeValue};

use super::source::Place;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// A whole number that does not fit into 64 bits.
    HugeInteger(String),
    Float(f64),
    Bool(bool),
    /// A date or time: no key takes one.
    Time(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Place,
    pub(super) node: Node,
}

/// One step from a table or list to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl Node {
    pub(super) fn empty_table() -> Self {
        Self {
            value: Value::Table(Vec::new()),
            at: Place::default(),
        }
    }

    /// Reads one TOML text. The error is not yet located in its source.
    pub(super) fn parse(text: &str, source: usize) -> Result<Self, toml::de::Error> {
        let table = DeTable::parse(text)?;
        let at = Place {
            source,
            span: table.span(),
        };
        Ok(Self {
            value: from_table(table.get_ref(), source),
            at,
        })
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Takes a key out of a table.
    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let Value::Table(entries) = &mut self.value else {
            return None;
        };
        let at = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(at))
    }

    /// The node at `path`, or the deepest one above it that exists.
    pub(super) fn nearest(&self, path: &[Step]) -> &Self {
        let Some((first, rest)) = path.split_first() else {
            return self;
        };
        let child = match first {
            Step::Key(key) => self.get(key),
            Step::Index(index) => self.items().get(*index),
        };
        child.map_or(self, |child| child.nearest(rest))
    }

    /// Lays a later source over this one: tables merge, `[[…]]` of the first level are appended, anything else
    /// is replaced.
    pub(super) fn merge(&mut self, later: Self) {
        self.merge_at(later, 0);
    }

    fn merge_at(&mut self, later: Self, depth: usize) {
        match (&mut self.value, later.value) {
            (Value::Table(entries), Value::Table(later_entries)) => {
                for entry in later_entries {
                    match entries.iter_mut().find(|e| e.key == entry.key) {
                        Some(existing) => existing.node.merge_at(entry.node, depth + 1),
                        None => entries.push(entry),
                    }
                }
            }
            (Value::List(items), Value::List(later_items))
                if depth == 1
                    && later_items
                        .iter()
                        .all(|item| matches!(item.value, Value::Table(_))) =>
            {
                items.extend(later_items);
            }
            (_, value) => *self = Self { value, at: later.at },
        }
    }

    /// The same value for the toml crate; places are lost.
    pub(super) fn to_toml(&self) -> toml::Value {
        match &self.value {
            Value::Text(text) | Value::Time(text) | Value::HugeInteger(text) => {
                toml::Value::String(text.clone())
            }
            Value::Integer(number) => toml::Value::Integer(*number),
            Value::Float(number) => toml::Value::Float(*number),
            Value::Bool(value) => toml::Value::Boolean(*value),
            Value::List(items) => toml::Value::Array(items.iter().map(Self::to_toml).collect()),
            Value::Table(entries) => toml::Value::Table(
                entries
                    .iter()
                    .map(|e| (e.key.clone(), e.node.to_toml()))
                    .collect(),
            ),
        }
    }

    /// What kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a text",
            Value::Integer(_) | Value::HugeInteger(_) => "a whole number",
            Value::Float(_) => "a number with a fraction",
            Value::Bool(_) => "true or false",
            Value::Time(_) => "a date or time",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

fn from_table(table: &DeTable<'_>, source: usize) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_at: Place {
                source,
                span: key.span(),
            },
            node: Node {
                value: from_value(value.get_ref(), source),
                at: Place {
                    source,
                    span: value.span(),
                },
            },
        })
        .collect();
    // The toml crate sorts by name; findings are better read in the order of the file.
    entries.sort_unstable_by_key(|entry| entry.key_at.span.start);
    Value::Table(entries)
}

fn from_value(value: &DeValue<'_>, source: usize) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::HugeInteger(number.as_str().to_owned()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or(Value::Float(f64::NAN), Value::Float),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::Time(time.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node {
                    value: from_value(item.get_ref(), source),
                    at: Place {
                        source,
                        span: item.span(),
                    },
                })
                .collect(),
        ),
        DeValue::Table(table) => from_table(table, source),
    }
}
