//! `ModemManager` on the message bus (zbus): calls with a limit, and what comes back in plain types.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{
    Array, Connection, DBusError, DynamicType, MatchRule, Message, MessageStream, ObjectPath,
    OwnedObjectPath, OwnedVariant, Structure, Variant,
};

/// The name on the bus.
const SERVICE: &str = "org.freedesktop.ModemManager1";
/// Where its objects begin.
const ROOT: &str = "/org/freedesktop/ModemManager1";
/// For answers that need nobody else.
pub(super) const QUICK: Duration = Duration::from_secs(20);
/// For the connection to the bus.
const CONNECT: Duration = Duration::from_secs(10);

/// An interface's properties.
pub(super) type Properties = HashMap<String, OwnedVariant>;
/// An object's interfaces.
pub(super) type Interfaces = HashMap<String, Properties>;
/// Objects by path.
pub(super) type Objects = HashMap<OwnedObjectPath, Interfaces>;

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallError {
    /// The error's name on the bus; empty when no answer came.
    pub(super) name: String,
    /// For a person.
    pub(super) text: String,
}

impl CallError {
    fn silent(text: String) -> Self {
        Self {
            name: String::new(),
            text,
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.name.rsplit('.').next().unwrap_or_default();
        match (short, self.text.as_str()) {
            ("", text) => f.write_str(text),
            (short, "") => f.write_str(short),
            (short, text) => write!(f, "{text} ({short})"),
        }
    }
}

impl From<zbus::Error> for CallError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => Self {
                name: name.as_str().to_owned(),
                text: text.unwrap_or_default(),
            },
            zbus::Error::FDO(error) => Self {
                name: error.name().as_str().to_owned(),
                text: error.description().unwrap_or_default().to_owned(),
            },
            error => Self::silent(format!("the message bus gives no answer: {error}")),
        }
    }
}

/// What the signals of `ModemManager` said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Signals.
    pub(super) signals: u64,
    /// Starts and ends of the program.
    pub(super) owners: u32,
}

/// A connection to the bus.
#[derive(Clone)]
pub(super) struct Bus(Connection);

impl Bus {
    /// Connects to a bus; `None` for the system's.
    pub(super) async fn connect(address: Option<&str>) -> Result<Self, String> {
        let builder = match address {
            Some(address) => Builder::address(address),
            None => Builder::system(),
        };
        match timeout(CONNECT, builder.build()).await {
            Ok(Ok(connection)) => Ok(Self(connection)),
            Ok(Err(error)) => Err(format!(
                "cannot connect to the message bus: {error}; does dbus run, and may the service use its socket?"
            )),
            Err(_) => Err("the message bus does not answer".to_owned()),
        }
    }

    /// Listens to signals.
    pub(super) async fn listen(&self) -> Result<Signals, CallError> {
        let of_manager = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SERVICE)
            .path_namespace(ROOT)
            .build()?;
        let of_owner = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg0ns(SERVICE)
            .build()?;
        Ok(Signals {
            manager: MessageStream::for_match_rule(of_manager, &self.0, None).await?,
            owner: MessageStream::for_match_rule(of_owner, &self.0, None).await?,
        })
    }

    /// Calls a method and waits for its answer.
    pub(super) async fn call<B: Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
        limit: Duration,
    ) -> Result<Message, CallError> {
        let call = self
            .0
            .call_method(Some(SERVICE), path, Some(interface), method, body);
        match timeout(limit, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CallError::silent(format!(
                "ModemManager does not answer within {} s",
                limit.as_secs()
            ))),
        }
    }

    /// Everything that `ModemManager` shows; it is started when it does not run.
    pub(super) async fn objects(&self) -> Result<Objects, CallError> {
        let interface = "org.freedesktop.DBus.ObjectManager";
        let answer = self
            .call(ROOT, interface, "GetManagedObjects", &(), QUICK)
            .await?;
        Ok(answer.body().deserialize()?)
    }

    /// The properties of an object that is not among [`Self::objects`]: a SIM, a message.
    pub(super) async fn properties(&self, path: &str, interface: &str) -> Result<Properties, CallError> {
        let of = "org.freedesktop.DBus.Properties";
        let answer = self.call(path, of, "GetAll", &interface, QUICK).await?;
        Ok(answer.body().deserialize()?)
    }

    /// Makes a message that can be sent; its path.
    pub(super) async fn create(&self, modem: &str, message: &NewMessage<'_>) -> Result<String, CallError> {
        let mut properties: HashMap<&str, Variant<'_>> = HashMap::new();
        properties.insert("number", Variant::from(message.number));
        properties.insert("text", Variant::from(message.text));
        if message.report {
            properties.insert("delivery-report-request", Variant::from(true));
        }
        if let Some(minutes) = message.validity {
            properties.insert("validity", Variant::from(minutes));
        }
        let answer = self
            .call(modem, super::MESSAGING, "Create", &(properties,), QUICK)
            .await?;
        Ok(answer.body().deserialize::<OwnedObjectPath>()?.to_string())
    }

    /// Deletes a message, in the modem's memory too.
    pub(super) async fn delete(&self, modem: &str, message: &str, limit: Duration) -> Result<(), CallError> {
        let path = ObjectPath::try_from(message)?;
        self.call(modem, super::MESSAGING, "Delete", &path, limit).await?;
        Ok(())
    }
}

/// What is to be sent.
pub(super) struct NewMessage<'a> {
    pub(super) number: &'a str,
    pub(super) text: &'a str,
    pub(super) report: bool,
    /// In minutes.
    pub(super) validity: Option<u32>,
}

/// Signals as they come.
pub(super) struct Signals {
    manager: MessageStream,
    owner: MessageStream,
}

impl Signals {
    /// Counts signals until the bus is gone.
    pub(super) async fn count(mut self, changes: &watch::Sender<Changes>) {
        loop {
            let is_owner = tokio::select! {
                signal = self.manager.next() => match signal {
                    Some(Ok(_)) => false,
                    Some(Err(_)) | None => return,
                },
                signal = self.owner.next() => match signal {
                    Some(Ok(_)) => true,
                    Some(Err(_)) | None => return,
                },
            };
            changes.send_modify(|changes| {
                changes.signals += 1;
                changes.owners += u32::from(is_owner);
            });
        }
    }
}

/// A text that says something.
pub(super) fn text(properties: &Properties, key: &str) -> Option<String> {
    let text = <&str>::try_from(properties.get(key)?).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn number(properties: &Properties, key: &str) -> Option<u32> {
    u32::try_from(properties.get(key)?).ok()
}

pub(super) fn signed(properties: &Properties, key: &str) -> Option<i32> {
    i32::try_from(properties.get(key)?).ok()
}

/// The path of another object; the root stands for none.
pub(super) fn object(properties: &Properties, key: &str) -> Option<String> {
    let path = <&ObjectPath<'_>>::try_from(properties.get(key)?).ok()?;
    (path.as_str() != "/").then(|| path.as_str().to_owned())
}

pub(super) fn objects(properties: &Properties, key: &str) -> Vec<String> {
    let paths = properties
        .get(key)
        .and_then(|value| <&Array<'_>>::try_from(value).ok());
    let path = |value: &Variant<'_>| match value {
        Variant::ObjectPath(path) => Some(path.as_str().to_owned()),
        _ => None,
    };
    paths
        .map(|paths| paths.iter().filter_map(path).collect())
        .unwrap_or_default()
}

pub(super) fn octets(properties: &Properties, key: &str) -> Vec<u8> {
    let octets = properties
        .get(key)
        .and_then(|value| <&Array<'_>>::try_from(value).ok());
    let octet = |value: &Variant<'_>| match value {
        Variant::U8(octet) => Some(*octet),
        _ => None,
    };
    octets
        .map(|octets| octets.iter().filter_map(octet).collect())
        .unwrap_or_default()
}

/// The first field of a structure, which is a number.
pub(super) fn first_number(properties: &Properties, key: &str) -> Option<u32> {
    let structure = <&Structure<'_>>::try_from(properties.get(key)?).ok()?;
    match structure.fields().first()? {
        Variant::U32(number) => Some(*number),
        _ => None,
    }
}

/// The first fields of structures in a list, which are texts.
pub(super) fn names(properties: &Properties, key: &str) -> Vec<String> {
    let entries = properties
        .get(key)
        .and_then(|value| <&Array<'_>>::try_from(value).ok());
    let name = |value: &Variant<'_>| match value {
        Variant::Structure(entry) => match entry.fields().first()? {
            Variant::Str(name) => Some(name.as_str().to_owned()),
            _ => None,
        },
        _ => None,
    };
    entries
        .map(|entries| entries.iter().filter_map(name).collect())
        .unwrap_or_default()
}
