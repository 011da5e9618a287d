//! What is broken: one server, two desktops with a relay before and an upstream behind each.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex as SyncMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    pki::{self, HOST},
    relay::Relay,
};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};
use tunnel_certs::dev::{self, Existing};
use tunneld::auth::mint::MintRequest;

use crate::{
    caller::DEADLINE,
    ledger::Ledger,
    program::{Holds, Program},
    ticket::User,
    upstream::Upstream,
};

/// Everything around the callers.
pub(crate) struct Stage {
    folder: TempDir,
    bin: PathBuf,
    programs: AtomicUsize,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) server: Mutex<Program>,
    /// Where callers find the server.
    pub(crate) addr: watch::Sender<SocketAddr>,
    desks: [Desk; 2],
    complaints: SyncMutex<Vec<String>>,
}

/// One user's side.
pub(crate) struct Desk {
    pub(crate) user: User,
    pub(crate) relay: Relay,
    pub(crate) client: Mutex<Option<Program>>,
    pub(crate) upstream: Mutex<Option<Upstream>>,
    upstream_addr: SocketAddr,
}

impl Stage {
    /// Makes the files, and starts everything.
    pub(crate) async fn start(bin: &Path, ledger: Arc<Ledger>) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("tunnel-chaos.").tempdir()?;
        dev::generate(folder.path(), &dev::DEFAULT_HOSTS, Existing::Keep).map_err(io::Error::other)?;
        fs::write(folder.path().join("secret"), pki::SECRET)?;
        let mut server = Program::start(&mut serve(bin, folder.path()), folder.path().join("tunneld-0.log"))?;
        let addr = server.ready(listening).await?;
        let desks = [Desk::new(User::Alice, addr, &ledger)?, Desk::new(User::Bob, addr, &ledger)?];
        let stage = Self {
            folder,
            bin: bin.to_owned(),
            programs: AtomicUsize::new(1),
            ledger,
            server: Mutex::new(server),
            addr: watch::Sender::new(addr),
            desks,
            complaints: SyncMutex::default(),
        };
        for desk in &stage.desks {
            stage.write_token(desk.user, MintRequest::new(desk.user.name()).ttl)?;
            *desk.client.lock().await = Some(stage.client(desk, "desktop").await?);
        }
        Ok(stage)
    }

    pub(crate) fn desk(&self, user: User) -> &Desk {
        &self.desks[user as usize]
    }

    pub(crate) fn desks(&self) -> &[Desk] {
        &self.desks
    }

    /// Starts another server, and says where it is. Callers and desktops do not know yet.
    pub(crate) async fn another_server(&self) -> io::Result<(Program, SocketAddr)> {
        let mut server = Program::start(&mut serve(&self.bin, self.folder.path()), self.log("tunneld"))?;
        let addr = server.ready(listening).await?;
        Ok((server, addr))
    }

    /// From now on callers and desktops go there.
    pub(crate) fn redirect(&self, addr: SocketAddr) {
        for desk in &self.desks {
            desk.relay.retarget(addr);
        }
        self.addr.send_replace(addr);
    }

    /// Starts a client of a desk under this name, and waits until it is online.
    pub(crate) async fn client(&self, desk: &Desk, name: &str) -> io::Result<Program> {
        let mut client = self.start_client(desk, name)?;
        client.ready(|log| log.contains(" online ").then_some(())).await?;
        Ok(client)
    }

    /// The same without waiting.
    pub(crate) fn start_client(&self, desk: &Desk, name: &str) -> io::Result<Program> {
        let mut command = program(&self.bin, "tunnel");
        command.arg("connect").arg("--token-file").arg(self.token_file(desk.user));
        command.args(["--server", &format!("https://{HOST}:{}", desk.relay.addr().port())]);
        command.args(["--to", &desk.upstream_addr.to_string(), "--name", name]);
        command.arg("--ca").arg(self.folder.path().join("ca.pem"));
        Program::start(&mut command, self.log(&format!("{}-{name}", desk.user.name())))
    }

    /// Puts a token that is good for so long into the file of a client.
    pub(crate) fn write_token(&self, user: User, ttl: Duration) -> io::Result<()> {
        let token = pki::mint(&MintRequest { ttl, ..MintRequest::new(user.name()) });
        let (file, fresh) = (self.token_file(user), self.folder.path().join(format!("{}.fresh", user.name())));
        fs::write(&fresh, token)?;
        fs::rename(fresh, file)
    }

    /// Replaces the server's files, as a renewal does, by files that say the same.
    pub(crate) fn rewrite_server_files(&self) -> io::Result<()> {
        for name in ["server.pem", "server-key.pem", "secret"] {
            let (file, fresh) = (self.folder.path().join(name), self.folder.path().join("fresh"));
            fs::copy(&file, &fresh)?;
            fs::rename(fresh, file)?;
        }
        Ok(())
    }

    /// The certificate authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What the server and the clients hold now.
    pub(crate) async fn holds(&self) -> io::Result<Vec<(String, Holds)>> {
        let mut holds = vec![("tunneld".to_owned(), self.server.lock().await.holds()?)];
        for desk in &self.desks {
            if let Some(client) = &*desk.client.lock().await {
                holds.push((format!("tunnel of {}", desk.user.name()), client.holds()?));
            }
        }
        Ok(holds)
    }

    /// Notes what a program did that it must not.
    pub(crate) fn complain(&self, complaint: String) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(complaint);
    }

    /// All complaints.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves the logs where they are; says where.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    fn token_file(&self, user: User) -> PathBuf {
        self.folder.path().join(format!("{}.token", user.name()))
    }

    fn log(&self, name: &str) -> PathBuf {
        let number = self.programs.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(format!("{name}-{number}.log"))
    }
}

impl Desk {
    fn new(user: User, server: SocketAddr, ledger: &Arc<Ledger>) -> io::Result<Self> {
        let upstream = Upstream::start(user, ledger, None)?;
        let upstream_addr = upstream.addr();
        let upstream = Mutex::new(Some(upstream));
        Ok(Self { user, relay: Relay::to(server), client: Mutex::default(), upstream, upstream_addr })
    }

    /// Where its upstream is, also while it is dead.
    pub(crate) fn upstream_addr(&self) -> SocketAddr {
        self.upstream_addr
    }
}

fn serve(bin: &Path, folder: &Path) -> Command {
    let mut command = program(bin, "tunneld");
    let deadline = format!("{}s", DEADLINE.as_secs());
    command.args(["serve", "--listen", "127.0.0.1:0", "--stream-deadline", &deadline]);
    command.args(["--max-stream-deadline", &deadline, "--stall-timeout", &deadline]);
    command.arg("--tls-cert").arg(folder.join("server.pem")).arg("--tls-key").arg(folder.join("server-key.pem"));
    command.arg("--jwt-secret-file").arg(folder.join("secret"));
    command
}

/// The address in tunneld's line `listening addr=…`.
pub(crate) fn listening(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("listening"))?;
    line.split_once("addr=")?.1.split_whitespace().next()?.parse().ok()
}

/// One of ours, free of settings in the environment.
pub(crate) fn program(bin: &Path, name: &str) -> Command {
    let mut command = Command::new(bin.join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("NO_COLOR", "1");
    command
}
