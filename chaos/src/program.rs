//! A program as a child process: signals, its log in a file, and what `/proc` says of it. Linux only.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// How long a program may take to get ready: longer than any fault that keeps it from connecting.
const READY_WITHIN: Duration = Duration::from_secs(45);

/// Between two looks at a log or a process.
const INTERVAL: Duration = Duration::from_millis(5);

/// What people and service managers send, and what stops a process as a laptop's lid does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    Term,
    Kill,
    Stop,
    Cont,
    Hup,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holds {
    /// Open file descriptors.
    pub(crate) files: usize,
    /// Resident memory, in KiB.
    pub(crate) memory: u64,
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
    /// Whether someone has asked it to end.
    asked: bool,
}

impl Program {
    /// Starts it with both outputs in the file `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> io::Result<Self> {
        let output = File::create(&log)?;
        let spawned = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let child = spawned.map_err(|error| {
            let program = command.get_program().to_string_lossy();
            io::Error::new(error.kind(), format!("{program}: {error}"))
        })?;
        Ok(Self { child, log, asked: false })
    }

    /// The file that its output goes to.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `ready` finds what it wants in the log.
    pub(crate) async fn ready<T>(&mut self, ready: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            let log = fs::read_to_string(&self.log)?;
            if let Some(found) = ready(&log) {
                return Ok(found);
            }
            if start.elapsed() > READY_WITHIN || ended.is_some() {
                let what = self.log.display();
                return Err(io::Error::other(format!("{what}: not ready (ended: {ended:?}); it said:\n{log}")));
            }
            sleep(INTERVAL).await;
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let flag = match signal {
            Signal::Term => "-TERM",
            Signal::Kill => "-KILL",
            Signal::Stop => "-STOP",
            Signal::Cont => "-CONT",
            Signal::Hup => "-HUP",
        };
        self.asked |= matches!(signal, Signal::Term | Signal::Kill);
        let sent = Command::new("kill").args([flag, &self.child.id().to_string()]).stderr(Stdio::null()).status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other(format!("{}: gone", self.log.display()))) }
    }

    /// Its exit status, if it ends within this time.
    pub(crate) async fn ended(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.asked = true;
                return Ok(Some(status));
            }
            if start.elapsed() >= within {
                return Ok(None);
            }
            sleep(INTERVAL).await;
        }
    }

    /// What it holds now.
    pub(crate) fn holds(&self) -> io::Result<Holds> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        // A process that has ended by itself holds nothing; that it has is told when it is stopped.
        let files = fs::read_dir(process.join("fd")).map_or(0, Iterator::count);
        let status = fs::read_to_string(process.join("status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let memory = rss.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        Ok(Holds { files, memory })
    }

    /// How it ended though nobody asked it to, and whether it panicked.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten().filter(|_| !self.asked);
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let panic = log.lines().find(|line| line.contains("panicked"));
        let what = self.log.display();
        match (status, panic) {
            (None, None) => None,
            (Some(status), _) => Some(format!("{what}: ended by itself, {status}")),
            (None, Some(line)) => Some(format!("{what}: {line}")),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _it_has_ended = self.child.kill();
        let _status = self.child.wait();
    }
}
