//! The real programs, `tunneld` and `tunnel`, as child processes: for what only they can show (flags, exit codes,
//! signals, memory, logs) and for foreign clients that need something to talk to.
//!
//! Cargo gives a test the path of a program only in that program's own package, so they are found next to the test
//! itself and must have been built: `cargo build --workspace`, as `scripts/test` does.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::eventually::eventually;

/// A signal that people and service managers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, `systemctl stop`.
    Terminate,
    /// `kill -9`.
    Kill,
    /// `kill -HUP`, `systemctl reload`.
    Hangup,
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most there ever was.
    pub peak: u64,
}

/// A running program. Killed when dropped; what it wrote is shown if the test fails.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Program {
    /// Starts `tunneld` with these arguments.
    #[must_use]
    pub fn tunneld<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::start(command("tunneld").args(args))
    }

    /// Starts `tunnel` with these arguments.
    #[must_use]
    pub fn tunnel<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::start(command("tunnel").args(args))
    }

    /// Starts a [`command`], or any other, without standard input.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        Self::start_from(command, Stdio::null())
    }

    /// Starts `tunneld` as systemd does: with a socket that is already open, as file descriptor 3, and the address of
    /// the socket `notify`, where it says how it is.
    #[cfg(unix)]
    #[must_use]
    pub fn tunneld_on<A: AsRef<OsStr>>(socket: &TcpListener, notify: &Path, args: impl IntoIterator<Item = A>) -> Self {
        let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
        let mut shell = from_shell(script, "tunneld");
        shell.args(args).env("NOTIFY_SOCKET", notify);
        let socket = std::os::fd::OwnedFd::from(socket.try_clone().expect("a descriptor"));
        Self::start_from(&mut shell, socket.into())
    }

    fn start_from(command: &mut Command, input: Stdio) -> Self {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let spawned = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (output, errors) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("a pipe"), Arc::clone(&output)),
            collect(child.stderr.take().expect("a pipe"), Arc::clone(&errors)),
        ];
        Self { name, child, output, errors, readers }
    }

    /// The lines on standard output so far.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        lock(&self.output).clone()
    }

    /// The lines on standard error so far: the log.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        lock(&self.errors).clone()
    }

    /// The first line of the log, past or future, that contains all of `parts`.
    pub async fn logs(&mut self, parts: &[&str]) -> String {
        let what = format!("a line with {parts:?} in the log of {}", self.name);
        eventually(&what, async || {
            // In this order: what an ended process wrote has been read by its readers, or will have been.
            let ended = self.has_ended();
            let line = self.errors().into_iter().find(|line| parts.iter().all(|part| line.contains(part)));
            assert!(line.is_some() || !ended, "{} ended without: {what}", self.name);
            line
        })
        .await
    }

    /// The address in its `listening` line.
    pub async fn listening(&mut self) -> SocketAddr {
        let line = self.logs(&["listening"]).await;
        address(&line).unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let flag = match signal {
            Signal::Interrupt => "-INT",
            Signal::Terminate => "-TERM",
            Signal::Kill => "-KILL",
            Signal::Hangup => "-HUP",
        };
        let status = Command::new("kill").args([flag, &self.id().to_string()]).status().expect("kill");
        assert!(status.success(), "{} has ended already", self.name);
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let status = eventually(&what, async || self.child.try_wait().expect("our own child")).await;
        self.join_readers();
        status
    }

    /// Its memory, as Linux counts it; `None` where there is no `/proc`.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let kib = |field: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        Some(Memory { resident: kib("VmRSS")? * 1024, peak: kib("VmHWM")? * 1024 })
    }

    /// Whether it has ended and all it wrote has been read.
    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_status))) && self.readers.iter().all(thread::JoinHandle::is_finished)
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of text");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _status = self.child.wait();
        if thread::panicking() {
            self.join_readers();
            let mut text = format!("---- {} ----\n", self.name);
            for line in self.output().iter().chain(&self.errors()) {
                text.extend([line, "\n"]);
            }
            let _nobody_reads = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// A command for one of our programs, without the settings that the environment of the test may hold.
#[must_use]
pub fn command(program: &str) -> Command {
    without_settings(Command::new(path(program)))
}

/// The same, started by a script, which ends with `exec "$0" "$@"`.
#[cfg(unix)]
#[must_use]
pub fn from_shell(script: &str, program: &str) -> Command {
    let mut shell = without_settings(Command::new("sh"));
    shell.args(["-c", script]).arg(path(program));
    shell
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["TUNNEL_", "TUNNELD_", "RUST_LOG"].iter().any(|prefix| name.starts_with(prefix))
            || name.to_ascii_lowercase().ends_with("_proxy")
        {
            command.env_remove(name);
        }
    }
    // Tests count what an upstream gets.
    command.env("NO_COLOR", "1").env("TUNNEL_NO_REPORT_MODELS", "1");
    // Nor what its user keeps for the program.
    for variable in ["XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "APPDATA", "LOCALAPPDATA"] {
        command.env(variable, "/nonexistent");
    }
    command
}

/// Where a program of this workspace was built.
#[must_use]
pub fn path(program: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    // target/PROFILE/deps/the_test-HASH
    let profile = test.parent().and_then(Path::parent).expect("a target directory");
    let path = profile.join(program).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

fn collect(pipe: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            lock(&lines).push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

/// The value of the field `addr` in a line of the log, as text (`addr=1.2.3.4:5`) or JSON (`"addr":"1.2.3.4:5"`).
fn address(line: &str) -> Option<SocketAddr> {
    let value = line.split_once("addr")?.1.trim_start_matches(['"', '=', ':']);
    let end = value.find(['"', ' ', ',', '}']).unwrap_or(value.len());
    value[..end].parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_logs() {
        let expected = Some(SocketAddr::from(([127, 0, 0, 1], 4242)));
        assert_eq!(address("INFO tunneld: listening addr=127.0.0.1:4242 tls=true"), expected);
        assert_eq!(address(r#"{"message":"listening","addr":"127.0.0.1:4242","tls":true}"#), expected);
        assert_eq!(address("INFO tunneld: listening addr=[::1]:80"), "[::1]:80".parse().ok());
        assert_eq!(address("INFO tunneld: listening"), None);
    }

    #[tokio::test]
    async fn runs_a_program() {
        let mut program = Program::start(Command::new("sh").args(["-c", "echo out; echo two words >&2; exit 7"]));
        assert_eq!(program.logs(&["two", "words"]).await, "two words");
        assert_eq!(program.wait().await.code(), Some(7));
        assert_eq!(program.output(), ["out"]);
    }

    #[tokio::test]
    async fn signals_and_measures_a_program() {
        let mut program = Program::start(Command::new("sleep").arg("600"));
        if let Some(memory) = program.memory() {
            assert!(memory.resident > 0 && memory.peak >= memory.resident, "{memory:?}");
        }
        program.signal(Signal::Terminate);
        assert!(!program.wait().await.success());
    }
}
