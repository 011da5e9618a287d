//! The program `tunnel`: reads its command line, does what it says, ends with a code.

use std::process::ExitCode;

use tunnel_cli::exit::Exit;

mod cli;
mod connect;
mod local;
mod service;
mod show;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

fn run(job: cli::Job) -> Result<(), Exit> {
    // One thread: a desktop has few streams, and a hop between threads costs more than it gains.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
    let ended = runtime.block_on(job);
    // A second signal ends at once, whatever still blocks.
    runtime.shutdown_background();
    ended
}
