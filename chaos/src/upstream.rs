//! A fake Ollama that answers tickets, checks what was uploaded, and keeps the ledger.
//!
//! It lives on a thread of its own, so that it can be stopped as SIGSTOP stops a process, the kernel still accepting
//! connections for it, and killed with all its sockets.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use integration_tests::background::{Background, Flavour};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Sleep, sleep},
};

use crate::{
    expected::Expected,
    ledger::{Ledger, Open},
    ticket::{Ticket, User},
    verdict::Wrong,
};

/// Between two tries to bind the port of an upstream that was killed.
const BIND_AGAIN: Duration = Duration::from_millis(50);

/// A running upstream. Dropped, it is gone as a killed process is.
#[derive(Debug)]
pub(crate) struct Upstream {
    addr: SocketAddr,
    stops: mpsc::UnboundedSender<Duration>,
    background: Background,
}

impl Upstream {
    /// Starts the upstream of `user`, on a free port or where it was before.
    pub(crate) fn start(user: User, ledger: &Arc<Ledger>, addr: Option<SocketAddr>) -> io::Result<Self> {
        let listener = bind(addr.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let addr = listener.local_addr()?;
        let (stops, stop) = mpsc::unbounded_channel();
        let ledger = Arc::clone(ledger);
        let background = Background::spawn("upstream", Flavour::Current, move |end| async move {
            tokio::select! {
                () = serve(listener, user, ledger) => {}
                () = obey(stop) => {}
                () = end.cancelled() => {}
            }
        });
        Ok(Self { addr, stops, background })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops it for this long; returns at once.
    pub(crate) fn pause(&self, time: Duration) {
        let _it_has_ended = self.stops.send(time);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.background.cut();
    }
}

/// A killed upstream's port is free again once its sockets are gone.
fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(addr) {
            Ok(listener) => return listener.set_nonblocking(true).map(|()| listener),
            Err(error) if tries == 60 => return Err(error),
            Err(_in_use) => thread::sleep(BIND_AGAIN),
        }
        tries += 1;
    }
}

/// Blocks the thread that everything here runs on.
async fn obey(mut stops: mpsc::UnboundedReceiver<Duration>) {
    while let Some(time) = stops.recv().await {
        thread::sleep(time);
    }
    std::future::pending::<()>().await;
}

async fn serve(listener: TcpListener, user: User, ledger: Arc<Ledger>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a reactor");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _peer)) = accepted else { continue };
                let _best_effort = stream.set_nodelay(true);
                let ledger = Arc::clone(&ledger);
                let service = service_fn(move |request| {
                    let ledger = Arc::clone(&ledger);
                    async move { Ok::<_, Infallible>(answer(request, user, &ledger).await) }
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, at: User, ledger: &Arc<Ledger>) -> Response<Answer> {
    let Some(ticket) = Ticket::of_target(request.uri().path()) else {
        return Response::new(Answer::nothing()); // the client looks whether anybody is here
    };
    let open = ledger.arrived(ticket, at);
    let mut status = StatusCode::OK;
    if let Err((wrong, detail)) = read(ticket, request.into_body()).await {
        // Not complete, and not said to be: whoever sent it has left.
        if let Some(wrong) = wrong {
            ledger.wrongs.note(ticket, wrong, detail);
        }
        status = StatusCode::BAD_REQUEST;
    }
    let mut response = Response::new(Answer::to(ticket, open));
    *response.status_mut() = status;
    let media_type = header::HeaderValue::from_static(ticket.media_type());
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// Reads a request's body, which must be that of its ticket.
async fn read(ticket: Ticket, mut body: Incoming) -> Result<(), (Option<Wrong>, String)> {
    let mut expected = Expected::asked(ticket);
    while let Some(frame) = body.frame().await {
        let bytes = frame.map_err(|error| (None, error.to_string()))?.into_data().unwrap_or_default();
        expected.take(bytes).map_err(|differs| (Some(Wrong::Crossed), format!("upload: {differs:?}")))?;
    }
    if !expected.is_complete() {
        let detail = format!("the upload seemed complete after {} of {} bytes", expected.at(), ticket.size);
        return Err((Some(Wrong::Truncated), detail));
    }
    Ok(())
}

/// The body of an answer, piece by piece at the ticket's pace.
struct Answer {
    ticket: Option<(Ticket, Open)>,
    next: usize,
    left: Option<u64>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    fn nothing() -> Self {
        Self { ticket: None, next: 0, left: Some(0), pause: None }
    }

    fn to(ticket: Ticket, open: Open) -> Self {
        Self { left: ticket.answer_length(), ticket: Some((ticket, open)), next: 0, pause: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((ticket, _open)) = self.ticket.as_ref() else { return Poll::Ready(None) };
        let ticket = *ticket;
        if ticket.pace > 0 {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(ticket.pause())));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let piece = ticket.answer(self.next);
        self.next += 1;
        if let (Some(left), Some(piece)) = (&mut self.left, &piece) {
            *left -= piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
