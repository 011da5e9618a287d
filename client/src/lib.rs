//! The desktop's side of the tunnel.
//!
//! A request's way through the modules, top to bottom:
//!
//! ```text
//! client    dial, serve, dial again; drain at the end
//!   dial      upgrade with the token, on a connection that has proved the server's name
//!     connector  TCP or the way through a `proxy`, then TLS
//!   stream    one request: accept, policy, upstream, relay
//!     body      its body, read when the upstream asks for it
//!     upstream  the one address that is ever asked
//! ```
//!
//! [`config`] is what a client is told and [`token`] its token, [`login`] a token that comes from an identity provider,
//! [`event`] what it tells and [`board`] how things stand; [`backoff`] how long it waits; [`doctor`] what is wrong on the
//! way. [`forward`] is the other end: a local port for programs that know no token.

pub mod backoff;
pub mod board;
mod body;
pub mod client;
pub mod config;
mod connection;
pub mod connector;
mod dial;
pub mod doctor;
pub mod event;
pub mod forward;
pub mod login;
mod net;
pub mod proxy;
mod report;
mod shared;
mod stream;
mod tick;
pub mod token;
mod upstream;
mod wake;

/// How we name ourselves to servers and proxies.
const USER_AGENT: &str = concat!("tunnel/", env!("CARGO_PKG_VERSION"));
