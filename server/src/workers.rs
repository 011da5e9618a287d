//! The threads that serve connections: one per processor, each with a runtime of its own.
//!
//! A connection stays on the thread that it was given to, with all its tasks and timers. Callers and desktops are
//! neighbours on one thread as long as there are few of them, so that what wakes each other is there already: on one
//! runtime with several threads a small request woke the other thread several times. Owns the threads, and who gets the
//! next connection.

use std::{
    io,
    net::TcpStream as StdStream,
    thread::{self, JoinHandle},
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Tasks (connections, tunnels, HTTP/2 streams) that a thread takes before the next one gets any. One thread serves
/// 10,000 to 20,000 small requests per second (`scripts/bench`), more than so many callers of language models send.
const NEIGHBOURS: usize = 64;

/// Threads that serve connections. Dropped, they cut what they still serve, and end.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread per processor.
    pub(crate) fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let count = thread::available_parallelism().map_or(1, usize::from);
        let workers = (0..count).map(|number| Worker::start(number, stop.clone())).collect::<io::Result<_>>()?;
        Ok(Self { workers, stop })
    }

    /// Serves a connection on the thread whose turn it is.
    pub(crate) fn serve<F>(&self, stream: StdStream, serve: impl FnOnce(TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        self.next().runtime.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => warn!(%error, "a connection cannot be served"),
            }
        });
    }

    /// The first thread that has room, else the one with the fewest tasks.
    fn next(&self) -> &Worker {
        let tasks = |worker: &&Worker| worker.runtime.metrics().num_alive_tasks();
        let roomy = self.workers.iter().find(|worker| tasks(worker) < NEIGHBOURS);
        roomy.or_else(|| self.workers.iter().min_by_key(tasks)).expect("a machine has a processor")
    }
}

impl Worker {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let serve = move || runtime.block_on(stop.cancelled_owned());
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(serve)?;
        Ok(Self { runtime: handle, thread: Some(thread) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            _ = thread.join();
        }
    }
}
