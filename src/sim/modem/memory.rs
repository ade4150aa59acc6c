//! The memories for messages.

use super::profile::Traits;

/// State of a stored message (3GPP TS 27.005, 3.1, `<stat>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stat {
    Unread,
    Read,
    Unsent,
    Sent,
}

impl Stat {
    pub(super) const ALL: [Self; 4] = [Self::Unread, Self::Read, Self::Unsent, Self::Sent];

    pub(super) fn number(self) -> usize {
        Self::ALL.iter().position(|stat| *stat == self).unwrap_or(0)
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unread => "REC UNREAD",
            Self::Read => "REC READ",
            Self::Unsent => "STO UNSENT",
            Self::Sent => "STO SENT",
        }
    }
}

/// A message in its place.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) stat: Stat,
    /// The service centre's address in front.
    pub(super) pdu: Vec<u8>,
}

impl Stored {
    /// Octets of the TPDU alone, as commands give it.
    pub(super) fn length(&self) -> usize {
        let smsc = self.pdu.first().map_or(0, |length| usize::from(*length) + 1);
        self.pdu.len().saturating_sub(smsc)
    }
}

/// Which memory. `MT` is the phone's and the card's as one: the phone's places come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Sm,
    Me,
    Mt,
    Sr,
}

impl Memory {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sm => "SM",
            Self::Me => "ME",
            Self::Mt => "MT",
            Self::Sr => "SR",
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Memories {
    sm: Vec<Option<Stored>>,
    me: Vec<Option<Stored>>,
    sr: Option<Vec<Option<Stored>>>,
    first_index: u32,
}

impl Memories {
    pub(super) fn new(traits: &Traits, sim_places: usize) -> Self {
        let empty = |places| std::iter::repeat_with(|| None).take(places).collect();
        Self {
            sm: empty(sim_places),
            me: empty(traits.me_places),
            sr: traits.report_memory.then(|| empty(10)),
            first_index: traits.first_index,
        }
    }

    /// The names of those there are, for one of the three uses of `AT+CPMS`.
    pub(super) fn names(&self) -> Vec<Memory> {
        let mut names = vec![Memory::Me, Memory::Mt, Memory::Sm];
        if self.sr.is_some() {
            names.push(Memory::Sr);
        }
        names
    }

    pub(super) fn by_name(&self, name: &str) -> Option<Memory> {
        self.names()
            .into_iter()
            .find(|memory| memory.name().eq_ignore_ascii_case(name))
    }

    fn places(&self, memory: Memory) -> Vec<&Option<Stored>> {
        match memory {
            Memory::Sm => self.sm.iter().collect(),
            Memory::Me => self.me.iter().collect(),
            Memory::Mt => self.me.iter().chain(&self.sm).collect(),
            Memory::Sr => self.sr.iter().flatten().collect(),
        }
    }

    fn places_mut(&mut self, memory: Memory) -> Vec<&mut Option<Stored>> {
        match memory {
            Memory::Sm => self.sm.iter_mut().collect(),
            Memory::Me => self.me.iter_mut().collect(),
            Memory::Mt => self.me.iter_mut().chain(&mut self.sm).collect(),
            Memory::Sr => self.sr.iter_mut().flatten().collect(),
        }
    }

    /// Used and total places.
    pub(super) fn usage(&self, memory: Memory) -> (usize, usize) {
        let places = self.places(memory);
        let used = places.iter().filter(|place| place.is_some()).count();
        (used, places.len())
    }

    pub(super) fn has_room(&self, memory: Memory) -> bool {
        let (used, total) = self.usage(memory);
        used < total
    }

    /// Whether the memory has a place with this index.
    pub(super) fn exists(&self, memory: Memory, index: u32) -> bool {
        self.offset(index)
            .is_some_and(|offset| offset < self.places(memory).len())
    }

    fn offset(&self, index: u32) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first_index)?).ok()
    }

    /// The index of an offset.
    fn index(&self, offset: usize) -> u32 {
        u32::try_from(offset)
            .unwrap_or(u32::MAX)
            .saturating_add(self.first_index)
    }

    pub(super) fn get(&self, memory: Memory, index: u32) -> Option<&Stored> {
        let offset = self.offset(index)?;
        self.places(memory).get(offset).and_then(|place| place.as_ref())
    }

    pub(super) fn get_mut(&mut self, memory: Memory, index: u32) -> Option<&mut Stored> {
        let offset = self.offset(index)?;
        self.places_mut(memory)
            .into_iter()
            .nth(offset)
            .and_then(Option::as_mut)
    }

    /// Puts a message into the lowest free place, as modems do: an index is used again soon.
    pub(super) fn put(&mut self, memory: Memory, stored: Stored) -> Option<u32> {
        let offset = self.places(memory).iter().position(|place| place.is_none())?;
        let index = self.index(offset);
        if let Some(place) = self.places_mut(memory).into_iter().nth(offset) {
            *place = Some(stored);
        }
        Some(index)
    }

    pub(super) fn remove(&mut self, memory: Memory, index: u32) -> Option<Stored> {
        let offset = self.offset(index)?;
        self.places_mut(memory)
            .into_iter()
            .nth(offset)
            .and_then(Option::take)
    }

    /// The messages there are, with their indexes.
    pub(super) fn list(&self, memory: Memory) -> Vec<(u32, Stored)> {
        self.places(memory)
            .into_iter()
            .enumerate()
            .filter_map(|(offset, place)| Some((self.index(offset), place.clone()?)))
            .collect()
    }
}
