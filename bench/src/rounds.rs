//! What is measured, in which order, against which gates.
//!
//! Each round runs each workload on each target, one right after the other, so that a noisy minute hits all of them.

use std::{
    io::{self, Write},
    time::Duration,
};

use crate::{
    caller::Target,
    cli::Arguments,
    idle::Tunnels,
    load::{self, Seen},
    program::Program,
    report::{Gate, Judged, Measure, Whose, micros, millis},
    setup::Setup,
    syscalls,
    upstream::Upstream,
};

const RATE: &str = "requests/s, 32 callers";
const COST: &str = "CPU us per request, 32 callers";
const DELAY: &str = "p50 us, 1 caller";
const TOKENS: &str = "token p99 ms, 64 streams";
const TOKEN_COST: &str = "CPU us per token, 32 streams";
const SLOW: &str = "p50 over 500 ms to first byte, ms, 400 callers";
const CANCEL: &str = "caller leaves -> upstream closed, p50 ms";
const DOWN: &str = "download MiB/s, 1 body";
const DOWN_8: &str = "download MiB/s, 8 bodies";
const UP: &str = "upload MiB/s, 1 body";
const UP_8: &str = "upload MiB/s, 8 bodies";
const BULK_COST: &str = "CPU s per GiB, download, 1 body";
const WRITES_1: &str = "client writes per token, 1 stream";
const WRITES_64: &str = "client writes per token, 64 streams";
const IDLE: &str = "KiB per idle tunnel, server";
const MEMORY: &str = "MiB held after all of it, server + client";

/// MiB: half of what the one body of the bulk workloads has.
const BULK: u64 = 128;

/// Idle tunnels before the first look at the memory, and how many more until the second.
const IDLE_WARM: usize = 100;
const IDLE_MORE: usize = 1000;

/// The table, from top to bottom. Some gates aim at wstunnel behind nginx. Where that is not part of the run, they are
/// taken from the machine where they were set: there it stood at 0.576 of nginx's requests, 1.09 of its bulk rate and 1.16
/// of its CPU per GiB.
fn measures(with_wstunnel: bool) -> Vec<Measure> {
    use Gate::{AtLeast, AtMost};
    use Judged::{AddedOfNginx, Itself, OfNginx, OfWstunnel};
    let beside = |wstunnel, nginx| if with_wstunnel { [(OfWstunnel, wstunnel)] } else { [(OfNginx, nginx)] };
    let bulk = || beside(AtLeast(0.8), AtLeast(0.87));
    vec![
        Measure::gated(RATE, beside(AtLeast(0.8), AtLeast(0.46))),
        Measure::gated(COST, [(OfNginx, AtMost(2.2)), (OfWstunnel, AtMost(1.0))]),
        Measure::gated(DELAY, [(AddedOfNginx, AtMost(2.8))]),
        Measure::gated(TOKENS, [(Itself, AtMost(2.0))]),
        Measure::gated(TOKEN_COST, [(OfNginx, AtMost(1.6))]),
        Measure::gated(SLOW, [(Itself, AtMost(50.0))]), // 1.1 x 500 ms
        Measure::gated(CANCEL, [(Itself, AtMost(5.0))]),
        Measure::gated(DOWN, bulk()),
        Measure::gated(DOWN_8, bulk()),
        Measure::gated(UP, bulk()),
        Measure::gated(UP_8, bulk()),
        Measure::gated(BULK_COST, beside(AtMost(1.3), AtMost(1.5))),
        Measure::gated(WRITES_1, [(Itself, AtMost(1.0))]),
        Measure::gated(WRITES_64, [(Itself, AtMost(0.3))]),
        Measure::shown(MEMORY),
        Measure::gated(IDLE, [(Itself, AtMost(20.0))]),
    ]
}

/// Runs the chosen workloads.
pub(crate) async fn run(arguments: &Arguments) -> io::Result<Vec<Measure>> {
    let upstream = Upstream::start()?;
    let setup = Setup::start(arguments, upstream.address).await?;
    let mut bench = Bench { measures: measures(setup.wstunnel.is_some()), setup, upstream, arguments };
    match bench.run().await {
        Ok(()) => Ok(bench.measures),
        Err(error) => Err(io::Error::other(format!("{error}{}", bench.setup.obituaries()))),
    }
}

struct Bench<'a> {
    measures: Vec<Measure>,
    setup: Setup,
    upstream: Upstream,
    arguments: &'a Arguments,
}

impl Bench<'_> {
    async fn run(&mut self) -> io::Result<()> {
        for round in 1..=self.arguments.rounds() {
            progress(&format!("round {round} of {}", self.arguments.rounds()));
            self.requests().await?;
            self.streams().await?;
            self.bodies().await?;
        }
        self.writes().await?;
        self.memory()?;
        self.idle().await
    }

    /// Small requests: how many, at what cost, how soon.
    async fn requests(&mut self) -> io::Result<()> {
        let time = self.arguments.time();
        for whose in self.wanted(&[RATE, COST]) {
            let (seen, spent) = self.spending(whose, load::small(self.target(whose), 32, time)).await?;
            self.add(RATE, whose, per_second(seen.count, seen.took));
            if let Some(spent) = spent {
                self.add(COST, whose, micros(spent) / figure(seen.count));
            }
        }
        for whose in self.wanted(&[DELAY]) {
            let mut seen = load::small(self.target(whose), 1, time / 2).await?;
            self.add(DELAY, whose, micros(seen.quantile(0.5)));
        }
        for whose in self.wanted(&[SLOW]) {
            let mut seen = load::slow(self.target(whose), 400).await?;
            self.add(SLOW, whose, millis(seen.quantile(0.5)));
        }
        Ok(())
    }

    /// Token streams, and callers who leave in the middle of one.
    async fn streams(&mut self) -> io::Result<()> {
        // At 50 tokens per second; at least two, for the first is not timed.
        let tokens = u64::try_from(self.arguments.time().as_millis() / 20).unwrap_or(1).max(2);
        for whose in self.wanted(&[TOKENS]) {
            let mut seen = load::tokens(self.target(whose), 64, tokens).await?;
            self.add(TOKENS, whose, millis(seen.quantile(0.99)));
        }
        for whose in self.wanted(&[TOKEN_COST]) {
            let (seen, spent) = self.spending(whose, load::tokens(self.target(whose), 32, tokens)).await?;
            if let Some(spent) = spent {
                self.add(TOKEN_COST, whose, micros(spent) / figure(seen.count));
            }
        }
        for whose in self.wanted(&[CANCEL]) {
            let target = self.target(whose).clone();
            let mut seen = load::cancel(&target, 20, &mut self.upstream.closed).await?;
            self.add(CANCEL, whose, millis(seen.quantile(0.5)));
        }
        Ok(())
    }

    /// Large bodies in both directions.
    async fn bodies(&mut self) -> io::Result<()> {
        const MIB: f64 = 1024.0 * 1024.0;
        for whose in self.wanted(&[DOWN, BULK_COST]) {
            let (seen, spent) = self.spending(whose, load::download(self.target(whose), 1, 2 * BULK)).await?;
            self.add(DOWN, whose, per_second(seen.count, seen.took) / MIB);
            if let Some(spent) = spent {
                self.add(BULK_COST, whose, spent.as_secs_f64() * 1024.0 * MIB / figure(seen.count));
            }
        }
        for whose in self.wanted(&[DOWN_8]) {
            let seen = load::download(self.target(whose), 8, BULK / 2).await?;
            self.add(DOWN_8, whose, per_second(seen.count, seen.took) / MIB);
        }
        for (name, bodies, each) in [(UP, 1, 2 * BULK), (UP_8, 8, BULK / 2)] {
            for whose in self.wanted(&[name]) {
                let seen = load::upload(self.target(whose), bodies, each).await?;
                self.add(name, whose, per_second(seen.count, seen.took) / MIB);
            }
        }
        Ok(())
    }

    /// System calls of a second client, under strace.
    async fn writes(&mut self) -> io::Result<()> {
        for (name, streams) in [(WRITES_1, 1), (WRITES_64, 64)] {
            if self.wanted(&[name]).is_empty() {
                continue;
            }
            progress(name);
            match syscalls::per_token(&self.setup.stage, streams).await {
                Ok(writes) => self.add(name, Whose::Ours, writes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    progress("strace is missing: writes are not counted");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn memory(&mut self) -> io::Result<()> {
        if !self.wanted(&[MEMORY]).is_empty() {
            for whose in [Whose::Nginx, Whose::Wstunnel, Whose::Ours] {
                let held = self.programs(whose).iter().map(|program| program.memory()).sum::<io::Result<u64>>()?;
                if held > 0 {
                    self.add(MEMORY, whose, figure(held) / 1024.0);
                }
            }
        }
        Ok(())
    }

    /// Idle tunnels, last: they stay in the server's memory.
    async fn idle(&mut self) -> io::Result<()> {
        if self.wanted(&[IDLE]).is_empty() {
            return Ok(());
        }
        let more = if self.arguments.quick { IDLE_MORE / 10 } else { IDLE_MORE };
        progress(&format!("{more} idle tunnels"));
        let mut tunnels = Tunnels::default();
        let mut memory = [0; 2];
        for (look, count) in [(0, IDLE_WARM), (1, more)] {
            tunnels.open(&self.setup.stage, &self.setup.ours, count).await?;
            // What the handshakes held for a moment is given back.
            tokio::time::sleep(Duration::from_secs(2)).await;
            memory[look] = self.setup.server.memory()?;
        }
        if tunnels.len() < IDLE_WARM + more {
            return Err(io::Error::other(format!(
                "only {} of {} idle tunnels stayed",
                tunnels.len(),
                IDLE_WARM + more
            )));
        }
        self.add(IDLE, Whose::Ours, figure(memory[1].saturating_sub(memory[0])) / figure(more as u64));
        Ok(())
    }

    /// The targets to run, if one of these measures is asked for.
    fn wanted(&self, names: &[&str]) -> Vec<Whose> {
        if names.iter().any(|name| name.contains(&self.arguments.only)) {
            let all = [Whose::Direct, Whose::Nginx, Whose::Wstunnel, Whose::Ours];
            let here = |whose: &Whose| *whose != Whose::Wstunnel || self.setup.wstunnel.is_some();
            all.into_iter().filter(here).collect()
        } else {
            Vec::new()
        }
    }

    fn target(&self, whose: Whose) -> &Target {
        match (whose, &self.setup.wstunnel) {
            (Whose::Direct, _) => &self.setup.direct,
            (Whose::Wstunnel, Some(wstunnel)) => &wstunnel.target,
            (Whose::Nginx | Whose::Wstunnel, _) => &self.setup.nginx,
            (Whose::Ours, _) => &self.setup.ours,
        }
    }

    /// What runs between the callers and the upstream.
    fn programs(&self, whose: Whose) -> Vec<&Program> {
        match whose {
            Whose::Direct => Vec::new(),
            Whose::Nginx => vec![&self.setup.hop],
            Whose::Wstunnel => self.setup.wstunnel.iter().flat_map(|wstunnel| &wstunnel.programs).collect(),
            Whose::Ours => vec![&self.setup.server, &self.setup.client],
        }
    }

    /// Runs the workload; also returns the processor time that the programs in between spent on it, if there are any.
    async fn spending(
        &self,
        whose: Whose,
        work: impl Future<Output = io::Result<Seen>>,
    ) -> io::Result<(Seen, Option<Duration>)> {
        let programs = self.programs(whose);
        let spent = || programs.iter().map(|program| program.processor_time()).sum::<io::Result<Duration>>();
        let before = spent()?;
        let seen = work.await?;
        let after = spent()?;
        Ok((seen, (!programs.is_empty()).then(|| after.saturating_sub(before))))
    }

    fn add(&mut self, name: &str, whose: Whose, figure: f64) {
        let measure = self.measures.iter_mut().find(|measure| measure.name() == name);
        measure.expect("each name is in the table").add(whose, figure);
    }
}

fn per_second(count: u64, took: Duration) -> f64 {
    figure(count) / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run, far below 2^52")]
fn figure(count: u64) -> f64 {
    count as f64
}

/// A line for whoever waits; the report alone goes to stdout.
fn progress(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
