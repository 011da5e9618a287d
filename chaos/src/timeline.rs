//! What was done to the programs, and when: the only excuse that a failed request has.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::ticket::User;

/// How long after a fault is over, everything connected again, a failure may still be seen: callers notice a little
/// later, on a machine that also builds and tests.
const SETTLE: Duration = Duration::from_millis(1500);

/// How long a request that was under way may take to fail when what carried it has gone: a second (F03), two more that
/// a request waits for a tunnel that was just lost, and a machine that is busy.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// How long after its end a fault is still told of beside a request that went wrong.
const LATELY: Duration = Duration::from_secs(5);

/// Which failures a fault justifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allows {
    /// None at all: nobody may notice.
    Nothing,
    /// Requests that were never sent to an upstream.
    Unsent,
    /// Errors that name the upstream.
    Upstream,
    /// Any visible error.
    Breaks,
}

/// One fault.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) what: String,
    /// `None`: both.
    user: Option<User>,
    allows: Allows,
    /// What was under way fails at once.
    sudden: bool,
    pub(crate) from: Instant,
    /// When everything was connected again.
    pub(crate) until: Option<Instant>,
}

/// All faults of a run, in the order in which they began.
#[derive(Debug)]
pub(crate) struct Timeline {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
    pauses: Mutex<Vec<(Instant, Duration)>>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), entries: Mutex::default(), pauses: Mutex::default() }
    }

    /// A fault begins; its number, for [`Self::over`].
    pub(crate) fn begin(&self, what: String, user: Option<User>, allows: Allows) -> usize {
        let mut entries = lock(&self.entries);
        entries.push(Entry { what, user, allows, sudden: false, from: Instant::now(), until: None });
        entries.len() - 1
    }

    /// What was under way when the fault began, and fails by it, must do so at once.
    pub(crate) fn is_sudden(&self, number: usize) {
        lock(&self.entries)[number].sudden = true;
    }

    /// The fault is over, and everything it touched is connected again.
    pub(crate) fn over(&self, number: usize) -> Duration {
        let mut entries = lock(&self.entries);
        let now = Instant::now();
        entries[number].until = Some(now);
        now - entries[number].from
    }

    /// The server stands still for this long from now on: no caller can be answered.
    pub(crate) fn server_pauses(&self, time: Duration) {
        lock(&self.pauses).push((Instant::now(), time));
    }

    /// For how long it has stood still since `since`, at most.
    pub(crate) fn paused_since(&self, since: Instant) -> Duration {
        lock(&self.pauses).iter().filter(|(from, time)| *from + *time > since).map(|(_, time)| *time).sum()
    }

    /// What the faults allow that could have touched a request of `user` that began and failed at these moments. Its
    /// caller may have looked away for some time before it saw that it had failed.
    pub(crate) fn around(
        &self,
        user: User,
        since: Instant,
        at: Instant,
        away: Duration,
    ) -> impl Iterator<Item = Allows> {
        let visible = VISIBLE_WITHIN + self.paused_since(since);
        let entries = lock(&self.entries);
        let touches = |entry: &&Entry| entry.touches(user, since, at, visible + away, SETTLE + away);
        let near = entries.iter().filter(touches).map(|entry| entry.allows);
        near.collect::<Vec<_>>().into_iter()
    }

    /// Whether another fault than this one touched `user` at any time while it was active.
    pub(crate) fn overlaps(&self, number: usize, user: User) -> bool {
        let entries = lock(&self.entries);
        let from = entries[number].from;
        let meets = |(other, entry): (usize, &Entry)| {
            other != number
                && entry.user.is_none_or(|theirs| theirs == user)
                && entry.until.is_none_or(|until| until + SETTLE > from)
        };
        entries.iter().enumerate().any(meets)
    }

    /// The faults that were active between two moments, as lines.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Vec<String> {
        let entries = lock(&self.entries);
        let near =
            entries.iter().filter(|entry| entry.from <= to && entry.until.is_none_or(|end| end + LATELY >= from));
        near.map(|entry| self.line(entry)).collect()
    }

    /// All of them, as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.entries).iter().map(|entry| self.line(entry)).collect()
    }

    /// Seconds since the start of the run.
    pub(crate) fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    fn line(&self, entry: &Entry) -> String {
        let until = entry.until.map_or_else(|| "…".to_owned(), |until| format!("{:.3}", self.seconds(until)));
        format!("{:.3}–{until} {} (allows {:?})", self.seconds(entry.from), entry.what, entry.allows)
    }
}

impl Entry {
    fn touches(&self, user: User, since: Instant, at: Instant, visible: Duration, settle: Duration) -> bool {
        let in_time = !self.sudden || since > self.from || at <= self.from + visible;
        in_time
            && self.user.is_none_or(|mine| mine == user)
            && self.from <= at
            && self.until.is_none_or(|until| at <= until + settle)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_excuses_its_own_time_and_user() {
        let timeline = Timeline::new();
        let before = Instant::now();
        let fault = timeline.begin("cut".into(), Some(User::Alice), Allows::Breaks);
        let during = Instant::now();
        timeline.over(fault);
        assert_eq!(timeline.around(User::Alice, during, during, Duration::ZERO).collect::<Vec<_>>(), [Allows::Breaks]);
        assert_eq!(timeline.around(User::Bob, during, during, Duration::ZERO).count(), 0);
        let much_later = Instant::now() + SETTLE * 2;
        assert_eq!(timeline.around(User::Alice, during, much_later, Duration::ZERO).count(), 0);
        let away = SETTLE * 2;
        assert_eq!(timeline.around(User::Alice, during, much_later, away).count(), 1, "its caller looked away");
        assert_eq!(timeline.around(User::Alice, before, before, Duration::ZERO).count(), 0);
    }

    #[test]
    fn a_sudden_fault_excuses_no_long_wait() {
        let timeline = Timeline::new();
        let before = Instant::now();
        let fault = timeline.begin("killed".into(), None, Allows::Breaks);
        timeline.is_sudden(fault);
        let late = Instant::now() + VISIBLE_WITHIN * 2;
        assert_eq!(timeline.around(User::Bob, before, Instant::now(), Duration::ZERO).count(), 1, "at once");
        assert_eq!(timeline.around(User::Bob, before, late, Duration::ZERO).count(), 0, "under way, and left hanging");
        assert_eq!(timeline.around(User::Bob, late, late, Duration::ZERO).count(), 1, "begun while it is still down");
    }

    #[test]
    fn pauses_count_while_they_last() {
        let timeline = Timeline::new();
        let started = Instant::now();
        timeline.server_pauses(Duration::from_secs(3));
        assert_eq!(timeline.paused_since(started), Duration::from_secs(3));
        assert_eq!(timeline.paused_since(started + Duration::from_secs(60)), Duration::ZERO);
    }
}
