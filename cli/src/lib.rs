//! What the command lines of `tunneld` and `tunnel` share, so that both behave alike. Holds no setting of its own.
//!
//! * [`exit`]: exit codes, and the one line on stderr that goes with them.
//! * [`settings`]: flag > environment > TOML file, from one struct; names a setting the way its user wrote it.
//! * [`value`]: how people write durations, addresses and URLs.
//! * [`log`]: `tracing` on stderr, as text or JSON, for a person, a file or systemd's journal.
//! * [`service`]: sockets that systemd passes, and telling it that the program serves.
//! * [`signals`]: the first SIGTERM or Ctrl-C drains, the second ends at once.

pub mod exit;
mod journal;
mod lines;
pub mod log;
mod plain;
pub mod service;
pub mod settings;
pub mod signals;
pub mod value;
