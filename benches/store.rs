//! What the store costs, in one run and beside the machine's own limit.
//!
//! `cargo bench --bench store` (a million messages) or `cargo bench --bench store -- 50000`.
//! Optional: `--dir PATH` on the disk to measure, `--device loop0` to count what reaches it, `--json FILE` for the
//! figures, `--keep` for the stores that were filled.
//! `-- --pages STATE` times pages of such a store again, five times.

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
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pipepost::domain::{Address, ChannelId, ConversationId, DedupKey, ReceivedMessage, Timestamp};
use pipepost::store::{Inserted, Options, Queue, Store};

#[path = "store/arguments.rs"]
mod arguments;
#[path = "store/table.rs"]
mod table;

use arguments::{Arguments, Child};
use table::{Table, limit, target};

const NOW: i64 = 1_772_355_600_000;
const TEXT_BYTES: usize = 240;

fn main() {
    let arguments = Arguments::read();
    match &arguments.child {
        // A child process measures what a fresh process needs.
        Some(Child::Probe(state)) => return probe(state, conversations_of(arguments.messages)),
        Some(Child::Open(state)) => return open(state),
        Some(Child::Crash(state)) => crash(state),
        Some(Child::Pages(state)) => return pages_of(state),
        None => {}
    }
    let mut folder = tempfile::Builder::new()
        .prefix("pipepost-bench-")
        .tempdir_in(&arguments.dir)
        .unwrap();
    folder.disable_cleanup(arguments.keep);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut table = Table::default();
    writes(&mut table, &runtime, folder.path(), arguments.messages);

    let mut small = None;
    let mut sizes = vec![1000, 100_000, arguments.messages];
    sizes.dedup();
    sizes.retain(|size| *size <= arguments.messages);
    for messages in sizes {
        let state = folder.path().join(format!("state-{messages}"));
        let store = Store::open(Options::new(&state)).unwrap();
        *STATE.lock().unwrap() = Some(state.clone());
        RENEWED.lock().unwrap().clear();
        let conversations = conversations_of(messages);
        let begun = Instant::now();
        let before = written();
        runtime.block_on(fill(&store, messages, conversations));
        let took = begun.elapsed().as_secs_f64();
        let cost = (written() - before) as f64 / messages as f64;
        table.row(
            &format!("{messages} messages, delivered and packed"),
            format!("{took:.0} s"),
            &format!("{cost:.0} device bytes per message, packing included"),
        );
        let renewed = std::mem::take(&mut *RENEWED.lock().unwrap());
        table.row(
            "  database written anew",
            format!("{} times", renewed.len()),
            &renewed.last().map_or_else(String::new, |size| {
                format!("to {:.1} MB the last time", *size as f64 / 1e6)
            }),
        );
        let (list, page) = runtime.block_on(pages(&store));
        let (first_list, first_page) = *small.get_or_insert((list, page));
        for (name, small, now) in [
            ("getConversations, 10 × 10 messages", first_list, list),
            ("getConversationById, 50 messages", first_page, page),
        ] {
            let ratio = now / small;
            table.row(
                &format!("  {name}"),
                format!("p50 {now:.0} µs"),
                &target(ratio, 1.5, ratio <= 1.5, "× that at 1000, at most"),
            );
        }
        let counts = store.counts();
        runtime.block_on(store.close());
        drop(store);
        let (tree, archive) = (size(&state.join("store")), size(&state.join("archive")));
        table.row(
            "  on disk",
            format!("{:.1} MB", (tree + archive) as f64 / 1e6),
            &format!(
                "{} B per message; sled {:.1} MB, archive {:.1} MB; {} conversations",
                (tree + archive) / counts.messages.max(1),
                tree as f64 / 1e6,
                archive as f64 / 1e6,
                counts.conversations
            ),
        );
        if messages == arguments.messages {
            runtime.block_on(deletion(&mut table, &state, messages));
            for mode in ["--open", "--crash", "--probe"] {
                table.child(mode, &state, messages);
            }
        }
    }
    println!("under {}", arguments.dir.display());
    table.print();
    if let Some(file) = &arguments.json {
        table.write(file, folder.path());
    }
}

/// The machine's own limit, single writes and 64 writers by turns, so that all three meet the same disk.
fn writes(table: &mut Table, runtime: &tokio::runtime::Runtime, folder: &Path, messages: u64) {
    const ROUNDS: u64 = 9;
    let singles = (messages / 50).clamp(200, 2700) / ROUNDS;
    let many = singles * 8;
    let raw_file = raw_file(folder);
    let appended = File::create(folder.join("appended")).unwrap();
    let state = folder.join("state-writes");
    let store = Store::open(Options::new(&state)).unwrap();
    *STATE.lock().unwrap() = Some(state.clone());
    let (mut inside, mut raw, mut one, mut wide) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut trickle, mut burst) = (0, 0);
    let mut stored = 0;
    for round in 0..ROUNDS {
        // Brings what packing left unwritten to the disk, so that nobody below pays for it.
        runtime.block_on(one_at_a_time(&store, stored, 1));
        inside.push(raw_limit(&raw_file, round * singles, singles));
        raw.push(raw_limit(&appended, round * singles, singles));
        stored += 1;
        let before = written();
        one.push(runtime.block_on(one_at_a_time(&store, stored, singles)));
        trickle += written() - before;
        stored += singles;
        let before = written();
        wide.push(runtime.block_on(writers(&store, 64, stored, many)));
        burst += written() - before;
        stored += many;
        // What waits would grow from round to round; a gateway delivers it and packs it.
        runtime.block_on(settle(&store, stored));
    }
    // The disk is another one from second to second: what counts is the ratio within a round.
    let ratios = |over: &[f64], under: &[f64], unit| {
        let mut ratios: Vec<f64> = over.iter().zip(under).map(|(o, u)| o / u).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        (p50(ratios), format!("× {unit}, {least:.1} to {most:.1} by round"))
    };
    let (to_raw, per_raw) = ratios(&one, &raw, "raw append");
    let (to_inside, _) = ratios(&one, &inside, "");
    let (to_one, per_one) = ratios(&wide, &one, "one");
    table.row(
        "raw append + fdatasync, 300 B",
        format!("{:.0}/s", p50(raw)),
        "median of 9 rounds, as the next three",
    );
    table.row(
        "durable, one at a time, all keys",
        format!("{:.0}/s", p50(one)),
        &target(to_raw, 0.6, to_raw >= 0.6, &per_raw),
    );
    table.row(
        "raw write + fdatasync inside a file, 300 B",
        format!("{:.0}/s", p50(inside)),
        &format!("the one before: {to_inside:.2} of it"),
    );
    table.row(
        "durable, 64 writers",
        format!("{:.0}/s", p50(wide)),
        &target(to_one, 7.0, to_one >= 7.0, &per_one),
    );
    let trickle = trickle as f64 / (ROUNDS * singles) as f64;
    let burst = burst as f64 / (ROUNDS * many) as f64;
    table.row(
        "device bytes per message, one at a time",
        format!("{trickle:.0}"),
        &limit(trickle, 16_000.0),
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
        let idle = written() - before;
        store.close().await;
        idle
    });
    table.row(
        "bytes written while idle for 3 s",
        idle.to_string(),
        &limit(idle as f64, 0.0),
    );
}

/// What the largest conversations leave behind when they are deleted, in a copy of the store.
async fn deletion(table: &mut Table, state: &Path, messages: u64) {
    let copy = state.with_extension("copy");
    let done = std::process::Command::new("cp")
        .arg("-r")
        .args([state, &copy])
        .status()
        .unwrap();
    assert!(done.success());
    let store = Store::open(Options::new(&copy)).unwrap();
    let before = size(&copy.join("archive"));
    let (all, _) = store
        .reader()
        .conversations(&channel(), usize::MAX, None, 0)
        .unwrap();
    for view in all.iter().step_by(2) {
        store.delete_conversation(view.id).await.unwrap();
    }
    let later = received_at(messages + 240);
    let begun = Instant::now();
    while store.maintain(later).await.unwrap().more {}
    let after = size(&copy.join("archive"));
    table.row(
        "  every second conversation deleted",
        format!("{:.1} MB", after as f64 / 1e6),
        &format!(
            "of {:.1} MB of archive are left after {:.1} s of maintenance",
            before as f64 / 1e6,
            begun.elapsed().as_secs_f64()
        ),
    );
    store.close().await;
    drop(store);
    std::fs::remove_dir_all(copy).unwrap();
}

/// So many that most have about 50 messages, which is a page.
fn conversations_of(messages: u64) -> u64 {
    if messages < 10_000 {
        messages / 100
    } else {
        messages / 50
    }
}

/// The block device below `--dir`, by its name in `/sys/block`.
static DEVICE: Mutex<Option<String>> = Mutex::new(None);

/// Bytes written to the device: by everybody, so it should have nothing else on it. Without a name, what the kernel
/// counts for this process, which since Linux 6.16 is far too much on ext4: a whole large folio for each byte in it.
fn written() -> u64 {
    if let Some(device) = &*DEVICE.lock().unwrap() {
        let stat = std::fs::read_to_string(format!("/sys/block/{device}/stat")).unwrap();
        return stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512;
    }
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

/// A file that is there from its first to its last byte: a write inside it changes no length.
fn raw_file(folder: &Path) -> File {
    let mut file = File::create(folder.join("raw")).unwrap();
    file.write_all(&vec![7; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    file
}

fn raw_limit(file: &File, first: u64, count: u64) -> f64 {
    let begun = Instant::now();
    for number in first..first + count {
        file.write_all_at(&[8; 300], number * 300).unwrap();
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
    maintain(store, received_at(stored)).await;
}

/// How often the database was written anew, and how large its file was then.
static STATE: Mutex<Option<PathBuf>> = Mutex::new(None);
static RENEWED: Mutex<Vec<u64>> = Mutex::new(Vec::new());

async fn maintain(store: &Store, now: Timestamp) {
    loop {
        let round = store.maintain(now).await.unwrap();
        if round.renewed > 0 {
            let folder = STATE.lock().unwrap().clone().unwrap();
            RENEWED.lock().unwrap().push(size(&folder.join("store")));
        }
        if !round.more {
            return;
        }
    }
}

async fn fill(store: &Store, until: u64, conversations: u64) {
    let mut stored = 0;
    while stored < until {
        let step = 20_000.min(until - stored);
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..256 {
            let (store, first) = (store.clone(), stored);
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
        stored += step;
        settle(store, stored).await;
    }
    // Everyone rests: what is left is packed too.
    let rested = received_at(stored + 240);
    maintain(store, rested).await;
}

fn p50(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// p50 of a page of ten conversations with ten messages each, and of a page of 50 messages; in µs. Pages that are not
/// full do not count: they would make small stores look quick.
async fn pages(store: &Store) -> (f64, f64) {
    store
        .read(|reader| {
            let mut ids = Vec::new();
            let (mut lists, mut singles) = (Vec::new(), Vec::new());
            let mut cursor = None;
            for _ in 0..200 {
                let begun = Instant::now();
                let (page, next) = reader.conversations(&channel(), 10, cursor, 10).unwrap();
                let took = begun.elapsed().as_secs_f64() * 1e6;
                if page.len() == 10 && page.iter().all(|view| view.messages.len() == 10) {
                    lists.push(took);
                }
                ids.extend(page.iter().map(|view| view.id));
                cursor = next;
            }
            for id in &ids {
                let begun = Instant::now();
                let view = reader.conversation(*id, 50, None).unwrap().unwrap();
                let took = begun.elapsed().as_secs_f64() * 1e6;
                if view.messages.len() == 50 {
                    singles.push(took);
                }
            }
            Ok((p50(lists), p50(singles)))
        })
        .await
        .unwrap()
}

fn open_timed(state: &Path, name: &str) -> Store {
    let begun = Instant::now();
    let store = Store::open(Options::new(state)).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    println!("{name}|{opened:.2} s|{}", limit(opened, 1.0));
    store
}

/// Pages of a store that is there. The first round reads more from the file than the others.
fn pages_of(state: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let begun = Instant::now();
    let store = Store::open(Options::new(state)).unwrap();
    println!("opened in {:.2} s", begun.elapsed().as_secs_f64());
    for _ in 0..5 {
        let (list, page) = runtime.block_on(pages(&store));
        println!("getConversations {list:.0} µs, getConversationById {page:.0} µs");
    }
    runtime.block_on(store.close());
}

/// After an orderly end; with one more.
fn open(state: &Path) {
    let store = open_timed(state, "  open after an orderly end");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.close());
}

/// Writes something and ends in the middle.
fn crash(state: &Path) -> ! {
    let store = Store::open(Options::new(state)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for number in 0..100 {
            store
                .insert_incoming(message(20_000_000 + number, 100))
                .await
                .unwrap();
        }
    });
    std::process::abort()
}

/// A fresh process opens the store and pages through everything.
fn probe(state: &Path, conversations_of_all: u64) {
    let store = open_timed(state, "  open after a crash");
    println!(
        "  resident after opening|{:.1} MB|",
        resident_kb() as f64 / 1000.0
    );
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
        "  resident after listing conversations|{listed:.1} MB|{}",
        limit(listed, 40.0)
    );
    println!(
        "  resident after paging through {messages}|{all:.1} MB|{}",
        limit(all, 40.0)
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let last = u64::try_from(messages).unwrap();
        for number in last..last + 5000 {
            let inserted = store.insert_incoming(message(10_000_000 + number, conversations_of_all));
            inserted.await.unwrap();
        }
        println!(
            "  resident after 5000 more messages|{:.1} MB|",
            resident_kb() as f64 / 1000.0
        );
        store.close().await;
    });
}
