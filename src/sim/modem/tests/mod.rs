//! The engine, driven by bytes and a clock that the test moves.

mod cable;
mod dialogue;
mod incoming;
mod makes;
mod outgoing;

use std::time::Duration;

use super::pdu::hex;
use super::{Engine, Options, Profile};

/// A modem and the program in front of it.
struct Bench {
    modem: Engine,
    now: Duration,
}

impl Bench {
    fn new(options: Options) -> Self {
        Self {
            modem: Engine::new(Options {
                epoch: "2026-11-22T10:00:00Z".parse().unwrap(),
                ..options
            }),
            now: Duration::ZERO,
        }
    }

    /// Without echo, with numbers in errors.
    fn quiet(profile: Profile) -> Self {
        let mut bench = Self::new(Options {
            profile,
            ..Options::default()
        });
        assert_eq!(bench.type_in("ATE0+CMEE=1\r"), "ATE0+CMEE=1\r\r\nOK\r\n");
        bench
    }

    fn generic() -> Self {
        Self::quiet(Profile::Generic)
    }

    /// Bytes go in; what comes at once comes out.
    fn type_in(&mut self, text: &str) -> String {
        self.modem.receive(text.as_bytes(), self.now);
        self.read()
    }

    fn read(&mut self) -> String {
        String::from_utf8_lossy(&self.modem.output()).into_owned()
    }

    /// A command line and its answer, `\r\n` between lines as `|`.
    fn ask(&mut self, line: &str) -> String {
        lines(&self.type_in(&format!("{line}\r")))
    }

    /// Lets time pass; returns what is said meanwhile.
    fn wait(&mut self, time: Duration) -> String {
        self.now += time;
        self.modem.tick(self.now);
        lines(&self.read())
    }

    fn wait_millis(&mut self, millis: u64) -> String {
        self.wait(Duration::from_millis(millis))
    }

    /// Sends a PDU and returns the answer.
    fn send(&mut self, pdu: &[u8]) -> String {
        let length = pdu.len() - 1 - usize::from(pdu[0]);
        let prompt = self.type_in(&format!("AT+CMGS={length}\r"));
        assert!(prompt.ends_with("\r\n> "), "{prompt:?}");
        let at_once = self.type_in(&format!("{}\u{1a}", hex(pdu)));
        lines(&at_once) + &self.wait_millis(20)
    }
}

/// Lines without the empty ones, joined by `|`.
fn lines(text: &str) -> String {
    let lines: Vec<&str> = text.split("\r\n").filter(|line| !line.is_empty()).collect();
    lines.join("|")
}

/// An SMS-SUBMIT that wants a report: `hellohello` to +491710000002.
fn hello() -> Vec<u8> {
    unhex("0031000C919471010000200000A70AE8329BFD4697D9EC37")
}

fn unhex(text: &str) -> Vec<u8> {
    super::pdu::unhex(text).unwrap()
}
