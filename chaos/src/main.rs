//! Breaks the real programs at random, and proves that no request is lost, doubled, crossed, truncated or left hanging.
//!
//! One `tunneld`; two users, each with a desktop client behind a relay and a fake Ollama behind that; callers on
//! HTTP/1.1 and HTTP/2. Every byte of a request and of its answer follows from its ticket, so that everyone who sees
//! one can tell whether it is the right one. Two injectors, one for the server and alice and one for bob, do what a
//! seeded plan says. Each failure is then held against the timeline of faults: what no fault justifies is lost. A
//! fault that nobody may notice, such as a line that is frozen for six seconds or a token that is renewed, justifies
//! nothing.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`plan`], [`mod@inject`], [`timeline`] | faults: which, how, when |
//! | [`stage`], [`program`], [`upstream`] | what is broken |
//! | [`ticket`], [`expected`], [`caller`], [`exchange`], [`mod@line`] | requests |
//! | [`rolling`], [`restarts`] | other plays: two servers behind nginx; a server that is deployed |
//! | [`ledger`], [`verdict`], [`watch`], [`mod@audit`], [`report`] | the judgement |
//!
//! A seed gives the same faults and the same requests in the same order. What meets what also depends on the machine,
//! so a replay may need a few runs; `--only` keeps to the faults of one name.

mod audit;
mod caller;
mod cli;
mod exchange;
mod expected;
mod inject;
mod ledger;
mod line;
mod plan;
mod program;
mod report;
mod restarts;
mod rolling;
mod stage;
mod ticket;
mod timeline;
mod upstream;
mod verdict;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{Arc, PoisonError},
};

use clap::Parser;
use integration_tests::pki;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tunneld::auth::mint::MintRequest;

use crate::{
    audit::{Audit, audit},
    caller::{Callers, Tally},
    cli::Arguments,
    inject::Injector,
    ledger::Ledger,
    plan::Plan,
    report::{Report, Run},
    stage::Stage,
    ticket::User,
    timeline::Timeline,
    verdict::Wrongs,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed();
    let length = arguments.rolling.map_or_else(|| format!("{:?}", arguments.time()), |times| format!("{times} rounds"));
    let _ = writeln!(io::stdout(), "seed {seed}, {length}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = play(&arguments, seed) => outcome,
                _ = tokio::signal::ctrl_c() => Err(io::Error::other("stopped")),
            }
        })
    });
    match outcome {
        Ok(report) => {
            let _ = io::stdout().write_all(report.text.as_bytes());
            if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn play(arguments: &Arguments, seed: u64) -> io::Result<Report> {
    match (arguments.rolling, arguments.restarted()) {
        (Some(times), Some(restarted)) => restarts::run(&arguments.bin, &restarted, times, seed).await,
        (Some(times), None) => rolling::run(&arguments.bin, times, seed).await,
        (None, _) => run(arguments, seed).await,
    }
}

async fn run(arguments: &Arguments, seed: u64) -> io::Result<Report> {
    let wrongs = Arc::<Wrongs>::default();
    let ledger = Ledger::new(&wrongs);
    let stage = Arc::new(Stage::start(&arguments.bin, Arc::clone(&ledger)).await?);
    let first = stage.holds().await?;
    let callers = Arc::new(Callers {
        server: stage.addr.subscribe(),
        tls: tunnel_certs::client::config(Some(&stage.ca())).map_err(io::Error::other)?,
        token: Box::new(|user| pki::mint(&MintRequest::new(user.name()))),
        timeline: Arc::new(Timeline::new()),
        wrongs,
        tally: Tally::default(),
        stop: CancellationToken::new(),
    });
    let injector = Injector {
        stage: Arc::clone(&stage),
        callers: Arc::clone(&callers),
        retiring: TaskTracker::new(),
        recoveries: std::sync::Mutex::default(),
        injected: std::sync::Mutex::default(),
    };
    let mut calling = caller::start(&callers, seed);
    // What ends the injection is a finding as well: the report says what else was seen.
    if let Err(error) = inject(arguments, seed, &injector).await {
        stage.complain(error.to_string());
    }
    callers.stop.cancel();
    while calling.join_next().await.transpose()?.is_some() {}
    injector.retiring.close();
    injector.retiring.wait().await;
    let audit = audit(&stage, &callers, first).await.unwrap_or_else(|error| {
        stage.complain(error.to_string());
        Audit::default()
    });
    let run = Run {
        seed,
        time: arguments.time(),
        ledger,
        faults: injector.injected.lock().unwrap_or_else(PoisonError::into_inner).len(),
        recoveries: injector.recoveries.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        audit,
        complaints: stage.complaints(),
        callers,
    };
    let timeline = Arc::clone(&run.callers.timeline);
    let mut report = run.report();
    drop(injector);
    if let (false, Some(stage)) = (report.clean, Arc::into_inner(stage)) {
        let folder = stage.keep();
        std::fs::write(folder.join("timeline"), timeline.lines().join("\n"))?;
        report.text.extend(["logs: ", &folder.to_string_lossy(), "\n"]);
    }
    Ok(report)
}

/// Both injectors, for the time that was asked for.
async fn inject(arguments: &Arguments, seed: u64, injector: &Injector) -> io::Result<()> {
    let stop = CancellationToken::new();
    let plan = |user| Plan::new(seed, user, &arguments.only);
    let timer = async {
        sleep(arguments.time()).await;
        stop.cancel();
        Ok(())
    };
    tokio::try_join!(
        injector.run(plan(User::Alice), stop.clone()),
        injector.run(plan(User::Bob), stop.clone()),
        timer
    )?;
    Ok(())
}
