//! CSV (RFC 4180) with a line of headings, as programs export address books.

use std::collections::VecDeque;

use csv_core::{ReadRecordResult, ReaderBuilder};

use super::{BookError, Item, MAX_NUMBERS, Skip, item, text_of};

/// Longest record that is kept, in bytes. Notes may be long.
const MAX_RECORD: usize = 64 * 1024;
/// Most columns; Outlook has 92.
const MAX_COLUMNS: usize = 512;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Whole,
    First,
    Middle,
    Last,
    /// A name when there is no other.
    Nickname,
    Company,
    Number,
    Device,
    Other,
}

/// Headings without spaces and signs, in the languages of many an export.
const HEADINGS: [(Column, &str); 8] = [
    (
        Column::Whole,
        " name fullname displayname contactname contact customer customername kunde kundenname naam nom nombre nome ",
    ),
    (
        Column::First,
        " firstname givenname first given forename vorname voornaam prénom prenom nombredepila ",
    ),
    (
        Column::Middle,
        " middlename additionalname middle weiterevornamen tussenvoegsel ",
    ),
    (
        Column::Last,
        " lastname familyname surname last family nachname achternaam nomdefamille apellido apellidos cognome ",
    ),
    (Column::Nickname, " nickname fileas spitzname "),
    (
        Column::Company,
        " company companyname organization organisation organizationname organization1name firma bedrijf société societe empresa ",
    ),
    (
        Column::Number,
        " number tel telnr cell mobile mobil mobiel mobilnummer handy handynummer gsm msisdn portable móvil movil cellulare nummer rufnummer sms ",
    ),
    (Column::Device, " device deviceaddress deviceid "),
];

/// A heading that holds one of these is no number, whatever else it says.
const NO_NUMBERS: [&str; 9] = [
    "type",
    "label",
    "fax",
    "phonetic",
    "pager",
    "telex",
    "mail",
    "yomi",
    "preferred",
];
/// A heading that holds one of these is a number.
const NUMBERS: [&str; 7] = [
    "phone",
    "mobile",
    "telefon",
    "telefoon",
    "teléfono",
    "téléphone",
    "telefono",
];

fn column(heading: &str) -> Column {
    let plain: String = heading
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    if plain.is_empty() || NO_NUMBERS.iter().any(|word| plain.contains(word)) {
        return Column::Other;
    }
    // `Phone 2 - Value`, `Home Phone 2`, `Tel. 1`
    let word: String = plain.chars().filter(|c| !c.is_ascii_digit()).collect();
    for (column, headings) in HEADINGS {
        if headings
            .split(' ')
            .any(|heading| !heading.is_empty() && (heading == plain || heading == word))
        {
            return column;
        }
    }
    if NUMBERS.iter().any(|word| plain.contains(word)) {
        return Column::Number;
    }
    Column::Other
}

/// Reads records; the first one says what the columns are.
#[derive(Debug)]
pub(super) struct Reader {
    parser: csv_core::Reader,
    columns: Vec<Column>,
    output: Vec<u8>,
    ends: Vec<usize>,
    /// How much of `output` and `ends` the record in progress has.
    used: (usize, usize),
    too_long: bool,
    /// Line on which the record in progress begins.
    line: u64,
    /// `sep=;`, which spreadsheets write for each other.
    skip_first: bool,
}

impl Reader {
    /// `head` begins with the first line.
    pub(super) fn new(head: &[u8]) -> Self {
        let first = super::start(head)
            .split(|byte| super::is_line_end(*byte))
            .next()
            .unwrap_or_default();
        let said = first.strip_prefix(b"sep=").filter(|rest| rest.len() == 1);
        let delimiter = said
            .and_then(|rest| rest.first().copied())
            .unwrap_or_else(|| likely_delimiter(first));
        Self {
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            columns: Vec::new(),
            output: vec![0; MAX_RECORD],
            ends: vec![0; MAX_COLUMNS],
            used: (0, 0),
            too_long: false,
            line: 1,
            skip_first: said.is_some(),
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], items: &mut VecDeque<Item>) -> Result<(), BookError> {
        while !bytes.is_empty() {
            let taken = self.step(bytes, items)?;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, items: &mut VecDeque<Item>) -> Result<(), BookError> {
        // An empty input ends the last record; the parser says so at the second one at the latest, with a full buffer
        // at the third.
        for _ in 0..4 {
            self.step(&[], items)?;
        }
        if self.columns.is_empty() {
            return Err(BookError::Empty);
        }
        Ok(())
    }

    /// Returns how many bytes were taken.
    fn step(&mut self, input: &[u8], items: &mut VecDeque<Item>) -> Result<usize, BookError> {
        let (result, taken, written, fields) = self.parser.read_record(
            input,
            self.output.get_mut(self.used.0..).unwrap_or_default(),
            self.ends.get_mut(self.used.1..).unwrap_or_default(),
        );
        self.used.0 += written;
        self.used.1 += fields;
        match result {
            ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                // The rest of the record is read over what is there.
                self.too_long = true;
                self.used = (0, 0);
            }
            ReadRecordResult::Record => {
                let outcome = self.record(items);
                self.used = (0, 0);
                self.too_long = false;
                // The parser ends a record at the first half of a line end, and counts the second.
                let half = taken.checked_sub(1).and_then(|last| input.get(last)) == Some(&b'\r');
                self.line = self.parser.line() + u64::from(half);
                outcome?;
            }
        }
        Ok(taken)
    }

    fn record(&mut self, items: &mut VecDeque<Item>) -> Result<(), BookError> {
        if std::mem::take(&mut self.skip_first) {
            return Ok(());
        }
        if self.too_long {
            if self.columns.is_empty() {
                return Err(BookError::NoColumns { missing: "end" });
            }
            items.push_back(Item::Skipped {
                line: self.line,
                why: Skip::TooLong,
            });
            return Ok(());
        }
        let mut start = 0;
        let fields = self
            .ends
            .get(..self.used.1)
            .unwrap_or_default()
            .iter()
            .map(|end| {
                let field = self.output.get(start..*end).unwrap_or_default();
                start = *end;
                field.trim_ascii()
            });
        if self.columns.is_empty() {
            self.columns = columns(fields)?;
            return Ok(());
        }
        let mut read = Read::default();
        for (column, field) in self.columns.iter().zip(fields) {
            if !field.is_empty() {
                read.field(*column, field);
            }
        }
        // Spreadsheets leave lines of nothing but separators.
        if read != Read::default() {
            items.push_back(item(self.line, &read.name(), read.numbers, read.devices));
        }
        Ok(())
    }
}

fn columns<'a>(headings: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Column>, BookError> {
    let mut columns: Vec<Column> = headings.map(|heading| column(&text_of(heading))).collect();
    let has = |columns: &[Column], wanted: &[Column]| columns.iter().any(|column| wanted.contains(column));
    // "Vorname;Name": beside a first name, a name alone is the last one.
    if has(&columns, &[Column::First]) && !has(&columns, &[Column::Last]) {
        for column in columns.iter_mut().filter(|column| **column == Column::Whole) {
            *column = Column::Last;
        }
    }
    let names = [
        Column::Whole,
        Column::First,
        Column::Last,
        Column::Nickname,
        Column::Company,
    ];
    if !has(&columns, &names) {
        return Err(BookError::NoColumns { missing: "name" });
    }
    if !has(&columns, &[Column::Number, Column::Device]) {
        return Err(BookError::NoColumns {
            missing: "phone number",
        });
    }
    Ok(columns)
}

/// The separator that the first line has most of, outside of quotes.
fn likely_delimiter(line: &[u8]) -> u8 {
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for byte in line {
        if *byte == b'"' {
            quoted = !quoted;
        } else if !quoted && let Some((_, count)) = counts.iter_mut().find(|(of, _)| of == byte) {
            *count += 1;
        }
    }
    // Of equally many the first.
    counts
        .iter()
        .rev()
        .max_by_key(|(_, count)| *count)
        .map_or(b',', |(of, _)| *of)
}

/// The fields of one record by what they are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    whole: String,
    parts: [String; 3],
    nickname: String,
    company: String,
    numbers: Vec<String>,
    devices: Vec<String>,
    other: bool,
}

impl Read {
    fn field(&mut self, column: Column, field: &[u8]) {
        let [first, middle, last] = &mut self.parts;
        let place = match column {
            Column::Whole => &mut self.whole,
            Column::First => first,
            Column::Middle => middle,
            Column::Last => last,
            Column::Nickname => &mut self.nickname,
            Column::Company => &mut self.company,
            Column::Number | Column::Device => {
                // Google puts several values into one field so.
                for value in text_of(field)
                    .split(":::")
                    .map(str::trim)
                    .filter(|value| !value.is_empty())
                {
                    let values = if column == Column::Number {
                        &mut self.numbers
                    } else {
                        &mut self.devices
                    };
                    if values.len() < MAX_NUMBERS && !values.iter().any(|known| known == value) {
                        values.push(value.to_owned());
                    }
                }
                return;
            }
            Column::Other => {
                self.other = true;
                return;
            }
        };
        if place.is_empty() {
            *place = text_of(field);
        }
    }

    fn name(&self) -> String {
        let parts = self.parts.join(" ");
        let mut names = [&self.whole, &parts, &self.nickname, &self.company].into_iter();
        names
            .find(|name| !name.trim().is_empty())
            .cloned()
            .unwrap_or_default()
    }
}
