//! The harness of the integration tests: everything around the tunnel that a test needs, on ports of its own.
//!
//! | module | what it is |
//! |---|---|
//! | [`ollama`] | the upstream: answers by path, or in the test's hands |
//! | [`raw`] | an upstream that sends whatever bytes a test writes |
//! | [`proxy`] | an HTTP proxy as companies have them |
//! | [`relay`] | a TCP relay that cuts, freezes, delays and throttles |
//! | [`namespace`] | a network of our own, whose packets can be lost |
//! | [`body`], [`pattern`] | bodies one piece at a time, and endless ones that show damage |
//! | [`setup`] | a whole tunnel in one line, and its parts in a test's hands |
//! | [`admin`] | a tunnel with an operator |
//! | [`server`], [`client`] | `tunneld` and `tunnel connect` inside the test's process |
//! | [`pki`] | a development CA, a certificate, tokens |
//! | [`jwt`] | tokens with any claims, of the secret and of an identity provider |
//! | [`provider`] | an identity provider, good or hostile |
//! | [`handshake`] | a desktop's handshake by hand, and a desktop that does nothing after it |
//! | [`refusal`] | what every refusal must look like |
//! | [`caller`] | HTTP/1.1, HTTP/2 or bare bytes toward the server |
//! | [`binaries`] | the real programs as child processes |
//! | [`workshop`] | files for them: certificates, a secret, tokens |
//! | [`eventually`] | waiting for the thing itself, under one generous limit |
//! | [`nginx`] | a real nginx in front of `tunneld` |
//! | [`attack`] | what the attack corpus stands on |
//! | [`background`] | a thread and runtime for each part; panics are raised again |

pub mod admin;
pub mod attack;
pub mod background;
pub mod binaries;
pub mod body;
pub mod caller;
pub mod client;
pub mod eventually;
pub mod handshake;
pub mod jwt;
#[cfg(target_os = "linux")]
pub mod namespace;
pub mod nginx;
pub mod ollama;
pub mod pattern;
pub mod pki;
pub mod provider;
pub mod proxy;
pub mod raw;
pub mod refusal;
pub mod relay;
pub mod server;
pub mod setup;
pub mod workshop;
