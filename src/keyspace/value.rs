//! What a key holds.
//!
//! Short strings, most of a cache, live inside their record; everything that grows in place is a [`Value`] behind
//! the record's pointer. A new type is one variant here and one family of commands.

use crate::keyspace::hash::Hash;

/// A value with an allocation of its own.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string that has been grown in place (APPEND, SETRANGE): room to grow, so that n appends cost O(n).
    Bytes(Vec<u8>),
    /// A hash.
    Hash(Hash),
}

/// A value as a reader sees it.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// A string, wherever it lives.
    Bytes(&'a [u8]),
    /// A hash.
    Hash(&'a Hash),
}

impl Value {
    /// Borrows it.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Bytes(bytes) => ValueRef::Bytes(bytes),
            Value::Hash(hash) => ValueRef::Hash(hash),
        }
    }

    /// Bytes on the heap, as asked of the allocator.
    pub fn memory(&self) -> usize {
        size_of::<Value>()
            + match self {
                Value::Bytes(bytes) => bytes.capacity(),
                Value::Hash(hash) => hash.memory(),
            }
    }

    /// Whether the key should go, since nothing is left in it (Redis removes empty aggregates).
    pub fn is_spent(&self) -> bool {
        match self {
            Value::Bytes(_) => false,
            Value::Hash(hash) => hash.is_empty(),
        }
    }
}

impl ValueRef<'_> {
    /// The answer of TYPE.
    pub fn type_name(&self) -> &'static str {
        match self {
            ValueRef::Bytes(_) => "string",
            ValueRef::Hash(_) => "hash",
        }
    }
}
