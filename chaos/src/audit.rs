//! What must be left when nothing is asked any more: nothing.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    caller::Callers,
    inject::retired,
    program::{Holds, Signal},
    stage::Stage,
    ticket::User,
    watch,
};

/// How long everything may take to come to rest.
const IDLE_WITHIN: Duration = Duration::from_secs(20);

/// Descriptors over the first count that are no leak: an idle upstream connection, a pipe of the runtime.
const FILES_OVER: usize = 4;

/// Memory over the first count that is no leak, in KiB: the windows of a tunnel may grow by 16 MiB, and what the
/// allocator keeps for the next request.
const MEMORY_OVER: u64 = 64 * 1024;

/// An idle program has nothing to drain; under valgrind-like load it still needs a moment.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// A program at the beginning and at the end.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) name: String,
    pub(crate) first: Holds,
    pub(crate) last: Holds,
}

impl Rest {
    fn leaks(&self) -> bool {
        self.last.files > self.first.files + FILES_OVER || self.last.memory > self.first.memory + MEMORY_OVER
    }
}

/// What the end of a run looks like.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Requests still in flight, at the server and at the upstreams.
    pub(crate) in_flight: u64,
    pub(crate) rests: Vec<Rest>,
}

impl Audit {
    pub(crate) fn leaks(&self) -> usize {
        self.rests.iter().filter(|rest| rest.leaks()).count()
    }
}

/// Waits for rest, counts what is left, and stops the programs, which must have nothing to wait for.
pub(crate) async fn audit(stage: &Stage, callers: &Callers, first: Vec<(String, Holds)>) -> io::Result<Audit> {
    let since = Instant::now();
    let audit = loop {
        let mut in_flight = stage.ledger.open() as u64;
        for user in User::ALL {
            in_flight += watch::status(callers, user).await.map_or(1, |status| status.in_flight);
        }
        let last = stage.holds().await?;
        let rests =
            first.iter().zip(last).map(|((name, first), (_, last))| Rest { name: name.clone(), first: *first, last });
        let audit = Audit { in_flight, rests: rests.collect() };
        if (audit.in_flight == 0 && audit.leaks() == 0) || since.elapsed() > IDLE_WITHIN {
            break audit;
        }
        sleep(Duration::from_millis(200)).await;
    };
    stop(stage).await?;
    Ok(audit)
}

/// A task that was left behind would hold up the drain.
async fn stop(stage: &Stage) -> io::Result<()> {
    let mut programs = Vec::new();
    for desk in stage.desks() {
        programs.extend(desk.client.lock().await.take());
    }
    for mut client in programs {
        let since = Instant::now();
        client.signal(Signal::Term)?;
        let log = client.log().to_owned();
        retired(stage, client, Signal::Term).await;
        if since.elapsed() > STOPPED_WITHIN {
            stage.complain(format!("{}: idle, and took {:?} to stop", log.display(), since.elapsed()));
        }
    }
    let mut server = stage.server.lock().await;
    let since = Instant::now();
    server.signal(Signal::Term)?;
    match server.ended(STOPPED_WITHIN).await? {
        Some(status) if status.code() == Some(0) => {}
        ended => stage.complain(format!("tunneld: idle, and ended as {ended:?} in {:?}", since.elapsed())),
    }
    if let Some(complaint) = server.complaint() {
        stage.complain(complaint);
    }
    Ok(())
}
