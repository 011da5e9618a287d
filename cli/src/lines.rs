//! Log lines on their way to stderr: gathered for some milliseconds, written by a thread of their own.
//!
//! A request must not wait for a terminal, a pipe or a disk, and a write per line is a tenth of a small request's cost.
//! (A queue with a thread that wakes for each line, as in `tracing-appender`, costs more than the writes it saves.)
//! When nobody takes the lines they are dropped, and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How long lines gather. Nobody reads faster.
const GATHER: Duration = Duration::from_millis(20);

/// Bytes that may wait: some thousand lines.
const MOST: usize = 1024 * 1024;

/// Where log lines are written to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a first line, or the end.
    changed: Condvar,
    /// Lines that were dropped since the start.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    closed: bool,
}

/// Keeps the log going; when it is dropped, what still waits is written.
#[derive(Debug)]
#[must_use = "the last lines are lost unless this is kept to the end"]
pub struct LogGuard {
    lines: Lines,
    writer: Option<JoinHandle<()>>,
}

impl Lines {
    /// Starts the thread that writes to `out`; `mark` stands before its own warnings.
    pub(crate) fn start(out: impl Write + Send + 'static, mark: &'static str) -> io::Result<(Self, LogGuard)> {
        let lines = Self::default();
        let source = lines.clone();
        let writer = thread::Builder::new().name("log".into()).spawn(move || source.write_to(out, mark))?;
        let guard = LogGuard { lines: lines.clone(), writer: Some(writer) };
        Ok((lines, guard))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, lines: u64) {
        self.lock().dropped += lines;
        self.0.lost.fetch_add(lines, Ordering::Relaxed);
    }

    fn write_to(&self, mut out: impl Write, mark: &str) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() && !state.closed {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if !state.closed {
                let gathered = self.0.changed.wait_timeout_while(state, GATHER, |state| !state.closed);
                state = gathered.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut batch, &mut state.waiting);
            let (dropped, closed) = (std::mem::take(&mut state.dropped), state.closed);
            drop(state);
            if dropped > 0 {
                _ = writeln!(batch, "{mark}{dropped} log lines were dropped: nobody took them");
            }
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                // The sentence above is none of those that somebody wanted to say.
                let lines = batch.split(|byte| *byte == b'\n').count() - 1 - usize::from(dropped > 0);
                self.lock().dropped += dropped;
                self.lost(lines as u64);
            }
            batch.clear();
            if closed {
                return;
            }
        }
    }
}

impl LogGuard {
    /// Tells how many lines were dropped since the start.
    pub fn lost(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let lines = self.lines.clone();
        move || lines.0.lost.load(Ordering::Relaxed)
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > MOST {
            drop(state);
            self.lost(1);
        } else {
            state.waiting.extend_from_slice(line);
            if state.waiting.len() == line.len() {
                self.0.changed.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.lines.lock().closed = true;
        self.lines.0.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands each write on, after the test allows it.
    struct Gate(mpsc::Sender<Vec<u8>>, mpsc::Receiver<io::Result<()>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            _ = self.0.send(bytes.to_vec());
            self.1.recv().unwrap_or(Ok(())).map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (Lines, LogGuard, mpsc::Receiver<Vec<u8>>, mpsc::Sender<io::Result<()>>) {
        let (wrote, written) = mpsc::channel();
        let (allow, allowed) = mpsc::channel();
        let (lines, guard) = Lines::start(Gate(wrote, allowed), "<4>").unwrap();
        (lines, guard, written, allow)
    }

    #[test]
    fn lines_leave_in_order_and_none_is_lost_at_the_end() {
        let (lines, guard, written, allow) = start();
        for n in 0..100 {
            writeln!(&lines, "line {n}").unwrap();
        }
        drop(allow);
        drop(guard);
        let all: Vec<u8> = written.iter().flatten().collect();
        let all = String::from_utf8(all).unwrap();
        assert!(all.lines().eq((0..100).map(|n| format!("line {n}"))), "{all}");
    }

    #[test]
    fn f13_what_nobody_takes_is_dropped_and_counted() {
        let (lines, guard, written, allow) = start();
        writeln!(&lines, "first").unwrap();
        assert_eq!(written.recv().unwrap(), b"first\n"); // the writer now hangs in its write
        let line = [b'x'; 1024];
        for _ in 0..2 * MOST / line.len() {
            (&lines).write_all(&line).unwrap(); // never waits, never fails
        }
        assert!(lines.lock().waiting.len() <= MOST);
        let so_far = guard.lost();
        assert!(so_far() >= 1024, "{}", so_far());
        allow.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        drop(allow);
        drop(guard);
        let rest: Vec<u8> = written.iter().flatten().collect();
        let text = String::from_utf8_lossy(&rest);
        let (_, warning) = text.rsplit_once("<4>").unwrap();
        assert!(warning.ends_with("log lines were dropped: nobody took them\n"), "{warning}");
    }
}
