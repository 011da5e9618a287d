//! A program that is measured: started, asked by `/proc` what it uses, stopped. Linux only.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Clock ticks per second in `/proc/PID/stat` (`USER_HZ`): 100 wherever Linux runs.
const TICKS_PER_SECOND: u64 = 100;

/// How long a program may take to start, and to stop when asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running program; dropping it ends it and its children.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it with both outputs in the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let output = File::create(log)?;
        let child =
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn().map_err(|error| {
                let program = command.get_program().to_string_lossy();
                io::Error::new(error.kind(), format!("{program}: {error}"))
            })?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until `ready` finds what it wants in the log.
    pub(crate) fn wait_for<T>(&mut self, ready: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log)?;
            if let Some(found) = ready(&log) {
                return Ok(found);
            }
            if start.elapsed() > PATIENCE || self.child.try_wait()?.is_some() {
                return Err(io::Error::other(format!("{} did not get ready; it said:\n{log}", self.log.display())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it ended, if it has, and its last words.
    pub(crate) fn obituary(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        let (name, said) = (self.log.file_stem()?.display(), last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        Some(format!("\n{name} has ended ({status}); its last words:\n{said}"))
    }

    /// Processor time of it and its children so far, in user and system mode.
    pub(crate) fn processor_time(&self) -> io::Result<Duration> {
        let mut ticks = 0;
        for process in self.processes() {
            let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
            // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15, the name is field 2.
            let fields: Vec<_> = stat[stat.rfind(')').unwrap_or_default()..].split_whitespace().collect();
            for field in [12, 13] {
                ticks += fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default();
            }
        }
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Memory that it and its children hold (RSS), in KiB.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let mut memory = 0;
        for process in self.processes() {
            let status = fs::read_to_string(format!("/proc/{process}/status"))?;
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
            memory += rss.trim().trim_end_matches(" kB").parse::<u64>().map_err(io::Error::other)?;
        }
        Ok(memory)
    }

    /// Its process id and those of its children.
    fn processes(&self) -> Vec<u32> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        std::iter::once(parent).chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Children first: strace ends with what it watches, nginx's workers are told twice.
        let processes: Vec<_> = self.processes().iter().rev().map(ToString::to_string).collect();
        let _ = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", processes.join(" "))])
            .stderr(Stdio::null())
            .status();
        let start = Instant::now();
        while start.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
