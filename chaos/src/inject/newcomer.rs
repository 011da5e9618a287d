//! Other clients of the same user: rivals for a name, and desktops of another.

use std::{io, time::Duration};

use tokio::time::sleep;

use super::{DESKTOP, Injector, retired};
use crate::{plan::Fault, program::Signal, stage::Desk, timeline::Allows};

/// A newcomer under a name in use is told so after a round trip.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

impl Injector {
    pub(super) async fn bring_rival(&self, fault: Fault, desk: &Desk) -> io::Result<()> {
        let entry = self.begin(fault, Some(desk.user), Allows::Nothing);
        let mut rival = self.stage.start_client(desk, DESKTOP)?;
        let code = rival.ended(REFUSED_WITHIN).await?.map(|status| status.code());
        if code == Some(Some(77)) {
            return self.over(entry);
        }
        if !self.callers.timeline.overlaps(entry, desk.user) {
            self.stage.complain(format!("{}: not refused for good ({code:?})", rival.log().display()));
        }
        // The line was free for a moment, and the rival was faster.
        let entry = self.callers.timeline.begin("the rival leaves".into(), Some(desk.user), Allows::Breaks);
        drop(rival);
        let mut client = desk.client.lock().await;
        *client = None;
        *client = Some(self.stage.client(desk, DESKTOP).await?);
        self.over(entry)
    }

    pub(super) async fn take_over(&self, fault: Fault, desk: &Desk) -> io::Result<()> {
        let mut client = desk.client.lock().await;
        let entry = self.begin(fault, Some(desk.user), Allows::Breaks);
        let old = client.take();
        let mut old = old.ok_or_else(|| io::Error::other("no client"))?;
        old.signal(Signal::Stop)?;
        *client = Some(self.stage.client(desk, DESKTOP).await?);
        old.signal(Signal::Kill)?;
        self.retire(old, Signal::Kill);
        self.over(entry)
    }

    pub(super) async fn twin(&self, fault: Fault, desk: &Desk, time: Duration, signal: Signal) -> io::Result<()> {
        let entry = self.begin(fault, Some(desk.user), Allows::Nothing);
        let mut twin = self.stage.client(desk, "twin").await?;
        sleep(time).await;
        if let Signal::Kill = signal {
            self.over(entry)?;
            let entry = self.callers.timeline.begin("the twin is killed".into(), Some(desk.user), Allows::Breaks);
            twin.signal(signal)?;
            retired(&self.stage, twin, signal).await;
            return self.over(entry);
        }
        twin.signal(signal)?;
        retired(&self.stage, twin, signal).await;
        self.over(entry)
    }
}
