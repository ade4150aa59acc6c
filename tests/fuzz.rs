//! The fuzz targets of `fuzz/` over their corpus and a fixed number of mutations of it: short, and the same in each
//! run. `cargo fuzz run TARGET` in `fuzz/` goes on from there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it did not expect stops there"
)]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzzers use it as a crate of its own")]
mod targets;

use std::path::Path;

/// A small generator (`SplitMix64`), so that the run does not depend on the machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(below.max(1)).unwrap()).unwrap()
    }
}

/// Pieces that parsers trip over.
const PIECES: [&[u8]; 16] = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\xbd",
    b"%2f",
    b"%",
    b"..",
    b"{\"a\":",
    b"[[[[[[[[",
    b"\"\"\"",
    b"\r\n",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    "\u{202e}é".as_bytes(),
    b"[[device]]\n",
    b"null",
];

fn mutated(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.next(4) {
        let place = numbers.next(bytes.len() + 1);
        match numbers.next(5) {
            0 => bytes.truncate(place),
            1 => drop(bytes.splice(place..place, PIECES[numbers.next(PIECES.len())].iter().copied())),
            2 if place < bytes.len() => bytes[place] ^= 1 << numbers.next(8),
            3 if place < bytes.len() => drop(bytes.remove(place)),
            _ => {
                let copy = bytes[place..].iter().take(64).copied().collect::<Vec<_>>();
                bytes.splice(place..place, copy);
            }
        }
    }
    bytes
}

fn run(target: fn(&[u8]), name: &str, rounds: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{} holds too little", folder.display());
    let mut numbers = Numbers(2026);
    for seed in &seeds {
        target(seed);
    }
    for round in 0..rounds {
        target(&mutated(&seeds[round % seeds.len()], &mut numbers));
    }
}

#[test]
fn no_payload_of_a_device_makes_a_mapping_panic() {
    run(targets::mapping, "mapping", 3_000);
}

#[test]
fn no_request_makes_the_routes_the_cursors_or_the_form_panic() {
    run(targets::manifest, "manifest", 30_000);
}

#[test]
fn no_bytes_of_a_connection_and_no_form_make_the_listener_panic_hang_or_fail() {
    // The corpus gets through to the store, and so do mutations of it.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for seed in ["whole", "files", "comma"] {
        let form = std::fs::read(folder.join("multipart").join(seed)).unwrap();
        let answer = targets::exchange(&targets::posted(&form));
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200 "), "{seed}: {text}");
    }
    run(targets::http, "http", 1_500);
    run(targets::multipart, "multipart", 1_500);
    targets::end_listener();
}

#[test]
fn no_answer_of_pipedrive_makes_the_uplink_panic() {
    run(targets::answers, "answers", 10_000);
}

#[test]
fn no_configuration_makes_the_loader_panic_or_steers_the_terminal() {
    run(targets::config, "config", 3_000);
}

#[test]
fn no_address_book_makes_its_readers_panic_and_no_name_steers_a_terminal() {
    run(targets::contacts, "contacts", 20_000);
}

#[test]
fn no_bytes_of_a_modem_make_the_dialogue_panic_or_send_twice() {
    run(targets::modem, "modem", 20_000);
}

#[test]
fn no_octets_of_a_modem_make_the_codec_panic_and_every_text_survives_it() {
    run(targets::pdu, "pdu", 5_000);
}
