//! Measures the tunnel beside a direct connection and an nginx TLS hop, interleaved in one run.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`rounds`] | what is measured, in which order, against which gates |
//! | [`load`], [`caller`], [`http`] | the callers |
//! | [`upstream`], [`clock`] | what answers them, on the same clock |
//! | [`setup`], [`program`] | the programs in between, and what they use |
//! | [`idle`], [`syscalls`] | idle tunnels; writes per token |
//! | [`report`] | gates, table, JSON |

mod caller;
mod cli;
mod clock;
mod http;
mod idle;
mod load;
mod program;
mod report;
mod rounds;
mod setup;
mod syscalls;
mod upstream;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    // One thread for all callers: they take turns, as the packets of callers elsewhere would.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = rounds::run(&arguments) => outcome,
                _ = tokio::signal::ctrl_c() => Err(io::Error::other("stopped")),
            }
        })
    });
    let measures = match outcome {
        Ok(measures) => measures,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let text = if arguments.json { report::json(&measures) } else { report::table(&measures) };
    let _ = io::stdout().write_all(text.as_bytes());
    if arguments.quick || report::failures(&measures) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
