//! Two servers behind a real nginx, restarted one after the other under load: nothing may be lost, nothing run twice.
//!
//! nginx is configured by `deploy/nginx.conf`, with the upstream for two servers that `docs/operations.md` has. No fault is excused here: whatever fails is
//! lost. Callers and their requests are those of chaos, who leave and set deadlines now and then.

use std::{
    fmt::Write as _,
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use integration_tests::pki::{self, HOST};
use tempfile::TempDir;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tunnel_certs::dev::{self, Existing};
use tunneld::auth::{
    Secret,
    mint::{self, MintRequest},
};

use crate::{
    caller::{self, Callers, DEADLINE, Tally},
    ledger::Ledger,
    program::{Program, Signal},
    report::Report,
    stage,
    ticket::User,
    timeline::Timeline,
    upstream::Upstream,
    verdict::{Wrong, Wrongs},
};

/// Load before each round and after the last: longer than the 5 s in which a new server waits for any desktop, so that
/// the backup owes its patience to nothing but a good hand-over.
pub(crate) const CALM: Duration = Duration::from_secs(7);

/// A server that was told to stop is gone by then: its drain, and a second for a busy machine.
const GONE_WITHIN: Duration = Duration::from_secs(33);

/// How many requests that went wrong are told of.
const TOLD: usize = 20;

/// The configuration for one server.
const SITE: &str = include_str!("../../deploy/nginx.conf");

/// Its block for nginx is what two servers need instead.
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// What is restarted, and what stays.
struct Rolling {
    folder: TempDir,
    bin: PathBuf,
    /// The primary and the backup, and where each listens.
    servers: [(Program, SocketAddr); 2],
    nginx: Program,
    front: SocketAddr,
    clients: Vec<Program>,
    #[allow(dead_code, reason = "they live as long as this")]
    upstreams: Vec<Upstream>,
    starts: usize,
}

/// Restarts both servers so many times.
pub(crate) async fn run(bin: &Path, times: usize, seed: u64) -> io::Result<Report> {
    let wrongs = Arc::<Wrongs>::default();
    let ledger = Ledger::new(&wrongs);
    let mut rolling = Rolling::start(bin, &ledger).await?;
    let callers = Arc::new(Callers {
        server: watch::Sender::new(rolling.front).subscribe(),
        tls: tunnel_certs::client::config(Some(&rolling.folder.path().join("ca.pem"))).map_err(io::Error::other)?,
        token: token_source(rolling.folder.path()),
        timeline: Arc::new(Timeline::new()),
        wrongs,
        tally: Tally::default(),
        stop: CancellationToken::new(),
    });
    let mut calling = caller::start(&callers, seed);
    let mut took = Vec::new();
    let mut complaints = Vec::new();
    for round in 0..times {
        sleep(CALM).await;
        for which in 0..2 {
            match rolling.restart(which).await {
                Ok(time) => took.push(time),
                Err(error) => complaints.push(format!("round {}: {error}", round + 1)),
            }
        }
    }
    sleep(CALM).await;
    callers.stop.cancel();
    while calling.join_next().await.transpose()?.is_some() {}
    complaints.extend(rolling.complaints());
    let rounds = (times, "in each the primary, then the backup");
    let mut report = table(rounds, times * 2, seed, &callers, &ledger, &took, &complaints);
    if !report.clean {
        let folder = rolling.folder.keep();
        report.text.extend(["logs: ", &folder.to_string_lossy(), "\n"]);
    }
    Ok(report)
}

impl Rolling {
    async fn start(bin: &Path, ledger: &Arc<Ledger>) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("tunnel-rolling.").tempdir()?;
        dev::generate(folder.path(), &dev::DEFAULT_HOSTS, Existing::Keep).map_err(io::Error::other)?;
        fs::write(folder.path().join("secret"), pki::SECRET)?;
        let front = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let primary = serve(bin, folder.path(), any, front, "tunneld-0").await?;
        let backup = serve(bin, folder.path(), any, front, "tunneld-1").await?;
        let nginx = nginx(folder.path(), front, [primary.1, backup.1])?;
        let mut rolling = Self {
            folder,
            bin: bin.to_owned(),
            servers: [primary, backup],
            nginx,
            front,
            clients: Vec::new(),
            upstreams: Vec::new(),
            starts: 2,
        };
        for user in User::ALL {
            let upstream = Upstream::start(user, ledger, None)?;
            let client = client(bin, rolling.folder.path(), front, user, upstream.addr()).await?;
            rolling.clients.push(client);
            rolling.upstreams.push(upstream);
        }
        Ok(rolling)
    }

    /// As a service manager does: SIGTERM, wait for the end, start, wait until it answers.
    async fn restart(&mut self, which: usize) -> io::Result<Duration> {
        let since = Instant::now();
        let (server, addr) = &mut self.servers[which];
        server.signal(Signal::Term)?;
        match server.ended(GONE_WITHIN).await? {
            Some(status) if status.success() => {}
            ended => return Err(io::Error::other(format!("server {which} ended as {ended:?} after SIGTERM"))),
        }
        let name = format!("tunneld-{}", self.starts);
        self.starts += 1;
        self.servers[which] = serve(&self.bin, self.folder.path(), *addr, self.front, &name).await?;
        Ok(since.elapsed())
    }

    fn complaints(&mut self) -> Vec<String> {
        let servers = self.servers.iter_mut().map(|(server, _)| server);
        let programs = servers.chain(&mut self.clients).chain([&mut self.nginx]);
        programs.filter_map(Program::complaint).collect()
    }
}

/// A desktop of this user, connected. `folder` has the authority and the secret.
pub(crate) async fn client(
    bin: &Path,
    folder: &Path,
    server: SocketAddr,
    user: User,
    upstream: SocketAddr,
) -> io::Result<Program> {
    let token = folder.join(format!("{}.token", user.name()));
    fs::write(&token, mint(folder, user)?)?;
    let mut command = stage::program(bin, "tunnel");
    command.arg("connect").arg("--token-file").arg(token).arg("--ca").arg(folder.join("ca.pem"));
    command.args(["--server", &format!("https://{HOST}:{}", server.port())]);
    command.args(["--to", &upstream.to_string(), "--name", "desktop", "--log-level", "debug"]);
    let mut client = Program::start(&mut command, folder.join(format!("{}.log", user.name())))?;
    client.ready(|log| log.contains(" online ").then_some(())).await?;
    Ok(client)
}

/// Tokens for callers.
pub(crate) fn token_source(folder: &Path) -> Box<dyn Fn(User) -> String + Send + Sync> {
    let folder = folder.to_owned();
    Box::new(move |user| mint(&folder, user).unwrap_or_default())
}

/// A token of this user, signed with the secret in `folder`.
fn mint(folder: &Path, user: User) -> io::Result<String> {
    let secret = Secret::read(&folder.join("secret")).map_err(io::Error::other)?;
    mint::mint(&secret, &MintRequest::new(user.name())).map_err(io::Error::other)
}

async fn serve(
    bin: &Path,
    folder: &Path,
    listen: SocketAddr,
    front: SocketAddr,
    name: &str,
) -> io::Result<(Program, SocketAddr)> {
    let mut command = stage::program(bin, "tunneld");
    let deadline = format!("{}s", DEADLINE.as_secs());
    command.args(["serve", "--plain-http", "--trusted-proxy", "127.0.0.1", "--listen", &listen.to_string()]);
    command.args(["--public-url", &format!("https://{HOST}:{}", front.port())]);
    command.args(["--stream-deadline", &deadline, "--max-stream-deadline", &deadline, "--stall-timeout", &deadline]);
    command.arg("--jwt-secret-file").arg(folder.join("secret"));
    let mut server = Program::start(&mut command, folder.join(format!("{name}.log")))?;
    let addr = server.ready(stage::listening).await?;
    Ok((server, addr))
}

/// nginx as documented, but for addresses and files.
fn nginx(folder: &Path, front: SocketAddr, [primary, backup]: [SocketAddr; 2]) -> io::Result<Program> {
    let site = site().ok_or_else(|| io::Error::other("docs/operations.md has no configuration for nginx"))?;
    let path = folder.to_string_lossy();
    let site = site
        .replace("listen 443 ssl", &format!("listen {front} ssl"))
        .replace("    listen [::]:443 ssl http2;\n", "")
        .replace("/etc/ssl/tunnel/fullchain.pem", &format!("{path}/server.pem"))
        .replace("/etc/ssl/tunnel/privkey.pem", &format!("{path}/server-key.pem"))
        .replace("127.0.0.1:8080", &primary.to_string())
        .replace("127.0.0.1:8081", &backup.to_string());
    // One process, so that it ends with us. A connection of a caller lasts for the whole run.
    let conf = format!(
        "daemon off; master_process off; pid {path}/nginx.pid; error_log {path}/nginx.log info;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         access_log {path}/access.log; keepalive_requests 1000000; proxy_temp_path {path}/proxy;\n\
         client_body_temp_path {path}/body; fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
         {site}}}\n"
    );
    fs::write(folder.join("nginx.conf"), conf)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    Program::start(&mut command, folder.join("nginx.out"))
}

/// The site, its upstream replaced by that for two servers.
fn site() -> Option<String> {
    let two = OPERATIONS.split_once("```nginx\n")?.1.split("```").next()?;
    let rest = SITE.split_once("\n}\n")?.1;
    Some(format!("{two}{rest}"))
}

/// What happened in so many rounds, which must have been so many restarts.
#[allow(clippy::too_many_arguments, reason = "all of it is told")]
pub(crate) fn table(
    (rounds, what): (usize, &str),
    restarts: usize,
    seed: u64,
    callers: &Callers,
    ledger: &Ledger,
    took: &[Duration],
    complaints: &[String],
) -> Report {
    for failed in callers.tally.failed() {
        callers.wrongs.note(failed.ticket, Wrong::Lost, format!("{} ({})", failed.how, failed.protocol));
    }
    let wrongs = callers.wrongs.take();
    let mut took = took.to_vec();
    took.sort();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    let longest = took.last().copied().unwrap_or_default();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = String::new();
    let mut row = |name: &str, value: u64, note: &str| _ = writeln!(text, "{name:<18} {value:>8}  {note}");
    row("rounds", rounds as u64, &format!("seed {seed}; {what}"));
    row("restarts", took.len() as u64, &format!("{median:.1?} (median), {longest:.1?} (longest)"));
    row("requests", callers.tally.sent(), &format!("{} ran at an upstream", ledger.ran()));
    row("ok", count(&callers.tally.ok), &format!("{} MiB verified", count(&callers.tally.bytes) >> 20));
    row("cancelled", count(&callers.tally.cancelled), "by their callers");
    row("deadline", count(&callers.tally.cut_at_deadline), "ended at the deadline they asked for");
    let mut clean = complaints.is_empty() && took.len() == restarts;
    for wrong in Wrong::ALL {
        let number = wrongs.iter().filter(|(_, what, ..)| *what == wrong).count();
        clean &= number == 0;
        row(wrong.name(), number as u64, "must be 0");
    }
    row("complaints", complaints.len() as u64, "must be 0");
    for complaint in complaints {
        _ = writeln!(text, "complaint: {complaint}");
    }
    for (ticket, wrong, detail, at) in wrongs.iter().take(TOLD) {
        let ran = if ledger.knows(*ticket) { "ran" } else { "never ran" };
        let at = callers.timeline.seconds(*at);
        _ = writeln!(text, "{} {ticket} ({ran}, noticed at {at:.3}): {detail}", wrong.name());
    }
    Report { text, clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_site_has_two_servers() {
        let site = site().unwrap_or_default();
        assert_eq!((site.matches("upstream tunneld").count(), site.matches("backup").count()), (1, 1), "{site}");
        assert!(site.contains("location = /ws/tunnel"), "{site}");
    }
}
