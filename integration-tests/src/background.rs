//! A part of the harness on a thread and a runtime of its own.
//!
//! So that a part can be stopped, and waited for, from `Drop` in the middle of a test's own runtime; and so that a
//! panic inside it, in whatever task, fails the test instead of being a line in the output.

use std::{
    future::Future,
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::runtime;
use tokio_util::sync::CancellationToken;

/// How long a part may take to stop when it is dropped. Then it is cut: a test that ends in the middle of a stream
/// must not wait for the stream.
const GRACE: Duration = Duration::from_secs(2);

/// Panics of background threads: the thread's name and what was said.
static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// The runtime under a part.
#[derive(Debug, Clone, Copy)]
pub enum Flavour {
    /// One thread, as in `tunnel`.
    Current,
    /// Two workers, as in `tunneld` on a small machine.
    Multi,
}

/// A running part. Dropping it asks it to stop, waits a moment, cuts it, and raises its panics again.
#[derive(Debug)]
pub struct Background {
    name: String,
    stop: CancellationToken,
    cut: CancellationToken,
    /// In a mutex only so that parts can be shared between threads.
    ended: Mutex<mpsc::Receiver<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Background {
    /// Runs `main` until it returns. It is handed the token that asks it to stop.
    pub fn spawn<F>(part: &str, flavour: Flavour, main: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        record_panics();
        let name = format!("harness-{part}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let (ending, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn({
                let (name, stop, cut) = (name.clone(), stop.clone(), cut.clone());
                move || {
                    let _ending = ending; // dropped when this thread ends, also by a panic
                    let runtime = build(flavour, &name);
                    runtime.block_on(async {
                        tokio::select! {
                            () = main(stop) => {}
                            () = cut.cancelled() => {}
                        }
                    });
                    runtime.shutdown_timeout(GRACE);
                }
            })
            .expect("a thread");
        Self { name, stop, cut, ended: Mutex::new(ended), thread: Some(thread) }
    }

    /// Asks the part to stop, as a first SIGTERM would, and returns at once.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Ends the part where it stands: its sockets close without a word.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Whether the part has returned.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.ended.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.recv_timeout(GRACE) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.cut.cancel();
        }
        let joined = self.thread.take().map_or(Ok(()), thread::JoinHandle::join);
        let said = take_panics(&self.name);
        if !thread::panicking() {
            assert!(said.is_empty(), "{} panicked: {}", self.name, said.join("; "));
            assert!(joined.is_ok(), "{} panicked", self.name);
        }
    }
}

fn build(flavour: Flavour, name: &str) -> runtime::Runtime {
    let mut builder = match flavour {
        Flavour::Current => runtime::Builder::new_current_thread(),
        Flavour::Multi => runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(2).thread_name(name).enable_all().build().expect("a runtime")
}

/// A panic in a spawned task ends in a `JoinError` that nobody may look at. The hook sees it in any case.
fn record_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(name) = thread::current().name().filter(|name| name.starts_with("harness-")) {
                panics().push((name.to_owned(), info.to_string()));
            }
            previous(info);
        }));
    });
}

fn take_panics(name: &str) -> Vec<String> {
    panics().extract_if(.., |(thread, _)| thread == name).map(|(_, said)| said).collect()
}

fn panics() -> std::sync::MutexGuard<'static, Vec<(String, String)>> {
    PANICS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_asked_to_stop() {
        let (stopped, seen) = mpsc::channel();
        let part = Background::spawn("polite", Flavour::Current, |stop| async move {
            stop.cancelled().await;
            stopped.send(()).expect("the test waits");
        });
        assert!(!part.has_ended());
        drop(part);
        seen.recv().expect("the part stopped in its own way");
    }

    #[test]
    fn raises_the_panic_of_a_task_again() {
        let part = Background::spawn("broken", Flavour::Multi, |_stop| async {
            let _ = tokio::spawn(async { panic!("a defect in a task") }).await;
        });
        let raised = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(part)));
        let said = raised.expect_err("a panic").downcast::<String>().expect("a message");
        assert!(said.contains("a defect in a task"), "{said}");
    }
}
