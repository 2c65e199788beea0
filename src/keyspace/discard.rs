//! Freeing much memory without holding anybody up.

/// Drops `rubbish` on a thread of its own; here and now if there is no thread to be had.
pub fn discard(rubbish: impl Send + 'static) {
    let _ = std::thread::Builder::new().name("discard".into()).spawn(move || drop(rubbish));
}
