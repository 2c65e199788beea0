//! Saving at a client's request: whether it is going on and how it went. Commands ask and look, the node saves; between
//! them stands one value that can be watched. It doesn't know what is saved, nor where.

use tokio::sync::watch;

use crate::time::Millis;

/// See the module's documentation.
pub struct Saves(watch::Sender<Status>);

/// How saving stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Since when a save is asked for or going on.
    pub since: Option<Millis>,
    /// When the last one that succeeded ended; before the first, when the node started, as Redis has it.
    pub succeeded: Millis,
    /// How long the last one took, in milliseconds.
    pub took: Option<u64>,
    /// Why the last one failed, if it did.
    pub failed: Option<String>,
}

impl Saves {
    /// None yet.
    pub fn new(started: Millis) -> Self {
        Self(watch::Sender::new(Status { succeeded: started, ..Status::default() }))
    }

    /// Asks for a save; false: one is going on.
    pub fn ask(&self, now: Millis) -> bool {
        self.0.send_if_modified(|status| {
            let idle = status.since.is_none();
            status.since.get_or_insert(now);
            idle
        })
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }

    /// Waits until a save is asked for.
    pub async fn asked(&self) {
        // The sender is ours, so the wait ends by the condition only.
        let _ = self.0.subscribe().wait_for(|status| status.since.is_some()).await;
    }

    /// Notes how the save that was asked for went.
    pub fn end(&self, result: Result<(), String>, now: Millis) {
        self.0.send_modify(|status| {
            status.took = status.since.take().map(|since| now.saturating_sub(since));
            match result {
                Ok(()) => (status.succeeded, status.failed) = (now, None),
                Err(why) => status.failed = Some(why),
            }
        });
    }

    /// Waits until no save is going on; how the last one went.
    pub async fn ended(&self) -> Result<(), String> {
        let mut watching = self.0.subscribe();
        let _ = watching.wait_for(|status| status.since.is_none()).await;
        self.status().failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_save_at_a_time_and_its_end_is_told() {
        let saves = Saves::new(1000);
        assert!(saves.ask(2000));
        assert!(!saves.ask(2001), "one is going on");
        saves.asked().await;
        saves.end(Ok(()), 2500);
        assert_eq!(saves.ended().await, Ok(()));
        assert_eq!((saves.status().succeeded, saves.status().took), (2500, Some(500)));
        assert!(saves.ask(3000));
        saves.end(Err("no room".into()), 3500);
        assert_eq!(saves.ended().await, Err("no room".into()));
        assert_eq!(saves.status().succeeded, 2500, "that one is still there");
    }
}
