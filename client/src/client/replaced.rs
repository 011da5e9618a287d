//! A tunnel whose place another takes, and its orderly end.

use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tunnel_frame::{Close, CloseCode, Control, Session};

use super::DRAIN_WITHIN;

/// A tunnel that serves until the next one stands.
pub(super) struct Replaced {
    pub(super) session: Session,
    /// Its requests.
    pub(super) streams: TaskTracker,
    pub(super) ends: Ends,
}

/// Who ends a tunnel that another has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// We, when it has no requests: new ones are sent elsewhere by now.
    Here,
    /// The server, which drains: callers that are still connected to it may send more.
    There,
}

impl Replaced {
    /// Lets the requests in flight finish, and closes. `stopped` is empty and closed when the client stops.
    pub(super) async fn retire(self, stopped: TaskTracker) {
        const REASON: &str = "another tunnel took over";
        self.session.send(Control::Drain { reason: REASON.into() });
        self.streams.close();
        let over = async {
            match self.ends {
                Ends::Here => self.streams.wait().await,
                Ends::There => tokio::select! {
                    () = self.session.over() => {}
                    () = stopped.wait() => {}
                },
            }
        };
        _ = timeout(DRAIN_WITHIN, over).await;
        self.session.close(Close::new(CloseCode::Normal, REASON));
    }
}
