//! The table at the end, and what to know about each request that went wrong.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    audit::Audit,
    caller::Callers,
    ledger::Ledger,
    ticket::Ticket,
    timeline::Timeline,
    verdict::{Failed, Wrong},
};

/// How many requests that went wrong are told of one by one.
const TOLD: usize = 20;

/// The result of a run.
pub(crate) struct Report {
    pub(crate) text: String,
    /// Whether every number is zero that must be.
    pub(crate) clean: bool,
}

/// What a run leaves to judge.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) callers: Arc<Callers>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) faults: usize,
    pub(crate) recoveries: Vec<Duration>,
    pub(crate) audit: Audit,
    pub(crate) complaints: Vec<String>,
}

impl Run {
    /// Judges each failure, and writes all of it down.
    pub(crate) fn report(self) -> Report {
        let timeline = &self.callers.timeline;
        let (excused, lost): (Vec<_>, Vec<_>) =
            self.callers.tally.failed().into_iter().partition(|failed| failed.is_justified(timeline, &self.ledger));
        for failed in &lost {
            self.callers.wrongs.note(failed.ticket, Wrong::Lost, failed.how.to_string());
        }
        let mut wrongs = self.callers.wrongs.take();
        wrongs.sort_by_key(|(ticket, ..)| ticket.number);
        let mut text = self.counts(&excused);
        let mut clean = self.audit.in_flight == 0 && self.audit.leaks() == 0 && self.complaints.is_empty();
        for wrong in Wrong::ALL {
            let count = wrongs.iter().filter(|(_, what, ..)| *what == wrong).count();
            clean &= count == 0;
            row(&mut text, wrong.name(), count, "must be 0");
        }
        row(&mut text, "leaked requests", self.audit.in_flight, "must be 0");
        row(&mut text, "leaking programs", self.audit.leaks(), "must be 0");
        row(&mut text, "complaints", self.complaints.len(), "must be 0");
        for rest in &self.audit.rests {
            let (before, after) = (rest.first, rest.last);
            let files = format!("files {} → {}", before.files, after.files);
            _ = writeln!(text, "  {:<18} {files}, memory {} → {} KiB", rest.name, before.memory, after.memory);
        }
        for complaint in &self.complaints {
            _ = writeln!(text, "complaint: {complaint}");
        }
        for (ticket, wrong, detail, at) in wrongs.iter().take(TOLD) {
            let failed = lost.iter().find(|failed| failed.ticket == *ticket);
            tell(&mut text, timeline, *ticket, *wrong, detail, *at, failed, &self.ledger);
        }
        if !clean {
            _ = writeln!(text, "replay: scripts/chaos --seconds {} --seed {}", self.time.as_secs(), self.seed);
        }
        Report { text, clean }
    }

    fn counts(&self, excused: &[Failed]) -> String {
        let tally = &self.callers.tally;
        let mut text = String::new();
        let mut recoveries = self.recoveries.clone();
        recoveries.sort();
        let middle = recoveries.get(recoveries.len() / 2).copied().unwrap_or_default();
        let longest = recoveries.last().copied().unwrap_or_default();
        let mib = tally.bytes.load(Ordering::Relaxed) / 1024 / 1024;
        row(&mut text, "seed", self.seed, &format!("{:?}", self.time));
        row(
            &mut text,
            "faults",
            self.faults,
            &format!("tunnels back after {middle:.1?} (median), {longest:.1?} (longest)"),
        );
        row(&mut text, "requests", tally.sent(), &format!("{} ran at an upstream", self.ledger.ran()));
        row(&mut text, "ok", tally.ok.load(Ordering::Relaxed), &format!("{mib} MiB verified"));
        row(&mut text, "cancelled", tally.cancelled.load(Ordering::Relaxed), "by their callers");
        row(
            &mut text,
            "deadline",
            tally.cut_at_deadline.load(Ordering::Relaxed),
            "ended at the deadline they asked for",
        );
        row(&mut text, "justified", excused.len(), "failed by an active fault");
        let mut ways = BTreeMap::<String, usize>::new();
        for failed in excused {
            *ways.entry(failed.how.kind()).or_default() += 1;
        }
        for (way, count) in ways {
            _ = writeln!(text, "  {way:<27} {count:>6}");
        }
        text
    }
}

fn row(text: &mut String, name: &str, value: impl std::fmt::Display, note: &str) {
    _ = writeln!(text, "{name:<18} {value:>8}  {note}");
}

#[allow(clippy::too_many_arguments)]
fn tell(
    text: &mut String,
    timeline: &Timeline,
    ticket: Ticket,
    wrong: Wrong,
    detail: &str,
    at: Instant,
    failed: Option<&Failed>,
    ledger: &Arc<Ledger>,
) {
    let (since, at, protocol) = failed.map_or((at, at, "?"), |failed| (failed.since, failed.at, failed.protocol));
    let ran = if ledger.knows(ticket) { "ran" } else { "never ran" };
    let (from, to) = (timeline.seconds(since), timeline.seconds(at));
    _ = writeln!(text, "\n{} {ticket} ({protocol}, {ran}, {from:.3}–{to:.3}): {detail}", wrong.name());
    for line in timeline.between(since, at) {
        _ = writeln!(text, "    {line}");
    }
}
