//! placeholder
pub mod backoff;
mod body;
pub mod client;
pub mod config;
mod dial;
pub mod event;
mod net;
mod stream;
pub mod token;
mod upstream;
