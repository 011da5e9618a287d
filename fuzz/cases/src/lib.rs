//! What must hold for any bytes from outside.
//!
//! One module for each thing that reads such bytes. Its functions take an input, run the program's own code on it, and
//! panic where a promise is broken; a promise is stated by a second, naive reading, never by the code itself. The
//! thin targets in `fuzz/fuzz_targets` let libFuzzer call them, and `tests/replay.rs` runs them on the committed corpora.
//!
//! | module | reads |
//! |---|---|
//! | [`framing`] | frames in a stream, in any pieces; heads; control messages |
//! | [`session`] | the bytes of a WebSocket, and of yamux in it, at either end of a tunnel |
//! | [`token`] | tokens: any text, claims that are signed well, claims that are signed badly |
//! | [`keys`] | sets of keys that an identity provider publishes |
//! | [`request`] | request heads: what may pass, where the token is, what an allowed path is |
//! | [`fields`] | header fields in both directions |
//! | [`log`] | paths as they are logged |
//! | [`figures`] | answers of models, for what they say of themselves |
//! | [`records`] | running response bodies, and the record that may end them |
//! | [`settings`] | rules of `--allow` and origins of `--cors-origin` |

pub mod fields;
pub mod figures;
pub mod framing;
mod input;
pub mod keys;
pub mod log;
pub mod records;
pub mod request;
pub mod session;
pub mod settings;
pub mod token;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All of them, by the name of their binary and corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("capability", log::capability),
    ("control", framing::control),
    ("cors", settings::cors),
    ("credential", request::credential),
    ("figures", figures::figures),
    ("framing", framing::frames),
    ("headers", fields::headers),
    ("heads", framing::heads),
    ("keys", keys::keys),
    ("location", fields::location),
    ("policy", settings::policy),
    ("records", records::records),
    ("target", request::target),
    ("token", token::token),
    ("websocket", session::websocket),
    ("yamux", session::yamux),
];
