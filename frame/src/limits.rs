//! The numbers of the wire, each with its unit and its reason.
//!
//! What a peer may send is bounded here; what a user may configure is not.

use std::time::Duration;

/// WebSocket subprotocol (RFC 6455 §1.9). The version of everything in this crate; there is no other.
pub const SUBPROTOCOL: &str = "tunnel.yamux.v1";

/// Largest binary message that is sent, in bytes. 16 KiB costs 15 % more CPU, 64 KiB gains nothing.
pub const MESSAGE_SENT: usize = 32 * 1024;

/// Largest message or frame that is accepted, in bytes; a larger one closes the tunnel (1009).
pub const MESSAGE_ACCEPTED: usize = 256 * 1024;

/// Largest control (text) message that is accepted, in bytes. Only a list of models comes near.
pub const CONTROL_ACCEPTED: usize = 4 * 1024;

/// Control frames (ping, pong, text, empty binary) accepted within [`CONTROL_WINDOW`]; more is a flood (1008).
/// An honest peer sends one or two.
pub const CONTROL_BURST: u32 = 64;

/// See [`CONTROL_BURST`].
pub const CONTROL_WINDOW: Duration = Duration::from_secs(10);

/// tungstenite's eager read buffer, in bytes per tunnel, and the most that it reads at a time. 128 KiB (its default) would
/// be most of an idle tunnel.
pub const READ_BUFFER: usize = 4 * 1024;

/// yamux payload per frame, in bytes. 4 KiB keeps a token behind at most a few milliseconds of bulk on a slow uplink;
/// 16 KiB (yamux's default) made it wait 400 ms at 25 Mbit/s.
pub const YAMUX_SPLIT: usize = 4 * 1024;

/// Streams that yamux accepts at a time. yamux ends the whole session when one more is opened, so our own gate
/// ([`STREAMS_OPEN`]) sits far below.
pub const YAMUX_STREAMS: usize = 1024;

/// Streams that the server keeps open at a time on one tunnel; more wait outside as 429.
pub const STREAMS_OPEN: usize = 512;

/// Receive budget of a session: yamux reserves 256 KiB for each possible stream (256 MiB that is address space, not
/// memory), and auto-tuning may grow windows by 16 MiB in all.
pub const YAMUX_RECEIVE: usize = YAMUX_STREAMS * 256 * 1024 + 16 * 1024 * 1024;

/// New inbound streams handled before other tasks run, so that a burst of opens and resets is seen by those who must
/// drop the streams.
pub const INBOUND_BURST: usize = 64;

/// Streams opened ahead of need on a busy tunnel: a request then starts without waiting for the driver.
pub const SPARE_STREAMS: usize = 8;

/// Largest chunk that is sent, header included, in bytes: four yamux frames.
pub const CHUNK_SENT: usize = 16 * 1024;

/// Largest payload of any frame inside a stream that is accepted, in bytes.
pub const FRAME_ACCEPTED: usize = 64 * 1024;

/// Largest abort message, in bytes; a longer one is cut.
pub const ABORT_MESSAGE: usize = 512;

/// Silence after which a ping is sent.
pub const PING_AFTER: Duration = Duration::from_secs(5);

/// The shortest time between two pings for those who probe.
pub const PROBE_EVERY: Duration = Duration::from_millis(250);

/// Silence after which the peer is given up. Any byte that arrives is life.
pub const SILENCE: Duration = Duration::from_secs(15);

/// How long a close frame may take to leave before the connection is dropped.
pub const CLOSE_FLUSH: Duration = Duration::from_secs(1);

/// How long the desktop may take to accept a stream before it counts as lost. It accepts at once, long before its
/// upstream answers.
pub const ACCEPT_WITHIN: Duration = Duration::from_secs(10);
