//! XREAD BLOCK: a connection that waits for news in invalidation logs.

use std::sync::Arc;

use slotcast_wire::reply::Reply;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::server::connection::Connection;
use crate::server::copies::ABANDONED_CHECK;
use crate::session::reading::Reading;
use crate::tracking::rings::{Listening, Wake};

/// What news wakes.
struct Bell(Notify);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

impl Connection {
    /// Waits until there is something new to read, or the client has waited long enough or has gone.
    pub(super) async fn read_log(&mut self, reading: &Reading) {
        let context = self.server.context.clone();
        let until = reading.block.and_then(|block| self.wait_until(block));
        let bell = Arc::new(Bell(Notify::new()));
        let listening = Listening::join(context.rings.clone(), bell.clone());
        loop {
            listening.reader().looks();
            if reading.read(&context, &mut self.output) {
                return;
            }
            let look = Instant::now() + ABANDONED_CHECK;
            let next = until.map_or(look, |until| until.min(look));
            let rung = timeout_at(next, bell.0.notified()).await.is_ok();
            if !rung && (until == Some(next) || self.is_abandoned()) {
                return Reply::new(&mut self.output, self.session.proto).null_array();
            }
        }
    }
}
