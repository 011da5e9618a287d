//! A server that somebody else runs, restarted under load by a command: nothing may be lost, nothing run twice.
//!
//! For scripts/deployment, whose command is `deploy/deploy.sh`. Callers reach the server directly, and no fault is
//! excused, as in [`rolling`].

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::{self, Callers, Tally},
    ledger::Ledger,
    program::Program,
    report::Report,
    rolling::{self, CALM},
    ticket::User,
    timeline::Timeline,
    upstream::Upstream,
    verdict::Wrongs,
};

/// What is there already.
#[derive(Debug, Clone)]
pub(crate) struct Restarted {
    /// Where the server listens.
    pub(crate) server: SocketAddr,
    /// Where `ca.pem` and the server's `secret` are.
    pub(crate) folder: PathBuf,
    /// Restarts it; for `sh -c`.
    pub(crate) command: String,
}

/// Restarts it so many times.
pub(crate) async fn run(bin: &Path, restarted: &Restarted, times: usize, seed: u64) -> io::Result<Report> {
    let Restarted { server, folder, command } = restarted;
    let wrongs = Arc::<Wrongs>::default();
    let ledger = Ledger::new(&wrongs);
    let (mut clients, mut upstreams) = (Vec::new(), Vec::new());
    for user in User::ALL {
        let upstream = Upstream::start(user, &ledger, None)?;
        clients.push(rolling::client(bin, folder, *server, user, upstream.addr()).await?);
        upstreams.push(upstream);
    }
    let callers = Arc::new(Callers {
        server: watch::Sender::new(*server).subscribe(),
        tls: tunnel_certs::client::config(Some(&folder.join("ca.pem"))).map_err(io::Error::other)?,
        token: rolling::token_source(folder),
        timeline: Arc::new(Timeline::new()),
        wrongs,
        tally: Tally::default(),
        stop: CancellationToken::new(),
    });
    let mut calling = caller::start(&callers, seed);
    let (mut took, mut complaints) = (Vec::new(), Vec::new());
    for round in 1..=times {
        sleep(CALM).await;
        let since = Instant::now();
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdin(Stdio::null());
        let output = spawn_blocking(move || shell.output()).await??;
        if output.status.success() {
            took.push(since.elapsed());
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            complaints.push(format!("round {round}: the command says {}: {said}", output.status));
        }
    }
    sleep(CALM).await;
    callers.stop.cancel();
    while calling.join_next().await.transpose()?.is_some() {}
    complaints.extend(clients.iter_mut().filter_map(Program::complaint));
    let rounds = (times, "in each a new server takes over");
    Ok(rolling::table(rounds, times, seed, &callers, &ledger, &took, &complaints))
}
