//! The wire of the tunnel, and nothing else.
//!
//! Opens no sockets, reads no tokens, holds no policy of its own. Three layers, each in its own file:
//!
//! 1. [`pipe`](mod@crate): a WebSocket as a byte pipe (binary messages), beside [`control`] messages (text).
//! 2. [`driver`] and [`mod@session`]: one yamux session on that pipe, its heartbeat, its [`close`].
//! 3. [`codec`], [`head`] and [`abort`]: the binary framing of one request inside a [`stream`]; [`hop`] says which headers
//!    never enter it.
//!
//! [`limits`] has all numbers, [`policy`] the one list of inference endpoints that both ends consult. The bytes are
//! described in `docs/protocol.md`.

pub mod abort;
pub mod close;
pub mod codec;
pub mod control;
pub mod driver;
pub mod head;
pub mod hop;
pub mod limits;
mod pipe;
pub mod policy;
mod pulse;
pub mod session;
pub mod stream;
mod tally;

pub use abort::{Abort, AbortCode};
pub use close::{Close, CloseCode, Ended};
pub use codec::{Decoder, Frame, FrameError};
pub use control::{Control, Models, Welcome};
pub use driver::{Driver, Event, Role, session};
pub use head::{BodySize, RequestHead, ResponseHead};
pub use pipe::websocket_config;
pub use pulse::Pulse;
pub use session::{OpenError, Session};
pub use stream::{Cut, FrameReader, FrameWriter, SendError, Stream, Watcher};
