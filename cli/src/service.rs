//! What a service manager such as systemd passes to a program, and is told by it. Elsewhere nothing is passed, and nobody
//! listens.

use std::{io, net::TcpListener};

/// The sockets that the manager has opened and holds (`sd_listen_fds(3)`). Takes them: the second call has none.
#[cfg(unix)]
pub fn passed_sockets() -> io::Result<Vec<TcpListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    (0..passed.len()).filter_map(|index| passed.take_tcp_listener(index).transpose()).collect()
}

/// There are none.
#[cfg(not(unix))]
pub fn passed_sockets() -> io::Result<Vec<TcpListener>> {
    Ok(Vec::new())
}

/// From now on the program serves (`READY=1` of `sd_notify(3)`).
pub fn ready() {
    #[cfg(unix)]
    tell(&sd_notify::NotifyState::Ready);
}

/// It finishes what runs, and then ends (`STOPPING=1`).
pub fn stopping() {
    #[cfg(unix)]
    tell(&sd_notify::NotifyState::Stopping);
}

#[cfg(unix)]
fn tell(state: &sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "the service manager cannot be told: {state}");
    }
}
