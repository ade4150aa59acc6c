//! The address book: names by address. A name is looked up when somebody is shown, so that a change is seen in every
//! conversation at once and costs nothing before.

use log::warn;

use super::committer::Durability;
use super::reader::Reader;
use super::shared::Shared;
use super::tx::{Source, Tx};
use super::types::{Contact, ContactOutcome};
use super::{Store, StoreError, keys};
use crate::domain::Address;
use crate::protocol::sms::{Peer, international_form};

/// Most entries: a few MB on disk, and nothing in memory that the tree does not keep anyway.
pub const MAX_CONTACTS: u64 = 25_000;

impl Store {
    /// Adds entries to the address book, or changes their names; one outcome for each, in order. Durable when it
    /// returns.
    pub async fn put_contacts(&self, contacts: Vec<Contact>) -> Result<Vec<ContactOutcome>, StoreError> {
        if !contacts.is_empty() {
            self.recheck_space();
            if !self.inner.shared.gauge.space().is_enough() {
                return Err(StoreError::NoSpace);
            }
        }
        self.write(Durability::Synced, move |tx, _| put(tx, contacts))
            .await
    }

    /// Removes the named entries, or all. Returns how many there were. Durable when it returns.
    pub async fn remove_contacts(&self, of: Option<Vec<Address>>) -> Result<u64, StoreError> {
        self.write(Durability::Synced, move |tx, _| remove(tx, of)).await
    }
}

fn count(source: &impl Source) -> Result<u64, StoreError> {
    Ok(source.load(keys::CONTACTS)?.unwrap_or(0))
}

fn outcome(source: &impl Source, contact: &Contact, room: bool) -> Result<ContactOutcome, StoreError> {
    Ok(match source.load::<String>(&keys::contact(&contact.address))? {
        Some(name) if name == contact.name => ContactOutcome::Same,
        Some(from) => ContactOutcome::Changed { from },
        None if room => ContactOutcome::Added,
        None => ContactOutcome::Full,
    })
}

fn put(tx: &mut Tx<'_>, contacts: Vec<Contact>) -> Result<Vec<ContactOutcome>, StoreError> {
    let before = count(tx)?;
    let mut total = before;
    let mut outcomes = Vec::with_capacity(contacts.len());
    for contact in contacts {
        let outcome = outcome(tx, &contact, total < MAX_CONTACTS)?;
        match outcome {
            ContactOutcome::Added => total += 1,
            ContactOutcome::Changed { .. } => {}
            ContactOutcome::Same | ContactOutcome::Full => {
                outcomes.push(outcome);
                continue;
            }
        }
        tx.put(keys::contact(&contact.address), &contact.name)?;
        outcomes.push(outcome);
    }
    if total != before {
        tx.put(keys::CONTACTS.to_vec(), &total)?;
    }
    Ok(outcomes)
}

fn remove(tx: &mut Tx<'_>, of: Option<Vec<Address>>) -> Result<u64, StoreError> {
    let wanted: Vec<Vec<u8>> = if let Some(addresses) = of {
        addresses.iter().map(keys::contact).collect()
    } else {
        let all = tx.scan(keys::all(b'E'));
        all.map(|item| item.map(|(key, _)| key.to_vec()))
            .collect::<Result<_, _>>()?
    };
    let before = count(tx)?;
    let mut removed = 0;
    for key in wanted {
        if tx.get(&key)?.is_some() {
            tx.delete(key);
            removed += 1;
        }
    }
    if removed > 0 {
        tx.put(keys::CONTACTS.to_vec(), &before.saturating_sub(removed))?;
    }
    Ok(removed)
}

impl Reader {
    /// What [`Store::put_contacts`] would do with entries of which no two have the same address, after `added` others.
    pub fn try_contacts(&self, contacts: &[Contact], added: u64) -> Result<Vec<ContactOutcome>, StoreError> {
        let mut total = count(&*self.shared)?.saturating_add(added);
        let mut outcomes = Vec::with_capacity(contacts.len());
        for contact in contacts {
            let outcome = outcome(&*self.shared, contact, total < MAX_CONTACTS)?;
            total += u64::from(outcome == ContactOutcome::Added);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// How many entries the address book has.
    pub fn contact_count(&self) -> Result<u64, StoreError> {
        count(&*self.shared)
    }

    /// Entries of the address book in the order of their addresses, from behind `after`.
    pub fn contacts(&self, after: Option<&Address>, limit: usize) -> Result<Vec<Contact>, StoreError> {
        let (first, end) = keys::all(b'E');
        let start = after.map_or(first, |after| {
            let mut behind = keys::contact(after);
            behind.push(0);
            behind
        });
        let mut found = Vec::new();
        for item in self.shared.scan((start, end)).take(limit) {
            let (key, value) = item?;
            let address = key
                .get(1..)
                .and_then(|key| Address::new(std::str::from_utf8(key).ok()?));
            match (address, super::records::decode::<String>(&value)) {
                (Some(address), Ok(name)) => found.push(Contact { address, name }),
                _ => warn!("An entry of the address book cannot be read"),
            }
        }
        Ok(found)
    }
}

/// What somebody is called: the address book comes first, then what the device said, then the number.
pub(super) struct Name {
    /// From the address book, or the number.
    plain: String,
    in_book: bool,
}

impl Name {
    /// Looks an address up.
    pub(super) fn of(shared: &Shared, address: &Address) -> Self {
        let found = in_book(shared, address).unwrap_or_else(|error| {
            warn!("An entry of the address book cannot be read: {error}");
            None
        });
        Self {
            in_book: found.is_some(),
            plain: found.unwrap_or_else(|| international_form(address.as_str()).into_owned()),
        }
    }

    /// The name, of somebody for whom the device gave one or none.
    pub(super) fn shown(&self, given: Option<&str>) -> String {
        given.filter(|_| !self.in_book).unwrap_or(&self.plain).to_owned()
    }
}

fn in_book(shared: &Shared, address: &Address) -> Result<Option<String>, StoreError> {
    if let Some(name) = shared.load(&keys::contact(address))? {
        return Ok(Some(name));
    }
    // A device may write a number in the form of its own country; the book has them all in one form.
    match shared.options.home.recipient(address.as_str()) {
        Some(Peer::Number(number)) if number != address.as_str() => match Address::new(&number) {
            Some(number) => shared.load(&keys::contact(&number)),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}
