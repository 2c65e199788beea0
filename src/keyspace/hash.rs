//! The hash type: fields and their values, in the order they were inserted (a removal moves the last field into the
//! gap). The order is part of the state, equal on every replica, so a random choice by position is too.

use indexmap::IndexMap;

/// A field or a value.
type Bytes = Box<[u8]>;

/// A map of fields to values.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: IndexMap<Bytes, Bytes, foldhash::fast::RandomState>,
    payload: usize,
}

/// What an entry of the index costs besides its bytes: two fat pointers, the stored hash, an index slot.
const ENTRY_COST: usize = 2 * size_of::<Bytes>() + size_of::<u64>() + 10;

impl Hash {
    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether it holds no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(|value| &**value)
    }

    /// Sets a field; true if it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.payload += value.len();
        if let Some(old) = self.fields.get_mut(field) {
            self.payload -= old.len();
            *old = value.into();
            return false;
        }
        self.payload += field.len();
        self.fields.insert(field.into(), value.into());
        true
    }

    /// Removes a field; true if it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self.fields.swap_remove_entry(field) {
            Some((field, value)) => {
                self.payload -= field.len() + value.len();
                true
            }
            None => false,
        }
    }

    /// Fields and values in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.fields.iter().map(|(field, value)| (&**field, &**value))
    }

    /// The field at a position of the order.
    pub fn at(&self, position: usize) -> Option<(&[u8], &[u8])> {
        self.fields.get_index(position).map(|(field, value)| (&**field, &**value))
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        self.payload + self.fields.capacity() * ENTRY_COST
    }
}
