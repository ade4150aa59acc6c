//! The rules, and what breaks them.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Found, Source};

const BEGIN: &str = "<!-- direction-rule:begin -->";
const END: &str = "<!-- direction-rule:end -->";

/// Crates that only some rooms name.
const HOMES: [(&str, &[&str]); 5] = [
    ("sled", &["store"]),
    ("ureq", &["http", "sim"]),
    ("rumqttc", &["driver", "sim"]),
    ("serial2_tokio", &["driver"]),
    ("zbus", &["driver"]),
];

/// What `protocol` does without: tests may use the first ones.
const NOT_IN_PROTOCOL: [&[&str]; 3] = [&["tokio"], &["std", "net"], &["std", "fs"]];
const CLOCKS: [&str; 4] = ["Instant", "SystemTime", "Timestamp", "Zoned"];

/// The table of ARCHITECTURE.md.
pub(crate) struct Rules {
    allowed: BTreeMap<String, BTreeSet<String>>,
}

/// What was looked at, and what is wrong with it.
pub(crate) struct Checked {
    pub(crate) files: usize,
    pub(crate) paths: usize,
    /// Paths from one room into another.
    pub(crate) crossings: usize,
    pub(crate) violations: Vec<String>,
}

impl Rules {
    pub(crate) fn read(document: &str) -> Result<Self, String> {
        let (_, rest) = document
            .split_once(BEGIN)
            .ok_or("the direction rule has no beginning")?;
        let (table, _) = rest.split_once(END).ok_or("the direction rule has no end")?;
        let mut allowed = BTreeMap::new();
        for row in table
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('|'))
            .skip(2)
        {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [room, uses] = cells.as_slice() else {
                return Err(format!("not two cells: {row}"));
            };
            let uses = uses
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            if allowed.insert((*room).to_owned(), uses).is_some() {
                return Err(format!("`{room}` is listed twice"));
            }
        }
        if allowed.is_empty() {
            return Err("the table is empty".to_owned());
        }
        let rules = Self { allowed };
        rules.check_table()?;
        Ok(rules)
    }

    /// Every room exists and none can reach itself.
    fn check_table(&self) -> Result<(), String> {
        for (room, uses) in &self.allowed {
            let mut reached = BTreeSet::new();
            let mut open: Vec<&String> = uses.iter().collect();
            while let Some(next) = open.pop() {
                let further = self
                    .allowed
                    .get(next)
                    .ok_or_else(|| format!("`{next}` is not listed"))?;
                if reached.insert(next) {
                    open.extend(further);
                }
            }
            if reached.contains(room) {
                return Err(format!("`{room}` uses itself in a circle"));
            }
        }
        Ok(())
    }

    /// Checks files given by their path in `src/` and their text.
    pub(crate) fn check(&self, files: &[(String, String)]) -> Checked {
        let sources: Vec<(&str, Vec<String>, Source)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), module_of(name), Source::read(text)))
            .collect();
        let tests: Vec<Vec<String>> = sources
            .iter()
            .flat_map(|(_, module, source)| {
                source
                    .test_modules
                    .iter()
                    .map(move |name| [module.as_slice(), std::slice::from_ref(name)].concat())
            })
            .collect();
        let mut checked = Checked {
            files: 0,
            paths: 0,
            crossings: 0,
            violations: Vec::new(),
        };
        for (name, module, source) in &sources {
            checked.files += 1;
            let room = match (*name, module.first()) {
                ("main.rs", _) => "main",
                (_, Some(room)) => room,
                // lib.rs declares the rooms and uses none.
                (_, None) => "lib",
            };
            if room != "lib" && !self.allowed.contains_key(room) {
                checked
                    .violations
                    .push(format!("src/{name}: `{room}` is not listed in ARCHITECTURE.md"));
                continue;
            }
            let in_test = tests.iter().any(|test| module.starts_with(test));
            for found in &source.paths {
                checked.paths += 1;
                let mut report = |what: String| {
                    checked
                        .violations
                        .push(format!("src/{name}:{}: {what}", found.line));
                };
                match target(found, module) {
                    Target::Room(other) if other == room => {}
                    Target::Room(other) => {
                        checked.crossings += 1;
                        if !self.allowed.get(room).is_some_and(|uses| uses.contains(&other)) {
                            report(format!(
                                "`{room}` may not use `{other}` ({})",
                                found.names.join("::")
                            ));
                        }
                    }
                    Target::Root => report(format!("`{}` hides which room is used", found.names.join("::"))),
                    Target::Elsewhere => {}
                }
                foreign(room, found, &mut report);
                if room == "protocol" {
                    pure(found, in_test || found.test, &mut report);
                }
            }
        }
        checked
    }
}

/// The module that a file is: `protocol/mqtt/mod.rs` is `protocol::mqtt`.
fn module_of(name: &str) -> Vec<String> {
    let mut module: Vec<String> = name
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if module.last().is_some_and(|last| last == "mod")
        || matches!(module.as_slice(), [only] if only == "lib" || only == "main")
    {
        module.pop();
    }
    module
}

enum Target {
    Room(String),
    /// The crate itself, under another name or with everything in it.
    Root,
    Elsewhere,
}

fn target(found: &Found, module: &[String]) -> Target {
    let mut names = found.names.as_slice();
    let mut here: Option<Vec<String>> = None;
    while let [first, rest @ ..] = names {
        match first.as_str() {
            "crate" | "pipepost" if here.is_none() => here = Some(Vec::new()),
            "self" if here.is_none() => here = Some([module, &found.modules].concat()),
            "super" => {
                let mut base = here.take().unwrap_or_else(|| [module, &found.modules].concat());
                base.pop();
                here = Some(base);
            }
            _ => break,
        }
        names = rest;
    }
    let Some(here) = here else {
        return Target::Elsewhere;
    };
    if let Some(room) = here.first() {
        return Target::Room(room.clone());
    }
    match names {
        [] => Target::Root,
        [first, ..] if first == "*" => Target::Root,
        [first, ..] => Target::Room(first.clone()),
    }
}

fn foreign(room: &str, found: &Found, report: &mut impl FnMut(String)) {
    for (krate, homes) in HOMES {
        if found.names.first().is_some_and(|first| first == krate) && !homes.contains(&room) {
            report(format!("`{krate}` belongs to {}", homes.join(" and ")));
        }
    }
}

fn pure(found: &Found, test: bool, report: &mut impl FnMut(String)) {
    let names: Vec<&str> = found.names.iter().map(String::as_str).collect();
    for path in NOT_IN_PROTOCOL {
        if !test && names.starts_with(path) {
            report(format!("`protocol` does without `{}`", path.join("::")));
        }
    }
    let clock = match names.as_slice() {
        [.., clock, "now"] => CLOCKS.contains(clock),
        [.., clock] => found.renamed && CLOCKS.contains(clock),
        [] => false,
    };
    if clock {
        report(format!("`protocol` is told the time (`{}`)", names.join("::")));
    }
}
