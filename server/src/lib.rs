//! placeholder
pub mod auth;
pub mod edge;
pub mod id;
