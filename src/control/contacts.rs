//! Commands for the address book.

use data_encoding::BASE64URL_NOPAD;

use super::answers::{ContactRow, ContactsPage, Done, Failure, SaveContacts, SavedContact, SavedContacts};
use super::gateway::Gateway;
use crate::domain::Address;
use crate::protocol::contacts::clean_name;
use crate::store::{Contact, ContactOutcome, MAX_CONTACTS};

/// Most entries of one request.
pub const CONTACTS_AT_ONCE: usize = 500;

/// An address in a path or query.
#[must_use]
pub fn contact_segment(address: &str) -> String {
    BASE64URL_NOPAD.encode(address.as_bytes())
}

fn from_segment(segment: &str) -> Result<Address, Failure> {
    let bytes = BASE64URL_NOPAD.decode(segment.as_bytes()).ok();
    bytes
        .and_then(|bytes| Address::new(&String::from_utf8(bytes).ok()?))
        .ok_or_else(|| Failure::invalid("this is no address of a contact"))
}

fn counted(count: u64) -> String {
    format!("{count} contact{}", if count == 1 { "" } else { "s" })
}

impl Gateway {
    /// The address book, from behind an address.
    pub async fn contacts(&self, after: Option<&str>, limit: usize) -> Result<ContactsPage, Failure> {
        let after = after.map(from_segment).transpose()?;
        let (contacts, total) = self
            .store
            .read(move |reader| Ok((reader.contacts(after.as_ref(), limit)?, reader.contact_count()?)))
            .await?;
        let next = (contacts.len() == limit)
            .then(|| contacts.last().map(|last| contact_segment(last.address.as_str())))
            .flatten();
        let row = |contact: Contact| ContactRow {
            address: contact.address.as_str().to_owned(),
            name: contact.name,
        };
        Ok(ContactsPage {
            contacts: contacts.into_iter().map(row).collect(),
            total,
            next,
        })
    }

    /// Adds entries to the address book or changes their names, or says what that would do.
    pub async fn save_contacts(&self, request: SaveContacts) -> Result<SavedContacts, Failure> {
        self.live()?;
        if request.contacts.len() > CONTACTS_AT_ONCE {
            return Err(Failure::invalid(&format!(
                "at most {CONTACTS_AT_ONCE} contacts at a time"
            )));
        }
        let contact = |row: ContactRow| {
            let address = Address::new(&row.address);
            // What was cleaned before stays as it is.
            let name = clean_name(&row.name);
            address
                .zip(name)
                .map(|(address, name)| Contact { address, name })
                .ok_or_else(|| Failure::invalid("a contact needs an address and a name"))
        };
        let contacts = request
            .contacts
            .into_iter()
            .map(contact)
            .collect::<Result<Vec<_>, _>>()?;
        let outcomes = if request.dry_run {
            self.store
                .read(move |reader| reader.try_contacts(&contacts, request.added))
                .await?
        } else {
            self.store.put_contacts(contacts).await?
        };
        let saved = |outcome| match outcome {
            ContactOutcome::Added => SavedContact::Added,
            ContactOutcome::Changed { from } => SavedContact::Changed(from),
            ContactOutcome::Same => SavedContact::Same,
            ContactOutcome::Full => SavedContact::Refused(format!(
                "the address book is full: it holds {MAX_CONTACTS} contacts"
            )),
        };
        Ok(SavedContacts {
            outcomes: outcomes.into_iter().map(saved).collect(),
        })
    }

    /// Removes one entry of the address book.
    pub async fn remove_contact(&self, segment: &str) -> Result<Done, Failure> {
        self.live()?;
        let address = from_segment(segment)?;
        if self.store.remove_contacts(Some(vec![address])).await? == 0 {
            return Err(Failure::not_found("this number is not in the address book"));
        }
        Ok(Done {
            message: "removed".to_owned(),
        })
    }

    /// Empties the address book.
    pub async fn remove_contacts(&self) -> Result<Done, Failure> {
        self.live()?;
        let removed = self.store.remove_contacts(None).await?;
        Ok(Done {
            message: format!("{} removed: the address book is empty", counted(removed)),
        })
    }
}
