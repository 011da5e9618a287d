//! Does to the programs what the plan says, and writes it into the timeline.

mod newcomer;
mod recovery;

use std::{
    io,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::{Duration, Instant},
};

use integration_tests::ollama::Cut;
use tokio::{sync::Mutex, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tunneld::auth::mint::DEFAULT_TTL;

use crate::{
    caller::Callers,
    plan::{Fault, Plan},
    program::{Program, Signal},
    stage::{Desk, Stage},
    ticket::User,
    timeline::Allows,
    upstream::Upstream,
};

/// A program that was told to stop lets its requests finish for 30 s, and is gone after 32.
const STOPPED_WITHIN: Duration = Duration::from_secs(35);

/// How long a token is good that is about to expire; the server allows 30 s more.
const EXPIRES_IN: Duration = Duration::from_secs(10);

/// The name of the desktops.
const DESKTOP: &str = "desktop";

/// One that executes a plan, and what several of them share.
pub(crate) struct Injector {
    pub(crate) stage: Arc<Stage>,
    pub(crate) callers: Arc<Callers>,
    /// Programs that drain while the next fault is already on its way.
    pub(crate) retiring: TaskTracker,
    /// How long tunnels took to come back.
    pub(crate) recoveries: SyncMutex<Vec<Duration>>,
    /// Counts faults.
    pub(crate) injected: SyncMutex<Vec<Fault>>,
}

impl Injector {
    /// Injects until told to stop; the fault under way is finished.
    pub(crate) async fn run(&self, mut plan: Plan, stop: CancellationToken) -> io::Result<()> {
        while let Some((pause, fault)) = plan.next() {
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
            }
            self.injected.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
            self.inject(fault).await.map_err(|error| io::Error::other(format!("{fault}: {error}")))?;
        }
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> io::Result<()> {
        let desk = |user| self.stage.desk(user);
        match fault {
            Fault::ServerKill(down) | Fault::ServerTerm(down) => self.restart_server(fault, down).await,
            Fault::ServerRoll => self.roll_server(fault).await,
            Fault::ServerStop(time) => self.stop_server(fault, time).await,
            Fault::ServerReload => self.reload_server(fault).await,
            Fault::ClientKill(user, down) => self.kill_client(fault, desk(user), down).await,
            Fault::ClientTerm(user) => self.terminate_client(fault, desk(user)).await,
            Fault::ClientStop(user, time) => self.stop_client(fault, desk(user), time).await,
            Fault::OllamaKill(user, down) => self.kill_upstream(fault, desk(user), down).await,
            Fault::OllamaStop(user, time) => self.stop_upstream(fault, desk(user), time).await,
            Fault::LineCut(user, how) => self.cut_line(fault, desk(user), how, None).await,
            Fault::LineRefuse(user, time) => self.cut_line(fault, desk(user), Cut::Reset, Some(time)).await,
            Fault::LineFreeze(user, time) => self.freeze_line(fault, desk(user), time).await,
            Fault::LineSlow(user, time) => self.slow_line(fault, desk(user), time).await,
            Fault::TokenRenew(user, late) => self.renew_token(fault, user, late).await,
            Fault::Rival(user) => self.bring_rival(fault, desk(user)).await,
            Fault::Takeover(user) => self.take_over(fault, desk(user)).await,
            Fault::TwinTerm(user, time) => self.twin(fault, desk(user), time, Signal::Term).await,
            Fault::TwinKill(user, time) => self.twin(fault, desk(user), time, Signal::Kill).await,
        }
    }

    async fn restart_server(&self, fault: Fault, down: Duration) -> io::Result<()> {
        let (signal, allows) = match fault {
            Fault::ServerKill(_) => (Signal::Kill, Allows::Breaks),
            _ => (Signal::Term, Allows::Unsent),
        };
        let mut server = self.stage.server.lock().await;
        let entry = self.begin(fault, None, allows);
        server.signal(signal)?;
        sleep(down).await;
        let (successor, addr) = self.stage.another_server().await?;
        let old = std::mem::replace(&mut *server, successor);
        self.stage.redirect(addr);
        self.retire(old, signal);
        drop(server);
        self.await_server(entry).await
    }

    async fn roll_server(&self, fault: Fault) -> io::Result<()> {
        let mut server = self.stage.server.lock().await;
        let (successor, addr) = self.stage.another_server().await?;
        let entry = self.begin(fault, None, Allows::Unsent);
        self.stage.redirect(addr);
        server.signal(Signal::Term)?;
        let old = std::mem::replace(&mut *server, successor);
        self.retire(old, Signal::Term);
        drop(server);
        self.await_server(entry).await
    }

    async fn stop_server(&self, fault: Fault, time: Duration) -> io::Result<()> {
        let mut server = self.stage.server.lock().await;
        let before = [self.online(User::Alice).await?, self.online(User::Bob).await?];
        let entry = self.begin(fault, None, if Fault::is_long(time) { Allows::Breaks } else { Allows::Nothing });
        self.callers.timeline.server_pauses(time);
        server.signal(Signal::Stop)?;
        sleep(time).await;
        server.signal(Signal::Cont)?;
        drop(server);
        if !Fault::is_long(time) {
            return self.over(entry);
        }
        let since = Instant::now();
        for user in User::ALL {
            self.await_client(entry, user, before[user as usize], since).await?;
        }
        self.over(entry)
    }

    async fn reload_server(&self, fault: Fault) -> io::Result<()> {
        let mut server = self.stage.server.lock().await;
        let entry = self.begin(fault, None, Allows::Nothing);
        self.stage.rewrite_server_files()?;
        server.signal(Signal::Hup)?;
        sleep(Duration::from_secs(3)).await; // it also looks at its files by itself
        self.over(entry)
    }

    async fn kill_client(&self, fault: Fault, desk: &Desk, down: Duration) -> io::Result<()> {
        let mut client = desk.client.lock().await;
        let entry = self.begin(fault, Some(desk.user), Allows::Breaks);
        if let Some(mut old) = client.take() {
            old.signal(Signal::Kill)?;
            self.retire(old, Signal::Kill);
        }
        sleep(down).await;
        *client = Some(self.stage.client(desk, DESKTOP).await?);
        self.over(entry)
    }

    async fn terminate_client(&self, fault: Fault, desk: &Desk) -> io::Result<()> {
        let mut client = desk.client.lock().await;
        let entry = self.begin(fault, Some(desk.user), Allows::Unsent);
        if let Some(mut old) = client.take() {
            old.signal(Signal::Term)?;
            retired(&self.stage, old, Signal::Term).await;
        }
        *client = Some(self.stage.client(desk, DESKTOP).await?);
        self.over(entry)
    }

    async fn stop_client(&self, fault: Fault, desk: &Desk, time: Duration) -> io::Result<()> {
        let long = Fault::is_long(time);
        let before = self.online(desk.user).await?;
        let entry = self.begin(fault, Some(desk.user), if long { Allows::Breaks } else { Allows::Nothing });
        signal(&desk.client, Signal::Stop).await?;
        sleep(time).await;
        signal(&desk.client, Signal::Cont).await?;
        if long {
            self.await_client(entry, desk.user, before, Instant::now()).await?;
        }
        self.over(entry)
    }

    async fn kill_upstream(&self, fault: Fault, desk: &Desk, down: Duration) -> io::Result<()> {
        let mut upstream = desk.upstream.lock().await;
        let entry = self.begin(fault, Some(desk.user), Allows::Upstream);
        *upstream = None;
        sleep(down).await;
        *upstream = Some(Upstream::start(desk.user, &self.stage.ledger, Some(desk.upstream_addr()))?);
        self.over(entry)
    }

    async fn stop_upstream(&self, fault: Fault, desk: &Desk, time: Duration) -> io::Result<()> {
        let entry = self.begin(fault, Some(desk.user), Allows::Nothing);
        if let Some(upstream) = &*desk.upstream.lock().await {
            upstream.pause(time);
        }
        sleep(time).await;
        self.over(entry)
    }

    async fn cut_line(&self, fault: Fault, desk: &Desk, how: Cut, refused: Option<Duration>) -> io::Result<()> {
        let before = self.online(desk.user).await?;
        let entry = self.begin(fault, Some(desk.user), Allows::Breaks);
        if refused.is_some() {
            desk.relay.refuse();
        }
        desk.relay.cut(how).await;
        sleep(refused.unwrap_or_default()).await;
        desk.relay.admit();
        self.await_client(entry, desk.user, before, Instant::now()).await?;
        self.over(entry)
    }

    async fn freeze_line(&self, fault: Fault, desk: &Desk, time: Duration) -> io::Result<()> {
        let long = Fault::is_long(time);
        let before = self.online(desk.user).await?;
        let entry = self.begin(fault, Some(desk.user), if long { Allows::Breaks } else { Allows::Nothing });
        desk.relay.freeze();
        sleep(time).await;
        desk.relay.thaw();
        if long {
            self.await_client(entry, desk.user, before, Instant::now()).await?;
        }
        self.over(entry)
    }

    async fn slow_line(&self, fault: Fault, desk: &Desk, time: Duration) -> io::Result<()> {
        // From the fault's own time, so that the plan stays a function of the seed: 20–150 ms, 0.2–2 MB/s.
        let seed = u32::try_from(time.as_millis()).unwrap_or_default();
        let entry = self.begin(fault, Some(desk.user), Allows::Nothing);
        desk.relay.delay(Duration::from_millis(20 + u64::from(seed % 130)));
        desk.relay.limit(Some(200_000 + seed % 18 * 100_000));
        sleep(time).await;
        desk.relay.limit(None);
        desk.relay.delay(Duration::ZERO);
        self.over(entry)
    }

    async fn renew_token(&self, fault: Fault, user: User, late: Duration) -> io::Result<()> {
        let entry = self.begin(fault, Some(user), Allows::Nothing);
        self.stage.write_token(user, EXPIRES_IN)?;
        sleep(late).await;
        self.stage.write_token(user, DEFAULT_TTL)?;
        sleep(Duration::from_secs(3)).await; // the client looks every 2 s
        self.over(entry)
    }

    fn begin(&self, fault: Fault, user: Option<User>, allows: Allows) -> usize {
        let entry = self.callers.timeline.begin(fault.to_string(), user, allows);
        if fault.is_sudden() {
            self.callers.timeline.is_sudden(entry);
        }
        entry
    }

    // A result, so that it can be the last line of a fault.
    #[allow(clippy::unnecessary_wraps)]
    fn over(&self, entry: usize) -> io::Result<()> {
        self.callers.timeline.over(entry);
        Ok(())
    }

    fn retire(&self, program: Program, signal: Signal) {
        let stage = Arc::clone(&self.stage);
        self.retiring.spawn(async move { retired(&stage, program, signal).await });
    }
}

async fn signal(program: &Mutex<Option<Program>>, signal: Signal) -> io::Result<()> {
    match &mut *program.lock().await {
        Some(program) => program.signal(signal),
        None => Ok(()),
    }
}

/// Waits for the end of a program that got a signal; it must be the end that the signal asks for.
pub(crate) async fn retired(stage: &Stage, mut program: Program, signal: Signal) {
    let ended = program.ended(STOPPED_WITHIN).await;
    let in_order = match (&ended, signal) {
        (Ok(Some(status)), Signal::Term) => status.code() == Some(0),
        (Ok(Some(_)), _) => true,
        _ => false,
    };
    if !in_order {
        stage.complain(format!("{}: ended as {ended:?} after {signal:?}", program.log().display()));
    }
    if let Some(complaint) = program.complaint() {
        stage.complain(complaint);
    }
}
