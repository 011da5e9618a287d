//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;

use crate::restarts::Restarted;

/// Breaks the real programs at random while callers verify every byte.
///
/// Kills, stops and restarts server, clients and upstreams, cuts, freezes and slows the line between them, renews
/// tokens and brings rivals, and classifies each request. Exit code 1 when anything was lost, doubled, crossed, left
/// hanging or truncated, or when a program leaks or dies.
#[derive(Debug, Parser)]
#[command(name = "scripts/chaos")]
pub(crate) struct Arguments {
    /// How long faults are injected.
    #[arg(long, default_value_t = 0, value_name = "N")]
    minutes: u64,
    /// The same in seconds; both add up. Two minutes if neither is given.
    #[arg(long, default_value_t = 0, value_name = "S")]
    seconds: u64,
    /// Which faults and requests, and in which order. Chosen at random, and printed, if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults with this text in their name, to look closer at one.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// Instead of all that: so many rounds of restarts behind nginx, for scripts/rolling.
    #[arg(long, value_name = "TIMES", hide = true)]
    pub(crate) rolling: Option<usize>,
    /// With --rolling, for scripts/deployment: the server that is there, the folder of its authority and secret, and the
    /// command that restarts it.
    #[arg(long, value_name = "ADDR", hide = true, requires_all = ["folder", "restart", "rolling"])]
    server: Option<SocketAddr>,
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
    #[arg(long, value_name = "COMMAND", hide = true)]
    restart: Option<String>,
    /// The folder of tunneld and tunnel.
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub(crate) bin: PathBuf,
}

impl Arguments {
    /// How long faults are injected.
    pub(crate) fn time(&self) -> Duration {
        match self.minutes * 60 + self.seconds {
            0 => Duration::from_secs(120),
            seconds => Duration::from_secs(seconds),
        }
    }

    /// The server that is restarted instead of our own.
    pub(crate) fn restarted(&self) -> Option<Restarted> {
        let (server, folder, command) = (self.server?, self.folder.clone()?, self.restart.clone()?);
        Some(Restarted { server, folder, command })
    }

    /// The seed that was given, or any.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000))
    }
}
