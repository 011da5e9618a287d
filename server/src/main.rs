//! The program `tunneld`: reads its command line, logs, runs the server, ends with a code.

use std::process::ExitCode;

use tunnel_cli::{exit, exit::Exit, service, signals};
use tunneld::server::Server;

use crate::cli::{Output, Serve, Task};

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

fn run(task: Task) -> Result<(), Exit> {
    let serve = match task {
        Task::Serve(serve) => serve,
        Task::Done(Output { result, hint }) => {
            exit::print(&result);
            exit::hint(&hint);
            return Ok(());
        }
    };
    // Each connection is a file. What the system allows at most is what it allows; the rest waits.
    let _as_it_is = rlimit::increase_nofile_limit(rlimit::INFINITY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
    let served = runtime.block_on(served(*serve));
    // A second signal ends at once, whatever still blocks.
    runtime.shutdown_background();
    served
}

async fn served(serve: Serve) -> Result<(), Exit> {
    let Serve { config, log, warnings } = serve;
    let log = log.start().map_err(Exit::failed)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let passed = service::passed_sockets().map_err(Exit::failed)?;
    let server = Server::bind(config, passed).await.map_err(Exit::usage)?;
    server.count_lost_lines(log.lost());
    let mut hangups = signals::Hangups::listen().map_err(Exit::failed)?;
    let reloader = server.reloader();
    let reloading = async {
        loop {
            hangups.next().await;
            tracing::info!("hangup: reading certificates, keys and revocations again");
            reloader.reload();
        }
    };
    let serve_and_reload = async |stop: signals::Shutdown| {
        service::ready();
        let stop = async {
            stop.await;
            service::stopping();
        };
        tokio::select! {
            () = server.run(stop) => {}
            () = reloading => {}
        }
    };
    signals::run_until_stopped(serve_and_reload).await.map_err(Exit::failed)?;
    Ok(())
}
