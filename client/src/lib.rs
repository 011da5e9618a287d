//! placeholder
pub mod backoff;
pub mod config;
pub mod event;
pub mod token;
