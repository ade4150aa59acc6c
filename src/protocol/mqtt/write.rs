//! Agents' answers as publishes: two templates.

use std::collections::BTreeMap;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::error::MappingError;
use super::spec::{OutSpec, PayloadFormat};
use super::topic::{MAX_TOPIC, fits_level};
use crate::domain::{ConversationId, MessageId, Outgoing, Route, Sequence};

/// What goes to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// 0 or 1.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// Why an answer cannot be written; the text is for a person and holds neither number nor text of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WriteError(String);

impl WriteError {
    pub(super) fn receive_only() -> Self {
        Self("the device only receives: its mapping has no `out`".to_owned())
    }
}

/// An [`OutSpec`], checked.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    topic: String,
    payload: String,
    format: PayloadFormat,
    qos: u8,
    retain: bool,
    vars: BTreeMap<String, String>,
}

impl Writer {
    /// Checks the templates by rendering them with sample values for every name that a conversation may carry.
    pub(super) fn compile(
        spec: &OutSpec,
        names: &[&str],
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, MappingError> {
        let topic = spec.topic.clone().ok_or_else(|| {
            MappingError::missing("out.topic", "write the topic on which the device takes messages")
        })?;
        let payload = spec.payload.clone().ok_or_else(|| {
            MappingError::missing("out.payload", "write e.g. '{\"to\":{{to}},\"text\":{{text}}}'")
        })?;
        let qos = spec.qos.unwrap_or(1);
        if qos > 1 {
            return Err(MappingError::wrong(
                "out.qos",
                qos.to_string(),
                "the gateway sends with QoS 0 or 1",
                "use 1",
            ));
        }
        let writer = Self {
            topic,
            payload,
            format: spec.format.unwrap_or_default(),
            qos,
            retain: spec.retain.unwrap_or(false),
            vars: vars.clone(),
        };
        let known = || {
            let mut known = vec!["to", "text", "id", "uuid", "channel"];
            known.extend(vars.keys().map(String::as_str));
            known.extend(names);
            format!("the names are {}", known.join(", "))
        };
        let remedy = |error: &Error| {
            match error.kind() {
            ErrorKind::UndefinedError => known(),
            _ => "write {{name}} or {{name|filter}}; the filters are `digits`, `int`, `base64`, `hex` and `node`"
                .to_owned(),
        }
        };
        let route: Route = names
            .iter()
            .map(|name| ((*name).to_owned(), "1".to_owned()))
            .collect();
        let values = Values {
            to: "15550100",
            text: "a \"sample\"\n",
            id: MessageId {
                conversation: ConversationId(1),
                sequence: Sequence(2),
            },
            channel: "sample",
            route: &route,
        };
        writer.render_topic(&values).map_err(|error| {
            MappingError::wrong("out.topic", &writer.topic, template_words(&error), remedy(&error))
        })?;
        let payload = writer.render_payload(&values).map_err(|error| {
            MappingError::wrong(
                "out.payload",
                &writer.payload,
                template_words(&error),
                remedy(&error),
            )
        })?;
        if writer.format == PayloadFormat::Json
            && serde_json::from_str::<serde_json::Value>(&payload).is_err()
        {
            return Err(MappingError::wrong(
                "out.payload",
                &writer.payload,
                "it does not become JSON when it is filled in",
                "write {{text}} without quotes around it (it brings its own), or set `format = \"text\"`",
            ));
        }
        Ok(writer)
    }

    pub(super) fn write(&self, message: &Outgoing) -> Result<Publish, WriteError> {
        let values = Values {
            to: message.to.as_str(),
            text: &message.text,
            id: message.id,
            channel: message.channel.as_str(),
            route: &message.route,
        };
        let refused = |key: &str, error: &Error| {
            WriteError(match error.kind() {
                ErrorKind::UndefinedError => format!(
                    "the template `out.{key}` needs a value from the topic of the customer's messages, and this \
                     conversation has none yet; give it a value in `vars`"
                ),
                _ => format!(
                    "the template `out.{key}` cannot be filled in: {}",
                    template_words(error)
                ),
            })
        };
        let topic = self
            .render_topic(&values)
            .map_err(|error| refused("topic", &error))?;
        let payload = self
            .render_payload(&values)
            .map_err(|error| refused("payload", &error))?;
        let fits = !topic.is_empty() && topic.len() <= MAX_TOPIC && !topic.contains(['+', '#', '\0']);
        if !fits {
            return Err(WriteError(
                "the template `out.topic` gives a topic that cannot be published to".to_owned(),
            ));
        }
        Ok(Publish {
            topic,
            payload: payload.into_bytes(),
            qos: self.qos,
            retain: self.retain,
        })
    }

    fn render_topic(&self, values: &Values<'_>) -> Result<String, Error> {
        let mut environment = environment(AutoEscape::None);
        // Values of `vars` are the installer's and may span levels; everything else comes from outside and must
        // not be able to choose another topic.
        environment.remove_filter("safe");
        environment.set_formatter(|out, _, value| {
            let text = value.to_string();
            if value.is_undefined() {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            if !value.is_safe() && !fits_level(&text) {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "a value is empty or holds '/', '+', '#' or a control character; the filter `digits` keeps \
                     only the digits of a number",
                ));
            }
            out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
        });
        environment.render_str(
            &self.topic,
            self.context(values, |text| Value::from_safe_string(text.to_owned())),
        )
    }

    fn render_payload(&self, values: &Values<'_>) -> Result<String, Error> {
        let escape = match self.format {
            PayloadFormat::Json => AutoEscape::Json,
            PayloadFormat::Text => AutoEscape::None,
        };
        environment(escape).render_str(&self.payload, self.context(values, |text| Value::from(text)))
    }

    fn context(&self, values: &Values<'_>, var: fn(&str) -> Value) -> Value {
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        context.extend(
            values
                .route
                .iter()
                .map(|(name, value)| (name.as_str(), Value::from(value.as_str()))),
        );
        context.extend(self.vars.iter().map(|(name, value)| (name.as_str(), var(value))));
        context.insert("to", Value::from(values.to));
        context.insert("text", Value::from(values.text));
        context.insert("id", Value::from(values.id.to_string()));
        context.insert("uuid", Value::from(uuid(values.id)));
        context.insert("channel", Value::from(values.channel));
        Value::from(context)
    }
}

struct Values<'a> {
    to: &'a str,
    text: &'a str,
    id: MessageId,
    channel: &'a str,
    route: &'a Route,
}

fn environment(escape: AutoEscape) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(move |_| escape.clone());
    environment.add_test("startingwith", |text: String, start: String| {
        text.starts_with(&start)
    });
    environment.add_filter("digits", |text: String| {
        text.chars().filter(char::is_ascii_digit).collect::<String>()
    });
    environment.add_filter("base64", |text: String| {
        data_encoding::BASE64.encode(text.as_bytes())
    });
    environment.add_filter("hex", |text: String| {
        data_encoding::HEXLOWER.encode(text.as_bytes())
    });
    environment.add_filter("node", |text: String| {
        let number = match text.strip_prefix('!') {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        number.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a value is not the id of a node"))
    });
    environment.add_filter("int", |text: String| {
        text.trim()
            .parse::<i64>()
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "a value is not a whole number"))
    });
    environment
}

/// The detail of an error without values: those may be personal data.
fn template_words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::UndefinedError => "it uses a name that is not there".to_owned(),
        ErrorKind::SyntaxError => format!(
            "it is not a template: {}",
            error.detail().unwrap_or("syntax error")
        ),
        ErrorKind::UnknownFilter => {
            format!(
                "{}; there are `digits`, `int`, `base64`, `hex` and `node`",
                error.detail().unwrap_or("unknown filter")
            )
        }
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    }
}

/// The 128 bits of a message's id as a UUID, for devices that take only those.
pub(super) fn uuid(id: MessageId) -> String {
    let hex = format!("{:016x}{:016x}", id.conversation.0, id.sequence.0);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// A message's id as a device repeats it: as `{{id}}` or as `{{uuid}}`, in any case.
pub(super) fn parse_reference(text: &str) -> Option<MessageId> {
    let text = text.trim().to_ascii_lowercase();
    if let Ok(id) = text.parse() {
        return Some(id);
    }
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    if hex.len() != 32 || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    Some(MessageId {
        conversation: ConversationId(u64::from_str_radix(hex.get(..16)?, 16).ok()?),
        sequence: Sequence(u64::from_str_radix(hex.get(16..)?, 16).ok()?),
    })
}
