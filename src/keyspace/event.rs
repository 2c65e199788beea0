//! What happens to keys, by the names Redis gives it: keyspace notifications.
//!
//! An effect says what became of a key, for caches; an event says how it came about, for people and their programs:
//! one SET with a deadline is one effect and up to three events (`new`, `set`, `expire`). Both are noted by the methods
//! that change keys, in the order in which it happens. A value's change is called what the command's row calls it.
//! Who listens isn't known here.

use crate::keyspace::effect::Change;

/// Classes of events, as `notify-keyspace-events` selects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Whatever the key holds: `del`, `expire`, `rename_from` …
    Generic,
    /// Commands on strings.
    String,
    /// Commands on hashes.
    Hash,
    /// A key's time came.
    Expired,
    /// A key went because memory was short.
    Evicted,
    /// A key that was not there.
    New,
    /// A key that was looked for in vain.
    Miss,
}

impl Class {
    /// Its letter in `notify-keyspace-events`.
    pub const fn letter(self) -> u8 {
        match self {
            Class::Generic => b'g',
            Class::String => b'$',
            Class::Hash => b'h',
            Class::Expired => b'x',
            Class::Evicted => b'e',
            Class::New => b'n',
            Class::Miss => b'm',
        }
    }
}

/// An event's class and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its class.
    pub class: Class,
    /// As subscribers read it.
    pub name: &'static str,
}

impl Event {
    /// An event of a command.
    pub const fn new(class: Class, name: &'static str) -> Self {
        Self { class, name }
    }
}

const NEW: Event = Event::new(Class::New, "new");
const MISS: Event = Event::new(Class::Miss, "keymiss");
const EXPIRE: Event = Event::new(Class::Generic, "expire");
const PERSIST: Event = Event::new(Class::Generic, "persist");
const RENAMED_FROM: Event = Event::new(Class::Generic, "rename_from");
const RENAMED_TO: Event = Event::new(Class::Generic, "rename_to");
const COPIED_TO: Event = Event::new(Class::Generic, "copy_to");

/// An event and the key it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// What.
    pub event: Event,
    /// To which key.
    pub key: Box<[u8]>,
}

/// Events noted so far, if anybody listens.
#[derive(Debug, Default)]
pub struct Events {
    noted: Option<Vec<Occurrence>>,
    /// What changes of values are called.
    value_change: Option<Event>,
}

impl Events {
    /// Notes events from here on, if `wanted`.
    pub fn note(&mut self, wanted: bool) {
        self.noted = wanted.then(Vec::new);
    }

    /// What changes of values are called from here on: the name in the row of the command that executes.
    pub fn call_changes(&mut self, event: Option<Event>) {
        self.value_change = event;
    }

    /// What happened so far, in order.
    pub fn take(&mut self) -> Vec<Occurrence> {
        self.noted.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether events are noted.
    pub fn are_noted(&self) -> bool {
        self.noted.is_some()
    }

    /// A key was looked for in vain, by a command that reads.
    pub fn missed(&mut self, key: &[u8]) {
        self.happened(MISS, key);
    }

    /// A value was put at a key, `over` an old record: `None`, or whether its time had come.
    pub fn value_put(&mut self, key: &[u8], over: Option<bool>, dated: bool) {
        if !self.are_noted() {
            return;
        }
        if over == Some(true) {
            self.gone(Change::Expired, key);
        }
        if over != Some(false) {
            self.happened(NEW, key);
        }
        self.value_changed(key);
        if dated {
            self.happened(EXPIRE, key);
        }
    }

    /// A value was changed where it stands.
    pub fn value_changed(&mut self, key: &[u8]) {
        if let Some(event) = self.value_change {
            self.happened(event, key);
        }
    }

    /// A key went.
    pub fn gone(&mut self, change: Change, key: &[u8]) {
        match change {
            Change::Removed => self.happened(Event::new(Class::Generic, "del"), key),
            Change::Expired => self.happened(Event::new(Class::Expired, "expired"), key),
            Change::Evicted => self.happened(Event::new(Class::Evicted, "evicted"), key),
            Change::Set => {}
        }
    }

    /// A deadline was set or taken away.
    pub fn dated(&mut self, key: &[u8], deadline: bool) {
        self.happened(if deadline { EXPIRE } else { PERSIST }, key);
    }

    /// A key got another name. To Redis the new name is always a new key.
    pub fn renamed(&mut self, from: &[u8], to: &[u8]) {
        self.happened(NEW, to);
        self.happened(RENAMED_FROM, from);
        self.happened(RENAMED_TO, to);
    }

    /// A key was copied. Likewise.
    pub fn copied(&mut self, to: &[u8]) {
        self.happened(NEW, to);
        self.happened(COPIED_TO, to);
    }

    fn happened(&mut self, event: Event, key: &[u8]) {
        if let Some(noted) = &mut self.noted {
            noted.push(Occurrence { event, key: key.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(happen: impl FnOnce(&mut Events)) -> Vec<&'static str> {
        let mut events = Events::default();
        events.note(true);
        events.call_changes(Some(Event::new(Class::String, "append")));
        happen(&mut events);
        events.take().iter().map(|occurrence| occurrence.event.name).collect()
    }

    #[test]
    fn a_value_that_is_put_is_new_unless_one_was_there_whose_time_had_not_come() {
        assert_eq!(told(|events| events.value_put(b"k", None, false)), ["new", "append"]);
        assert_eq!(told(|events| events.value_put(b"k", Some(false), true)), ["append", "expire"]);
        assert_eq!(told(|events| events.value_put(b"k", Some(true), false)), ["expired", "new", "append"]);
    }

    #[test]
    fn nothing_is_noted_that_nobody_wants() {
        let mut events = Events::default();
        events.gone(Change::Removed, b"k");
        assert_eq!(events.take(), []);
        events.note(true);
        events.gone(Change::Evicted, b"k");
        assert_eq!(events.take().len(), 1);
        assert!(events.take().is_empty() && events.are_noted());
    }
}
