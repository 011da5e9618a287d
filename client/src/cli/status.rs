//! `tunnel status`: asks the clients of this user on this machine how things stand.

use tunnel::board::Report;
use tunnel_cli::exit::{self, Exit};

use super::Job;
use crate::{local, show::report};

const EXAMPLES: &str = "\
Examples:
  tunnel status                 all clients that you run on this machine
  tunnel status --name tower    the one that is connected under this name
  tunnel status --json | jq .rtt_ms

Exit codes: 0 connected, 1 running but not connected, 3 not running.";

/// Show how the clients on this machine are doing, and their last requests
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only the client that is connected under this name
    #[arg(long)]
    name: Option<String>,

    /// One line of JSON for each client
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(super) fn job(args: Args) -> Job {
    Box::pin(run(args))
}

async fn run(Args { name, json }: Args) -> Result<(), Exit> {
    let directory = local::directory().map_err(Exit::failed)?;
    let told = local::ask(&directory).await;
    let mut reports: Vec<Report> = told.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    reports.retain(|report| name.is_none() || report.name == name);
    reports.sort_by_key(|report| report.pid);
    if reports.is_empty() {
        return Err(nobody(name.as_deref(), told.len()));
    }
    for (number, report) in reports.iter().enumerate() {
        let separator = if number > 0 && !json { "\n" } else { "" };
        let text =
            if json { serde_json::to_string(report).map_err(Exit::failed)? + "\n" } else { report::text(report) };
        exit::print(&format!("{separator}{text}"));
    }
    if reports.iter().all(|report| report.connected) { Ok(()) } else { Err(Exit::Quiet(exit::FAILED)) }
}

fn nobody(name: Option<&str>, running: usize) -> Exit {
    let line = match name {
        Some(name) if running > 0 => {
            format!("no client named {name:?} is running for you on this machine; `tunnel status` shows all {running}")
        }
        _ => "no client is running for you on this machine; start one: tunnel connect --token-file FILE".to_owned(),
    };
    Exit::Error { code: exit::NOT_RUNNING, line }
}
