//! What the store costs, in one run and beside the machine's own limit.
//!
//! `cargo bench --bench store` (a million messages) or `cargo bench --bench store -- 50000`.
//! Optional: `--dir PATH` on the disk to measure, `--conversations N`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measuring program"
)]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::too_many_lines, reason = "the run reads from top to bottom")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipepost::domain::{Address, ChannelId, ConversationId, DedupKey, ReceivedMessage, Timestamp};
use pipepost::store::{Inserted, Options, Queue, Store};

const NOW: i64 = 1_772_355_600_000;
const TEXT_BYTES: usize = 240;

fn main() {
    let arguments = Arguments::read();
    let folder = tempfile::Builder::new()
        .prefix("pipepost-bench-")
        .tempdir_in(&arguments.dir)
        .unwrap();
    // A child process measures what a fresh process needs.
    if let Some(state) = &arguments.probe {
        return probe(state);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut table = Table::default();
    let singles = (arguments.messages / 50).clamp(200, 3000);

    let raw = raw_limit(folder.path(), singles);
    table.row("raw append + fdatasync, 300 B", format!("{raw:.0}/s"), "");

    let state = folder.path().join("state");
    let store = Store::open(Options::new(&state)).unwrap();
    let before = written();
    let one = runtime.block_on(one_at_a_time(&store, 0, singles));
    let trickle = (written() - before) as f64 / singles as f64;
    let ratio = one / raw;
    table.row(
        "durable, one at a time, all keys",
        format!("{one:.0}/s"),
        &target(ratio, 0.6, ratio >= 0.6, "× raw"),
    );
    table.row(
        "device bytes per message, one at a time",
        format!("{trickle:.0}"),
        &limit(trickle, 16_000.0),
    );

    let many = singles * 8;
    let before = written();
    let wide = runtime.block_on(writers(&store, 64, singles, many));
    let burst = (written() - before) as f64 / many as f64;
    let ratio = wide / one;
    table.row(
        "durable, 64 writers",
        format!("{wide:.0}/s"),
        &target(ratio, 7.0, ratio >= 7.0, "× one"),
    );
    table.row(
        "device bytes per message, 64 writers",
        format!("{burst:.0}"),
        &limit(burst, 3000.0),
    );

    let idle = runtime.block_on(async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let before = written();
        tokio::time::sleep(Duration::from_secs(3)).await;
        written() - before
    });
    table.row(
        "bytes written while idle for 3 s",
        idle.to_string(),
        &limit(idle as f64, 0.0),
    );

    let mut stored = singles + many;
    let small = runtime.block_on(async {
        settle(&store, stored).await;
        pages(&store).await
    });
    let begun = Instant::now();
    let before = written();
    let first = stored;
    runtime.block_on(fill(
        &store,
        &mut stored,
        arguments.messages,
        arguments.conversations,
    ));
    let took = begun.elapsed().as_secs_f64();
    let cost = (written() - before) as f64 / (stored - first).max(1) as f64;
    table.row(
        "filled up, delivered and packed",
        format!("{stored} in {took:.0} s"),
        &format!("{cost:.0} device bytes per message, packing included"),
    );
    let large = runtime.block_on(pages(&store));
    for (name, small, large) in [
        ("getConversations page", small.0, large.0),
        ("getConversationById page", small.1, large.1),
    ] {
        let ratio = large / small;
        table.row(
            name,
            format!("p50 {small:.0} → {large:.0} µs"),
            &target(ratio, 1.5, ratio <= 1.5, "× at most"),
        );
    }
    let counts = store.counts();
    runtime.block_on(store.close());
    drop(store);
    let disk = size(&state.join("store"));
    table.row(
        "on disk",
        format!("{} MB", disk / 1_000_000),
        &format!(
            "{} B per message; {} conversations",
            disk / counts.messages.max(1),
            counts.conversations
        ),
    );
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--probe", state.to_str().unwrap()])
        .output()
        .unwrap();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let cells: Vec<_> = line.split('|').collect();
        table.row(cells[0], cells[1].to_owned(), cells.get(2).unwrap_or(&""));
    }
    println!(
        "{} messages, ext4 or whatever lies under {}",
        counts.messages,
        arguments.dir.display()
    );
    table.print();
}

struct Arguments {
    messages: u64,
    conversations: u64,
    dir: PathBuf,
    probe: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self {
            messages: 1_000_000,
            conversations: 20_000,
            dir: std::env::temp_dir(),
            probe: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--dir" => read.dir = arguments.next().unwrap().into(),
                "--probe" => read.probe = Some(arguments.next().unwrap().into()),
                "--conversations" => read.conversations = arguments.next().unwrap().parse().unwrap(),
                // Cargo's own.
                "--bench" => {}
                number => read.messages = number.parse().unwrap(),
            }
        }
        read
    }
}

#[derive(Default)]
struct Table(Vec<[String; 3]>);

impl Table {
    fn row(&mut self, name: &str, value: String, note: &str) {
        self.0.push([name.to_owned(), value, note.to_owned()]);
    }

    fn print(&self) {
        for [name, value, note] in &self.0 {
            println!("{name:<42} {value:>22}   {note}");
        }
    }
}

fn verdict(good: bool) -> &'static str {
    if good { "ok" } else { "MISSED" }
}

fn target(ratio: f64, wanted: f64, good: bool, unit: &str) -> String {
    format!("{ratio:.2} {unit} (target {wanted}) {}", verdict(good))
}

fn limit(value: f64, limit: f64) -> String {
    format!("at most {limit:.0} {}", verdict(value <= limit))
}

/// Bytes that this process caused to be written to a device.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: ")).unwrap();
    line.trim().parse().unwrap()
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

fn size(path: &Path) -> u64 {
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}

fn raw_limit(folder: &Path, count: u64) -> f64 {
    let mut file = File::create(folder.join("raw")).unwrap();
    let begun = Instant::now();
    for _ in 0..count {
        file.write_all(&[7; 300]).unwrap();
        file.sync_data().unwrap();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn channel() -> ChannelId {
    "bench".parse().unwrap()
}

/// Texts that do not repeat, so that nothing compresses by accident.
fn text(number: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    })
    .take(TEXT_BYTES)
    .collect()
}

/// A million messages are a year.
fn received_at(number: u64) -> Timestamp {
    Timestamp::from_unix_ms(NOW + i64::try_from(number).unwrap() * 30_000)
}

fn message(number: u64, conversations: u64) -> ReceivedMessage {
    // A third of the traffic belongs to the two hundredth of the conversations that go on for ever: in a million
    // messages these have thousands, the others some thirty each.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let busy = (conversations / 200).max(1);
    let who = if mixed.is_multiple_of(3) {
        mixed / 3 % busy
    } else {
        mixed / 3 % conversations
    };
    ReceivedMessage {
        channel: channel(),
        from: Address::new(&format!("+49151{who:08}")).unwrap(),
        from_name: None,
        group: None,
        text: text(number),
        device_time: None,
        received_at: received_at(number),
        // Every message has the device's id; the store remembers those of the last month.
        dedup: Some(DedupKey::DeviceId(format!("device-{number}"))),
        route: BTreeMap::new(),
        attachments: Vec::new(),
    }
}

async fn one_at_a_time(store: &Store, first: u64, count: u64) -> f64 {
    let begun = Instant::now();
    for number in first..first + count {
        let inserted = store.insert_incoming(message(number, 500)).await.unwrap();
        assert!(matches!(inserted, Inserted::New(_)));
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn writers(store: &Store, writers: u64, first: u64, count: u64) -> f64 {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            for number in (first + writer..first + count).step_by(usize::try_from(writers).unwrap()) {
                store.insert_incoming(message(number, 500)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Delivers everything and packs it.
async fn settle(store: &Store, stored: u64) {
    let reader = store.reader();
    loop {
        let heads = store.heads(Queue::ToUplink, None, &std::collections::HashSet::new(), 256);
        if heads.is_empty() {
            break;
        }
        let mut done = Vec::new();
        for head in heads {
            let item = reader.uplink_item(head.conversation).unwrap().unwrap();
            done.push((item.message.id, item.revision));
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (id, revision) in done {
            let store = store.clone();
            tasks.spawn(async move { store.uplink_done(id, revision).await.unwrap() });
        }
        tasks.join_all().await;
    }
    while store.maintain(received_at(stored)).await.unwrap().more {}
}

async fn fill(store: &Store, stored: &mut u64, until: u64, conversations: u64) {
    while *stored < until {
        let step = 20_000.min(until - *stored);
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..256 {
            let (store, first) = (store.clone(), *stored);
            tasks.spawn(async move {
                for number in (first + writer..first + step).step_by(256) {
                    store
                        .insert_incoming(message(number, conversations))
                        .await
                        .unwrap();
                }
            });
        }
        tasks.join_all().await;
        *stored += step;
        settle(store, *stored).await;
    }
    // Everyone rests: what is left is packed too.
    let rested = received_at(*stored + 240);
    while store.maintain(rested).await.unwrap().more {}
}

fn p50(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn micros(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e6
}

/// p50 of a page of ten conversations with ten messages each, and of a page of 50 messages; in µs.
async fn pages(store: &Store) -> (f64, f64) {
    store
        .read(|reader| {
            let mut ids = Vec::new();
            let (mut lists, mut singles) = (Vec::new(), Vec::new());
            let mut cursor = None;
            for _ in 0..50 {
                lists.push(micros(|| {
                    let (page, next) = reader.conversations(&channel(), 10, cursor, 10).unwrap();
                    ids.extend(page.iter().map(|view| view.id));
                    cursor = next;
                }));
                if cursor.is_none() {
                    break;
                }
            }
            for id in &ids {
                singles.push(micros(|| {
                    drop(reader.conversation(*id, 50, None).unwrap().unwrap());
                }));
            }
            Ok((p50(lists), p50(singles)))
        })
        .await
        .unwrap()
}

/// A fresh process opens the store and pages through everything.
fn probe(state: &Path) {
    let begun = Instant::now();
    let store = Store::open(Options::new(state)).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    println!("open|{opened:.2} s|{}", limit(opened, 1.0));
    println!("resident after opening|{:.1} MB|", resident_kb() as f64 / 1000.0);
    let reader = store.reader();
    let mut messages = 0;
    let mut conversations: Vec<ConversationId> = Vec::new();
    let mut cursor = None;
    loop {
        let (page, next) = reader.conversations(&channel(), 100, cursor, 10).unwrap();
        conversations.extend(page.iter().map(|view| view.id));
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let listed = resident_kb() as f64 / 1000.0;
    for id in &conversations {
        let mut before = None;
        loop {
            let view = reader.conversation(*id, 50, before).unwrap().unwrap();
            messages += view.messages.len();
            before = view.next;
            if before.is_none() {
                break;
            }
        }
    }
    let all = resident_kb() as f64 / 1000.0;
    println!(
        "resident after listing conversations|{listed:.1} MB|{}",
        limit(listed, 40.0)
    );
    println!(
        "resident after paging through {messages}|{all:.1} MB|{}",
        limit(all, 40.0)
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let last = u64::try_from(messages).unwrap();
        for number in last..last + 5000 {
            store.insert_incoming(message(number, 10_000)).await.unwrap();
        }
        println!(
            "resident after 5000 more messages|{:.1} MB|",
            resident_kb() as f64 / 1000.0
        );
        store.close().await;
    });
}
