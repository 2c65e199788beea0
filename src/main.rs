//! The `slotcast` binary: command line, configuration, run until a signal.
fn main() {}
