//! A record: one key with its value, deadline, version and last use, in **one allocation** behind one thin pointer.
//!
//! Measured on 2 M keys of 16 + 64 bytes: a map of two boxed slices costs 186 bytes a key, this layout about 115;
//! and a lookup touches one cache line less. That is what the `unsafe` in this file pays for; it is the only such
//! file of the keyspace.
//!
//! ```text
//! | key_len u32 | value_len u32 | version u32 | last use 24 + flags 8 | [expires_at u64] | key | value bytes |
//! | key_len u32 |             0 | version u32 | last use 24 + flags 8 | [expires_at u64] | *Value | key      |
//! ```
//!
//! It knows nothing of hashing, slots or accounting.
//!
//! # Safety argument
//! A `Record` owns its allocation alone: it is made by [`Record::allocate`], never copied, freed in `Drop` with the
//! layout computed from the same header fields, which nobody changes after creation (`version` and `meta` aside,
//! which take no part in the layout). All offsets come from [`Record::body`] and the two lengths. Every body byte is
//! written before the record is handed out.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::keyspace::value::{Value, ValueRef};
use crate::time::Millis;

const HAS_DEADLINE: u32 = 1;
const BOXED: u32 = 2;
const FLAG_BITS: u32 = 8;
/// Last use counts seconds modulo this (194 days).
const LAST_USE_RANGE: u32 = 1 << (32 - FLAG_BITS);
/// Keys and inline values are limited by their length fields; the protocol's limit (512 MiB) lies below.
const MAX_LEN: usize = u32::MAX as usize;

#[repr(C, align(8))]
struct Header {
    key_len: u32,
    value_len: u32,
    version: u32,
    meta: AtomicU32,
}

const HEADER: usize = size_of::<Header>();

/// One key and what it holds.
pub struct Record(NonNull<Header>);

// SAFETY: a record owns its allocation and its `Value` (which is Send and Sync); the only interior mutability is an
// atomic.
unsafe impl Send for Record {}
// SAFETY: as above; `&Record` gives shared references and relaxed atomic stores only.
unsafe impl Sync for Record {}

impl Record {
    /// A record whose value lies inside it.
    pub fn inline(key: &[u8], value: &[u8], expires_at: Option<Millis>) -> Self {
        let record = Self::allocate(key, value.len(), 0, expires_at);
        // SAFETY: `allocate` left `value_len` bytes behind the key for this.
        unsafe { record.key_ptr().add(key.len()).copy_from_nonoverlapping(value.as_ptr(), value.len()) };
        record
    }

    /// A record whose value has an allocation of its own.
    pub fn boxed(key: &[u8], value: Box<Value>, expires_at: Option<Millis>) -> Self {
        let record = Self::allocate(key, 0, BOXED, expires_at);
        // SAFETY: with BOXED set `allocate` left an aligned pointer's room at `body()`.
        unsafe { record.body().cast::<*mut Value>().write(Box::into_raw(value)) };
        record
    }

    /// The same key and content with another deadline; keeps version and last use.
    pub fn with_deadline(mut self, expires_at: Option<Millis>) -> Self {
        if self.expires_at().is_some() == expires_at.is_some() {
            self.write_deadline(expires_at);
            return self;
        }
        let (version, last_use) = (self.version(), self.last_use());
        let mut changed = if self.is_boxed() {
            let value = self.take_value();
            Self::boxed(self.key(), value, expires_at)
        } else {
            Self::inline(self.key(), self.inline_bytes(), expires_at)
        };
        changed.set_version(version);
        changed.touch(last_use);
        changed
    }

    /// The same string, in an allocation of its own.
    pub fn with_room(&self) -> Self {
        let value = Box::new(Value::Bytes(self.inline_bytes().to_vec()));
        let mut roomy = Self::boxed(self.key(), value, self.expires_at());
        roomy.set_version(self.version());
        roomy.touch(self.last_use());
        roomy
    }

    /// The same content and deadline under another key (RENAME).
    pub fn under(mut self, key: &[u8]) -> Self {
        let deadline = self.expires_at();
        if self.is_boxed() { Self::boxed(key, self.take_value(), deadline) } else { self.copy_under(key) }
    }

    /// A copy of content and deadline under another key (COPY).
    pub fn copy_under(&self, key: &[u8]) -> Self {
        let deadline = self.expires_at();
        match self.boxed_ptr() {
            // SAFETY: as in `value`.
            Some(value) => Self::boxed(key, Box::new(unsafe { (*value).clone() }), deadline),
            None => Self::inline(key, self.inline_bytes(), deadline),
        }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        // SAFETY: `key_len` bytes at `key_ptr` were written on creation and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.key_ptr(), self.header().key_len as usize) }
    }

    /// What it holds.
    pub fn value(&self) -> ValueRef<'_> {
        match self.boxed_ptr() {
            // SAFETY: the pointer came from `Box::into_raw` and is owned by this record.
            Some(value) => unsafe { (*value).as_ref() },
            None => ValueRef::Bytes(self.inline_bytes()),
        }
    }

    /// The value with an allocation of its own, if it has one.
    pub fn boxed_mut(&mut self) -> Option<&mut Value> {
        // SAFETY: as in `value`, and `&mut self` makes the access exclusive.
        self.boxed_ptr().map(|value| unsafe { &mut *value })
    }

    /// Replaces an inline value by one of the same length without allocating; false if that does not fit.
    pub fn overwrite(&mut self, value: &[u8]) -> bool {
        if self.is_boxed() || self.header().value_len as usize != value.len() {
            return false;
        }
        // SAFETY: the room behind the key is exactly `value_len` long and `&mut self` makes the access exclusive;
        // a `value` that overlapped it would need a live shared borrow of `self`.
        unsafe {
            let target = self.key_ptr().add(self.header().key_len as usize);
            target.copy_from_nonoverlapping(value.as_ptr(), value.len());
        }
        true
    }

    /// When it expires.
    pub fn expires_at(&self) -> Option<Millis> {
        if self.header().meta.load(Relaxed) & HAS_DEADLINE == 0 {
            return None;
        }
        // SAFETY: with HAS_DEADLINE set an aligned u64 follows the header.
        Some(unsafe { self.0.as_ptr().add(1).cast::<u64>().read() })
    }

    /// The version its last change gave it (`Slot::next_version`).
    pub fn version(&self) -> u32 {
        self.header().version
    }

    /// Stamps a change.
    pub fn set_version(&mut self, version: u32) {
        // SAFETY: `&mut self`: nobody else reads the header now.
        unsafe { self.0.as_mut().version = version };
    }

    /// Seconds (modulo 2^24) of the last use.
    pub fn last_use(&self) -> u32 {
        self.header().meta.load(Relaxed) >> FLAG_BITS
    }

    /// Notes a use at this second. Stores only when the second changed, so that hot reads leave the line clean.
    pub fn touch(&self, seconds: u32) {
        let meta = self.header().meta.load(Relaxed);
        let touched = (seconds % LAST_USE_RANGE) << FLAG_BITS | meta & ((1 << FLAG_BITS) - 1);
        if touched != meta {
            self.header().meta.store(touched, Relaxed);
        }
    }

    /// Seconds since the last use.
    pub fn idle(&self, now_seconds: u32) -> u32 {
        (now_seconds % LAST_USE_RANGE).wrapping_sub(self.last_use()) % LAST_USE_RANGE
    }

    /// Bytes asked of the allocator, the value's own included.
    pub fn memory(&self) -> usize {
        // SAFETY: as in `value`.
        self.layout().size() + self.boxed_ptr().map_or(0, |value| unsafe { (*value).memory() })
    }

    fn allocate(key: &[u8], value_len: usize, kind: u32, expires_at: Option<Millis>) -> Self {
        assert!(key.len() < MAX_LEN && value_len < MAX_LEN, "the protocol's bulk limit lies below 4 GiB");
        let deadline = if expires_at.is_some() { HAS_DEADLINE } else { 0 };
        let header = Header {
            key_len: key.len() as u32,
            value_len: value_len as u32,
            version: 0,
            meta: AtomicU32::new(kind | deadline),
        };
        let layout = layout(&header);
        // SAFETY: the layout is never empty (it holds the header); the header is written before the record exists,
        // deadline and key go to the offsets that `layout` counted.
        unsafe {
            let Some(pointer) = NonNull::new(alloc(layout).cast::<Header>()) else {
                handle_alloc_error(layout)
            };
            pointer.as_ptr().write(header);
            let mut record = Self(pointer);
            record.write_deadline(expires_at);
            record.key_ptr().copy_from_nonoverlapping(key.as_ptr(), key.len());
            record
        }
    }

    fn write_deadline(&mut self, expires_at: Option<Millis>) {
        if let Some(expires_at) = expires_at {
            // SAFETY: callers have checked that the record was laid out with a deadline.
            unsafe { self.0.as_ptr().add(1).cast::<u64>().write(expires_at) };
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: the header was written on creation.
        unsafe { self.0.as_ref() }
    }

    /// Whether the value has an allocation of its own.
    pub fn is_boxed(&self) -> bool {
        self.header().meta.load(Relaxed) & BOXED != 0
    }

    /// Behind the header and the deadline.
    fn body(&self) -> *mut u8 {
        let deadline = (self.header().meta.load(Relaxed) & HAS_DEADLINE) as usize * size_of::<u64>();
        // SAFETY: stays inside the allocation, whose layout counts both.
        unsafe { self.0.as_ptr().cast::<u8>().add(HEADER + deadline) }
    }

    fn key_ptr(&self) -> *mut u8 {
        let pointer = if self.is_boxed() { size_of::<*mut Value>() } else { 0 };
        // SAFETY: as in `body`.
        unsafe { self.body().add(pointer) }
    }

    fn inline_bytes(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: `value_len` bytes follow the key (none in a boxed record).
        unsafe {
            std::slice::from_raw_parts(self.key_ptr().add(header.key_len as usize), header.value_len as usize)
        }
    }

    /// The value's pointer; null after `take_value`, whose callers drop the record right away.
    fn boxed_ptr(&self) -> Option<*mut Value> {
        // SAFETY: with BOXED set a pointer was written at `body()`.
        self.is_boxed()
            .then(|| unsafe { self.body().cast::<*mut Value>().read() })
            .filter(|pointer| !pointer.is_null())
    }

    fn take_value(&mut self) -> Box<Value> {
        // SAFETY: the record owns the pointer; nulling it hands the ownership on. Callers have checked `is_boxed`.
        unsafe {
            let at = self.body().cast::<*mut Value>();
            Box::from_raw(at.replace(std::ptr::null_mut()))
        }
    }

    fn layout(&self) -> Layout {
        layout(self.header())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let layout = self.layout();
        // SAFETY: same layout as on creation, since it follows from fields that never change; the value is owned.
        unsafe {
            if let Some(value) = self.boxed_ptr() {
                drop(Box::from_raw(value));
            }
            dealloc(self.0.as_ptr().cast(), layout);
        }
    }
}

fn layout(header: &Header) -> Layout {
    let meta = header.meta.load(Relaxed);
    let deadline = if meta & HAS_DEADLINE != 0 { size_of::<u64>() } else { 0 };
    let pointer = if meta & BOXED != 0 { size_of::<*mut Value>() } else { 0 };
    let size = HEADER + deadline + pointer + header.key_len as usize + header.value_len as usize;
    Layout::from_size_align(size, align_of::<Header>()).expect("lengths are 32 bits, so the size fits")
}

/// Asks the processor to fetch a cache line. Never faults, whatever the address.
#[inline]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it neither faults nor is observable.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Starts fetching a record that is about to be used: the two cache lines that hold most records whole.
#[inline]
pub fn prefetch_record(record: &Record) {
    let start = record.0.as_ptr().cast::<u8>();
    prefetch(start);
    prefetch(start.wrapping_add(64));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::hash::Hash;

    #[test]
    fn an_inline_record_keeps_what_it_was_given() {
        let record = Record::inline(b"key", b"value", Some(7));
        assert_eq!(record.key(), b"key");
        assert!(matches!(record.value(), ValueRef::Bytes(b"value")));
        assert_eq!(record.expires_at(), Some(7));
        assert_eq!(record.memory(), 16 + 8 + 3 + 5);
    }

    #[test]
    fn overwriting_needs_the_same_length() {
        let mut record = Record::inline(b"k", b"aa", None);
        assert!(record.overwrite(b"bb"));
        assert!(!record.overwrite(b"ccc"));
        assert!(matches!(record.value(), ValueRef::Bytes(b"bb")));
    }

    #[test]
    fn last_use_wraps_and_leaves_the_flags() {
        let record = Record::inline(b"k", b"v", Some(1));
        record.touch(LAST_USE_RANGE + 5);
        assert_eq!((record.last_use(), record.expires_at()), (5, Some(1)));
        assert_eq!(record.idle(9), 4);
        record.touch(LAST_USE_RANGE - 1);
        assert_eq!(record.idle(LAST_USE_RANGE + 1), 2);
    }

    #[test]
    fn content_moves_and_is_copied_whole() {
        let mut hash = Hash::default();
        hash.set(b"f", b"v");
        let text = |record: &Record| {
            format!("{} {:?} {:?}", record.key().escape_ascii(), record.value(), record.expires_at())
        };
        for record in
            [Record::inline(b"old", b"v", Some(3)), Record::boxed(b"old", Box::new(Value::Hash(hash)), None)]
        {
            let before = text(&record);
            let copy = record.copy_under(b"another key");
            assert_eq!(text(&copy), before.replace("old", "another key"));
            let moved = record.under(b"");
            assert_eq!(text(&moved), before.replace("old", ""));
            assert_eq!(
                text(&copy),
                before.replace("old", "another key"),
                "the copy has a content of its own"
            );
        }
        let mut inline = Record::inline(b"k", b"v", Some(3));
        inline.set_version(9);
        let roomy = inline.with_room();
        assert!(roomy.is_boxed() && text(&roomy) == text(&inline) && roomy.version() == 9);
    }

    proptest! {
        #[test]
        fn deadlines_come_and_go(key: Vec<u8>, value: Vec<u8>, boxed: bool, steps in proptest::collection::vec(any::<Option<u64>>(), 0..6)) {
            let mut record = if boxed {
                let mut hash = Hash::default();
                hash.set(b"f", &value);
                Record::boxed(&key, Box::new(Value::Hash(hash)), None)
            } else {
                Record::inline(&key, &value, None)
            };
            record.set_version(9);
            record.touch(77);
            for deadline in steps {
                record = record.with_deadline(deadline);
                prop_assert_eq!(record.expires_at(), deadline);
                prop_assert_eq!(record.key(), &key[..]);
                prop_assert_eq!((record.version(), record.last_use()), (9, 77));
                match record.value() {
                    ValueRef::Bytes(bytes) => prop_assert_eq!(bytes, &value[..]),
                    ValueRef::Hash(hash) => prop_assert_eq!(hash.get(b"f"), Some(&value[..])),
                }
            }
        }
    }
}
