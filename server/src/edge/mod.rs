//! placeholder: the lead writes the router here.
pub mod capability;
pub mod cors;
pub mod credential;
pub mod error;
pub mod headers;
pub mod target;
