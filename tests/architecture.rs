//! Enforces the direction rule and the limits in ARCHITECTURE.md.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "all of this is test code"
)]

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use rules::{Checked, Rules};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    Rules::read(&text).unwrap()
}

/// Every Rust file below `directory`, as its path from there with `/`, and its text.
fn files(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(directory)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/");
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_room_uses_only_what_the_direction_rule_allows() {
    let files = files(&root().join("src"));
    let Checked {
        files,
        paths,
        crossings,
        violations,
    } = rules().check(&files);
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
    // A test that looks at nothing passes too easily.
    assert!(files > 30, "only {files} files were checked");
    assert!(paths > 500, "only {paths} paths were checked");
    assert!(
        crossings > 50,
        "only {crossings} paths from room to room were checked"
    );
    println!("{files} files, {paths} paths, {crossings} of them from room to room");
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let mut checked = 0;
    let mut long = Vec::new();
    for directory in ["src", "tests", "benches"] {
        let directory = root().join(directory);
        if !directory.exists() {
            continue;
        }
        for (name, text) in files(&directory) {
            checked += 1;
            let lines = text.lines().count();
            if lines > 600 {
                long.push(format!("{}/{name}: {lines} lines", directory.display()));
            }
        }
    }
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
    assert!(checked > 30, "only {checked} files were checked");
}

/// Violations of one file in an otherwise empty house.
fn violations(name: &str, text: &str) -> Vec<String> {
    rules().check(&[(name.to_owned(), text.to_owned())]).violations
}

#[test]
fn a_path_into_a_higher_room_is_found_however_it_is_written() {
    for text in [
        "use crate::store::Store;",
        "use crate::{domain::Timestamp, store::Store};",
        "use crate::{\n    domain::{self, Attempt},\n    store,\n};",
        "use super::super::super::store::Store;",
        "use super::super::super::{domain, store as shop};",
        "mod inner { use super::super::super::super::store::Store; }",
        "fn f() { let _ = crate::store::open(); }",
        "fn f(x: &crate :: store :: Store) {}",
        "type T = Vec<crate::store::Store>;",
        "macro_rules! m { () => { $crate::store::open() } }",
        "use pipepost::store::Store;",
        "use ::pipepost::store::Store;",
        "#[cfg(test)] mod tests { use crate::store::Store; }",
        "fn f() { /* \" */ crate::store::open(); /* \" */ }",
        "fn f<'a>(x: &'a str) { g('\\'', '\"', crate::store::open()) }",
        "fn f() { g(r#\"a\"b\"#, crate::store::open()) }",
    ] {
        let found = violations("protocol/mqtt/mapping.rs", text);
        assert!(
            found.iter().any(|line| line.contains("`store`")),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn a_way_around_the_names_is_found() {
    for text in [
        "use crate as root;",
        "use crate::*;",
        "use crate::{self as root};",
        "use super::super::super::*;",
    ] {
        assert!(!violations("protocol/mqtt/mapping.rs", text).is_empty(), "{text}");
    }
    assert!(
        !violations("attic/mod.rs", "fn f() {}").is_empty(),
        "an unlisted room"
    );
    assert!(
        !violations("attic.rs", "").is_empty(),
        "an unlisted room in one file"
    );
    assert!(
        !violations("domain/ids.rs", "use crate::attic::Box;").is_empty(),
        "a path to an unlisted room"
    );
}

#[test]
fn what_is_allowed_is_not_reported() {
    for text in [
        "use crate::domain::{Timestamp, Attempt};",
        "use crate::protocol::retry;",
        "use super::spec; use super::super::retry::Backoff; use super::super::super::domain::Timestamp;",
        "mod inner { use super::helper; use super::super::retry; }",
        "pub(crate) fn f() {} pub(in crate::protocol) fn g() {}",
        "//! [`crate::store::Store`]\n/// crate::store\n// crate::store\n/* crate::store /* nested */ crate::store */",
        "const TEXT: &str = \"crate::store \\\" crate::store\"; const RAW: &str = r#\"crate::store\"#;",
        "fn f<'store>(x: &'store str) -> char { 'x' }",
        "use std::{time::Duration, collections::HashMap}; use std::time::Instant; fn f(now: Instant) {}",
        "#[cfg(test)] mod tests { use std::fs; #[tokio::test] async fn f() { fs::read(\"x\").unwrap(); } }",
        "fn f() { sled_like::open(); a.store::<u8>(); }",
    ] {
        assert_eq!(violations("protocol/mqtt/mapping.rs", text), [""; 0], "{text}");
    }
    assert_eq!(
        violations(
            "sim/broker/mod.rs",
            "use rumqttc::v5; use tokio::net::TcpListener;"
        ),
        [""; 0]
    );
    assert_eq!(
        violations("main.rs", "fn main() { pipepost::cli::main() }"),
        [""; 0]
    );
}

#[test]
fn protocol_code_without_a_clock_a_socket_or_a_runtime_stays_so() {
    for text in [
        "use tokio::sync::mpsc;",
        "async fn f() { tokio::time::sleep(d).await }",
        "use std::net::TcpStream;",
        "use std::{fmt, net::IpAddr};",
        "fn f() { std::fs::read(\"x\"); }",
        "use std::{fs};",
        "fn f() { let now = Instant::now(); }",
        "fn f() { let now = std::time::Instant::now(); }",
        "fn f() { let now = SystemTime::now(); }",
        "use std::time::Instant as Watch;",
        "fn f() { let now = jiff::Timestamp::now(); }",
        // Only outside test modules.
        "#[cfg(test)] mod tests { fn f() {} } use std::fs;",
        // A test that reads the clock is a test that fails at midnight.
        "#[cfg(test)] mod tests { fn f() { SystemTime::now(); } }",
    ] {
        assert!(!violations("protocol/retry.rs", text).is_empty(), "{text}");
    }
    for text in [
        "use tokio::sync::mpsc;",
        "fn f() { Instant::now(); std::fs::read(\"x\"); }",
    ] {
        assert_eq!(violations("driver/mqtt.rs", text), [""; 0], "{text}");
    }
}

#[test]
fn a_test_module_in_its_own_file_is_recognised() {
    let house = |declaration: &str| {
        let files = [
            ("protocol/retry.rs".to_owned(), declaration.to_owned()),
            ("protocol/retry/tests.rs".to_owned(), "use std::fs;".to_owned()),
        ];
        rules().check(&files).violations
    };
    assert_eq!(house("#[cfg(test)]\nmod tests;"), [""; 0]);
    assert_eq!(house("mod tests;").len(), 1);
}

#[test]
fn each_foreign_crate_stays_in_its_room() {
    for (krate, home, elsewhere) in [
        ("sled", "store/open.rs", "queue/mod.rs"),
        ("ureq", "http/mod.rs", "uplink/mod.rs"),
        ("ureq", "sim/pipedrive/mod.rs", "cli/show.rs"),
        ("rumqttc", "driver/mqtt.rs", "config/mod.rs"),
        ("serial2_tokio", "driver/at_modem/port.rs", "sim/modem/cable.rs"),
        ("zbus", "driver/mm_modem/bus.rs", "control/modem.rs"),
    ] {
        for text in [
            format!("use {krate}::Thing;"),
            format!("fn f(x: &{krate}::Thing) {{}}"),
            format!("use {krate};"),
        ] {
            assert_eq!(violations(home, &text), [""; 0], "{home}: {text}");
            assert!(!violations(elsewhere, &text).is_empty(), "{elsewhere}: {text}");
        }
    }
}

#[test]
fn a_table_that_says_nothing_is_refused() {
    assert!(Rules::read("# Architecture\n").is_err());
    let empty = "<!-- direction-rule:begin -->\n| room | may use |\n|---|---|\n<!-- direction-rule:end -->";
    assert!(Rules::read(empty).is_err());
    let unknown = empty.replace("|---|---|", "|---|---|\n| domain | attic |");
    assert!(Rules::read(&unknown).is_err());
    let circle = empty.replace("|---|---|", "|---|---|\n| a | b |\n| b | a |");
    assert!(Rules::read(&circle).is_err());
}
