//! Drives a store from outside for `tests/powercut.sh` and `tests/diskfull.sh`; no part of what runs on a device.
//!
//! `write DIR` stores until it is killed and prints each acknowledged message; `check DIR` reads such lines and
//! looks for every one of them. `control-write` and `control-check` do the same with sled's own flush alone, to
//! show that the trial can fail. `fill DIR` runs a small file system full; `full-copy DIR` does so while the database
//! is written anew.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a trial that ends at the first surprise"
)]

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pipepost::domain::{
    Address, Attempt, ChannelId, DedupKey, DeviceStatus, MessageId, ReceivedMessage, StatusReport,
    StatusTarget, Timestamp,
};
use pipepost::store::{Inserted, NewOutgoing, Options, Queue, Store, StoreError};

const NOW: i64 = 1_772_355_600_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, folder] = arguments.as_slice() else {
        println!("usage: store_trial write|check|control-write|control-check|fill|full-copy DIR");
        return ExitCode::from(64);
    };
    let folder = Path::new(folder);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let lost = match mode.as_str() {
        "write" => runtime.block_on(write(folder)),
        "check" => check(folder),
        "control-write" => control_write(folder),
        "control-check" => control_check(folder),
        "fill" => runtime.block_on(fill(folder)),
        "full-copy" => runtime.block_on(full_copy(folder)),
        _ => 1,
    };
    if lost == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn options(folder: &Path) -> Options {
    Options {
        disk_reserve: 4 << 20,
        renew_bytes: 1 << 20,
        ..Options::new(folder)
    }
}

fn channel() -> ChannelId {
    "trial".parse().unwrap()
}

fn text(number: u64) -> String {
    format!("{number} {}", "x".repeat(usize::try_from(number % 400).unwrap()))
}

fn message(number: u64) -> ReceivedMessage {
    ReceivedMessage {
        channel: channel(),
        from: Address::new(&format!("+49{}", number % 37)).unwrap(),
        from_name: None,
        group: None,
        text: text(number),
        device_time: None,
        received_at: Timestamp::from_unix_ms(NOW + i64::try_from(number).unwrap()),
        dedup: Some(DedupKey::DeviceId(format!("{number}"))),
        route: BTreeMap::new(),
        attachments: Vec::new(),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Writers of several kinds at once; every line that it prints is a promise.
async fn write(folder: &Path) -> usize {
    let store = Store::open(Options {
        renew_bytes: 0,
        ..options(folder)
    })
    .unwrap();
    let first = store.counts().messages;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..12_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut number = first * 100 + writer;
            let mut sent = VecDeque::new();
            loop {
                let Inserted::New(id) = store.insert_incoming(message(number)).await.unwrap() else {
                    number += 12;
                    continue;
                };
                say(&format!("{id} {number}\n"));
                if number.is_multiple_of(5) {
                    let order = NewOutgoing {
                        channel: channel(),
                        conversation: id.conversation,
                        text: text(number),
                        attachments: Vec::new(),
                        now: Timestamp::from_unix_ms(NOW),
                        announce: false,
                    };
                    let id = store.insert_outgoing(order).await.unwrap();
                    say(&format!("{id} {number}\n"));
                    if store
                        .start_attempt(id, Timestamp::from_unix_ms(NOW))
                        .await
                        .unwrap()
                        .is_some()
                    {
                        store.finish_attempt(id, Attempt::Sent, false).await.unwrap();
                        say(&format!("{id} {number} sent\n"));
                        sent.push_back((id, number));
                    }
                    // By now it is packed: the report writes its pack anew.
                    if sent.len() > 8
                        && let Some((id, number)) = sent.pop_front()
                    {
                        let report = StatusReport {
                            channel: channel(),
                            of: StatusTarget::Id(id),
                            status: DeviceStatus::Delivered,
                        };
                        store.apply_status(report).await.unwrap();
                        say(&format!("{id} {number} delivered\n"));
                    }
                }
                number += 12;
            }
        });
    }
    // Lazy writes and packing between the durable ones.
    tasks.spawn(async move {
        let rested = Timestamp::from_unix_ms(NOW + 10_000_000_000);
        loop {
            for head in store.heads(Queue::ToUplink, None, &HashSet::new(), 32) {
                let item = store.reader().uplink_item(head.conversation).unwrap();
                if let Some(item) = item {
                    store.uplink_done(item.message.id, item.revision).await.unwrap();
                }
            }
            if store.maintain(rested).await.unwrap().renewed > 0 {
                say("renewed\n");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tasks.join_all().await;
    1
}

/// Every promise on standard input against the store. Returns how many are broken.
fn check(folder: &Path) -> usize {
    let store = Store::open(options(folder)).unwrap();
    let reader = store.reader();
    let (mut promises, mut lost) = (0, 0);
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let (Some(id), Some(number)) = (words.next(), words.next()) else {
            continue;
        };
        let (Ok(id), Ok(number)) = (id.parse::<MessageId>(), number.parse::<u64>()) else {
            continue;
        };
        promises += 1;
        match reader.message(id) {
            Ok(Some((_, found))) if found.text == text(number) => {
                let state = format!("{:?}", found.state);
                let known: &[&str] = match words.next() {
                    Some("sent") => &["Outgoing(Sent)", "Outgoing(Delivered)"],
                    Some("delivered") => &["Outgoing(Delivered)"],
                    _ => &[],
                };
                if !known.is_empty() && !known.contains(&state.as_str()) {
                    println!(
                        "{id} was {}, but is {state}",
                        line.rsplit(' ').next().unwrap_or_default()
                    );
                    lost += 1;
                }
            }
            other => {
                println!("{id}: {}", if other.is_err() { "unreadable" } else { "lost" });
                lost += 1;
            }
        }
    }
    for queue in [Queue::ToUplink, Queue::ToHardware] {
        for waiting in reader.queued(queue, usize::MAX).unwrap() {
            if reader.message(waiting.message).unwrap().is_none() {
                println!("{} waits, but is not there", waiting.message);
                lost += 1;
            }
        }
    }
    let archived: u64 = std::fs::read_dir(folder.join("archive"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    println!("{promises} acknowledged, {lost} lost; {archived} bytes in the archive");
    lost
}

fn control_write(folder: &Path) -> usize {
    let db = sled::Config::default()
        .path(folder)
        .flush_every_ms(None)
        .open()
        .unwrap();
    for number in db.len() as u64.. {
        db.insert(number.to_be_bytes(), text(number).as_bytes()).unwrap();
        db.flush().unwrap();
        say(&format!("{number}\n"));
    }
    1
}

fn control_check(folder: &Path) -> usize {
    let Ok(db) = sled::Config::default().path(folder).flush_every_ms(None).open() else {
        println!("the store does not open");
        return 1;
    };
    let lost = std::io::stdin()
        .lock()
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.parse::<u64>().ok())
        .filter(|number| !matches!(db.get(number.to_be_bytes()), Ok(Some(_))))
        .count();
    println!("{lost} lost");
    lost
}

/// Stores until there is no space, sees that everything else goes on, makes room, and goes on storing.
async fn fill(folder: &Path) -> usize {
    let store = Store::open(options(folder)).unwrap();
    let mut stored = Vec::new();
    for number in 0.. {
        let mut large = message(number);
        large.text = "z".repeat(3000);
        match store.insert_incoming(large).await {
            Ok(inserted) => stored.push(inserted.id()),
            Err(StoreError::NoSpace) => break,
            Err(other) => panic!("{other}"),
        }
    }
    println!("{} stored, then: {:?}", stored.len(), *store.space().borrow());
    assert!(!store.space().borrow().is_enough());
    // The answer side and the uplink go on.
    let Some(head) = store.heads(Queue::ToUplink, None, &HashSet::new(), 1).pop() else {
        return 1;
    };
    let item = store.reader().uplink_item(head.conversation).unwrap().unwrap();
    store.uplink_done(item.message.id, item.revision).await.unwrap();
    assert!(store.failed().borrow().is_none());
    store.close().await;
    drop(store);
    // Others fill the rest of the disk; the store still opens, and still takes nothing.
    let filler = folder.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let store = Store::open(options(folder)).unwrap();
    for id in &stored {
        assert!(store.reader().message(*id).unwrap().is_some(), "{id}");
    }
    assert_eq!(
        store.insert_incoming(message(5_000_000)).await,
        Err(StoreError::NoSpace)
    );
    println!(
        "full to the last byte: opens, {} messages there, refuses",
        stored.len()
    );
    std::fs::remove_file(&filler).unwrap();
    // What was delivered may go.
    std::fs::remove_file(folder.join("ballast")).unwrap();
    let begun = Instant::now();
    while store.insert_incoming(message(1_000_000)).await.is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it did not recover by itself"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "room again: took messages after {} ms",
        begun.elapsed().as_millis()
    );
    store.close().await;
    0
}

/// Others fill the disk to the last byte while the database is written anew: the old one goes on.
async fn full_copy(folder: &Path) -> usize {
    let filler = folder.join("filler");
    let rested = Timestamp::from_unix_ms(NOW + 10_000_000_000);
    let folders = |folder: &Path| {
        let found = std::fs::read_dir(folder).unwrap();
        let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("store@")).count()
    };
    let mut stored = Vec::new();
    let (mut given_up, mut renewed) = (0, 0);
    for round in 0..8_u64 {
        let store = Store::open(options(folder)).unwrap();
        for number in round * 1000..round * 1000 + 700 {
            stored.push((store.insert_incoming(message(number)).await.unwrap().id(), number));
        }
        let filling = {
            let (folder, filler) = (folder.to_owned(), filler.clone());
            std::thread::spawn(move || {
                let begun = Instant::now();
                while folders(&folder) < 2 && begun.elapsed() < Duration::from_secs(5) {}
                let mut file = std::fs::File::create(&filler).unwrap();
                while file.write_all(&[0; 8192]).is_ok() {}
                while file.write_all(&[0; 512]).is_ok() {}
            })
        };
        while store.maintain(rested).await.unwrap().more {}
        filling.join().unwrap();
        while store.maintain(rested).await.unwrap().more {}
        if folders(folder) != 1 || store.failed().borrow().is_some() {
            println!(
                "the disk was full and the store has stopped: {:?}",
                *store.failed().borrow()
            );
            return 1;
        }
        std::fs::remove_file(&filler).unwrap();
        let begun = Instant::now();
        while store.insert_incoming(message(round * 1000 + 999)).await.is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "it did not recover by itself"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        store.close().await;
        drop(store);
        // The next start tries again.
        let store = Store::open(options(folder)).unwrap();
        let mut now = 0;
        loop {
            let round = store.maintain(rested).await.unwrap();
            now += round.renewed;
            if !round.more {
                break;
            }
        }
        renewed += now;
        given_up += u64::from(now > 0);
        for (id, number) in &stored {
            assert_eq!(
                store.reader().message(*id).unwrap().unwrap().1.text,
                text(*number)
            );
        }
        store.close().await;
    }
    println!("8 copies on a disk that ran full: {given_up} given up and made later ({renewed})");
    usize::from(given_up == 0)
}
