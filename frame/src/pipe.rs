//! A WebSocket as a byte pipe: binary messages are a byte stream, their boundaries mean nothing.
//!
//! Owns batching (what is written gathers in one buffer and leaves as one message when the driver says so), control
//! messages and floods of them, and the close handshake. Knows nothing of yamux.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{
    Sink, Stream,
    io::{AsyncRead, AsyncWrite},
};
use tokio::time::Instant;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::CapacityError,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::{
    close::{Close, CloseCode, Ended},
    control::Control,
    limits,
    pulse::Pulse,
    tally::{Header, Headers, Tally},
};

/// tungstenite's configuration for a tunnel; its defaults hold 256 KiB per connection and accept 64 MiB.
#[must_use]
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(limits::READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(limits::MESSAGE_ACCEPTED)
        .max_message_size(Some(limits::MESSAGE_ACCEPTED))
        .max_frame_size(Some(limits::MESSAGE_ACCEPTED))
}

/// The WebSocket under a session.
pub(crate) struct Pipe<T> {
    ws: WebSocketStream<Pulse<T>>,
    /// Rest of the binary message being read.
    incoming: Bytes,
    /// What was written since the last message left.
    outgoing: BytesMut,
    /// A writer waits for room in `outgoing`.
    blocked: bool,
    /// A message was handed to tungstenite that may not be on the socket yet.
    unflushed: bool,
    /// Control messages that were read and not yet taken.
    controls: VecDeque<Control>,
    /// Why the pipe ended, once it has.
    ended: Option<Ended>,
    floods: Flood,
    tally: Tally,
    /// The frames that yamux writes.
    written: Headers,
    pings: Pings,
}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Pipe<T> {
    pub(crate) fn new(ws: WebSocketStream<Pulse<T>>) -> Self {
        Self {
            ws,
            incoming: Bytes::new(),
            outgoing: BytesMut::new(),
            blocked: false,
            unflushed: false,
            controls: VecDeque::new(),
            ended: None,
            floods: Flood::default(),
            tally: Tally::default(),
            written: Headers::default(),
            pings: Pings::default(),
        }
    }

    /// Whether any byte was heard since the last call.
    pub(crate) fn heard(&mut self) -> bool {
        self.ws.get_mut().take()
    }

    pub(crate) fn take_control(&mut self) -> Option<Control> {
        self.controls.pop_front()
    }

    pub(crate) fn take_rtt(&mut self) -> Option<Duration> {
        self.pings.rtt.take()
    }

    pub(crate) fn ended(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// Whether a write waits for the socket. While it does, dropped streams are not noticed either.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether something waits for [`Self::poll_send`].
    pub(crate) fn has_output(&self) -> bool {
        !self.outgoing.is_empty() || self.unflushed
    }

    /// Sends what was written as one message. `Ready(true)`: a writer was blocked and may go on.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.outgoing.is_empty() {
            ready!(self.poll_message(cx))?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.ws).poll_flush(cx)).map_err(into_io)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(std::mem::take(&mut self.blocked)))
    }

    /// Hands `outgoing` to tungstenite as one message, which writes it at once if the socket takes it.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.ws).poll_ready(cx)).map_err(into_io)?;
        let message = Message::Binary(self.outgoing.split().freeze());
        Pin::new(&mut self.ws).start_send(message).map_err(into_io)?;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    /// Queues a control message. It overtakes everything that is not yet in tungstenite's buffer.
    pub(crate) fn poll_control(&mut self, cx: &mut Context<'_>, control: &Control) -> Poll<io::Result<()>> {
        self.poll_other(cx, || Message::text(control.to_json()))
    }

    /// Queues a ping; the answer gives the round-trip time.
    pub(crate) fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let payload = self.pings.next();
        self.poll_other(cx, || Message::Ping(Bytes::copy_from_slice(&payload)))
    }

    /// Queues the close frame; nothing can be sent after it.
    pub(crate) fn poll_close_frame(&mut self, cx: &mut Context<'_>, close: &Close) -> Poll<io::Result<()>> {
        // A close frame's payload is at most 125 bytes, two of them the code.
        let mut end = close.message.len().min(123);
        while !close.message.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code: close.code.to_wire().into(), reason: close.message[..end].into() };
        self.poll_other(cx, || Message::Close(Some(frame)))
    }

    fn poll_other(&mut self, cx: &mut Context<'_>, message: impl FnOnce() -> Message) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.ws).poll_ready(cx)).map_err(into_io)?;
        Pin::new(&mut self.ws).start_send(message()).map_err(into_io)?;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    /// Puts what tungstenite holds on the socket.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ws).poll_flush(cx).map_err(into_io)
    }

    /// Reads and forgets until the peer is gone.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
    }

    /// Gives the buffers of an idle tunnel back.
    pub(crate) fn shrink(&mut self) {
        if self.outgoing.is_empty() {
            self.outgoing = BytesMut::new();
        }
    }

    /// yamux answers a broken rule with a go-away and then waits for the peer to leave, which a hostile one does not.
    /// It says go-away for nothing else here.
    fn note_go_away(&mut self, mut written: &[u8]) {
        while let Some(header) = self.written.next(&mut written) {
            if header == Header::GoAway && self.ended.is_none() {
                self.incoming = Bytes::new();
                self.ended = Some(Ended::Here(Close::new(CloseCode::Protocol, "yamux: the rules were broken")));
            }
        }
    }

    /// Reads messages until one has bytes for yamux. `Ready(false)`: the pipe has ended.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.incoming.is_empty() {
            if self.ended.is_some() {
                return Poll::Ready(false);
            }
            // tungstenite answers pings and closes on the next read, so this loop must go round once more after them.
            match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => {
                    if self.tally.admit(&bytes) {
                        self.incoming = bytes;
                    } else {
                        let flood = Close::new(CloseCode::Policy, "too many small yamux frames");
                        self.ended = Some(Ended::Here(flood));
                    }
                }
                Some(Ok(message)) => self.ended = self.on_control_frame(message).err(),
                Some(Err(error)) => self.ended = Some(ended(&error)),
                None => self.ended = Some(Ended::Lost("end of stream".into())),
            }
        }
        Poll::Ready(true)
    }

    fn on_control_frame(&mut self, message: Message) -> Result<(), Ended> {
        if !self.floods.admit(Instant::now()) {
            return Err(Ended::Here(Close::new(CloseCode::Policy, "too many control frames")));
        }
        match message {
            Message::Pong(payload) => self.pings.answered(&payload),
            Message::Text(text) if text.len() > limits::CONTROL_ACCEPTED => {
                return Err(Ended::Here(Close::new(CloseCode::TooBig, "control message over 4 KiB")));
            }
            Message::Text(text) => match Control::from_json(&text) {
                Some(control) => self.controls.push_back(control),
                None => return Err(Ended::Here(Close::new(CloseCode::Protocol, "control message is not ours"))),
            },
            Message::Close(frame) => {
                let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                return Err(Ended::There(Close::new(CloseCode::from_wire(code), reason)));
            }
            // A ping was answered by tungstenite; an empty binary message is only counted.
            Message::Ping(_) | Message::Binary(_) | Message::Frame(_) => {}
        }
        Ok(())
    }
}

/// A handle on the pipe: yamux owns one and reads and writes bytes, the driver owns the other.
///
/// Both are used by the same task, so the lock is never contended.
pub(crate) struct PipeHandle<T>(Arc<Mutex<Pipe<T>>>);

impl<T> PipeHandle<T> {
    pub(crate) fn new(pipe: Pipe<T>) -> Self {
        Self(Arc::new(Mutex::new(pipe)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Pipe<T>> {
        self.0.lock().expect("no panic while a pipe is locked")
    }
}

impl<T> Clone for PipeHandle<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> AsyncRead for PipeHandle<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.lock();
        if !ready!(pipe.poll_fill(cx)) {
            return Poll::Ready(Ok(0));
        }
        let n = pipe.incoming.len().min(buf.len());
        pipe.incoming.copy_to_slice(&mut buf[..n]);
        Poll::Ready(Ok(n))
    }
}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> AsyncWrite for PipeHandle<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.lock();
        if pipe.outgoing.len() >= limits::MESSAGE_SENT {
            match pipe.poll_message(cx) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => {
                    pipe.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        let n = buf.len().min(limits::MESSAGE_SENT - pipe.outgoing.len());
        pipe.outgoing.extend_from_slice(&buf[..n]);
        pipe.note_go_away(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    /// yamux flushes after every frame; the driver decides when a message leaves ([`Pipe::poll_send`]).
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Counts control frames, so that a peer cannot keep us busy with what costs it nothing.
#[derive(Default)]
struct Flood {
    since: Option<Instant>,
    seen: u32,
}

impl Flood {
    fn admit(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= limits::CONTROL_WINDOW) {
            self.since = Some(now);
            self.seen = 0;
        }
        self.seen += 1;
        self.seen <= limits::CONTROL_BURST
    }
}

/// Pings under way and the round-trip time of the last one.
#[derive(Default)]
struct Pings {
    count: u64,
    sent: Option<Instant>,
    rtt: Option<Duration>,
}

impl Pings {
    fn next(&mut self) -> [u8; 8] {
        self.count += 1;
        self.sent = Some(Instant::now());
        self.count.to_be_bytes()
    }

    fn answered(&mut self, payload: &[u8]) {
        if payload == self.count.to_be_bytes() {
            self.rtt = self.sent.take().map(|sent| sent.elapsed());
        }
    }
}

fn ended(error: &WsError) -> Ended {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
            Ended::Here(Close::new(CloseCode::TooBig, "message over 256 KiB"))
        }
        WsError::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            Ended::Lost("reset by the other side".into())
        }
        WsError::Protocol(error) => Ended::Here(Close::new(CloseCode::Protocol, error.to_string())),
        WsError::Utf8(_) => Ended::Here(Close::new(CloseCode::Protocol, "text message is not UTF-8")),
        WsError::Io(error) => Ended::lost(error),
        error => Ended::Lost(error.to_string()),
    }
}

fn into_io(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        error => io::Error::other(error),
    }
}
