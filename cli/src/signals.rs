//! Signals of the operating system. The only file with code for one of them.

use std::{future::Future, io};

use tokio::sync::oneshot;

/// Runs a program until it ends by itself or is told twice to stop.
///
/// `run` gets a future that resolves at the first SIGTERM, Ctrl-C or console close: it should then drain and return.
/// A second signal drops it where it stands, and `None` is returned.
pub async fn run_until_stopped<F>(run: impl FnOnce(Shutdown) -> F) -> io::Result<Option<F::Output>>
where
    F: Future,
{
    let mut signals = Signals::listen()?;
    let (first, told) = oneshot::channel::<()>();
    let mut run = std::pin::pin!(run(Shutdown(told)));
    tokio::select! {
        output = &mut run => return Ok(Some(output)),
        () = signals.next() => {}
    }
    tracing::info!("stopping: finishing what runs; once more to end at once");
    drop(first);
    tokio::select! {
        output = run => Ok(Some(output)),
        () = signals.next() => Ok(None),
    }
}

/// Resolves at the first signal.
#[derive(Debug)]
pub struct Shutdown(oneshot::Receiver<()>);

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

/// Requests to read files again: SIGHUP, where there is such a thing.
#[derive(Debug)]
pub struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Hangups {
    /// From now on the signal does not end the program.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        let hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        Ok(Self {
            #[cfg(unix)]
            hangup,
        })
    }

    /// The next one; never, where there is no such thing.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangup.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_c, ctrl_close, ctrl_shutdown};
        Ok(Self { interrupt: ctrl_c()?, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}
