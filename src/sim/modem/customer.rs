//! A customer with a phone, for the demo.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::pdu::Text;
use super::{Counts, Modem};

/// From an agent's message to the customer's answer.
const ANSWER_AFTER: Duration = Duration::from_secs(5);

/// A customer who writes to a modem and answers what comes from it.
#[derive(Debug)]
pub struct Customer<'a> {
    modem: &'a Modem,
    counts: watch::Receiver<Counts>,
    name: String,
    number: String,
    /// What is still to be written, and when.
    texts: VecDeque<(Instant, String)>,
    answers: VecDeque<String>,
    /// Whole messages that have come to the phone.
    seen: usize,
    written: u16,
}

impl<'a> Customer<'a> {
    /// The demo's: from a range of numbers that the authority keeps for films. She begins to write now.
    #[must_use]
    pub fn demo(modem: &'a Modem) -> Self {
        let now = Instant::now();
        let text = |millis, text: &str| (now + Duration::from_millis(millis), text.to_owned());
        Self {
            modem,
            counts: modem.watch_counts(),
            name: "Olivia Hart".to_owned(),
            number: "+447700900317".to_owned(),
            texts: VecDeque::from([
                text(
                    600,
                    "Hello, I'm at your gate and nobody answers the bell. Am I too early?",
                ),
                text(
                    11_000,
                    "I'll wait in the car. It's the blue van, and there are two big boxes to carry: the smaller one is \
                     fragile, so please bring somebody who can help with it, and the trolley if you have one. Thanks! \
                     🙏",
                ),
            ]),
            answers: VecDeque::from([
                "Great, see you in a minute.".to_owned(),
                "All done, thank you 👋".to_owned(),
            ]),
            seen: 0,
            written: 0,
        }
    }

    /// The next thing that happens between the modem and the phone, in words. May be given up at any time.
    pub async fn event(&mut self) -> String {
        loop {
            let due = self.texts.front().map(|(due, _)| *due);
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, text)) = self.texts.pop_front() {
                        self.write(&text);
                        return format!("{} wrote to the SIM800 modem: {text}", self.name);
                    }
                }
                changed = self.counts.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    if let Some(said) = self.look() {
                        return said;
                    }
                }
            }
        }
    }

    fn write(&mut self, text: &str) {
        self.written += 1;
        self.modem.with(|engine| {
            let text = Text {
                reference: self.written,
                ..Text::new(&self.number, text, engine.wall_time())
            };
            engine.text(&text);
        });
    }

    /// Whether a whole message has come since the last look.
    fn look(&mut self) -> Option<String> {
        let shown = self.modem.with(|engine| engine.shown());
        let message = shown.get(self.seen).filter(|message| message.complete)?;
        self.seen += 1;
        let text = message.text.clone().unwrap_or_default();
        if message.to != self.number {
            return Some(format!("the SIM800 modem sends to {}: {text}", message.to));
        }
        if let Some(answer) = self.answers.pop_front() {
            self.texts.push_back((Instant::now() + ANSWER_AFTER, answer));
            self.texts.make_contiguous().sort_by_key(|(due, _)| *due);
        }
        Some(format!("the SIM800 modem sends to {}: {text}", self.name))
    }
}
