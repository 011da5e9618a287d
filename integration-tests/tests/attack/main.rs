//! The attack corpus: hostile bytes against the real programs, as tables of cases.
//!
//! After each family the same programs must serve a normal request, and none may have panicked. What a case lets through
//! is compared with what the upstream parsed. The tests marked `ignore` run the same tables behind nginx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_streams;
mod client_wire;
mod http;
mod http2;
mod http_framing;
mod http_heads;
mod http_targets;
mod jwt;
mod jwt_cases;
mod server_streams;
mod server_wire;
mod slow;
mod wire_cases;
