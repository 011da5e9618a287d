//! One connection to the fake Ollama: HTTP on it, a watch on the peer's leaving, and the ways to cut it.
//!
//! The peer's leaving is seen on the socket itself and not through hyper, which looks at it only while it reads.

use std::{convert::Infallible, io, pin::pin, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
    sync::{mpsc, watch},
};

use crate::{body::Body, eventually::with_deadline};

/// How long the socket stays open after an answer that did not wait for the request's body: closed at once it would
/// send a RST, and the answer could be lost. Go's server, which is Ollama's, does the same (`rstAvoidanceDelay`).
const LINGER: Duration = Duration::from_millis(500);

/// How a connection ends without HTTP's leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// With a FIN, as when a process exits.
    Fin,
    /// With a RST, as when a process is killed with bytes unread.
    Reset,
}

#[derive(Debug)]
enum Order {
    Cut(Cut),
    HalfClose,
}

/// What a test holds of a connection.
#[derive(Debug, Clone)]
pub struct Link {
    left: watch::Receiver<bool>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Link {
    /// Ends the connection.
    pub fn cut(&self, how: Cut) {
        let _already_over = self.orders.send(Order::Cut(how));
    }

    /// Sends a FIN in the middle of whatever is going on, and still reads.
    pub fn half_close(&self) {
        let _already_over = self.orders.send(Order::HalfClose);
    }

    /// Whether the peer has closed the connection, or it is over for another reason.
    #[must_use]
    pub fn caller_has_left(&self) -> bool {
        *self.left.borrow() || self.left.has_changed().is_err()
    }

    /// Waits until it has.
    pub async fn caller_leaves(&mut self) {
        let left = self.left.wait_for(|left| *left);
        let _connection_is_over = with_deadline("the caller of the upstream leaves", left).await.map(drop);
    }
}

/// Serves HTTP/1.1 on `stream` until it ends or is cut.
pub(super) async fn serve<F>(stream: TcpStream, answer: impl Fn(Request<Incoming>, Link) -> F)
where
    F: Future<Output = Response<Body>>,
{
    let Ok((stream, mut socket)) = nodelay(&stream).and_then(|()| duplicate(stream)) else {
        return; // reset before we looked at it
    };
    let (leave, left) = watch::channel(false);
    let (orders, mut order) = mpsc::unbounded_channel();
    let link = Link { left, orders };
    let service = service_fn(|request| {
        let answered = answer(request, link.clone());
        async { Ok::<_, Infallible>(answered.await) }
    });
    let mut http = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let mut has_left = false;
    loop {
        tokio::select! {
            _ended = &mut http => break,
            () = peer_leaves(&socket), if !has_left => {
                has_left = true;
                leave.send_replace(true);
            }
            Some(order) = order.recv() => {
                let _best_effort = match order {
                    Order::Cut(Cut::Reset) => socket.set_zero_linger(),
                    Order::Cut(Cut::Fin) | Order::HalfClose => socket.shutdown().await,
                };
                if matches!(order, Order::Cut(_)) {
                    return;
                }
            }
        }
    }
    let _closed_by_then = tokio::time::timeout(LINGER, peer_leaves(&socket)).await;
}

fn nodelay(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

/// The same socket twice. Each has its own readiness, so that watching one takes nothing from the other.
fn duplicate(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let first = stream.into_std()?;
    let second = first.try_clone()?;
    Ok((TcpStream::from_std(first)?, TcpStream::from_std(second)?))
}

async fn peer_leaves(socket: &TcpStream) {
    loop {
        match socket.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => {
                // Bytes, which are hyper's. Forget the readiness, so that the next call waits for news.
                let _news = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            }
            _closed_or_broken => return,
        }
    }
}
