//! Connections to the upstream: each is moved by the task whose request it carries, and waits here for the next one.
//!
//! That is a task less per request than a pool needs that moves them itself, and nobody has to be told when a request
//! is given up: its connection goes with it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::body::RequestBody;

/// An upstream may close an idle connection at any moment (llama-server: 5 s); one that is used sooner is alive.
const IDLE: Duration = Duration::from_secs(2);

/// Bytes that a connection buffers in each direction; hyper's default is 400 KiB.
const BUFFER: usize = 64 * 1024;

/// One HTTP/1.1 connection (RFC 9112). Nothing moves unless it is polled.
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    /// Until it has ended.
    http: Option<Box<http1::Connection<TokioIo<TcpStream>, RequestBody>>>,
}

impl Connection {
    pub(crate) async fn open(address: (&str, u16)) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let shake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
        let (sender, http) = shake.map_err(io::Error::other)?;
        Ok(Self { sender, http: Some(Box::new(http)) })
    }

    /// Sends a request and waits for the head of the final response. The error has the request if nothing of it was
    /// sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut response = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            move_bytes(&mut self.http, cx);
            response.as_mut().poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        move_bytes(&mut self.http, cx);
    }

    /// Whether it can take a request, as far as is known.
    fn is_free(&self) -> bool {
        self.http.is_some() && self.sender.is_ready()
    }
}

/// What fails is told to whoever waits for a response or its body.
fn move_bytes<C: Future + Unpin>(http: &mut Option<C>, cx: &mut Context<'_>) {
    if http.as_mut().is_some_and(|http| Pin::new(http).poll(cx).is_ready()) {
        *http = None;
    }
}

/// The connections without a request; the one that was used last is used first. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Mutex<Connections>>);

#[derive(Default)]
struct Connections {
    /// With the time since when, oldest first.
    idle: VecDeque<(Instant, Connection)>,
    /// A task closes those that are not used.
    swept: bool,
}

impl Idle {
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut connections = self.lock();
        loop {
            let (since, connection) = connections.idle.pop_back()?;
            if since.elapsed() < IDLE && connection.is_free() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose response is complete. It closes if its request is not: the upstream did not want it.
    fn keep(&self, mut connection: Connection, cx: &mut Context<'_>) {
        connection.poll(cx);
        if !connection.is_free() {
            return;
        }
        let mut connections = self.lock();
        connections.idle.push_back((Instant::now(), connection));
        if !std::mem::replace(&mut connections.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().expect("no panic while it is locked")
    }
}

/// Closes connections that were idle for too long, until there are none.
async fn sweep(connections: Weak<Mutex<Connections>>) {
    let mut next = Instant::now() + IDLE;
    loop {
        sleep_until(next).await;
        let Some(idle) = connections.upgrade().map(Idle) else { return };
        let mut connections = idle.lock();
        let too_long = connections.idle.iter().take_while(|(since, _)| since.elapsed() >= IDLE).count();
        connections.idle.drain(..too_long);
        match connections.idle.front() {
            Some((since, _)) => next = *since + IDLE,
            None => return connections.swept = false,
        }
    }
}

/// The body of a response. Its connection closes with it unless it was read to its end.
pub(crate) struct ResponseBody {
    incoming: Incoming,
    connection: Option<Connection>,
    idle: Idle,
}

impl ResponseBody {
    pub(crate) fn new(incoming: Incoming, connection: Connection, idle: Idle) -> Self {
        Self { incoming, connection: Some(connection), idle }
    }

    /// Waits for something else. The connection moves meanwhile: the upstream may still be taking the request.
    pub(crate) async fn during<F: Future>(&mut self, other: F) -> F::Output {
        let mut other = pin!(other);
        poll_fn(|cx| {
            let done = other.as_mut().poll(cx);
            if let (Poll::Pending, Some(connection)) = (&done, &mut self.connection) {
                connection.poll(cx);
            }
            done
        })
        .await
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut next = Pin::new(&mut self.incoming).poll_frame(cx);
        if let (Poll::Pending, Some(connection)) = (&next, &mut self.connection) {
            connection.poll(cx);
            next = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        if matches!(next, Poll::Ready(None))
            && let Some(connection) = self.connection.take()
        {
            self.idle.keep(connection, cx);
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener, time::sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_one_used_last_is_used_next_and_what_nobody_uses_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (idle, port) = (Idle::default(), listener.local_addr().unwrap().port());
        let mut peers = Vec::new();
        for _ in 0..2 {
            let connection = Connection::open(("127.0.0.1", port)).await.unwrap();
            peers.push(listener.accept().await.unwrap().0);
            let mut connection = Some(connection);
            poll_fn(|cx| {
                idle.keep(connection.take().unwrap(), cx);
                Poll::Ready(())
            })
            .await;
            sleep(IDLE / 2).await;
        }
        // The first one is closed by now.
        assert_eq!(peers[0].read(&mut [0]).await.unwrap(), 0);
        assert!(idle.take().is_some_and(|connection| connection.is_free()));
        assert!(idle.take().is_none());
        assert_eq!(peers[1].read(&mut [0]).await.unwrap(), 0);
    }
}
