//! What the attack corpus stands on: the real programs on a stage, a strict judge behind them, and bytes that no
//! library would send.
//!
//! | module | what it is |
//! |---|---|
//! | [`stage`] | `tunneld`, `tunnel` and perhaps nginx as they run in earnest |
//! | [`recorder`] | the upstream: records what it parsed, and everything that is not one well-formed request |
//! | [`wire`] | a notation for raw bytes of HTTP/1 |
//! | [`http2`] | frames of HTTP/2 |
//! | [`tunnel`] | WebSocket, yamux and stream frames, written and read by hand |
//! | [`desktop`], [`server`] | a hostile desktop, a hostile server |

pub mod desktop;
pub mod http2;
pub mod recorder;
pub mod server;
pub mod stage;
pub mod tunnel;
pub mod wire;

use std::{io::Write, time::Duration};

use futures_util::{StreamExt, stream};

/// How many cases run at the same time: most of them wait.
const AT_ONCE: usize = 8;

/// A peer that is attacked must have decided after this long: its own limits are 10 s.
pub const DECIDED: Duration = Duration::from_secs(20);

/// Runs every case of a table, tells how many there were, and fails with all failures at once.
pub async fn run<C, F: Future<Output = Result<(), String>>>(
    family: &str,
    cases: impl IntoIterator<Item = C>,
    judge: impl Fn(usize, C) -> F,
) {
    let judged: Vec<_> = stream::iter(cases.into_iter().enumerate().map(|(number, case)| judge(number, case)))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failures: Vec<&str> = judged.iter().filter_map(|judged| judged.as_ref().err()).map(String::as_str).collect();
    let told = format!("attack: {family}: {} cases\n", judged.len());
    let _nobody_reads = std::io::stdout().write_all(told.as_bytes());
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), judged.len(), failures.join("\n"));
}
