//! What to measure, and where.

use std::path::PathBuf;

/// What a process of its own does.
pub(crate) enum Child {
    Probe(PathBuf),
    Open(PathBuf),
    Crash(PathBuf),
    Pages(PathBuf),
}

pub(crate) struct Arguments {
    pub(crate) messages: u64,
    pub(crate) dir: PathBuf,
    pub(crate) json: Option<PathBuf>,
    pub(crate) keep: bool,
    pub(crate) child: Option<Child>,
}

impl Arguments {
    pub(crate) fn read() -> Self {
        let mut read = Self {
            messages: 1_000_000,
            dir: std::env::temp_dir(),
            json: None,
            keep: false,
            child: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut path = || PathBuf::from(arguments.next().unwrap());
            match argument.as_str() {
                "--dir" => read.dir = path(),
                "--json" => read.json = Some(path()),
                "--keep" => read.keep = true,
                "--device" => *super::DEVICE.lock().unwrap() = arguments.next(),
                "--probe" => read.child = Some(Child::Probe(path())),
                "--open" => read.child = Some(Child::Open(path())),
                "--pages" => read.child = Some(Child::Pages(path())),
                "--crash" => read.child = Some(Child::Crash(path())),
                // Cargo's own.
                "--bench" => {}
                number => read.messages = number.parse().unwrap(),
            }
        }
        read
    }
}
