//! The server of the tunnel.
//!
//! A request's way through the modules, top to bottom:
//!
//! ```text
//! listener  accept, TLS, HTTP/1.1 and HTTP/2                     (on the threads of workers)
//!   edge    routes, checks, credentials, errors, headers in both directions, CORS, access log
//!     auth      whose token is this, and what may it do            (knows no HTTP server)
//!     registry  which desktop of that user                         (knows no HTTP server)
//!     proxy     one request over one stream of that tunnel
//! tunnel    the desktops' side: upgrade, welcome, drain, expiry    (never imports proxy)
//! ```
//!
//! [`server`] starts and stops all of it; [`config`] is what it is told, [`id`] its identifiers, [`error`] the one
//! table of what can be answered instead. [`admin`] is the operator's own listener; [`reload`] follows files that change,
//! [`provider`] the keys of an identity provider; `sockets` are bound or passed. `metrics` counts, and [`figures`] reads what
//! models say of their answers.

pub mod admin;
mod admission;
pub mod auth;
pub mod config;
pub mod edge;
pub mod error;
pub mod figures;
pub mod id;
mod listener;
mod metrics;
mod patience;
pub mod provider;
pub mod proxy;
pub mod registry;
pub mod reload;
pub mod server;
mod sockets;
mod tunnel;
mod workers;
