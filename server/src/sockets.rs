//! Sockets to listen on: those that a service manager holds open and passes, else bound here.
//!
//! Which passed socket is for what follows from its address alone, so the settings stay the truth, and `tunneld check`
//! tells it.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
};

use thiserror::Error;
use tokio::net::TcpListener;

/// Who keeps a socket open when this server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody: who connects then is refused.
    Nobody,
    /// The service manager: who connects then waits for the next server, or is already served by it.
    ServiceManager,
}

/// The sockets that were passed and not yet taken.
#[derive(Debug)]
pub(crate) struct Sockets {
    passed: Vec<(StdListener, SocketAddr)>,
}

/// A socket was passed for which there is no use: callers who connect to it would wait for ever.
#[derive(Debug, Error)]
#[error(
    "the service manager passes a socket on {passed}, where no setting wants one; make ListenStream= in tunneld.socket \
     the same as --listen ({listen}) or --admin-listen"
)]
pub(crate) struct Unwanted {
    passed: SocketAddr,
    listen: SocketAddr,
}

impl Sockets {
    /// What was passed, for a server that listens on `listen` and perhaps on others.
    pub(crate) fn new(passed: Vec<StdListener>, listen: SocketAddr, others: &[SocketAddr]) -> io::Result<Self> {
        let mut sockets = Self { passed: Vec::new() };
        for socket in passed {
            let address = socket.local_addr()?;
            if !covers(address, listen) && !others.iter().any(|other| covers(address, *other)) {
                return Err(io::Error::other(Unwanted { passed: address, listen }));
            }
            socket.set_nonblocking(true)?;
            sockets.passed.push((socket, address));
        }
        Ok(sockets)
    }

    /// The socket for this address.
    pub(crate) async fn listen(&mut self, address: SocketAddr) -> io::Result<(TcpListener, Holder)> {
        match self.passed.iter().position(|(_, passed)| covers(*passed, address)) {
            Some(index) => Ok((TcpListener::from_std(self.passed.swap_remove(index).0)?, Holder::ServiceManager)),
            None => Ok((TcpListener::bind(address).await?, Holder::Nobody)),
        }
    }
}

/// Whether a socket is the one for `wanted`. One on all addresses is: of which families is up to who opened it.
fn covers(socket: SocketAddr, wanted: SocketAddr) -> bool {
    let both_on_all = socket.ip().is_unspecified() && wanted.ip().is_unspecified();
    socket.port() == wanted.port() && (socket.ip() == wanted.ip() || both_on_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_finds_its_socket() {
        let covers = |socket: &str, wanted: &str| covers(socket.parse().unwrap(), wanted.parse().unwrap());
        assert!(covers("0.0.0.0:443", "0.0.0.0:443"));
        assert!(covers("[::]:443", "0.0.0.0:443"));
        assert!(!covers("0.0.0.0:443", "0.0.0.0:8443"));
        assert!(!covers("0.0.0.0:443", "127.0.0.1:443"));
        assert!(covers("0.0.0.0:443", "[::]:443"));
    }

    #[tokio::test]
    async fn what_is_passed_is_used_and_the_rest_is_bound() {
        let passed = StdListener::bind("127.0.0.1:0").unwrap();
        let (address, none) = (passed.local_addr().unwrap(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut sockets = Sockets::new(vec![passed], none, &[address]).unwrap();
        let (_bound, holder) = sockets.listen(none).await.unwrap();
        assert_eq!(holder, Holder::Nobody);
        let (taken, holder) = sockets.listen(address).await.unwrap();
        assert_eq!((taken.local_addr().unwrap(), holder), (address, Holder::ServiceManager));
    }

    #[test]
    fn what_nobody_wants_is_an_error() {
        let passed = StdListener::bind("127.0.0.1:0").unwrap();
        let address = passed.local_addr().unwrap();
        let error = Sockets::new(vec![passed], "127.0.0.1:1".parse().unwrap(), &[]).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen (127.0.0.1:1)"), "{error}");
    }
}
