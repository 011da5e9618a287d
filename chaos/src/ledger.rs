//! What the upstreams saw: each ticket and how often, and what must never be seen there.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    ticket::{Ticket, User},
    verdict::{Wrong, Wrongs},
};

/// Shared by all upstreams of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    seen: Mutex<HashMap<u64, u32>>,
    open: AtomicUsize,
    pub(crate) wrongs: Arc<Wrongs>,
}

/// A request that an upstream has not let go of.
#[derive(Debug)]
pub(crate) struct Open(Arc<Ledger>);

impl Ledger {
    pub(crate) fn new(wrongs: &Arc<Wrongs>) -> Arc<Self> {
        Arc::new(Self { wrongs: Arc::clone(wrongs), ..Self::default() })
    }

    /// Notes that a request arrived at the upstream of `at`.
    pub(crate) fn arrived(self: &Arc<Self>, ticket: Ticket, at: User) -> Open {
        let times = {
            let mut seen = self.lock();
            let times = seen.entry(ticket.number).or_default();
            *times += 1;
            *times
        };
        if times > 1 {
            self.wrongs.note(ticket, Wrong::Duplicated, format!("ran {times} times"));
        }
        if ticket.user != at {
            self.wrongs.note(ticket, Wrong::Crossed, format!("ran at the upstream of {}", at.name()));
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(Arc::clone(self))
    }

    /// Whether a request got to an upstream.
    pub(crate) fn knows(&self, ticket: Ticket) -> bool {
        self.lock().contains_key(&ticket.number)
    }

    /// Requests at the upstreams now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Requests that ever got to an upstream.
    pub(crate) fn ran(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
