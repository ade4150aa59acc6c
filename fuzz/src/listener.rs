//! The listener without its socket: from a connection's bytes to the bytes of its answers, with a real store.

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use pipepost::config::{self, Request};
use pipepost::domain::{Address, ReceivedMessage, Route};
use pipepost::manifest::Listener;
use pipepost::store::{Options, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::{NOW, two};

/// What stands for credentials and for the middle of a conversation's id in an input.
const AUTH: &[u8] = b"AUTH";
const CONVERSATION: &[u8] = b"CONV";

struct World {
    runtime: Runtime,
    listener: Listener,
    /// Without its prefix, as it also is in the ids of its messages and participants.
    conversation: String,
    folder: PathBuf,
}

static WORLD: LazyLock<Mutex<Option<World>>> = LazyLock::new(|| Mutex::new(build()));

fn build() -> Option<World> {
    let folder = std::env::temp_dir().join(format!("pipepost-fuzz-listener-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("state")).ok()?;
    let here = folder.display();
    let file = folder.join("pipepost.toml");
    let text = format!(
        r#"
[gateway]
id = "gw"
state_dir = "{here}/state"
control_socket = "{here}/control.sock"
[pipedrive]
client_id = "client"
client_secret_file = "{here}/secret"
public_url = "https://sms.example"
[listener]
bind = "127.0.0.1:0"
max_upload = "64 KiB"
[[broker]]
name = "site"
url = "mqtt://127.0.0.1:1"
[[device]]
name = "modem"
preset = "sms2mqtt"
[[channel]]
id = "desk"
name = "Desk"
kind = "mqtt"
device = "modem"
"#
    );
    std::fs::write(&file, text).ok()?;
    write_secret(&folder.join("secret")).ok()?;
    let config = config::load(&Request {
        file: Some(file),
        ..Request::default()
    })
    .config?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .ok()?;
    let mut options = Options::new(folder.join("state"));
    options.gateway_id.clone_from(&config.gateway.id);
    options.disk_reserve = 0;
    let store = Store::open(options).ok()?;
    let message = ReceivedMessage {
        channel: "desk".parse().ok()?,
        from: Address::new("+15550001")?,
        from_name: None,
        group: None,
        text: "hello".to_owned(),
        device_time: None,
        received_at: NOW,
        dedup: None,
        route: Route::new(),
        attachments: Vec::new(),
    };
    let stored = runtime.block_on(store.insert_incoming(message)).ok()?;
    let listener = runtime.block_on(Listener::bind(&config, store)).ok()?;
    Some(World {
        runtime,
        listener,
        conversation: stored.id().conversation.to_string().split_off(1),
        folder,
    })
}

fn write_secret(path: &std::path::Path) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(b"secret\n")
}

fn with_world<T>(work: impl FnOnce(&World) -> T) -> T {
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    work(
        world
            .as_ref()
            .expect("a store and a listener in the folder for temporary files"),
    )
}

/// An input with real credentials and a real conversation.
fn filled(world: &World, bytes: &[u8]) -> Vec<u8> {
    let bytes = replaced(bytes, AUTH, b"Authorization: Basic Y2xpZW50OnNlY3JldA==");
    replaced(&bytes, CONVERSATION, world.conversation.as_bytes())
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(to);
        rest = after.get(from.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// All bytes of one connection. Whatever comes, it ends, and what is answered is HTTP without a failure of ours.
pub fn http(bytes: &[u8]) {
    let answer = exchange(bytes);
    let text = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
    assert!(!text.contains("HTTP/1.1 5"), "{text}");
}

/// What the listener answers on one connection.
pub fn exchange(bytes: &[u8]) -> Vec<u8> {
    with_world(|world| {
        let bytes = filled(world, bytes);
        world.runtime.block_on(talk(world, &bytes))
    })
}

async fn talk(world: &World, bytes: &[u8]) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let client = async move {
        let mut answer = Vec::new();
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        // The gateway may hang up before it has read everything. Nobody says goodbye to it: its own limits end
        // what is left.
        let sending = async { writer.write_all(bytes).await.is_ok() };
        let (_sent, _read) = tokio::join!(sending, reader.read_to_end(&mut answer));
        answer
    };
    // The runtime's clock runs ahead while nothing else happens: every delay and limit of the listener is over
    // at once, and a connection that does not end stops the fuzzer.
    tokio::join!(client, world.listener.answer_decrypted(server)).0
}

/// First line: content type; the rest: the body of a postMessage with the right credentials, in pieces of odd sizes.
pub fn multipart(bytes: &[u8]) {
    http(&posted(bytes));
}

/// The request that [`multipart`] sends.
pub fn posted(bytes: &[u8]) -> Vec<u8> {
    // Before it is cut into pieces of known lengths.
    let bytes = with_world(|world| filled(world, bytes));
    let (content_type, body) = two(&bytes);
    let mut request = b"POST /api/channels/gw-desk/messages HTTP/1.1\r\nHost: x\r\nAUTH\r\n".to_vec();
    request.extend_from_slice(b"Transfer-Encoding: chunked\r\nConnection: close\r\nContent-Type: ");
    request.extend(content_type.iter().filter(|byte| **byte != b'\r'));
    request.extend_from_slice(b"\r\n\r\n");
    let mut size = 1;
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(size.min(rest.len()));
        request.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
        rest = more;
        size = size % 97 + 13;
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// Ends the listener and removes its store, where a process goes on after the last input.
pub fn end_listener() {
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(world) = world {
        let folder = world.folder.clone();
        drop(world);
        assert!(std::fs::remove_dir_all(folder).is_ok());
    }
}
