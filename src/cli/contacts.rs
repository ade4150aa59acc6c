//! `pipepost contacts`: names for numbers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use serde::Serialize;
use serde_json::json;

use super::error::{CliError, DATA, IO};
use super::{Session, done, output, show};
use crate::control::client;
use crate::control::{
    CONTACTS_AT_ONCE, ContactRow, ContactsPage, SaveContacts, SavedContact, SavedContacts, contact_segment,
};
use crate::domain::Address;
use crate::protocol::contacts::{Book, Contact, Item, Skip, address_of};
use crate::protocol::sms::{Home, international_form};

/// Largest file that is read, in bytes: vCards may hold photos.
const MAX_FILE: usize = 256 << 20;
/// Lines about single contacts that are printed; with `--json` all are.
const SHOWN: usize = 50;

/// `pipepost contacts …`
#[derive(Debug, Subcommand)]
pub enum ContactsCommand {
    /// Take names from an address book: CSV (Google, Outlook, any with headings) or vCard
    Import {
        /// The file; `-` for standard input
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// How numbers without a country code are meant, e.g. NL [default: `gateway.country`]
        #[arg(long, value_name = "COUNTRY")]
        country: Option<String>,
    },
    /// List the address book
    List {
        /// How many at most
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Print the address book as CSV, which `import` reads again
    Export,
    /// Remove one number from the address book, or all
    Remove {
        /// The number, or a device's address
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        number: Option<String>,
        /// Empty the address book
        #[arg(long)]
        all: bool,
    },
}

pub(super) async fn run(session: &Session, command: ContactsCommand) -> Result<(), CliError> {
    match command {
        ContactsCommand::Import {
            file,
            dry_run,
            country,
        } => import(session, &file, dry_run, country.as_deref()).await,
        ContactsCommand::List { limit } => {
            let path = format!("/contacts?limit={limit}");
            session.look(Method::GET, &path, show::contacts).await
        }
        ContactsCommand::Export => export(session).await,
        ContactsCommand::Remove { number: None, .. } => {
            session.change(Method::DELETE, "/contacts", None, done).await
        }
        ContactsCommand::Remove {
            number: Some(number), ..
        } => {
            let home = session.config()?.gateway.home;
            // A device's address is none of the forms of a number.
            let address = address_of(&number, home).map_or(number, |address| address.as_str().to_owned());
            let path = format!("/contacts/{}", contact_segment(&address));
            session.change(Method::DELETE, &path, None, done).await
        }
    }
}

/// A line of the file about which there is something to say.
#[derive(Debug, Serialize)]
struct Note {
    line: u64,
    note: String,
}

/// What an import did.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    added: u64,
    changed: u64,
    same: u64,
    /// Contacts without a phone number.
    without_number: u64,
    skipped: u64,
    changes: Vec<Note>,
    skips: Vec<Note>,
}

impl Report {
    fn skip(&mut self, line: u64, note: String) {
        self.skipped += 1;
        self.skips.push(Note { line, note });
    }

    fn words(&self) -> String {
        let would = if self.dry_run { "would be " } else { "" };
        let mut first = format!(
            "{} {would}added, {} {would}changed, {} as before, {} skipped",
            self.added, self.changed, self.same, self.skipped
        );
        if self.without_number > 0 {
            first = format!("{first}, {} without a phone number", self.without_number);
        }
        let mut lines = vec![first];
        for (title, notes) in [("changed", &self.changes), ("skipped", &self.skips)] {
            let shown = notes.iter().take(SHOWN);
            lines.extend(
                shown.map(|Note { line, note }| format!("{title}: line {line}: {}", show::printable(note))),
            );
            if notes.len() > SHOWN {
                lines.push(format!("{title}: {} more; --json has all", notes.len() - SHOWN));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// Where a number was first.
struct Seen {
    line: u64,
    name: String,
}

/// An import in progress.
struct Import<'a> {
    socket: &'a Path,
    home: Home,
    report: Report,
    seen: HashMap<Address, Seen>,
    batch: Vec<(u64, ContactRow)>,
}

impl Import<'_> {
    async fn item(&mut self, item: Item) -> Result<(), CliError> {
        match item {
            Item::Skipped {
                why: Skip::NoNumber, ..
            } => self.report.without_number += 1,
            Item::Skipped { line, why } => self.report.skip(line, why.to_string()),
            Item::Contact(contact) => self.contact(&contact).await?,
        }
        Ok(())
    }

    async fn contact(&mut self, contact: &Contact) -> Result<(), CliError> {
        for address in contact.addresses(self.home) {
            let (line, name) = (contact.line, &contact.name);
            let address = match address {
                Ok(address) => address,
                Err(why) => {
                    self.report.skip(line, format!("{name}: {why}"));
                    continue;
                }
            };
            if let Some(first) = self.seen.get(&address) {
                if first.name != *name {
                    let (first_line, first) = (first.line, &first.name);
                    let note = format!("{name}: line {first_line} has the same number, as {first}");
                    self.report.skip(line, note);
                }
                continue;
            }
            let row = ContactRow {
                address: address.as_str().to_owned(),
                name: name.clone(),
            };
            let name = name.clone();
            self.seen.insert(address, Seen { line, name });
            self.batch.push((line, row));
            if self.batch.len() >= CONTACTS_AT_ONCE {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), CliError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let request = SaveContacts {
            contacts: batch.iter().map(|(_, row)| row.clone()).collect(),
            dry_run: self.report.dry_run,
            added: self.report.added,
        };
        let saved: SavedContacts =
            client::call(self.socket, Method::POST, "/contacts", Some(&json!(request))).await?;
        for ((line, row), outcome) in batch.into_iter().zip(saved.outcomes) {
            let number = international_form(&row.address);
            match outcome {
                SavedContact::Added => self.report.added += 1,
                SavedContact::Same => self.report.same += 1,
                SavedContact::Changed(from) => {
                    self.report.changed += 1;
                    let note = format!("{number}: {from} is now {}", row.name);
                    self.report.changes.push(Note { line, note });
                }
                SavedContact::Refused(reason) => {
                    self.report
                        .skip(line, format!("{}, {number}: {reason}", row.name));
                }
            }
        }
        Ok(())
    }
}

/// Reads the file here and hands the daemon what is in it, so that the daemon's memory is spared.
async fn import(
    session: &Session,
    file: &Path,
    dry_run: bool,
    country: Option<&str>,
) -> Result<(), CliError> {
    let config = session.config()?;
    let home = match country {
        Some(country) => Home::new(country).ok_or_else(|| {
            CliError::new(
                DATA,
                format!("--country {country:?} is no country that is known here"),
            )
            .hint("write the two letters of ISO 3166, such as NL, GB or DE")
        })?,
        None => config.gateway.home,
    };
    let shown = file.display().to_string();
    let unreadable = |error: std::io::Error| CliError::new(IO, format!("cannot read {shown}: {error}"));
    let no_book = |error: &dyn std::fmt::Display| CliError::new(DATA, format!("{shown}: {error}"));
    let mut input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(file).map_err(unreadable)?)
    };
    let mut import = Import {
        socket: &config.gateway.control_socket,
        home,
        report: Report {
            dry_run,
            ..Report::default()
        },
        seen: HashMap::new(),
        batch: Vec::new(),
    };
    let mut book = Book::default();
    let mut piece = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let length = match input.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            length => length.map_err(unreadable)?,
        };
        if length == 0 {
            break;
        }
        total += length;
        if total > MAX_FILE {
            return Err(no_book(&"larger than 256 MiB, which is no address book"));
        }
        book.push(piece.get(..length).unwrap_or_default())
            .map_err(|error| no_book(&error))?;
        while let Some(item) = book.next_item() {
            import.item(item).await?;
        }
    }
    book.finish().map_err(|error| no_book(&error))?;
    while let Some(item) = book.next_item() {
        import.item(item).await?;
    }
    import.send().await?;
    session.print(&import.report, Report::words)
}

async fn export(session: &Session) -> Result<(), CliError> {
    let mut lines = vec!["name,phone,device".to_owned()];
    let mut path = "/contacts?limit=1000".to_owned();
    loop {
        let page: ContactsPage = session.ask(Method::GET, &path).await?;
        for ContactRow { address, name } in &page.contacts {
            let name = quoted(name);
            // What would not be read again as this address.
            let is_number = address_of(address, Home::NOWHERE).is_ok_and(|read| read.as_str() == address);
            let (phone, device) = if is_number {
                (quoted(address), String::new())
            } else {
                (String::new(), quoted(address))
            };
            lines.push(format!("{name},{phone},{device}"));
        }
        let Some(next) = page.next else { break };
        path = format!("/contacts?limit=1000&after={next}");
    }
    output::print(&(lines.join("\n") + "\n"))
}

/// A field of CSV (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', ';', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}
