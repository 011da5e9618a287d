//! The desktop's side of the tunnel.
//!
//! A request's way through the modules, top to bottom:
//!
//! ```text
//! client    dial, serve, dial again; drain at the end
//!   dial      TCP, TLS and upgrade; the token goes out only after the server has proved its name
//!   stream    one request: accept, policy, upstream, relay
//!     body      its body, read when the upstream asks for it
//!     upstream  the one address that is ever asked
//! ```
//!
//! [`config`] is what a client is told and [`token`] its token, [`event`] what it tells; [`backoff`] how long it waits.

pub mod backoff;
mod body;
pub mod client;
pub mod config;
mod dial;
pub mod event;
mod net;
mod shared;
mod stream;
pub mod token;
mod upstream;
mod wake;
