//! Commands in words, for `pipepost sim modem`.

use std::path::PathBuf;
use std::time::Duration;

use super::pdu::{self, Text};
use super::{Cable, Engine, Interruption, Modem, Place, Registration, SendFault};

/// What can be said.
pub const HELP: &str = "\
text NUMBER WORDS…       somebody writes to the modem (long texts in several parts)
pdu HEX                  a PDU comes from the network, the service centre's address in front
status                   what the modem and its network do
sent                     whole messages as the recipients' phones show them
network STATE            home, roaming, searching, denied or none
signal N                 0 to 31
next FAULT               the next message: fail CODE, error, delay MS, no-prompt, silence [taken], restart [taken]
fate STATUS…             what delivery reports say, in hexadecimal: 00 delivered, 30 still trying, 46 expired; none
between PLACE LINE       a line in the next answer, prompt or result, or before a PDU: answer, inside, pdu, prompt, result
say LINE                 a line unasked
slow MS                  delays every answer
deaf MS                  neither hears nor says anything for this time
full                     fills the memory for incoming messages
ussd CODE WORDS…         what the network answers to a code
restart                  the modem restarts
unplug                   pulls the cable
plug [LINK]              plugs it in again, perhaps under another name
quit                     ends
";

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Something to show; may be empty.
    Words(String),
    /// The end is wanted.
    Quit,
}

/// Does what a line says. `cable` is what the modem was started on; an error says what is wrong with the line.
pub async fn obey(modem: &Modem, cable: &Cable, line: &str) -> Result<Said, String> {
    let (word, rest) = cut(line.trim());
    let said = match word {
        "" => String::new(),
        "help" => HELP.to_owned(),
        "quit" | "exit" => return Ok(Said::Quit),
        "status" => status(modem),
        "sent" => sent(modem),
        "unplug" => {
            modem.unplug().await;
            String::new()
        }
        "plug" => {
            let cable = match cable {
                Cable::Pty { .. } if !rest.is_empty() => Cable::Pty {
                    link: Some(PathBuf::from(rest)),
                },
                same => same.clone(),
            };
            let path = modem.plug(cable).await.map_err(|error| error.to_string())?;
            format!("modem at {}\n", path.display())
        }
        _ => return modem.with(|engine| change(engine, word, rest)).map(Said::Words),
    };
    Ok(Said::Words(said))
}

/// Does what concerns the modem without its cable.
fn change(engine: &mut Engine, word: &str, rest: &str) -> Result<String, String> {
    match word {
        "text" => {
            let (number, text) = cut(rest);
            if text.is_empty() {
                return Err("text NUMBER WORDS…".to_owned());
            }
            let mut text = Text::new(number, text, engine.wall_time());
            // Two long texts of one sender must not have one reference.
            let counts = engine.counts();
            text.reference = u16::try_from((counts.taken + counts.waiting) % 256).unwrap_or(0);
            engine.text(&text);
        }
        "pdu" => engine.pdu(pdu::unhex(rest).map_err(|error| error.to_string())?),
        "network" => engine.network(match rest {
            "home" => Registration::Home,
            "roaming" => Registration::Roaming,
            "searching" => Registration::Searching,
            "denied" => Registration::Denied,
            "none" => Registration::None,
            _ => return Err("network home|roaming|searching|denied|none".to_owned()),
        }),
        "signal" => {
            let signal = rest.parse().ok().filter(|signal| *signal <= 31);
            engine.signal(signal.ok_or("signal 0 to 31")?);
        }
        "next" => engine.next_send(fault(rest)?),
        "fate" => {
            let statuses = rest
                .split_whitespace()
                .filter(|status| *status != "none")
                .map(|status| u8::from_str_radix(status, 16).map_err(|_| format!("{status}: no status")))
                .collect::<Result<Vec<u8>, String>>()?;
            engine.fate(statuses);
        }
        "between" => {
            let (place, line) = cut(rest);
            let place = match place {
                "answer" => Place::BeforeAnswer,
                "inside" => Place::InsideAnswer,
                "pdu" => Place::BeforePdu,
                "prompt" => Place::BeforePrompt,
                "result" => Place::BeforeResult,
                _ => return Err("between answer|inside|pdu|prompt|result LINE".to_owned()),
            };
            engine.interrupt_next(place, Interruption::Line(line.to_owned()));
        }
        "say" => engine.say_unasked(rest),
        "slow" => engine.slow(millis(rest)?),
        "deaf" => engine.deaf(millis(rest)?),
        "full" => return Ok(format!("{} old messages\n", engine.fill())),
        "ussd" => {
            let (code, text) = cut(rest);
            engine.ussd_answer(code, text);
        }
        "restart" => engine.restart_now(),
        _ => return Err(format!("{word}: not a command; try help")),
    }
    Ok(String::new())
}

/// The first word and the rest.
fn cut(line: &str) -> (&str, &str) {
    line.split_once(char::is_whitespace)
        .map_or((line, ""), |(word, rest)| (word, rest.trim_start()))
}

fn millis(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|_| "how many milliseconds?".to_owned())
}

fn fault(words: &str) -> Result<SendFault, String> {
    let (word, rest) = cut(words);
    Ok(match (word, rest) {
        ("fail", code) => SendFault::Cms(code.parse().map_err(|_| "next fail CODE")?),
        ("error", "") => SendFault::Error,
        ("delay", wait) => SendFault::Delay(millis(wait)?),
        ("no-prompt", "") => SendFault::NoPrompt,
        ("silence", "" | "taken") => SendFault::Silence {
            taken: rest == "taken",
        },
        ("restart", "" | "taken") => SendFault::Restart {
            taken: rest == "taken",
        },
        _ => {
            return Err("next fail CODE|error|delay MS|no-prompt|silence [taken]|restart [taken]".to_owned());
        }
    })
}

fn status(modem: &Modem) -> String {
    let counts = modem.counts();
    let power = if counts.ready { "ready" } else { "not ready" };
    let network = if counts.registered {
        "in the network"
    } else {
        "without a network"
    };
    let mut text = format!(
        "at {}, {power}, {network}, restarts: {}\n\
         sent: {}, refused: {}\n\
         waiting in the network: {}, taken: {}, stored: {}, deleted: {}, acknowledged: {}\n",
        modem.path().display(),
        counts.restarts,
        counts.sent,
        counts.refused,
        counts.waiting,
        counts.taken,
        counts.stored,
        counts.deleted,
        counts.acknowledged,
    );
    modem.with(|engine| {
        for reason in engine.refused() {
            text.extend(["refused: ", reason, "\n"]);
        }
        if let Some(line) = engine.lines().last() {
            text.extend(["last command: ", line, "\n"]);
        }
    });
    text
}

fn sent(modem: &Modem) -> String {
    let lines: Vec<String> = modem
        .with(|engine| engine.shown())
        .into_iter()
        .map(|message| {
            let incomplete = if message.complete { "" } else { " (incomplete)" };
            let text = message.text.unwrap_or_else(|| "(data)".to_owned());
            let parts = message.references.len();
            format!("to {} in {parts} part(s){incomplete}: {text}\n", message.to)
        })
        .collect();
    lines.concat()
}
