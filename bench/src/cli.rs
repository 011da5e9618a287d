//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// Measures the tunnel beside a direct connection and an nginx TLS hop, interleaved in one run.
///
/// Figures are medians over the rounds. Exit code 1 when a gate is not met. Runs on this machine alone, for about three
/// minutes, and wants both processors for itself.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
pub(crate) struct Arguments {
    /// How often each workload runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// How long the workloads run that have no other end.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// One short round, to see that everything works; the figures mean little and the gates nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only the workloads with this text in their name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// Neither nginx nor tunneld logs requests; by default both do.
    #[arg(long)]
    pub(crate) no_access_log: bool,
    /// Also wstunnel (10.x) behind nginx: this program. Gates that aim at it are then judged by it.
    #[arg(long, value_name = "FILE")]
    pub(crate) wstunnel: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// The folder of tunneld and tunnel.
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub(crate) bin: PathBuf,
}

impl Arguments {
    /// How many rounds.
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    /// How long a workload runs that has no other end.
    pub(crate) fn time(&self) -> Duration {
        if self.quick { Duration::from_millis(300) } else { Duration::from_secs_f64(self.seconds.clamp(0.1, 60.0)) }
    }
}
