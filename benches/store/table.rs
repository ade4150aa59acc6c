//! What was measured, line by line, with its limit.

use std::path::Path;

use serde_json::json;

#[derive(Default)]
pub(crate) struct Table(Vec<[String; 3]>);

impl Table {
    pub(crate) fn row(&mut self, name: &str, value: String, note: &str) {
        self.0.push([name.to_owned(), value, note.to_owned()]);
    }

    /// Runs this program again in a process of its own.
    pub(crate) fn child(&mut self, mode: &str, state: &Path, messages: u64) {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([mode, state.to_str().unwrap(), &messages.to_string()])
            .envs(of_unit())
            .output()
            .unwrap();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let cells: Vec<_> = line.split('|').collect();
            self.row(cells[0], cells[1].to_owned(), cells.get(2).unwrap_or(&""));
        }
    }

    pub(crate) fn print(&self) {
        for [name, value, note] in &self.0 {
            println!("{name:<42} {value:>22}   {note}");
        }
    }

    /// For a program: each line with its number and, where it has a limit, what is held against that. `folder`: where
    /// the stores lie.
    pub(crate) fn write(&self, file: &Path, folder: &Path) {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|[name, value, note]| json!({"what": name, "number": number(value), "against": number(note), "note": note}))
            .collect();
        let all = json!({"folder": folder, "rows": rows});
        std::fs::write(file, all.to_string()).unwrap();
    }
}

/// What systemd sets for the gateway.
fn of_unit() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../../systemd/pipepost.service")
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}

/// The first number in a text, whatever its unit.
fn number(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    words.find_map(|word| word.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok())
}

fn verdict(good: bool) -> &'static str {
    if good { "ok" } else { "MISSED" }
}

pub(crate) fn target(ratio: f64, wanted: f64, good: bool, unit: &str) -> String {
    format!("{ratio:.2} {unit} (target {wanted}) {}", verdict(good))
}

pub(crate) fn limit(value: f64, limit: f64) -> String {
    format!("at most {limit:.0} {}", verdict(value <= limit))
}
