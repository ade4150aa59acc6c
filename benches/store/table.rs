//! What was measured, line by line, with its limit.

use std::path::Path;

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
