//! The modem on a pseudo-terminal and on a socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::hello;
use crate::sim::modem::pdu::{Text, hex};
use crate::sim::modem::{Cable, Modem, Options, Profile, Said, obey};

const LIMIT: Duration = Duration::from_secs(10);

/// Writes and reads until the answer has this end.
async fn talk(path: &Path, what: &str, end: &'static str) -> String {
    let (path, what) = (path.to_owned(), what.to_owned());
    spawn_blocking(move || {
        let mut port = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        port.write_all(what.as_bytes()).unwrap();
        let mut said = String::new();
        let mut buffer = [0; 256];
        while !said.ends_with(end) {
            let count = port.read(&mut buffer).unwrap();
            assert!(count > 0, "hung up after {said:?}");
            said.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        said
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_program_talks_to_it_through_a_pty_and_its_link() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("ttyUSB0");
    let cable = Cable::Pty {
        link: Some(link.clone()),
    };
    let modem = Modem::start(Options::default(), &cable).unwrap();
    assert_eq!(talk(&modem.path(), "ATE0\r", "OK\r\n").await, "ATE0\r\r\nOK\r\n");
    assert_eq!(
        talk(&link, "AT+CGMM\r", "OK\r\n").await,
        "\r\nSIMULATED\r\n\r\nOK\r\n"
    );
    let pdu = hello();
    assert_eq!(talk(&link, "AT+CMGS=23\r", "> ").await, "\r\n> ");
    assert_eq!(
        talk(&link, &format!("{}\u{1a}", hex(&pdu)), "OK\r\n").await,
        "\r\n+CMGS: 0\r\n\r\nOK\r\n"
    );
    modem.wait_for(|counts| counts.sent == 1, LIMIT).await.unwrap();
    modem.stop().await;
    assert!(fs::symlink_metadata(&link).is_err(), "the link is gone");
}

#[tokio::test]
async fn a_long_list_does_not_get_lost_on_a_slow_cable() {
    let options = Options {
        sim_places: 200,
        ..Options::default()
    };
    let modem = Modem::start(options, &Cable::Pty { link: None }).unwrap();
    modem.with(|engine| {
        for _ in 0..100 {
            let text = Text::new("+4915550001", &"x".repeat(150), engine.wall_time());
            engine.text(&text);
        }
    });
    let said = talk(&modem.path(), "ATE0+CMGL=4\r", "OK\r\n").await;
    assert_eq!(said.matches("+CMGL: ").count(), 100);
    assert!(said.len() > 30_000);
}

#[tokio::test]
async fn unplugging_hangs_up_and_it_comes_back_under_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("ttyUSB0"), folder.path().join("ttyUSB1"));
    let cable = Cable::Pty {
        link: Some(first.clone()),
    };
    let options = Options {
        profile: Profile::Ec25,
        ..Options::default()
    };
    let modem = Modem::start(options, &cable).unwrap();
    let mut port = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&first)
        .unwrap();
    modem.unplug().await;
    let hung_up = spawn_blocking(move || port.read(&mut [0; 16])).await.unwrap();
    // Linux says the end of the file or an error, depending on who is quicker.
    assert!(hung_up.as_ref().map_or(true, |count| *count == 0), "{hung_up:?}");
    assert!(fs::symlink_metadata(&first).is_err());
    assert!(!modem.counts().ready);
    // A text that comes meanwhile waits.
    assert_eq!(
        obey(&modem, &cable, "text +4915550001 Hi").await,
        Ok(Said::Words(String::new()))
    );
    let said = obey(&modem, &cable, &format!("plug {}", second.display()))
        .await
        .unwrap();
    assert!(matches!(said, Said::Words(words) if words.starts_with("modem at /dev/pts/")));
    modem.wait_for(|counts| counts.stored == 1, LIMIT).await.unwrap();
    let said = talk(&second, "AT+CMGL=4\r", "OK\r\n").await;
    assert!(
        said.contains("\r\nRDY\r\n") && said.contains("+CMGL: 0,0,,20"),
        "{said}"
    );
    assert_eq!(modem.counts().restarts, 1);
}

#[tokio::test]
async fn a_socket_serves_one_program_after_the_other() {
    let name = format!("pipepost-test-{}", std::process::id());
    let cable = Cable::Abstract(name.clone());
    let modem = Modem::start(Options::default(), &cable).unwrap();
    assert_eq!(modem.path(), Path::new(&format!("@{name}")));
    for _ in 0..2 {
        let name = name.clone();
        let said = spawn_blocking(move || {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            let mut stream = std::os::unix::net::UnixStream::connect_addr(&address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.write_all(b"ATE1\r").unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"OK\r\n") {
                let mut buffer = [0; 64];
                let count = stream.read(&mut buffer).unwrap();
                said.extend(&buffer[..count]);
            }
            said
        })
        .await
        .unwrap();
        assert_eq!(said, b"ATE1\r\r\nOK\r\n");
    }
}

#[tokio::test]
async fn it_is_told_in_words_what_to_do() {
    let cable = Cable::Pty { link: None };
    let modem = Modem::start(Options::default(), &cable).unwrap();
    for (line, answer) in [
        ("", ""),
        ("text +4915550001 Hello  world", ""),
        ("network roaming", ""),
        ("signal 7", ""),
        ("next fail 38", ""),
        ("next silence taken", ""),
        ("fate 30 00", ""),
        ("between pdu +CREG: 1", ""),
        ("say RING", ""),
        ("slow 0", ""),
        ("ussd *100# 5 EUR", ""),
        ("full", "19 old messages\n"),
        ("sent", ""),
    ] {
        assert_eq!(
            obey(&modem, &cable, line).await,
            Ok(Said::Words(answer.to_owned())),
            "{line}"
        );
    }
    let status = obey(&modem, &cable, "status").await.unwrap();
    assert!(
        matches!(&status, Said::Words(words) if words.contains("taken: 1, stored: 20")),
        "{status:?}"
    );
    assert_eq!(obey(&modem, &cable, "quit").await, Ok(Said::Quit));
    for line in [
        "text",
        "pdu 1",
        "network x",
        "signal 99",
        "next",
        "fate 1z",
        "between x y",
        "deaf",
        "dance",
    ] {
        assert!(obey(&modem, &cable, line).await.is_err(), "{line}");
    }
}
